"""The file of a co-design: all faults at once with their lines, defaults, fingerprints; every example is sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelsim.problems import AccelsimError
from codesign.allocate.families import FAMILIES
from codesign.loop.designs import PlanRequest
from codesign.loop.outer import searches, space_of
from codesign.loop.spec import load_spec
from codesign.loop.spec_files import text_of
from codesign.loop.verify import between

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("codesign_*.yaml"))
GOOD = """\
format: accelsim.codesign/1
name: a study
model: digits_hybrid
losses: [0.1, 0.01]
hardware:
  arch: template:heterogeneous
  set: {clock_hz: 500_000_000}
  axes: {mult_groups: [4, 8]}
"""


def spec_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return path


def test_a_short_file_has_defaults_and_sorted_limits(tmp_path: Path) -> None:
    spec = load_spec(spec_of(tmp_path, GOOD))
    assert spec.losses == (0.01, 0.1)
    assert spec.data is None
    assert spec.hardware.axes == {"accelerator.clock_hz": (500_000_000,), "accelerator.mult_groups": (4, 8)}
    assert spec.hardware.rule == {"accelerator.clock_hz": 500_000_000}
    assert list(searches(spec)) == ["codesign", "uniform8", "uniform6", "uniform4"]
    space = space_of(spec, searches(spec)["codesign"])
    assert space.axes[0].values == ("allocated@0.01", "allocated@0.1")
    assert space.grid_size == 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_sound(path: Path) -> None:
    spec = load_spec(path)
    for plans in searches(spec).values():
        assert space_of(spec, plans).grid_size >= 1


def test_examples_are_there() -> None:
    assert len(EXAMPLES) >= 4


OPTIONS = "options: {methods: [ivit, fqvit], activation_formats: [u8, r6], head_formats: [u4], token_shares: [0.5]}\n"


def test_all_families_are_those_that_the_options_have(tmp_path: Path) -> None:
    text = GOOD + "data: digits\nbaselines: {without: all}\n"
    everything = load_spec(spec_of(tmp_path, text + OPTIONS + "learned: [runs/a, runs/b]\n"))
    assert everything.baselines.without == FAMILIES
    assert everything.options.settings().methods == ("ivit", "fqvit")
    few = load_spec(spec_of(tmp_path, text + "options: {divisions: [divide], mixtures: 0}\n"))
    assert few.baselines.without == ("schemes",)
    assert load_spec(spec_of(tmp_path, GOOD)).baselines.without == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("data: digits\nbaselines: {without: [heads]}\n", "baselines.without: heads: the options have none of it"),
        ("data: digits\nbaselines: {without: [head]}\n", "schemes | channels"),
        (
            "data: digits\noptions: {methods: [fqvit, ivit], token_shares: [0.5]}\n",
            ":10: options.methods: fqvit is",
        ),
        (OPTIONS, ":9: options.methods: needs losses measured"),
        (f"data: digits\n{OPTIONS}penalties: {{weights_only: true}}\n", "options.head_formats: needs losses measured"),
        (f"data: digits\n{OPTIONS}penalties: {{file: p.json}}\n", "needs a table of the ranked network"),
        ("learned: [one/run, other/run]\n", "a name of their own"),
        ("learned: [run]\n", "learned: needs data"),
        ("options: {token_shares: [1.0]}\n", "between 0 and 1"),
        ("options: {methods: [ivvit]}\n", "ivit | ibert | fqvit"),
        ("options: {activation_formats: [u8, r9]}\n", "or two regions, r3 … r8"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(AccelsimError) as caught:
        load_spec(spec_of(tmp_path, GOOD + text))
    assert found in str(caught.value)


EXTENDING = "extends: base.yaml\nname: another\nhardware: {axes: {mult_lanes: [8]}}\nlosses: [0.5]\n"


def test_a_file_takes_from_its_base_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(GOOD + "search: {evaluations: 7}\n")
    path = spec_of(tmp_path, EXTENDING + "search: {population: 3}\n")
    spec = load_spec(path)
    assert (spec.name, spec.model, spec.losses) == ("another", "digits_hybrid", (0.5,))
    assert spec.hardware.axes == {"accelerator.clock_hz": (500_000_000,), "accelerator.mult_lanes": (8,)}
    assert (spec.search.evaluations, spec.search.population) == (7, 3)
    merged = text_of(str(path))
    assert merged.startswith(EXTENDING)
    assert merged.endswith(GOOD + "search: {evaluations: 7}\n")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("model: digits_hybrid", "modell: digits_hybrid", "base.yaml:3: modell"),
        ("clock_hz: 500_000_000", "mult_lanes: 4", "spec.yaml:3: hardware.axes.mult_lanes: is set, too"),
        ("name: a study", "name: a study\nextends: base.yaml", "base.yaml:3: extends"),
        ("losses: [0.1, 0.01]", "losses: [0.1, 0.01]\noptions: {mixtures: -1}", "base.yaml:5: options.mixtures"),
        ("losses: [0.1, 0.01]", "losses: [0.1, 0.01", "base.yaml:5"),
    ],
)
def test_faults_name_the_file_that_has_them(tmp_path: Path, old: str, new: str, found: str) -> None:
    (tmp_path / "base.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(AccelsimError) as caught:
        load_spec(spec_of(tmp_path, EXTENDING))
    assert found in str(caught.value)


def test_a_base_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccelsimError, match=r"spec\.yaml:1: extends.*base\.yaml"):
        load_spec(spec_of(tmp_path, EXTENDING))


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("losses: [0.1, 0.01]", "losses: [-1]").replace("set:", "sett:")
    text += "search: {searcher: nsga2, evaluation: 3}\nlimits: {area: 1}\nfinal: {mapper: best, refine: -1}\n"
    with pytest.raises(AccelsimError) as caught:
        load_spec(spec_of(tmp_path, text))
    found = str(caught.value)
    for part in (":4: losses", "hardware.sett", "search.evaluation", "limits.area", "final.mapper", "final.refine"):
        assert part in found
    assert "evaluations" in found  # did you mean
    assert "area_mm2" in found


@pytest.mark.parametrize("missing", ["name", "model", "losses", "hardware"])
def test_what_must_be_there_is_named(tmp_path: Path, missing: str) -> None:
    lines = GOOD.splitlines()
    kept, skip = [], False
    for line in lines:
        skip = line.startswith(f"{missing}:") or (skip and line.startswith(" "))
        if not skip:
            kept.append(line)
    with pytest.raises(AccelsimError, match=missing):
        load_spec(spec_of(tmp_path, "\n".join(kept)))


def test_a_field_cannot_be_set_and_varied(tmp_path: Path) -> None:
    with pytest.raises(AccelsimError, match="is set, too"):
        load_spec(spec_of(tmp_path, GOOD.replace("clock_hz", "mult_groups")))


def test_the_fingerprint_does_not_depend_on_the_files_name(tmp_path: Path) -> None:
    first = load_spec(spec_of(tmp_path, GOOD))
    other = tmp_path / "other.yaml"
    other.write_text(GOOD)
    assert load_spec(other).fingerprint() == first.fingerprint()
    other.write_text(GOOD + "seed: 1\n")
    assert load_spec(other).fingerprint() != first.fingerprint()


def test_requests_know_their_level_or_width() -> None:
    assert PlanRequest("allocated@0.05", "x").level == 0.05
    assert PlanRequest("uniform6", "x").level is None
    assert PlanRequest("uniform6", "x").bits == 6
    assert PlanRequest("uniform6", "x").fingerprint() != PlanRequest("uniform6", "y").fingerprint()


def _record(level: float, edp: float, good: bool) -> dict[str, object]:
    return {"id": f"{level}", "level": level, "edp_pj_s": edp, "validation": {"non_inferior": good}, "over_limits": {}}


def test_the_next_limit_lies_between_equal_and_worse() -> None:
    rungs = [_record(0.01, 10, True), _record(0.04, 8, False), _record(0.16, 7, False)]
    assert between(rungs) == 0.02
    assert between([*rungs, _record(0.02, 9, True)]) == pytest.approx(0.0283)
    assert between([_record(0.01, 10, True)]) is None
    assert between([_record(0.01, 10, False)]) is None
    assert between([_record(0.0, 10, True), _record(0.04, 8, False)]) == 0.01
