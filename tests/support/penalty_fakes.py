"""Made-up penalty tables: random, smaller for more bits, for workloads that nobody trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from accelsim.config import load_plan
from accelsim.formats import Format
from accelsim.ir import Op, OpKind, Workload
from accelsim.nonlinear.methods import function_of
from accelsim.plan import QuantPlan, Rule
from accelsim.rank_rules import ranking_rules
from accelsim.token_groups import full_count
from accelsim.workloads.rank import ranked_layers
from quant.learned.structure import attentions
from quant.penalties.activation_groups import ActivationGroup, activation_groups
from quant.penalties.table import PenaltyTable

WEIGHTS = ("u8", "u6", "u4", "apot8", "pot4")
ACTIVATIONS = ("u8", "u6")
METHODS = ("ivit", "ibert", "fqvit")


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


def fake_penalties_of_all(
    workload: Workload, seed: int = 0, shares: Sequence[float] = (0.5, 0.25), drop_bits: int = 2
) -> PenaltyTable:
    """As `fake_penalties`, with every kind of choice: methods, two regions, parts of q, k and v (where no layer is
    ranked), narrow tokens (where some are).
    """
    rng = np.random.default_rng(seed + 1)
    plain = fake_penalties(workload, seed)
    losses = {one.name: _losses(workload, one, rng) for one in plain.groups}
    ranked = [one for one in ranked_layers(workload) if one.rank in workload.op_by_name]
    parts, tokens = {}, {}
    if ranked:
        for one in ranked:
            counts = [str(full_count(share, one.tokens)) for share in shares]
            tokens[one.name] = {"full": 0.0, **{count: float(rng.uniform(0, 1e-2)) for count in counts}}
    else:
        for found in attentions(workload):
            loss = rng.uniform(0, 1e-3, 3 * found.heads)
            parts[found.qkv] = {"u4": tuple(map(float, loss)), "u6": tuple(map(float, loss / 16))}
    return replace(
        plain, activations=losses, parts=parts, tokens=tokens, drop_bits=drop_bits if ranked else 0,
        base=ranking_rules(workload, plain.base),
    )  # fmt: skip


def _losses(workload: Workload, group: ActivationGroup, rng: np.random.Generator) -> dict[str, float]:
    """Losses of a group's choices; of two-region codes the ratio is drawn."""
    op = workload.op_by_name[group.ops[0]]
    size, function = float(rng.uniform(0, 1e-2)), function_of(op.recipe)
    found = {"u8": 0.0, "u6": size, "u4": 16 * size}
    signs = {"softmax": "p", "gelu": "n"}.get(function or op.activation)
    if signs:
        found |= {f"r{bits}{signs}{rng.integers(1, 3)}": 4.0 ** (6 - bits) * size / 4 for bits in (6, 4)}
    if function in ("softmax", "layernorm"):
        found |= dict(_by_method(op, function, found, rng))
    return found


def _by_method(op: Op, function: str, losses: dict[str, float], rng: np.random.Generator) -> list[tuple[str, float]]:
    more = {method: float(rng.uniform(0, 1e-3)) for method in METHODS}
    log2 = function == "softmax"
    pairs = [
        (f"{name}+{method}", loss + more[method])
        for name, loss in losses.items()
        for method in METHODS
        if not (log2 and method == "fqvit")
    ]
    return [*pairs, *([("log4+fqvit", more["fqvit"])] if log2 else [])]
