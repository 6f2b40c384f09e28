"""What token groups cost in time and energy, and how many counts a second are simulated.

`python -m benchmarks.token_groups` prints the table of docs/decisions/0019-token-groups.md: glyph_vit, groups in all
layers that can be ranked (class token, drop_bits 4) under the heuristic mapping, and the rate of `simulate_counts`.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace

from accelsim.api import Report, simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.formats import Format
from accelsim.ir import Workload
from accelsim.optable import op_table
from accelsim.plan import QuantPlan, Rule
from accelsim.token_counts import simulate_counts
from accelsim.token_groups import TokenGroups
from accelsim.workloads import build_workload
from accelsim.workloads.rank import rank_tokens, ranked_layers

SLICED = ("norm1", "qkv", "softmax", "values", "norm2", "fc1")
DESIGNS = (("trio_vit", "uniform8"), ("bitfusion_edge", "uniform8"), ("bitfusion_edge", "w4a8"), ("m2vit", "uniform8"))
DROP_BITS, IMAGES = 4, 200


def grouped(model: str, plan: str, high: int) -> tuple[Workload, QuantPlan]:
    """The ranked model, and the plan with `high` full tokens in every ranked layer."""
    workload, base = build_workload(model), load_plan(plan)
    layers = ranked_layers(workload)
    rules = []
    for one in layers:
        rules.append(Rule(one.rank, output=Format.parse(f"u{one.rank_bits}")))
        for name in SLICED:
            op = workload.op_by_name[f"{one.name}.{name}"]
            rules.append(replace(base.rule_for(op), match=op.name, tokens=TokenGroups(one.name, high, DROP_BITS)))
    ranked = rank_tokens(workload, [one.name for one in layers])
    return ranked, replace(base, rules=(*rules, *base.rules))


def attention_cycles(report: Report) -> int:
    """Cycles of array engines in the products of two activations of the layers with groups."""
    program = report.lowered.program
    engines = len(report.accelerator.engines)
    groups = [item.right_tokens is not None and item.op.loop is not None for item in report.table.quantized.ops]
    ticks = sum(row.occupancy_ticks for row in program.expand() if row.unit < engines and groups[row.op])
    return ticks // program.ticks_per_cycle


def main() -> None:
    """Print the table and the rates."""
    print("| design, plan | cycles | energy (µJ) | array cycles of QKᵀ and AV |\n|---|---|---|---|")
    for arch, plan in DESIGNS:
        reports = [
            simulate(op_table(*grouped("glyph_vit", plan, high)), load_accelerator(arch)) for high in (1, 32, 65)
        ]
        columns = (
            [f"{report.result.cycles_total:,}" for report in reports],
            [f"{report.metrics()['energy_pj'] / 1e6:.1f}" for report in reports],
            [f"{attention_cycles(report):,}" for report in reports],
        )
        print(f"| {arch}, {plan} | " + " | ".join("; ".join(column) for column in columns) + " |")
    for model in ("glyph_vit", "deit_tiny"):
        workload, with_groups = grouped(model, "uniform8", 5)
        layers = ranked_layers(build_workload(model))
        draw = random.Random(0)
        counts = [{one.name: draw.randint(1, one.tokens) for one in layers} for _ in range(IMAGES)]
        begin = time.process_time()
        report = simulate_counts(workload, with_groups, load_accelerator("m2vit"), counts)
        print(f"{model}: {len(report.points) / (time.process_time() - begin):.0f} counts per second of processor time")


if __name__ == "__main__":
    main()
