"""The batch path gives what single runs give: same integers, same prices, same problems."""

from __future__ import annotations

import pytest

from accelsim.api import evaluate
from accelsim.arch import Buffer
from accelsim.config import load_accelerator, load_plan
from accelsim.counts import count_columns
from accelsim.problems import InfeasibleError
from codesign.chunks import Task, evaluate_chunk
from codesign.space import Point
from codesign.store import DETAILS, METRICS

DESIGNS = [
    ("efficientvit_b0", 64, "m2vit", "m2q"),
    ("efficientvit_b0", 64, "trio_vit", "uniform8"),
    ("efficientvit_b0", 64, "m2vit", "w4a8"),
    ("deit_tiny", 64, "systolic_ws", "uniform8"),
    ("efficientvit_b0", 64, "m2vit_ddr4_banked", "m2q"),
    ("efficientvit_b1", 64, "bitfusion_edge", "uniform4"),
]


def task(number, model, resolution, accelerator, plan):
    point = Point(number, accelerator.name, plan, model, resolution, {})
    return Task(point, f"key{number}", accelerator, load_plan(plan))


def test_a_chunk_of_designs_equals_single_runs():
    rows = evaluate_chunk([task(k, m, r, load_accelerator(a), p) for k, (m, r, a, p) in enumerate(DESIGNS)])
    assert [row.key for row in rows] == [f"key{k}" for k in range(len(DESIGNS))]
    for row, (model, resolution, arch, plan) in zip(rows, DESIGNS, strict=True):
        accelerator = load_accelerator(arch)
        report = evaluate(model, resolution, accelerator, load_plan(plan)).to_json(ops=False)
        assert row.status == "ok"
        expected = {name: report.get(key) for name, key, _ in METRICS}
        assert {name: row.metrics[name] for name, _, _ in METRICS} == expected
        details = [name for name in DETAILS if name in report and name != "counts"]
        assert {name: row.metrics[name] for name in details} == {name: report[name] for name in details}
        counts = dict(zip(count_columns(accelerator), row.metrics["counts"], strict=True))
        assert {name: count for name, count in counts.items() if count} == report["counts"]


def test_a_design_that_does_not_fit_leaves_the_others_alone():
    small = load_accelerator("trio_vit").replace(activation_buffer=Buffer(8192, 8192))
    good = load_accelerator("trio_vit")
    tasks = [task(k, "efficientvit_b0", 64, a, "uniform8") for k, a in enumerate((good, small, good))]
    rows = evaluate_chunk(tasks)
    assert [row.status for row in rows] == ["ok", "infeasible", "ok"]
    assert rows[0].metrics == rows[2].metrics
    with pytest.raises(InfeasibleError) as single:
        evaluate("efficientvit_b0", 64, small, load_plan("uniform8"))
    assert rows[1].problem == str(single.value)
