"""Commands on a plan with token groups: ranking is run, saved mappings fit, every output is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accelsim.config_yaml import dump_yaml
from accelsim.workloads import build_workload
from accelsim.workloads.rank import rank_tokens
from codesign.cli import main
from tests.support.token_plans import grouped_plan


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two plans that differ in the number of full tokens."""
    monkeypatch.chdir(tmp_path)
    workload = rank_tokens(build_workload("glyph_vit"), ["b1", "b2"])
    for high in (9, 65):
        plan = grouped_plan(workload, {"b1": high, "b2": high})
        Path(f"p{high}.yaml").write_text(dump_yaml(plan.to_json()), encoding="utf-8")
    return tmp_path


def run(*words: str) -> dict:  # type: ignore[type-arg]
    """`accelsim run` with its report."""
    assert main(["run", "glyph_vit", "--arch", "bitfusion_edge", *words, "--json", "r.json"]) == 0
    return json.loads(Path("r.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_a_plan_with_groups_runs_with_its_ranking(capsys: pytest.CaptureFixture[str]) -> None:
    """Ranking ops are there, fewer bits are less energy, the mapping is one for all counts."""
    full = run("--plan", "p65.yaml", "--save-mapping", "m.json")
    some = run("--plan", "p9.yaml")
    assert {row["name"] for row in some["ops"]} >= {"b1.rank", "b1.gather", "b2.rank", "b2.gather"}
    assert some["energy_pj"] < full["energy_pj"]
    assert some["fingerprints"]["mapping"] == full["fingerprints"]["mapping"]
    assert some["fingerprints"]["plan"] != full["fingerprints"]["plan"]
    assert max(some["bound_cycles"].values()) <= some["cycles_total"]
    again = run("--plan", "p9.yaml", "--mapping", "m.json")
    assert [again[name] for name in ("cycles_total", "energy_pj")] == [
        some[name] for name in ("cycles_total", "energy_pj")
    ]
    capsys.readouterr()


def test_the_exhaustive_mapper_says_what_it_searched(capsys: pytest.CaptureFixture[str]) -> None:
    """Its figures are those of the worst case: the same under all counts, and named so."""
    lines = []
    for plan in ("p9.yaml", "p65.yaml"):
        assert main(["run", "glyph_vit", "--arch", "bitfusion_edge", "--plan", plan, "--mapper", "exhaustive:edp"]) == 0
        lines += [line for line in capsys.readouterr().out.splitlines() if line.startswith("  mapper")]
    assert lines[0] == lines[1]
    assert lines[0].endswith(" (all tokens full)")


def test_other_commands_take_such_plans(capsys: pytest.CaptureFixture[str]) -> None:
    """Explain, and a picture of the program."""
    assert main(["explain", "glyph_vit", "--arch", "tiny", "--plan", "p9.yaml", "--json", "e.json"]) == 0
    points = json.loads(Path("e.json").read_text(encoding="utf-8"))["roofline"]
    assert "b1.gather" in {point["name"] for point in points}
    assert "glyph_vit" in capsys.readouterr().out
