"""A slow, obvious twin of `quant.integer`: a checkpoint executed in Python integers and fractions, element by element.

It shares no arithmetic with the product: it derives multipliers, shifts and biases from the checkpoint's scales itself
(in fractions), and every requantization is computed three ways: in integers, in fractions and in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import torch

from accelsim.ir import OpKind
from quant.calibrated import Checkpoint
from quant.functional import Affine
from quant.network import Node
from quant.views import View, rearrange

ZERO_DIVISOR = -1


@dataclass
class Held:
    """Codes of a tensor with the scale and zero point of every element."""

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray


@cache
def dyadic(ratio: Fraction) -> tuple[int, int]:
    """The finest multiplier below 2^15, with at most 46 places."""
    for shift in range(46, 0, -1):
        multiplier = round(ratio * 2**shift)
        if abs(multiplier) < 2**15:
            return multiplier, shift
    raise AssertionError(f"no multiplier for {float(ratio)}")


def rounded(value: int, ratio: Fraction) -> int:
    """floor(value · M / 2^s + ½), three ways."""
    multiplier, shift = dyadic(ratio)
    result = (2 * value * multiplier + 2**shift) // 2 ** (shift + 1)
    assert result == math.floor(Fraction(value * multiplier, 2**shift) + Fraction(1, 2))
    assert result == math.floor(float(value * multiplier) / 2.0**shift + 0.5)
    return result


def real(name: str, x: float) -> float:
    if name == "relu":
        return max(x, 0.0)
    if name == "hardswish":
        return x * min(max(x + 3.0, 0.0), 6.0) / 6.0
    if name == "gelu":
        return x * 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))
    assert name == ""
    return x


def clamp(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


class Twin:
    """Executes a checkpoint; `codes` are those of every tensor after `run`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.held: dict[str, Held] = {}
        self.accumulators: dict[str, tuple[int, int]] = {}

    def run(self, images: torch.Tensor) -> dict[str, np.ndarray]:
        network = self.checkpoint.network
        name = network.workload.input
        affine = self.checkpoint.stored[name]
        scale, zero = float(affine.scale), int(affine.zero_point)
        # The host quantizes the image in the type of its scale, float32.
        codes = np.clip(np.round(images.numpy() / np.float32(scale)).astype(int) + zero, affine.low, affine.high)
        self.held[name] = Held(codes, np.full(codes.shape, scale), np.full(codes.shape, zero))
        for node in network.nodes:
            operands = [self.read(operand.source, operand.views, len(images)) for operand in node.operands]
            if node.op.kind is OpKind.VIEW:
                self.held[node.op.output] = self.view(node, operands)
            elif node.function == "activation" and node.settings["activation"] == "relu":
                one = operands[0]
                self.held[node.op.output] = Held(np.maximum(one.codes, one.zero), one.scale, one.zero)
            else:
                codes = getattr(self, node.function)(node, *operands)
                affine = self.checkpoint.stored[node.op.output]
                scale, zero = spread(affine, codes.shape)
                self.held[node.op.output] = Held(codes.astype(int), scale, zero)
        return {name: one.codes for name, one in self.held.items()}

    def read(self, source: str, views: tuple[View, ...], images: int) -> Held:
        parts = [torch.from_numpy(np.ascontiguousarray(x)) for x in vars(self.held[source]).values()]
        for view in views:
            if view.name == "ones_row":
                axis = view.args[0]
                parts = [
                    torch.cat([x, torch.full_like(x.narrow(axis, 0, 1), content)], axis)
                    for x, content in zip(parts, (1, 1, 0), strict=True)
                ]
            else:
                parts = [rearrange(x, (view,), images) for x in parts]
        return Held(*(x.numpy() for x in parts))

    def view(self, node: Node, operands: list[Held]) -> Held:
        if node.function == "identity":
            return operands[0]
        axis = node.settings["dim"]
        return Held(*(np.concatenate([vars(one)[k] for one in operands], axis) for k in ("codes", "scale", "zero")))

    # Products.

    def conv(self, node: Node, a: Held) -> np.ndarray:
        stride, padding, groups = (node.settings[k] for k in ("stride", "padding", "groups"))
        weights = self.checkpoint.filters[node.name].integers.numpy().astype(int)
        outputs, depth, kh, kw = weights.shape
        (py, px), (sy, sx) = padding, stride
        n, channels, h, w = a.codes.shape
        assert (a.scale == a.scale[:1, :, :1, :1]).all()
        assert (a.zero == a.zero[:1, :, :1, :1]).all()
        zero, scale = a.zero[0, :, 0, 0], a.scale[0, :, 0, 0]
        padded = np.broadcast_to(zero[None, :, None, None], (n, channels, h + 2 * py, w + 2 * px)).copy()
        padded[:, :, py : py + h, px : px + w] = a.codes
        rows, cols = (h + 2 * py - kh) // sy + 1, (w + 2 * px - kw) // sx + 1
        result = np.zeros((n, outputs, rows, cols), object)
        for o in range(outputs):
            first = o // (outputs // groups) * depth
            part = slice(first, first + depth)
            finish = self.output_channel(node, o, scale[part], zero[part])
            for i, y, x in np.ndindex(n, rows, cols):
                patch = padded[i, part, y * sy : y * sy + kh, x * sx : x * sx + kw]
                result[i, o, y, x] = finish(int((patch * weights[o]).sum()))
        return result

    def linear(self, node: Node, a: Held) -> np.ndarray:
        weights = self.checkpoint.filters[node.name].integers.numpy().astype(int)
        lines = a.codes.reshape(-1, a.codes.shape[-1])
        scale, zero = a.scale.reshape(lines.shape), a.zero.reshape(lines.shape)
        assert (scale == scale[0, 0]).all()
        assert (zero == zero[:1]).all()
        result = np.zeros((len(lines), len(weights)), object)
        for o in range(len(weights)):
            finish = self.output_channel(node, o, scale[0], zero[0])
            for i, line in enumerate(lines):
                result[i, o] = finish(int((line * weights[o]).sum()))
        return result.reshape(*a.codes.shape[:-1], len(weights))

    def output_channel(self, node: Node, o: int, scale: np.ndarray, zero: np.ndarray):
        """Accumulator → stored code of output channel o of a layer with filters."""
        assert (scale == scale[0]).all()
        filters = self.checkpoint.filters[node.name]
        weights = filters.integers[o].numpy().astype(int).reshape(len(zero), -1)
        bias = Fraction(0) if filters.bias is None else Fraction(float(filters.bias[o]))
        step = Fraction(float(scale[0])) * Fraction(float(filters.scale[o]))
        target = self.checkpoint.preactivation.get(node.name, self.checkpoint.stored[node.op.output])
        axis = 1 if node.function == "conv" else -1
        ratio, target_zero = step / Fraction(pick(target.scale, axis, o)), int(pick(target.zero_point, axis, o))
        offset = int((weights * zero[:, None]).sum())
        folded = round(bias / step + Fraction(target_zero) / ratio) - offset
        low, high = self.code_range(node)
        least = sum(min(int(x) * low, int(x) * high) for x in weights.flat)
        most = sum(max(int(x) * low, int(x) * high) for x in weights.flat)
        whole = folded + offset
        fits = abs(whole) < 2**31 and folded + least >= -(2**31) and folded + most < 2**31
        constant = not weights.any() or not fits
        if constant:
            code = bias / Fraction(pick(target.scale, axis, o)) + target_zero
            folded, ratio = round(min(max(code, -(2**14)), 2**14) * 2**16), Fraction(1, 2**16)
        post = self.after(node, target, axis, o)

        def finish(accumulator: int) -> int:
            self.seen(node, accumulator)
            return post(rounded((0 if constant else accumulator) + folded, ratio))

        return finish

    def seen(self, node: Node, accumulator: int) -> None:
        low, high = self.accumulators.get(node.name, (accumulator, accumulator))
        self.accumulators[node.name] = (min(low, accumulator), max(high, accumulator))

    def code_range(self, node: Node) -> tuple[int, int]:
        name = node.operands[0].source
        while name not in self.checkpoint.stored:
            name = self.checkpoint.network.node(name).operands[0].source
        one = self.checkpoint.stored[name]
        return one.low, one.high

    def after(self, node: Node, target: Affine, axis: int, o: int):
        """Clamp, then the table and what comes after it."""
        activation = node.op.activation
        low = int(pick(target.zero_point, axis, o)) if activation == "relu" else target.low
        stored = self.checkpoint.stored[node.op.output]
        if activation in ("", "relu"):
            return lambda code: clamp(code, max(low, target.low), target.high)
        table = self.table(target, stored, activation, axis, o)
        return lambda code: table[clamp(code, target.low, target.high)]

    def table(self, before: Affine, stored: Affine, activation: str, axis: int, o: int) -> dict[int, int]:
        scale, zero = float(before.scale), int(before.zero_point)
        values = {q: real(activation, scale * (q - zero)) for q in range(before.low, before.high + 1)}
        to, shift = pick(stored.scale, axis, o), int(pick(stored.zero_point, axis, o))
        if stored.scale.numel() == 1 and stored.zero_point.numel() == 1:
            return {q: clamp(round(x / to) + shift, stored.low, stored.high) for q, x in values.items()}
        step, largest = float(stored.scale.min()), max(abs(x) for x in values.values())
        while largest / step <= 16383.5 and step * 2**46 > float(stored.scale.max()):
            step /= 2
        ratio = Fraction(step) / Fraction(to)
        added = round(Fraction(shift) / ratio)
        return {
            q: clamp(rounded(clamp(round(x / step), -32767, 32767) + added, ratio), stored.low, stored.high)
            for q, x in values.items()
        }

    def matmul(self, node: Node, a: Held, b: Held) -> np.ndarray:
        assert not a.zero.any()
        assert not b.zero.any()
        assert (a.scale == a.scale[..., :1]).all()
        assert (b.scale == b.scale[..., :1, :]).all()
        sums = a.codes @ b.codes
        scale, zero = spread(self.checkpoint.stored[node.op.output], sums.shape)
        affine, divisor = self.checkpoint.stored[node.op.output], self.checkpoint.divisors.get(node.op.output)
        factor = Fraction(float(node.settings.get("scale", 1.0)))
        result = np.zeros(sums.shape, object)
        rows = None if divisor is None else np.broadcast_to(divisor.rows.numpy(), sums.shape)
        lowest = None if divisor is None else np.broadcast_to(divisor.lowest.numpy(), sums.shape)
        for index in np.ndindex(*sums.shape):
            total = int(sums[index])
            self.seen(node, total)
            if rows is not None and rows[index]:
                result[index] = leading(total, int(lowest[index]), divisor.bits)
                continue
            left, right = a.scale[(*index[:-1], 0)], b.scale[(*index[:-2], 0, index[-1])]
            ratio = Fraction(float(left)) * Fraction(float(right)) * factor / Fraction(float(scale[index]))
            bias = round(Fraction(int(zero[index])) / ratio)
            result[index] = clamp(rounded(total + bias, ratio), affine.low, affine.high)
        return result

    # Vector ops.

    def requantized(self, node: Node, shape: tuple[int, ...], terms) -> np.ndarray:
        """clamp(zero point + Σ rounded(value, real factor / output scale)); `terms(index)` gives (value, factor)."""
        affine = self.checkpoint.stored[node.op.output]
        scale, zero = spread(affine, shape)
        result = np.zeros(shape, object)
        for index in np.ndindex(*shape):
            total = int(zero[index])
            for value, factor in terms(index):
                total += value if factor is None else rounded(value, factor / Fraction(float(scale[index])))
            result[index] = clamp(total, affine.low, affine.high)
        return result

    def add(self, node: Node, a: Held, b: Held) -> np.ndarray:
        factor = Fraction(float(node.settings.get("scale", 1.0)))
        weight = np.ones(a.codes.shape) if node.weight is None else np.broadcast_to(node.weight.numpy(), a.codes.shape)

        def terms(i):
            yield int(a.codes[i] - a.zero[i]), exact(a.scale[i]) * exact(weight[i]) * factor
            yield int(b.codes[i] - b.zero[i]), exact(b.scale[i]) * factor

        return self.requantized(node, a.codes.shape, terms)

    def constant(self, node: Node, a: Held, rows: int) -> np.ndarray:
        n, tokens, *rest = a.codes.shape
        shape = (n, tokens + rows, *rest)
        scale, _ = spread(self.checkpoint.stored[node.op.output], shape)
        weight = np.broadcast_to(node.weight.numpy(), shape)

        def terms(i):
            yield round(float(weight[i]) / float(scale[i])), None
            if i[1] >= rows:
                j = (i[0], i[1] - rows, *i[2:])
                yield int(a.codes[j] - a.zero[j]), exact(a.scale[j])

        return self.requantized(node, shape, terms)

    def embed(self, node: Node, a: Held) -> np.ndarray:
        return self.constant(node, a, int(node.settings.get("rows", 0)))

    def bias_add(self, node: Node, a: Held) -> np.ndarray:
        return self.constant(node, a, 0)

    def mean(self, node: Node, a: Held) -> np.ndarray:
        dims = tuple(node.settings["dims"])
        sums = (a.codes - a.zero).sum(dims, keepdims=True)
        count = a.codes.size // sums.size
        first = tuple(slice(0, 1) if k in dims else slice(None) for k in range(a.codes.ndim))
        scale, shape = a.scale[first], sums.shape
        if not node.settings.get("keep", False):
            sums, scale = sums.squeeze(dims), scale.squeeze(dims)
            shape = sums.shape
        return self.requantized(node, shape, lambda i: [(int(sums[i]), exact(scale[i]) / count)])

    def gate(self, node: Node, a: Held, b: Held) -> np.ndarray:
        zero, scale = np.broadcast_to(b.zero, a.codes.shape), np.broadcast_to(b.scale, a.codes.shape)
        codes = np.broadcast_to(b.codes, a.codes.shape)

        def terms(i):
            yield int(a.codes[i] - a.zero[i]) * int(codes[i] - zero[i]), exact(a.scale[i]) * exact(scale[i])

        return self.requantized(node, a.codes.shape, terms)

    def activation(self, node: Node, a: Held) -> np.ndarray:
        scale, zero = a.scale.flat[0], int(a.zero.flat[0])
        assert (a.scale == scale).all()
        assert (a.zero == zero).all()
        affine = self.checkpoint.stored[node.op.output]
        name = node.settings["activation"]
        to, shift = float(affine.scale), int(affine.zero_point)
        one = np.vectorize(
            lambda q: clamp(round(real(name, scale * (q - zero)) / to) + shift, affine.low, affine.high), [object]
        )
        return one(a.codes)

    def divide(self, node: Node, a: Held) -> np.ndarray:
        maker = self.checkpoint.network.node(node.operands[0].source)
        if maker.op.output not in self.checkpoint.divisors:
            return self.quotient(node, a)
        divisor = self.checkpoint.divisors[maker.op.output]
        left, right = (self.read(one.source, one.views, len(a.codes)) for one in maker.operands)
        unit = left.scale[..., :, :1] * right.scale[..., :1, :]
        shape = self.held[maker.op.output].codes.shape
        lowest = np.broadcast_to(divisor.lowest.numpy(), shape)
        views, images = node.operands[0].views, len(a.codes)
        unit, lowest = (
            rearrange(torch.from_numpy(np.ascontiguousarray(x)), views, images).numpy() for x in (unit, lowest)
        )
        assert not a.zero.any()

        def terms(i):
            last = (*i[:-2], a.codes.shape[-2] - 1, i[-1])
            code = int(a.codes[last])
            if code == ZERO_DIVISOR:
                return
            places = 2**divisor.bits - 1
            smallest = exact(unit[last]) * 2 ** (int(lowest[last]) + places)
            yield int(a.codes[i]) * 2 ** (places - code), exact(a.scale[i]) / smallest

        return self.requantized(node, (*a.codes.shape[:-2], a.codes.shape[-2] - 1, a.codes.shape[-1]), terms)

    def quotient(self, node: Node, a: Held) -> np.ndarray:
        def terms(i):
            last = (*i[:-2], a.codes.shape[-2] - 1, i[-1])
            if a.codes[last] > 0:
                exactly = Fraction(int(a.codes[i]) * 2**15, int(a.codes[last]))
                yield math.floor(exactly + Fraction(1, 2)), exact(a.scale[i]) / exact(a.scale[last]) / 2**15

        return self.requantized(node, (*a.codes.shape[:-2], a.codes.shape[-2] - 1, a.codes.shape[-1]), terms)

    # Float islands.

    def softmax(self, node: Node, a: Held) -> np.ndarray:
        values = a.scale * (a.codes - a.zero)
        powers = np.exp(values - values.max(-1, keepdims=True))
        return self.quantized(node, powers / powers.sum(-1, keepdims=True))

    def layernorm(self, node: Node, a: Held) -> np.ndarray:
        values = a.scale * (a.codes - a.zero)
        centred = values - values.mean(-1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + node.settings["eps"])
        return self.quantized(node, normal * node.weight.double().numpy() + node.bias.double().numpy())

    def quantized(self, node: Node, values: np.ndarray) -> np.ndarray:
        affine = self.checkpoint.stored[node.op.output]
        scale, zero = spread(affine, values.shape)
        return np.clip(np.round(values / scale).astype(int) + zero, affine.low, affine.high)


def leading(total: int, lowest: int, bits: int) -> int:
    """Index of the leading one, one more when the bit below is set, in the window; −1 for nothing."""
    if total <= 0:
        return ZERO_DIVISOR
    text = f"{total:b}"
    exponent = len(text) - 1 + text[1:2].count("1")
    return clamp(exponent - lowest, 0, 2**bits - 1)


def exact(value: float) -> Fraction:
    return Fraction(float(value))


def pick(values: torch.Tensor, axis: int, channel: int) -> float:
    """The number of a channel of what broadcasts against an output."""
    if values.numel() == 1:
        return float(values.reshape(()))
    return float(values.select(axis, channel).reshape(()))


def spread(affine: Affine, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    scale = np.broadcast_to(affine.scale.double().numpy(), shape)
    return scale, np.broadcast_to(affine.zero_point.double().numpy(), shape).astype(int)
