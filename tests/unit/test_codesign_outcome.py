"""The answer of a study: designs over a limit are never chosen, comparisons use the file's margin, honest sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from accelsim.api import simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.optable import op_table
from accelsim.workloads.registry import build_workload
from codesign.loop.final import over_limits
from codesign.loop.outcome import _compared, best_design, findings


def record(
    name: str, edp: float, wrong: int = 0, equal: bool | None = True, over: dict[str, float] | None = None
) -> dict[str, Any]:
    """A verified design; its first `wrong` of 1000 images are wrong (equal None: not measured)."""
    bits = np.packbits(np.arange(1000) >= wrong).tobytes().hex()
    measured = {"non_inferior": equal, "top1": 1 - wrong / 1000, "images": 1000, "correct": bits}
    return {
        "id": name, "edp_pj_s": edp, "over_limits": over or {}, "validation": None if equal is None else measured,
        "test": None, "shift_share": 0.0,
    }  # fmt: skip


def test_a_design_over_a_limit_is_not_chosen() -> None:
    over, good, poor = record("a", 1.0, over={"power_w": 2.0}), record("b", 3.0), record("c", 2.0, equal=False)
    assert best_design([over, good, poor])["id"] == "b"
    assert best_design([over, poor]) is None
    assert (
        best_design([record("d", 5.0, equal=None), record("e", 4.0, equal=None, over={"area_mm2": 1.0})])["id"] == "d"
    )


def test_limits_are_those_of_the_simulated_design() -> None:
    table = op_table(build_workload("digits_hybrid"), load_plan("uniform8"))
    report = simulate(table, load_accelerator("tiny"))
    numbers = {**report.metrics(), "power_w": report.prices.arithmetic.power_w}
    names = ("area_mm2", "power_w", "latency_s", "energy_pj", "edp_pj_s")
    assert over_limits(report, {name: numbers[name] for name in names}) == {}
    tight = {name: numbers[name] * 0.999 for name in names}
    assert over_limits(report, tight) == {name: pytest.approx(numbers[name]) for name in names}


def test_a_baseline_over_a_limit_is_named_and_a_better_one_preferred() -> None:
    best = record("ours", 2.0)
    over = _compared("m2vit_rule", [record("rule", 1.0, over={"area_mm2": 2.0})], best, 0.005)
    assert over["over_limits"] == ["area_mm2"]
    assert over["equal_accuracy"]
    said = findings({"codesign": best}, [over], [])[0]
    assert said == "The best design has 100.0% more EDP than rule, which is over the limit of area_mm2."
    rivals = [record("x", 1.0, over={"area_mm2": 2.0}), record("y", 4.0, wrong=90, equal=False)]
    assert _compared("random", rivals, best, 0.005)["design"] == "y"
    unmeasured = [record("z", 1.0, equal=None, over={"area_mm2": 2.0})]
    assert _compared("random", unmeasured, record("ours", 2.0, equal=None), 0.005)["design"] == "z"


@pytest.mark.parametrize(("margin", "verdict"), [(0.005, False), (0.05, True)])
def test_comparisons_use_the_margin_of_the_file(margin: float, verdict: bool) -> None:
    row = _compared("uniform8", [record("u", 2.0)], record("ours", 1.0, wrong=20), margin)
    assert row["accuracy_change"] == pytest.approx(-0.02)
    assert row["non_inferior"] is verdict


def test_the_same_edp_is_neither_less_nor_more() -> None:
    best = record("ours", 1.0, equal=None)
    row = _compared("sequential", [record("s", 1.0001, equal=None)], best, 0.005)
    assert findings({"codesign": best}, [row], [])[0] == "The best design has the EDP of s."


def test_test_images_that_do_not_confirm_are_told() -> None:
    best = record("ours", 1.0)
    assert not any("test images" in text for text in findings({"codesign": best}, [], []))
    best["test"] = {"non_inferior": False, "loss_bound": 0.0123}
    assert "may lose 1.23 points" in findings({"codesign": best}, [], [])[0]
