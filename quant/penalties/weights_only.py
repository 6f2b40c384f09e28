"""A stated stand-in for networks without images: noise-to-signal power of their weights.  It is not a loss.

A filter's number in a format is the power of its rounding errors as a fraction of its layer's weight power, less the
same of u8.  So the numbers of a layer sum to its noise-to-signal power beyond 8 bits (bare ratio), and a plan's to the
sum over layers: every layer counts the same, whatever it does to the output.  Activations and division say nothing
here: they stay as they are in the base.

Without weights (`workload_penalties`, no torch) those of every filter count as normal; the fractions for filters of n
weights come from `NOISE`, linear in log2 n in between.  With weights (`network_penalties`) they are measured.
`python -m quant.penalties.weights_only` computes `NOISE` anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.formats import Format
from accelsim.ir import OpKind, Workload
from accelsim.plan import QuantPlan, Rule
from accelsim.problems import AccelsimError, Problem
from quant.penalties.activation_groups import activation_groups
from quant.penalties.table import Floats, PenaltyTable, ordered, rounded

if TYPE_CHECKING:
    from quant.network import Network

BASE_FORMAT, NUMERATORS = Format.parse("u8"), Format.parse("u16")
MEANING = "noise-to-signal power of the weights beyond that of u8, summed over layers (a bare ratio, not a loss)"
POWER = 2.4  # of the error that the scales minimise, as in `quant.calibrate.Calibration`
FILTER_LENGTHS = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
WEIGHTS, SEED = 1 << 17, 0  # drawn per length
# Σ(w − ŵ)² / Σ w² of standard normal filters with a scale each by error search, by filter length.
# derived: WEIGHTS random weights per length, seed SEED; `python -m quant.penalties.weights_only` prints it.
NOISE: dict[str, tuple[float, ...]] = {
    "u3": (0.01421, 0.0229, 0.03136, 0.0381, 0.04271, 0.04539, 0.0466, 0.04723, 0.04749, 0.04765, 0.04767),
    "u4": (0.002228, 0.004165, 0.006232, 0.008264, 0.01001, 0.01146, 0.01243, 0.01292, 0.01316, 0.01332, 0.01336),
    "u5": (0.000369, 0.0008017, 0.001301, 0.001816, 0.002306, 0.002773, 0.00319, 0.003492, 0.003711, 0.00382, 0.003885),
    "u6": (
        6.817e-05,
        0.000166,
        0.0002861,
        0.0004122,
        0.0005377,
        0.0006651,
        0.0007823,
        0.0008868,
        0.0009836,
        0.001048,
        0.001096,
    ),
    "u7": (
        1.597e-05,
        3.793e-05,
        6.642e-05,
        9.738e-05,
        0.0001294,
        0.0001616,
        0.000193,
        0.0002216,
        0.00025,
        0.0002727,
        0.0002957,
    ),
    "u8": (
        4.325e-06,
        9.773e-06,
        1.653e-05,
        2.401e-05,
        3.187e-05,
        3.996e-05,
        4.773e-05,
        5.492e-05,
        6.252e-05,
        6.875e-05,
        7.584e-05,
    ),
    "pot3": (0.01366, 0.02146, 0.02907, 0.03542, 0.0404, 0.04381, 0.04599, 0.04692, 0.04741, 0.04779, 0.04806),
    "pot4": (0.01058, 0.01627, 0.02153, 0.02578, 0.02914, 0.03155, 0.03341, 0.03471, 0.03574, 0.03637, 0.03685),
    "apot8": (
        6.03e-05,
        0.0001754,
        0.0003549,
        0.000559,
        0.0007489,
        0.0009123,
        0.001042,
        0.00113,
        0.001198,
        0.001253,
        0.001292,
    ),
    "apot12": (
        2.155e-06,
        6.197e-06,
        1.251e-05,
        2.045e-05,
        2.915e-05,
        3.732e-05,
        4.467e-05,
        5.022e-05,
        5.478e-05,
        5.821e-05,
        6.038e-05,
    ),
}


def workload_penalties(
    workload: Workload, formats: Sequence[str] = ("u8", "u6", "u4", "apot8", "pot4")
) -> PenaltyTable:
    """Penalties of a network of which only the shapes are known, [channels, formats] per op; see the module.

    Raises AccelsimError for formats that `NOISE` lacks.
    """
    check_formats(formats)
    filters = {}
    for op in workload.ops:
        if op.kind is OpKind.CONV and op.loop is not None:
            channels = op.loop.groups * op.loop.cols
            row = np.array([noise(name, op.loop.reduction) for name in formats]) / channels
            filters[op.name] = np.tile(row, (channels, 1))
    return _table(workload, base_plan(workload), workload.fingerprint(), formats, filters, "normal")


def network_penalties(network: Network, formats: Sequence[str] = ("u8", "u6", "u4", "apot8", "pot4")) -> PenaltyTable:
    """Penalties of a network with weights, [channels, formats] per op, from the error of every filter; see the module.

    Raises AccelsimError for unknown formats.
    """
    from quant.collect import Statistics
    from quant.methods.uniform import Uniform
    from quant.quantize import make_plan
    from quant.sensitivity.measure import network_fingerprint

    check_formats(formats)
    filters = {}
    for node in network.nodes:
        if node.has_filters and node.weight is not None:
            rows = node.weight.detach().double().reshape(len(node.weight), -1)
            filters[node.name] = np.stack([_errors(rows, name) for name in formats], axis=1)
    plan = make_plan(network, Uniform(), Statistics())
    return _table(network.workload, plan, network_fingerprint(network), formats, filters, "measured")


def noise(name: str, length: int) -> float:
    """Noise-to-signal power of normal filters of `length` weights in a format (a bare ratio)."""
    return float(np.interp(np.log2(length), np.log2(FILTER_LENGTHS), NOISE[name]))


def base_plan(workload: Workload) -> QuantPlan:
    """8-bit weights and activations, 16-bit numerators, exact division; a rule for every op."""
    divided = {root for op in workload.ops if op.op_class == "division" for root in workload.storage_of(op.inputs[0])}
    rules = [Rule(op.name, output=NUMERATORS if op.output in divided else BASE_FORMAT) for op in workload.ops]
    return QuantPlan("uniform", (*rules, Rule("*")), "divide")


def check_formats(formats: Sequence[str]) -> None:
    """Raise AccelsimError unless the formats are known here, each once, with u8 among them."""
    if not set(formats) <= NOISE.keys() or BASE_FORMAT.name not in formats or len(set(formats)) < len(formats):
        expected = f"{BASE_FORMAT.name} (the base) and others of {', '.join(NOISE)}, each once"
        raise AccelsimError(Problem("formats", f"is {', '.join(formats)}", expected))


def _errors(rows: Any, name: str) -> Floats:
    """Error power of every filter as a fraction of the power of all of them; rows [filters, n]."""
    from quant.observers import weight_scale

    scale, integers = weight_scale(rows, Format.parse(name), POWER)
    errors = ((rows - scale[:, None] * integers) ** 2).sum(1)
    power = float((rows**2).sum())
    return np.asarray(errors.numpy() / power if power > 0 else np.zeros(len(rows)), np.float64)


def _table(
    workload: Workload, plan: QuantPlan, network: str, formats: Sequence[str], filters: Mapping[str, Floats], kind: str
) -> PenaltyTable:
    base = list(formats).index(BASE_FORMAT.name)
    losses = {op: rounded(ordered(values - values[:, base : base + 1], formats)) for op, values in filters.items()}
    groups = activation_groups(workload)
    return PenaltyTable(
        workload.name, {"network": network, "images": ""}, MEANING, {"weights": kind, "power": POWER}, tuple(formats),
        losses, groups, {one.name: {BASE_FORMAT.name: 0.0} for one in groups}, {"divide": 0.0},
        {op.name: op.op_class for op in workload.ops if op.kind is not OpKind.VIEW}, plan,
    )  # fmt: skip


def computed(name: str, length: int) -> float:
    """What `NOISE` holds for a format and a filter length, computed anew (needs torch)."""
    import torch

    random = torch.Generator().manual_seed(SEED)
    rows = torch.randn(WEIGHTS // length, length, generator=random, dtype=torch.float64)
    return float(_errors(rows, name).sum())


def _main() -> None:
    names = ("u3", "u4", "u5", "u6", "u7", "u8", "pot3", "pot4", "apot8", "apot12")
    for name in names:
        values = ", ".join(f"{computed(name, length):.4g}" for length in FILTER_LENGTHS)
        print(f'    "{name}": ({values}),')


if __name__ == "__main__":
    _main()
