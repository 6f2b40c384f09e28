"""Made-up penalty tables: random, smaller for more bits, for workloads that nobody trained."""

from __future__ import annotations

import numpy as np

from accelsim.config import load_plan
from accelsim.formats import Format
from accelsim.ir import OpKind, Workload
from accelsim.plan import QuantPlan, Rule
from quant.penalties.activation_groups import activation_groups
from quant.penalties.table import PenaltyTable

WEIGHTS = ("u8", "u6", "u4", "apot8", "pot4")
ACTIVATIONS = ("u8", "u6")


def fake_penalties(workload: Workload, seed: int = 0) -> PenaltyTable:
    """A table over `WEIGHTS`, `ACTIVATIONS` and both division methods."""
    rng = np.random.default_rng(seed)
    base = load_plan("uniform8")
    rules = tuple(
        Rule(op.name, base.rule_for(op).weights, base.rule_for(op).activation, base.rule_for(op).output)
        for op in workload.ops
    )
    filters = {}
    for op in workload.ops:
        if op.kind is OpKind.CONV and op.loop is not None:
            size = rng.lognormal(0.0, 1.0, (op.loop.groups * op.loop.cols, 1)) * 1e-5
            bits = np.array([Format.parse(name).bits for name in WEIGHTS])
            spread = rng.uniform(0.5, 1.5, (1, len(WEIGHTS)))
            filters[op.name] = size * spread * (4.0 ** (8 - bits) - 1.0 + (np.arange(len(bits)) == 3))
    groups = activation_groups(workload)
    activations = {one.name: {"u8": 0.0, "u6": float(rng.uniform(0, 1e-2))} for one in groups}
    classes = {op.name: op.op_class for op in workload.ops if op.kind is not OpKind.VIEW}
    plan = QuantPlan("base", (*rules, Rule("*")), "divide")
    return PenaltyTable(
        network=workload.name, fingerprints={"network": "", "images": ""}, metric="made up", settings={},
        formats=WEIGHTS, filters=filters, groups=groups, activations=activations,
        divisions={"divide": 0.0, "log2_shift": 1e-3}, classes=classes, base=plan,
    )  # fmt: skip
