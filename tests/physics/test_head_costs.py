"""Costs of attention heads: closed forms against the simulated program, shares that add up, the change at 8 bits."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from accelsim.api import Report, simulate
from accelsim.config import dump_plan, load_accelerator, load_plan
from accelsim.energy import price_per_op
from accelsim.head_costs import HeadCost, head_costs
from accelsim.head_plans import attention_layers, head_at
from accelsim.head_widths import HeadWidths
from accelsim.head_work import array_cycles
from accelsim.ir import Workload
from accelsim.optable import op_table
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError
from accelsim.workloads.registry import build_workload
from codesign.cli import main
from tests.support.head_plans import HEADS, head_plan, rule_of, small_vit

OPS = ("qkv", "scores", "values", "proj")
FIELDS = ("qkv", "scores", "values", "projection")


def costs_of(design: str, plan: QuantPlan) -> tuple[Report, list[HeadCost]]:
    """A simulated design of `small_vit` and the costs of its heads."""
    accelerator = load_accelerator(design)
    return simulate(op_table(small_vit(), plan), accelerator), head_costs(small_vit(), plan, accelerator)


@pytest.mark.parametrize(
    ("design", "base"),
    [("bitfusion_edge", "uniform8"), ("bitfusion_edge", "w4a8"), ("trio_vit", "uniform8"), ("m2vit", "m2q"),
     ("systolic_ws", "uniform8")],
)  # fmt: skip
def test_heads_add_up_to_their_ops(design: str, base: str) -> None:
    """Array cycles and dynamic energy of every op; ports are wide enough that widths in one mode take one time."""
    headed = ("qkv", "softmax") if design == "systolic_ws" or base == "m2q" else ("qkv", "softmax", "values", "proj")
    report, costs = costs_of(design, head_plan(small_vit(), 1, headed=headed, base=base))
    energy = price_per_op(report.result.counts, report.accelerator)
    for layer in attention_layers(small_vit()):
        mine = [cost for cost in costs if cost.layer == layer.name]
        assert [cost.head for cost in mine] == list(range(HEADS))
        for name, field in zip(OPS, FIELDS, strict=True):
            k = report.table.op_names.index(f"{layer.name}.{name}")
            cycles = sum(getattr(cost, f"{field}_cycles") for cost in mine)
            if design != "systolic_ws" or name in ("qkv", "proj"):
                assert cycles == pytest.approx(array_cycles(report, k).sum()), (name, layer.name)
            assert sum(getattr(cost, f"{field}_pj") for cost in mine) == pytest.approx(energy[k])


def test_products_of_a_head_are_its_own() -> None:
    """On bricks a narrower head takes less energy; equal heads cost alike."""
    workload: Workload = small_vit()
    _, equal = costs_of("bitfusion_edge", head_plan(workload, widths=(8,)))
    for field in FIELDS:
        for of in ("cycles", "pj"):
            assert len({round(getattr(cost, f"{field}_{of}"), 6) for cost in equal if cost.layer == "b0"}) == 1
    _, mixed = costs_of(
        "bitfusion_edge", head_at(head_plan(workload, widths=(8,)), attention_layers(workload)[0], 1, 4)
    )
    narrow, wide = mixed[1], mixed[0]
    assert (narrow.query_bits, narrow.attention_bits, narrow.projection_filter_bits) == (4, 4, 4.0)
    for field in ("scores", "values", "projection"):
        assert getattr(narrow, f"{field}_pj") < getattr(wide, f"{field}_pj")
    assert narrow.projection_cycles < wide.projection_cycles
    assert narrow.qkv_filter_bits == 4.0


def test_the_change_is_that_of_the_network() -> None:
    """Mapped and simulated anew; a head at 8 bits changes nothing."""
    plan, accelerator = head_plan(small_vit(), 2), load_accelerator("bitfusion_edge")
    report, costs = costs_of("bitfusion_edge", plan)
    layer = attention_layers(small_vit())[1]
    other = simulate(op_table(small_vit(), head_at(plan, layer, 2, 8)), accelerator)
    found = next(cost for cost in costs if (cost.layer, cost.head) == (layer.name, 2))
    assert found.more_cycles == other.result.cycles_total - report.result.cycles_total
    assert found.more_pj == pytest.approx(other.prices.arithmetic.energy_pj - report.prices.arithmetic.energy_pj)
    _, plain = costs_of("bitfusion_edge", load_plan("uniform8"))
    assert {cost.more_cycles for cost in plain} == {0}
    assert np.allclose([cost.more_pj for cost in plain if cost.more_pj is not None], 0)


@pytest.mark.parametrize("name", ["b0.values", "b0.proj"])
def test_parts_of_one_width_need_no_shifts(name: str) -> None:
    """A plan whose equal parts are summed without shifts has the costs of zero shifts."""
    found = []
    for shifts in ((), (0,) * HEADS):
        plan = load_plan("uniform8")
        rule = rule_of(small_vit(), plan, name, HeadWidths((4,) * HEADS, shifts))
        found.append(costs_of("bitfusion_edge", replace(plan, rules=(rule, *plan.rules)))[1])
    assert found[0] == found[1]


@pytest.mark.parametrize("parts", [1, 6])
def test_parts_of_filters_that_are_not_heads_are_refused(parts: int) -> None:
    """A legal plan, whose parts have no head."""
    plan = load_plan("uniform8")
    widths = HeadWidths((8,) + (4,) * (parts - 1), (0,) + (4,) * (parts - 1))
    plan = replace(plan, rules=(rule_of(small_vit(), plan, "b0.proj", widths), *plan.rules))
    with pytest.raises(AccelsimError, match=f"b0.proj: weight_heads: {parts} parts of filters for {HEADS} heads"):
        costs_of("bitfusion_edge", plan)


def test_networks_without_heads_side_by_side_are_refused() -> None:
    """A problem with examples."""
    with pytest.raises(AccelsimError, match="has no attention heads"):
        head_costs(build_workload("levit_128", None), load_plan("uniform8"), load_accelerator("trio_vit"))


def test_the_command_prints_a_line_per_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Table and CSV; the CSV alone is refused."""
    plan, table = tmp_path / "plan.yaml", tmp_path / "heads.csv"
    workload = build_workload("glyph_vit", None)
    plan.write_text(dump_plan(head_plan(workload, 4)))
    design = ["explain", "glyph_vit", "--arch", "bitfusion_edge", "--plan", str(plan)]
    assert main([*design, "--heads", "--csv", str(table)]) == 0
    heads = sum(layer.heads for layer in attention_layers(workload))
    assert len(capsys.readouterr().out.splitlines()) == 3 + heads
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == heads
    assert set(rows[0]) >= {"layer", "head", "query_bits", "scores_cycles", "more_pj", "array_cycles", "energy_pj"}
    assert main([*design, "--csv", str(table)]) == 2
    assert "--csv" in capsys.readouterr().err
