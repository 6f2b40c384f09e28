"""What the methods of softmax, GELU and LayerNorm cost on the vector unit: the tables of docs/nonlinear_costs.md.

    python benchmarks/nonlinear_costs.py

Prints Markdown tables (seconds); nothing is random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from timing import table

from accelsim.config import load_accelerator
from accelsim.engines.vector_unit import MicroOp, micro_counts, recipe_cost
from accelsim.ir import VECTOR_KINDS, Recipe, VectorKind
from accelsim.nonlinear.methods import method_of
from accelsim.nonlinear.program import Program, Requantize
from accelsim.nonlinear.programs_gelu import IBertGelu, IVitGelu, ibert_gelu, ivit_gelu, table_gelu
from accelsim.nonlinear.programs_layernorm import Norm, ibert_layernorm, ivit_layernorm
from accelsim.nonlinear.programs_ptf import FqvitNorm, fqvit_layernorm
from accelsim.nonlinear.programs_softmax import (
    FqvitSoftmax,
    IBertSoftmax,
    IExp,
    IVitSoftmax,
    fqvit_softmax,
    ibert_softmax,
    ivit_softmax,
)
from accelsim.nonlinear.shift_exp import ShiftExp
from accelsim.unit_energy import vector_unit_energies
from accelsim.workloads import recipes

NAMES = {
    ("softmax", "ibert"): "i-softmax (I-BERT)",
    ("softmax", "ivit"): "Shiftmax (I-ViT)",
    ("softmax", "fqvit"): "Log-Int-Softmax (FQ-ViT)",
    ("gelu", "ibert"): "i-GELU (I-BERT)",
    ("gelu", "ivit"): "ShiftGELU (I-ViT)",
    ("gelu", "table"): "GELU by table",
    ("layernorm", "ibert"): "LayerNorm (I-BERT)",
    ("layernorm", "ivit"): "LayerNorm (I-ViT)",
    ("layernorm", "fqvit"): "LayerNorm (FQ-ViT, integers)",
}
# Immediates of a scale of 0.1 (i-GELU: 0.001); no count depends on them.
_STORE, _EXP = Requantize(1 << 14, 1 << 21, 22), IExp(30, -7, 27, 279)
PROGRAMS: dict[tuple[str, str], Program] = {
    ("softmax", "ibert"): ibert_softmax(IBertSoftmax(_EXP, 1 << 30, 54, _STORE)),
    ("softmax", "ivit"): ivit_softmax(IVitSoftmax(ShiftExp(15, -10), _STORE)),
    ("softmax", "fqvit"): fqvit_softmax(FqvitSoftmax(_EXP)),
    ("gelu", "ibert"): ibert_gelu(IBertGelu(14, -2502, -6925000, -423, _STORE)),
    ("gelu", "ivit"): ivit_gelu(IVitGelu(ShiftExp(23, -6), _STORE)),
    ("gelu", "table"): table_gelu(),
    ("layernorm", "ibert"): ibert_layernorm(Norm(384)),
    ("layernorm", "ivit"): ivit_layernorm(Norm(384)),
    ("layernorm", "fqvit"): fqvit_layernorm(FqvitNorm(384)),
}
SHORT = dict(zip(VECTOR_KINDS, ("mul", "add", "shift", "cmp", "table", "div", "lead"), strict=True))
NODE_NM = 28
HEADS, TOKENS, CHANNELS, HIDDEN = 6, 197, 384, 1536
# Rows and their width of one op of DeiT-S at 224×224, and what the op without a method is.
OPS = {
    "softmax": recipes.softmax(HEADS, TOKENS, 1, TOKENS),
    "gelu": recipes.lookup("gelu", 1, TOKENS, 1, HIDDEN),
    "layernorm": recipes.layernorm(TOKENS, CHANNELS),
}
LEADING_ONES = 16


def text(counts: Iterable[tuple[VectorKind, int]]) -> str:
    """Counts in words, "-" for none."""
    return ", ".join(f"{SHORT[kind]} {count}" for kind, count in counts) or "-"


def operations(items: Sequence[MicroOp]) -> str:
    """Micro-operations by kind, each counted once however wide."""
    counts = Counter(item.kind for item in items)
    return text((kind, counts[kind]) for kind in VECTOR_KINDS if counts[kind])


def wide(items: Iterable[MicroOp]) -> str:
    """Widths of the operations that take more than one slot."""
    found: dict[VectorKind, set[tuple[int, int]]] = {}
    for item in items:
        if item.slots > 1:
            found.setdefault(item.kind, set()).add(item.widths)
    parts = []
    for kind in VECTOR_KINDS:
        if kind in found:
            pair = {VectorKind.MUL: "×", VectorKind.DIVISION: "/"}.get(kind, "")
            sizes = (f"{left}{pair}{right}" if pair else str(left) for left, right in sorted(found[kind]))
            parts.append(f"{SHORT[kind]} {', '.join(sizes)}")
    return "; ".join(parts) or "-"


def energy_pj(recipe: Recipe) -> float:
    """Energy of the vector unit per element, in pJ."""
    pj = dict(zip(VECTOR_KINDS, vector_unit_energies(NODE_NM), strict=True))
    per_element = sum(pj[kind] * count for step in recipe.passes for kind, count in step.per_element)
    per_row = sum(pj[kind] * count for step in recipe.passes for kind, count in step.per_row)
    return per_element + per_row / recipe.width


def costs(recipe: Recipe, input_bits: int) -> list[str]:
    """Energy per element, cycles per row, and what bounds them, of a DeiT-S op."""
    unit = replace(load_accelerator("m2vit").vector, leading_one_per_cycle=LEADING_ONES)
    bits = [recipe.elements * input_bits] * len(recipe.passes)
    bits[-1] += recipe.elements * (4 if recipe.name == "softmax_fqvit" else 8)
    cost = recipe_cost(unit, recipe, bits)
    busy = {
        k: count / max(1, rate) for k, count, rate in zip(VECTOR_KINDS, cost.operations, unit.throughput(), strict=True)
    }
    most = max(VECTOR_KINDS, key=busy.__getitem__)
    port = sum(bits) / unit.port_bits_per_cycle
    bound = "port" if port > busy[most] else SHORT[most]
    return [f"{energy_pj(recipe):.2f}", f"{cost.occupancy_cycles / recipe.norm_rows:.1f}", bound]


def main() -> None:
    elements, rows, prices = [], [], []
    for key, program in PROGRAMS.items():
        function, name = key
        method = method_of(function, name)
        assert program.passes == method.passes
        each = [item for item in program.micro if not item.per_row]
        row = [item for item in program.micro if item.per_row]
        elements.append([NAMES[key], str(len(program.passes)), operations(each), text(micro_counts(each)), wide(each)])
        if row:
            rows.append([NAMES[key], operations(row), text(micro_counts(row)), wide(row)])
        recipe = replace(OPS[function], name=f"{function}_{name}", passes=method.passes)
        prices.append([NAMES[key], str(method.input_bits), *costs(recipe, method.input_bits)])
    for function, recipe in OPS.items():
        prices.append([f"{function} without a method", "8", *costs(recipe, 8)])
    table(
        ("method, per element", "passes", "operations", "issue slots", "operations of more than one slot, bits"),
        elements,
    )
    table(("method, per row", "operations", "issue slots", "operations of more than one slot, bits"), rows)
    table(("method", "input, bits", "pJ per element", "cycles per row", "most time in"), prices)


if __name__ == "__main__":
    main()
