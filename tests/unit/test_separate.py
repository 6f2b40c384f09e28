"""Activation functions as ops of their own."""

from __future__ import annotations

import pytest

from accelsim.api import simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.optable import op_table
from accelsim.workloads.builder import check_workload
from accelsim.workloads.registry import build_workload
from accelsim.workloads.separate import separate_activations


@pytest.mark.parametrize("name", ["glyph_vit", "fastvit_t8"])
def test_separate_keeps_the_work_and_moves_the_table(name: str) -> None:
    before = build_workload(name)
    after = separate_activations(before)
    check_workload(after)
    moved = [op for op in before.ops if op.activation == "gelu"]
    assert moved
    assert len(after.ops) == len(before.ops) + len(moved)
    assert all(op.activation != "gelu" for op in after.ops)
    assert (after.macs, after.params) == (before.macs, before.params)
    for op in moved:
        new = after.op_by_name[f"{op.name}.gelu"]
        assert new.recipe is not None
        assert new.inputs == (op.output,)
        assert new.recipe.elements == before.tensor_by_name[op.output].elements
        assert not any(op.output in other.inputs for other in after.ops if other.name != new.name)


def test_separated_network_runs_and_takes_the_vector_unit_longer() -> None:
    before, accelerator, plan = build_workload("glyph_vit"), load_accelerator("m2vit"), load_plan("uniform8")
    reports = [simulate(op_table(one, plan), accelerator) for one in (before, separate_activations(before))]
    busy = [int(report.result.unit_busy_ticks[report.result.program.units.index("vector")]) for report in reports]
    assert busy[1] > busy[0]


def test_a_network_without_the_function_stays_the_same() -> None:
    workload = build_workload("glyph_hybrid_narrow")
    assert separate_activations(workload) is workload
