"""The answer of a study: designs over a limit are never chosen, comparisons use the file's margin, honest sentences."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from accelsim.api import simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.mapping import mapping_from_json
from accelsim.optable import op_table
from accelsim.workloads.from_json import load_workload
from accelsim.workloads.registry import build_workload
from codesign.loop import verify
from codesign.loop.final import Candidate, Verifier, over_limits
from codesign.loop.folder import StudyFolder
from codesign.loop.outcome import best_design, compared, findings, match_of, opponents, representative
from codesign.loop.spec import BaselineSpec, CodesignSpec, HardwareSpec
from quant.penalties.weights_only import base_plan


def record(
    name: str, edp: float, wrong: int = 0, equal: bool | None = True, over: dict[str, float] | None = None
) -> dict[str, Any]:
    """A verified design; its first `wrong` of 1000 images are wrong (equal None: not measured)."""
    bits = np.packbits(np.arange(1000) >= wrong).tobytes().hex()
    measured = {"non_inferior": equal, "top1": 1 - wrong / 1000, "images": 1000, "correct": bits}
    return {
        "id": name, "origin": name, "predicted_loss": edp / 100, "edp_pj_s": edp, "over_limits": over or {},
        "validation": None if equal is None else measured, "test": None, "shift_share": 0.0,
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
    over = compared(record("rule", 1.0, over={"area_mm2": 2.0}), best, 0.005)
    assert over["over_limits"] == ["area_mm2"]
    assert over["equal_accuracy"]
    said = findings(best, [over], [])[0]
    assert said == (
        "ours has 100.0% more EDP than rule, which it is not inferior to, which is over the limit of area_mm2."
    )
    rivals = [record("x", 1.0, over={"area_mm2": 2.0}), record("y", 4.0, wrong=90, equal=False)]
    assert representative(rivals)["id"] == "y"
    assert representative([record("z", 1.0, equal=None, over={"area_mm2": 2.0})])["id"] == "z"


@pytest.mark.parametrize(("margin", "verdict"), [(0.005, False), (0.05, True)])
def test_comparisons_use_the_margin_of_the_file(margin: float, verdict: bool) -> None:
    row = compared(record("u", 2.0), record("ours", 1.0, wrong=20), margin)
    assert row["accuracy_change"] == pytest.approx(-0.02)
    assert row["non_inferior"] is verdict
    assert row["test"] is None


def test_a_baseline_meets_the_least_edp_that_is_not_inferior_to_it() -> None:
    rival = record("u", 9.0, wrong=10)
    ours = [record("good", 5.0, wrong=11), record("cheap", 3.0, wrong=60), record("better", 4.0, wrong=5)]
    assert match_of(rival, ours, 0.02)["id"] == "better"
    assert match_of(rival, [*ours, record("over", 1.0, over={"power_w": 1.0})], 0.02)["id"] == "better"
    assert match_of(rival, ours[1:2], 0.02) is None
    assert compared(rival, None, 0.02)["edp_ratio"] is None
    assert "No design of the loop is shown to be as accurate as u." in findings(None, [compared(rival, None, 0.02)], [])


def test_an_arm_without_a_family_and_the_loop_have_the_margin_once() -> None:
    """Of equal ladders the ratio is 1, though the next rung is not inferior to what is not inferior to the float."""
    ladder = [("fine", 5.0, 4, True), ("coarse", 3.0, 8, False)]
    ours, theirs = ([{**record(name, edp, wrong, equal), "level": edp, "origin": origin}
                     for name, edp, wrong, equal in ladder] for origin in ("codesign", "without_heads"))  # fmt: skip
    rival = representative(theirs)
    assert match_of(rival, ours, 0.02)["id"] == "coarse"
    assert match_of(rival, opponents(rival, ours), 0.02)["id"] == "fine"
    assert [one["id"] for one in opponents(theirs[1], ours)] == ["fine", "coarse"]
    assert opponents({**rival, "origin": "uniform8"}, ours) is ours
    learned = {**record("learned", 1.0), "level": None, "origin": "codesign"}
    assert learned not in opponents(rival, [*ours, learned])
    assert learned in opponents({**rival, "origin": "without_learned"}, [*ours, learned])


def test_without_measurements_it_meets_what_loses_no_more_by_the_table() -> None:
    rival = record("u", 9.0, equal=None)
    ours = [record("a", 10.0, equal=None), record("b", 8.0, equal=None), record("c", 8.5, equal=None)]
    assert match_of(rival, ours, 0.005)["id"] == "b"
    assert match_of({**rival, "predicted_loss": None}, ours, 0.005) is None


def test_the_same_edp_is_neither_less_nor_more() -> None:
    best = record("ours", 1.0, equal=None)
    row = compared(record("s", 1.0001, equal=None), best, 0.005)
    assert findings(best, [row], [])[0] == "ours has the EDP of s, with no more predicted loss."


def test_test_images_that_do_not_confirm_are_told() -> None:
    best = record("ours", 1.0)
    assert not any("test images" in text for text in findings(best, [], []))
    best["test"] = {"non_inferior": False, "loss_bound": 0.0123}
    assert "may lose 1.23 points" in findings(best, [], [])[0]


def test_a_design_without_data_has_files_that_run(tmp_path: Path) -> None:
    workload = build_workload("digits_hybrid")
    folder = StudyFolder(tmp_path)
    verifier = Verifier(folder, {"plain": workload}, "heuristic", None, {})
    candidate = Candidate(
        "uniform8", "uniform8", "uniform8", load_accelerator("tiny"), {}, base_plan(workload), predicted_loss=0.0
    )
    made = verifier.verify(candidate)
    place = folder.design("uniform8")
    again = simulate(
        op_table(load_workload(place / "workload.json"), load_plan(place / "plan.yaml")),
        load_accelerator(place / "accelerator.yaml"),
        mapping_from_json(json.loads((place / "mapping.json").read_text()), "mapping.json"),
    )
    assert again.result.cycles_total == made["cycles"]
    assert verifier.stored("uniform8") == made
    assert made["validation"] is None


def test_limits_of_an_arm_that_meet_give_one_design(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Uniform plans of one predicted loss ask for the same limit: its design is verified and listed once."""
    numbers = {"cycles": 1, "energy_pj": 1.0, "area_mm2": 1.0, "level": None}
    made: list[str] = []

    def verified(name: str) -> dict[str, Any]:
        made.append(name)
        return {**record(name, 50.0, equal=None), **numbers}

    arm = SimpleNamespace(design=lambda level: f"codesign-{level:g}")
    arms = SimpleNamespace(allocated={"codesign": arm}, uniform=lambda bits: f"uniform{bits}")
    monkeypatch.setattr(verify, "Arms", lambda *_: arms)
    monkeypatch.setattr(verify, "Verifier", lambda *_: SimpleNamespace(stored=lambda _: None, verify=verified))
    baselines = BaselineSpec(uniform=(8, 6), sequential=False, m2vit_rule=None, random=0)
    spec = CodesignSpec("", "", "", HardwareSpec(""), losses=(0.1,), baselines=baselines)
    maker: Any = SimpleNamespace(variants={}, learned={})
    records, refusals = verify.verify_all(spec, StudyFolder(tmp_path), maker, None, lambda _: None)
    assert [one["id"] for one in records] == made == ["codesign-0.1", "uniform8", "codesign-0.5005", "uniform6"]
    assert not refusals
