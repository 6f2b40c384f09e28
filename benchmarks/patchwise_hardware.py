"""Whether hardware keeps the bit operations that patch-wise bits save: cycles and energy, overheads counted.

    python benchmarks/patchwise_hardware.py [--models NAME ...] [--archs NAME ...]
    python benchmarks/patchwise_hardware.py --counts

A share of the tokens of every layer but the first keeps all bits, the others lose some; the same weights and products.
Everything is relative to the plan without ranking; `all full` ranks and gathers and saves nothing: the overhead.
Mappings are of `exhaustive:edp`, with token groups that of all tokens full.  Docs: docs/pmq.md.

`--counts` prints the table of docs/decisions/0019-token-groups.md instead (glyph_vit, groups in all layers that can be
ranked, drop_bits 4, heuristic mapping) and how many counts `accelsim.token_counts` simulates in a second.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass, replace

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator
from accelsim.config import load_accelerator, load_plan
from accelsim.formats import Format
from accelsim.ir import Op, Workload
from accelsim.optable import op_table
from accelsim.plan import QuantPlan, Rule, WeightShare, apply_plan
from accelsim.token_counts import simulate_counts
from accelsim.token_groups import IMPORTANCES, TokenGroups, with_counts
from accelsim.token_rules import sliced_ops
from accelsim.workloads import build_workload
from accelsim.workloads.rank import RankedLayer, rank_tokens, ranked_layers
from quant.costs import bit_operations

MODELS = ("glyph_vit", "deit_small")
ARCHS = ("trio_vit", "bitfusion_edge")  # 8-bit multipliers, bit-composable
CASES = ((8, 8, 4), (4, 8, 4), (8, 8, 2), (6, 6, 2), (4, 4, 2))  # weights, full activations, bits that narrow ones lose
SHARES = (1.0, 0.75, 0.5, 0.25)
MAPPER = "exhaustive:edp"
COUNT_DESIGNS = (
    ("trio_vit", "uniform8"), ("bitfusion_edge", "uniform8"), ("bitfusion_edge", "w4a8"), ("m2vit", "uniform8"),
)  # fmt: skip
COUNTS, DROP_BITS = (1, 32, 65), 4
RATE_MODELS, RATE_IMAGES = ("glyph_vit", "deit_tiny"), 200


@dataclass(frozen=True)
class Figures:
    """What one plan takes."""

    bit_operations: float
    cycles: int
    energy_pj: float
    dram_bits: int

    @property
    def edp(self) -> float:
        """Energy × time, in pJ·cycles."""
        return self.energy_pj * self.cycles


def main() -> int:
    """Print a table per network, and one of what ranking takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--archs", nargs="+", default=list(ARCHS))
    parser.add_argument("--counts", action="store_true", help="cycles and energy of numbers of full tokens, and a rate")
    arguments = parser.parse_args()
    if arguments.counts:
        count_table()
        return 0
    for model in arguments.models:
        workload = build_workload(model)
        print(f"\n{model}, relative to the same plan without token groups\n")
        print("| design | weights × full, narrow | full tokens | bit operations | cycles | energy | EDP | DRAM |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for arch in arguments.archs:
            accelerator = load_accelerator(arch)
            for case in CASES:
                for line in rows(workload, accelerator, *case):
                    print(line, flush=True)
        print(f"\n{model}, ranking and gathering of all layers but the first, all tokens full\n")
        print("| design | importance | cycles of ranking and gathering | cycles | energy | DRAM |")
        print("|---|---|---|---|---|---|", flush=True)
        for arch in arguments.archs:
            for importance in IMPORTANCES:
                print(overhead(workload, load_accelerator(arch), importance), flush=True)
    return 0


def rows(workload: Workload, accelerator: Accelerator, weights: int, full: int, drop: int) -> list[str]:
    """Lines of a table: one share of full tokens each."""
    base = figures(workload, base_plan(workload, weights, full), accelerator)
    ranked, layers = rank_tokens(workload, names(workload)), ranked_layers(workload)
    found = []
    for share in SHARES:
        plan = sliced_plan(ranked, layers, base_plan(ranked, weights, full), share, drop)
        one = figures(ranked, plan, accelerator)
        ratios = (
            one.bit_operations / base.bit_operations, one.cycles / base.cycles, one.energy_pj / base.energy_pj,
            one.edp / base.edp, one.dram_bits / base.dram_bits,
        )  # fmt: skip
        cells = " | ".join(f"{ratio:.3f}" for ratio in ratios)
        found.append(f"| {accelerator.name} | {weights} × {full}, {full - drop} | {share:.0%} | {cells} |")
    return found


def overhead(workload: Workload, accelerator: Accelerator, importance: str) -> str:
    """A line of the table of overheads, 8 bits everywhere."""
    ranked, layers = rank_tokens(workload, names(workload), importance), ranked_layers(workload)
    plan = base_plan(ranked, 8, 8)
    before, after = (simulated(one, p, accelerator) for one, p in ((workload, load_plan("uniform8")), (ranked, plan)))
    extra = {name for one in layers for name in (one.rank_scores, one.rank_softmax, one.rank, one.gather)}
    own = sum(row["cycles"] for row in after.op_rows() if row["name"] in extra)
    first, second = before.metrics(), after.metrics()
    dram = [one["dram_read_bits"] + one["dram_write_bits"] for one in (first, second)]
    ratios = (
        second["cycles_total"] / first["cycles_total"], second["energy_pj"] / first["energy_pj"], dram[1] / dram[0],
    )  # fmt: skip
    cells = " | ".join(f"{100 * (ratio - 1):+.2f} %" for ratio in ratios)
    return f"| {accelerator.name} | {importance} | {own:,.0f} | {cells} |"


def count_table() -> None:
    """Print cycles and energy of three numbers of full tokens under one mapping, and the rates."""
    print("| design, plan | cycles | energy (µJ) | array cycles of QKᵀ and AV |\n|---|---|---|---|", flush=True)
    for arch, preset in COUNT_DESIGNS:
        ranked, plan = grouped("glyph_vit", preset)
        layers = names(ranked)
        plans = [with_counts(plan, dict.fromkeys(layers, high)) for high in COUNTS]
        reports = [simulate(op_table(ranked, one), load_accelerator(arch)) for one in plans]
        columns = (
            [f"{report.result.cycles_total:,}" for report in reports],
            [f"{report.metrics()['energy_pj'] / 1e6:.1f}" for report in reports],
            [f"{attention_cycles(report):,}" for report in reports],
        )
        print(f"| {arch}, {preset} | " + " | ".join("; ".join(column) for column in columns) + " |", flush=True)
    for model in RATE_MODELS:
        ranked, plan = grouped(model, "uniform8")
        draw = random.Random(0)
        counts = [{one.name: draw.randint(1, one.tokens) for one in ranked_layers(ranked)} for _ in range(RATE_IMAGES)]
        begin = time.process_time()
        report = simulate_counts(ranked, plan, load_accelerator("m2vit"), counts)
        rate = len(report.points) / (time.process_time() - begin)
        print(f"{model}: {rate:.0f} counts per second of processor time", flush=True)


def grouped(model: str, preset: str) -> tuple[Workload, QuantPlan]:
    """The ranked model, and a preset plan with groups, all tokens full, in every layer that can be ranked."""
    ranked, base = rank_tokens(build_workload(model), names(build_workload(model))), load_plan(preset)
    layers = ranked_layers(ranked)
    ranks = [Rule(one.rank, output=Format.parse(f"u{one.rank_bits}")) for one in layers]
    own = [replace(base.rule_for(op), match=op.name) for one in layers for op in operands(ranked, one.name)]
    return ranked, sliced_plan(ranked, layers, replace(base, rules=(*ranks, *own, *base.rules)), 1.0, DROP_BITS)


def operands(workload: Workload, layer: str) -> list[Op]:
    """Ops of a layer whose outputs can have token groups."""
    return [workload.op_by_name[name] for name in sliced_ops(workload, layer)]


def attention_cycles(report: Report) -> int:
    """Cycles of array engines in the products of two activations of the layers with groups."""
    program = report.lowered.program
    engines = len(report.accelerator.engines)
    groups = [item.right_tokens is not None and item.op.loop is not None for item in report.table.quantized.ops]
    ticks = sum(row.occupancy_ticks for row in program.expand() if row.unit < engines and groups[row.op])
    return ticks // program.ticks_per_cycle


def names(workload: Workload) -> list[str]:
    """Layers that can rank their tokens."""
    return [one.name for one in ranked_layers(workload)]


def base_plan(workload: Workload, weights: int, full: int) -> QuantPlan:
    """One width for filters, one for what products read; image, logits, sums, scores and residuals have 8 bits."""
    share = (WeightShare(Format.parse(f"u{weights}")),)
    layers = {one.name: one for one in ranked_layers(workload)}
    first = next(iter(layers.values()))
    blocks = {first.scores.rpartition(".")[0], *layers}
    ranks = {one.rank: one.rank_bits for one in layers.values()}
    found = []
    for op in workload.ops:
        rule = Rule(op.name, weights=share)
        if op.name in ranks:
            rule = replace(rule, output=Format.parse(f"u{ranks[op.name]}"))
        elif op.name.rpartition(".")[0] in blocks and op.name.rpartition(".")[2] in OPERANDS:
            narrow = Format.parse(f"u{full}")
            rule = replace(rule, output=narrow, right=narrow)
        found.append(rule)
    return QuantPlan(f"w{weights}a{full}", (*found, Rule("*")))


OPERANDS = ("norm1", "qkv", "softmax", "values", "norm2", "fc1", "rank_softmax")


def sliced_plan(
    ranked: Workload, layers: tuple[RankedLayer, ...], plan: QuantPlan, share: float, drop: int
) -> QuantPlan:
    """The plan with a share of full tokens in every layer."""
    groups = {
        name: TokenGroups(one.name, max(1, round(share * one.tokens)), drop)
        for one in layers
        for name in sliced_ops(ranked, one.name)
    }
    return replace(plan, rules=tuple(replace(rule, tokens=groups.get(rule.match)) for rule in plan.rules))


def simulated(workload: Workload, plan: QuantPlan, accelerator: Accelerator) -> Report:
    """The design with the best mapping."""
    return simulate(op_table(workload, plan), accelerator, mapper=MAPPER)


def figures(workload: Workload, plan: QuantPlan, accelerator: Accelerator) -> Figures:
    """Bit operations and what the simulator says."""
    found = simulated(workload, plan, accelerator).metrics()
    dram = found["dram_read_bits"] + found["dram_write_bits"]
    operations = bit_operations(apply_plan(workload, plan))
    return Figures(operations, found["cycles_total"], found["energy_pj"], dram)


if __name__ == "__main__":
    sys.exit(main())
