"""Random small networks with all forms of ops, and random checkpoints: formats, widths, zero points, scales."""

from __future__ import annotations

import numpy as np
import torch

from accelsim.formats import Format
from accelsim.ir import OpKind
from accelsim.ir import Tensor as Stored
from accelsim.plan import QuantPlan, Rule, WeightShare
from accelsim.workloads import recipes
from quant.calibrated import Checkpoint, Divisor, Filters
from quant.collect import uses_table
from quant.functional import Affine, code_range
from quant.groups import channel_axis, keeps_scale, narrow, operand_values, scale_groups, spread_values
from quant.levels import levels
from quant.network import Network, Operand, run
from quant.structure import depthwise_inputs, pointwise_inputs_after_depthwise, without_zero_point
from quant.views import Batch, View, rearrange
from tests.support.networks import NetBuilder, _linear_attention, images_of

FORMATS = ("u8", "u6", "u4", "pot4", "apot8", "apot12")


def random_network(seed: int) -> Network:
    """Stem, separable block with residual, gate, ReLU, linear attention, tokens with class token, classifier."""
    rng = np.random.default_rng(seed)
    b = NetBuilder(f"random{seed}", int(rng.choice([4, 6])), seed, int(rng.integers(1, 3)))
    some = ("", "relu", "hardswish", "gelu")

    def act() -> str:
        return str(rng.choice(some))

    c = int(rng.choice([4, 8]))
    x = b.conv("stem", "stem", "image", c, 3, stride=int(rng.integers(1, 3)), activation=act())
    y = b.conv("expand", "pw", x, c * 2, activation=act())
    y = b.conv("dw", "dw", y, c * 2, int(rng.choice([3, 5])), groups=c * 2, activation=act())
    x = b.add("add", b.conv("project", "pw", y, c), x)
    if rng.random() < 0.5:
        b.nodes["add"]["weight"] = b.normal(c, 1, 1, spread=0.5)
        b.nodes["add"]["settings"] = {"scale": 0.5}
    if rng.random() < 0.5:
        x = _gated(b, x)
    if rng.random() < 0.4:
        x = _vector(b, "relu", x, "relu", recipes.relu, activation="relu")
    if rng.random() < 0.4:
        shape = b.net.tensor(x)
        constant = b.normal(shape.channels, shape.h, shape.w, spread=0.5)
        x = _vector(b, "bias", x, "bias_add", recipes.bias_add)
        b.nodes[x].update(function="bias_add", weight=constant)
    if rng.random() < 0.4:
        x = _vector(b, "swish", x, "activation", recipes.relu, activation="hardswish")
    if rng.random() < 0.6:
        x = _linear_attention(b, "attention", x)
    return b.build(b.linear("fc", "fc", _tokens(b, x, rng), 5))


def _vector(b: NetBuilder, name: str, source: str, op_class: str, recipe, activation: str = "") -> str:
    s = b.net.tensor(source)
    b.net.vector(name, op_class, (source,), recipe(1, s.h, s.w, s.channels), Stored(name, s.h, s.w, s.channels))
    return b.node(name, "activation", [Operand(source)], activation=activation)


def _gated(b: NetBuilder, x: str) -> str:
    s = b.net.tensor(x)
    b.net.vector(
        "squeeze", "pool", (x,), recipes.average_pool(s.channels, s.h * s.w), Stored("squeeze", 1, 1, s.channels)
    )
    b.node("squeeze", "mean", [Operand(x)], dims=(2, 3), keep=True)
    b.conv("excite", "pw", "squeeze", s.channels, activation="relu")
    recipe = recipes.gate(s.channels, s.h, s.w)
    b.net.vector("gate", "gate", (x, "excite"), recipe, Stored("gate", s.h, s.w, s.channels))
    return b.node("gate", "gate", [Operand(x), Operand("excite")])


def _tokens(b: NetBuilder, x: str, rng: np.random.Generator) -> str:
    """Pooled channels, or the class token of a row of tokens after a linear layer."""
    s = b.net.tensor(x)
    if rng.random() < 0.5:
        b.net.vector(
            "pool", "pool", (x,), recipes.average_pool(s.channels, s.h * s.w), Stored("pool", 1, 1, s.channels)
        )
        return b.node("pool", "mean", [Operand(x)], dims=(2, 3), keep=False)
    tokens, c = s.h * s.w, s.channels
    rows = (View("reshape", ((Batch(), c, tokens),)), View("permute", ((0, 2, 1),)))
    recipe = recipes.elementwise_add(1, tokens + 1, 1, c)
    b.net.vector("embed", "embed", (x,), recipe, Stored("embed", tokens + 1, 1, c), params_extra=(tokens + 2) * c)
    b.node("embed", "embed", [Operand(x, rows)], b.normal(tokens + 1, c, spread=0.5), rows=1)
    y = b.linear("mlp", "mlp", "embed", c, activation="gelu")
    b.net.view("token", (y,), 1, 1, c)
    return b.node("token", "identity", [Operand(y, (View("select", (1, 0)),))])


