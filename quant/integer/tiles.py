"""Tiles of an integer network as an array engine gets them: proof that engines and RTL compute the same codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from accelsim.formats import Format, Scheme
from accelsim.ir import Loop
from accelsim.problems import AccelsimError, Problem
from quant.head_parts import refuse_parts
from quant.integer.exact import patches
from quant.integer.graph import IntegerNetwork
from quant.integer.run import run_integer
from quant.integer.steps import ArrayStep, Convolution, Linear, Product
from quant.levels import encode
from quant.regions.codes import pack

Int64 = NDArray[np.int64]
MAX_ROWS, MAX_COLS, MAX_GROUPS = 6, 8, 8


@dataclass(frozen=True, eq=False)
class SampledTile:
    """A part of an op with its real operands, in the shapes of `accelsim.engines.walk_tile`.

    `activations` [groups, rows, taps, depth] are stored codes (words of a two-region format), the zero point where the
    op pads; `weights` [groups, cols, taps, depth] integers of the format `weight` (of a product: the right operand);
    `requant` [groups, cols, 3] = bias, multiplier, shift; `outputs` [groups, rows, cols] what the integer network has
    after the first requantization.
    """

    op: str
    op_class: str
    tile: Loop
    weight: Format
    activation: Format
    activations: Int64
    weights: Int64
    requant: Int64
    clamp: tuple[int, int]
    outputs: Int64

    @property
    def codes(self) -> Int64:
        """Weights as the engine stores them, [groups, cols, taps, depth, terms, 2]."""
        return encode(self.weights, self.weight)


def sample_tiles(network: IntegerNetwork, images: Tensor, count: int, seed: int) -> list[SampledTile]:
    """`count` tiles of array ops for images [n, channels, h, w]; every kind of op and weight format in turn.

    Images, positions, channels and groups are drawn with the seed; the reduction is always whole.  Raises AccelsimError
    for a plan with head widths, whose sums are aligned between engine passes.
    """
    refuse_parts(network.checkpoint.plan, "tiles of an engine")
    rng = np.random.default_rng(seed)
    chosen: dict[str, list[tuple[int, Format, Int64 | None]]] = {}
    kinds = _kinds(network)
    order = list(kinds)
    for k in range(count):
        members = kinds[order[k % len(order)]]
        step, weight, channels = members[int(rng.integers(len(members)))]
        chosen.setdefault(step.node.name, []).append((k, weight, channels))
    found: dict[int, SampledTile] = {}

    def watch(step: ArrayStep, operands: list[Tensor], accumulators: Tensor, codes: Tensor) -> None:
        for k, weight, channels in chosen.get(step.node.name, ()):
            formats = (weight, _width(network, step, 0))
            found[k] = _TILES[type(step)](step, operands, codes, formats, channels, rng)

    run_integer(network, images, watch=watch)
    return [found[k] for k in range(count)]


_Member = tuple[ArrayStep, Format, Int64 | None]


def _kinds(network: IntegerNetwork) -> dict[tuple[str, str], list[_Member]]:
    """Array ops by op class and weight format; an op of mixed formats stands under each, with its channels."""
    kinds: dict[tuple[str, str], list[_Member]] = {}
    for step in network.steps:
        if isinstance(step, Product):
            kinds.setdefault((step.node.op.op_class, ""), []).append((step, _width(network, step, 1), None))
        elif isinstance(step, ArrayStep):
            for share in network.checkpoint.plan.rule_for(step.node.op).weights:
                channels = None if share.channels is None else share.channels.indices
                key = (step.node.op.op_class, share.format.name)
                kinds.setdefault(key, []).append((step, share.format, channels))
    if not kinds:
        name = network.checkpoint.network.workload.name
        raise AccelsimError(Problem(f"integer network {name}", "has no op of an array engine"))
    return kinds


def _width(network: IntegerNetwork, step: ArrayStep, position: int) -> Format:
    """Stored format of an operand: two regions where the plan says so, else the width of its codes."""
    name, workload = step.node.operands[position].source, network.checkpoint.network.workload
    while name not in network.checkpoint.stored:
        name = network.checkpoint.network.node(name).operands[0].source
    if name in workload.op_by_name:
        stored = network.checkpoint.plan.rule_for(workload.op_by_name[name]).output
        if stored.scheme is Scheme.TWO_REGION:
            return stored
    return Format.parse(f"u{(network.checkpoint.stored[name].high + 1).bit_length()}")


def _some(rng: np.random.Generator, size: int, most: int) -> Int64:
    """Distinct sorted indices below `size`."""
    return np.sort(rng.choice(size, min(size, int(rng.integers(1, most + 1))), replace=False)).astype(np.int64)


def _convolution(
    step: ArrayStep, operands: list[Tensor], codes: Tensor, formats: tuple[Format, Format], channels: Int64 | None,
    rng: np.random.Generator,
) -> SampledTile:  # fmt: skip
    assert isinstance(step, Convolution)
    image = int(rng.integers(len(codes)))
    kernel = step.weights.shape[2:]
    read = patches(step.padded(operands[0][image : image + 1]), (kernel[0], kernel[1]), step.stride)[0].flatten(2)
    total, cols = step.groups, len(step.weights) // step.groups
    depthwise = cols == 1 and step.weights.shape[1] == 1
    rows = _some(rng, read.shape[2], MAX_ROWS)
    if total > 1:
        usable = np.arange(total) if channels is None else np.unique(channels // cols)
        groups = usable[_some(rng, len(usable), MAX_GROUPS if depthwise else 2)]
        outputs = (groups[:, None] * cols + np.arange(cols))[:, :MAX_COLS]
    else:
        usable = np.arange(cols) if channels is None else channels
        groups, outputs = np.zeros(1, np.int64), usable[_some(rng, len(usable), MAX_COLS)][None]
    acts = read.reshape(total, -1, *read.shape[1:])[groups][..., rows].permute(0, 3, 2, 1)
    weights = step.weights[outputs].flatten(3).transpose(-1, -2)
    results = codes[image].flatten(1)[outputs][:, :, rows].transpose(1, 2)
    loop = Loop(len(groups), len(rows), 1, outputs.shape[1], acts.shape[3], int(kernel[0]), int(kernel[1]))
    return _tile(step, loop, formats, acts, weights, _requant(step, outputs), results)


def _linear(
    step: ArrayStep, operands: list[Tensor], codes: Tensor, formats: tuple[Format, Format], channels: Int64 | None,
    rng: np.random.Generator,
) -> SampledTile:  # fmt: skip
    assert isinstance(step, Linear)
    read, results = operands[0].flatten(0, -2), codes.flatten(0, -2)
    rows = _some(rng, len(read), MAX_ROWS)
    usable = np.arange(len(step.weights)) if channels is None else channels
    outputs = usable[_some(rng, len(usable), MAX_COLS)]
    loop = Loop(1, len(rows), 1, len(outputs), read.shape[1], 1, 1)
    acts, weights = read[rows][None, :, None], step.weights[outputs][None, :, None]
    return _tile(step, loop, formats, acts, weights, _requant(step, outputs[None]), results[rows][:, outputs][None])


def _requant(step: ArrayStep, outputs: Int64) -> Int64:
    stage = step.stage
    columns = [part.reshape(-1).numpy()[outputs] for part in (stage.bias, stage.multiplier, stage.shift)]
    return np.stack(columns, axis=-1)


def _product(
    step: ArrayStep, operands: list[Tensor], codes: Tensor, formats: tuple[Format, Format], channels: Int64 | None,
    rng: np.random.Generator,
) -> SampledTile:  # fmt: skip
    """Some heads of some images: left rows, right columns; multipliers may differ by head and by column only."""
    left, right, results = (value.reshape(-1, *value.shape[-2:]) for value in (*operands, codes))
    groups = _some(rng, len(left), 2)
    rows, cols = _some(rng, left.shape[1], MAX_ROWS), _some(rng, right.shape[2], MAX_COLS)
    acts = left[groups][:, rows][:, :, None]
    weights = right[groups][:, :, cols].transpose(1, 2)[:, :, None]
    stage = step.stage
    parts = []
    for part in (stage.bias, stage.multiplier, stage.shift):
        full = part.expand(codes.shape).reshape(results.shape)[groups]
        if not bool((full == full[:, :1]).all()):
            raise AccelsimError(Problem(f"op {step.node.name}", "its multipliers differ between rows", "by column"))
        parts.append(full[:, 0][:, cols].numpy())
    loop = Loop(len(groups), len(rows), 1, len(cols), left.shape[2], 1, 1)
    return _tile(step, loop, formats, acts, weights, np.stack(parts, axis=-1), results[groups][:, rows][:, :, cols])


def _tile(
    step: ArrayStep, loop: Loop, formats: tuple[Format, Format], acts: Tensor, weights: Tensor, requant: Int64,
    results: Tensor,
) -> SampledTile:  # fmt: skip
    name, kind, clamp = step.node.name, step.node.op.op_class, (step.stage.low, step.stage.high)
    if formats[1].scheme is Scheme.TWO_REGION:
        acts = pack(acts, formats[1])
    left, right, outputs = (np.ascontiguousarray(value.numpy()) for value in (acts, weights, results))
    return SampledTile(name, kind, loop, *formats, left, right, requant, clamp, outputs)


_Maker = Callable[
    [ArrayStep, list[Tensor], Tensor, tuple[Format, Format], "Int64 | None", np.random.Generator], SampledTile
]
_TILES: dict[type[ArrayStep], _Maker] = {Convolution: _convolution, Linear: _linear, Product: _product}