def random_checkpoint(network: Network, seed: int) -> tuple[Checkpoint, torch.Tensor]:
    """Random formats and scales near the ranges of the float network, and two images."""
    rng = np.random.default_rng(seed)
    bits = int(rng.integers(4, 9))
    scales = [name for name in depthwise_inputs(network) if rng.random() < 0.6]
    offsets = [name for name in pointwise_inputs_after_depthwise(network) if rng.random() < 0.6]
    symmetric = without_zero_point(network)
    labels = scale_groups(network, scales)
    images = images_of(network, 2, seed)
    names = [network.workload.input, *(node.op.output for node in network.nodes)]
    values = run(network, images, keep=names)
    stored = {}
    for name in names:
        node = network.workload.op_by_name.get(name)
        if node is not None and (node.kind is OpKind.VIEW or keeps_scale(network.node(name))):
            continue
        wide = 8 if name in (network.workload.input, network.workload.output) else bits
        axis = None if node is None else channel_axis(network.node(name))
        stored[name] = _affine(rng, values[name], labels[name], wide, name in symmetric, name in offsets, axis)
    before = {node.name: _single(rng, values[node.op.output], 8) for node in network.nodes if uses_table(node)}
    filters, rules = {}, []
    for node in network.nodes:
        if node.has_filters:
            filters[node.name], share = _filters(rng, node.weight, node.bias)
            rules.append(Rule(node.name, weights=(share,)))
    plan = QuantPlan("random", (*rules, Rule("*")))
    return Checkpoint(network, plan, filters, stored, before, _divisors(network, stored, rng)), images


def _jitter(rng: np.random.Generator) -> float:
    return float(np.float32(rng.uniform(0.6, 1.6)))


def _single(rng: np.random.Generator, values: torch.Tensor, bits: int) -> Affine:
    low, high = code_range(bits, symmetric=False)
    reach = float(values.abs().max()) * _jitter(rng) + 1e-3
    zero = float(rng.integers(low // 2, high // 2 + 1))
    return Affine(torch.tensor(2 * reach / (high - low)), torch.tensor(zero), low, high)


def _affine(rng, values, groups, bits: int, symmetric: bool, offset: bool, axis: int | None) -> Affine:
    one = _single(rng, values, bits)
    low, high = code_range(bits, symmetric)
    factors = torch.tensor(rng.uniform(0.3, 1.2, groups.count), dtype=torch.float32)
    scale = one.scale * (groups.spread(factors) if groups.count > 1 and not offset else 1.0)
    zero = torch.zeros_like(scale) if symmetric else one.zero_point.expand(scale.shape).clone()
    if offset:
        shape = [1] * values.dim()
        shape[axis] = values.shape[axis]
        zero = torch.tensor(rng.integers(-high, high + 1, values.shape[axis]), dtype=torch.float32).reshape(shape)
        scale = one.scale.expand(shape).clone()
    return Affine(scale, zero, low, high)


def _filters(rng: np.random.Generator, weight: torch.Tensor, bias: torch.Tensor) -> tuple[Filters, WeightShare]:
    fmt = Format.parse(str(rng.choice(FORMATS)))
    table = levels(fmt)
    top = float(weight.abs().max())
    scale = torch.tensor(rng.uniform(0.7, 1.4, len(weight)) * top / table[-1], dtype=torch.float32)
    wanted = (weight.reshape(len(weight), -1) / scale[:, None]).numpy()
    integers = table[np.abs(wanted[..., None] - table).argmin(-1)]
    if rng.random() < 0.3:  # a dead filter, and one whose bias 32 bits cannot hold
        integers[0] = 0
        scale[-1] *= 1e-12
    made = Filters(torch.tensor(integers.reshape(weight.shape), dtype=torch.int32), scale, bias)
    return made, WeightShare(fmt)


def _divisors(network: Network, stored: dict[str, Affine], rng: np.random.Generator) -> dict[str, Divisor]:
    scales = spread_values(network, {name: one.scale for name, one in stored.items()}, ones=1.0)
    found = {}
    for node in network.nodes:
        if node.function == "divide":
            maker = network.node(node.operands[0].source)
            left, right = (operand_values(scales, maker, k, 1.0) for k in range(2))
            unit = left[..., :, :1] * right[..., :1, :]
            index = torch.arange(unit.numel()).reshape(unit.shape)
            rows = torch.zeros(unit.numel(), dtype=torch.bool)
            rows[rearrange(index, node.operands[0].views, 1)[..., -1:, :].reshape(-1)] = True
            lowest = torch.tensor(float(rng.integers(0, 7)))
            found[maker.op.output] = Divisor(narrow(rows.reshape(unit.shape)), narrow(unit), lowest, 4)
    return found
