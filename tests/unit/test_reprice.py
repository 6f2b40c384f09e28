"""A study priced at another node holds what a direct sweep there gives, to the last bit, without a simulation."""

import json

import pytest

import accelsim.api
from accelsim.problems import AccelsimError
from codesign import reprice, runner
from codesign.cli import main
from codesign.merge import merge_studies
from codesign.reprice import reprice_study
from codesign.runner import run_sweep
from codesign.space import load_space
from codesign.store import open_study, read_study

# Good designs, one that weights do not fit, one whose values clash, and at 45 nm one whose macros are too slow.
SPACE = """\
format: accelsim.space/1
base: {arch: m2vit, model: efficientvit_b0, resolution: 32}
axes:
  plan: [uniform8, m2q]
  accelerator.engines.mult.pixel_groups: [default, 2]
  accelerator.weight_buffer.capacity_bits: [65536, 2097152]
  accelerator.weight_buffer.macro_bits: [65536, 131072]
"""
NODE = "  accelerator.node_nm: [45]\n"


@pytest.fixture
def study(tmp_path):
    def swept(text, name):
        (tmp_path / f"{name}.yaml").write_text(text)
        run_sweep(load_space(tmp_path / f"{name}.yaml"), tmp_path / name, workers=1)
        return tmp_path / name

    return swept


@pytest.fixture
def no_simulation(monkeypatch):
    def refuse(*anything, **more):
        pytest.fail("simulated")

    for name in ("lower", "run_program", "map_and_lower", "simulate"):
        monkeypatch.setattr(accelsim.api, name, refuse)


def rows(path):
    with read_study(path) as found:
        assert found.check() == "ok"
        return found.meta(), [{k: v for k, v in row.items() if k != "created_utc"} for row in found.rows()]


def test_repriced_rows_are_those_of_a_direct_sweep(study, tmp_path, request, capsys):
    at_28, at_45 = study(SPACE, "a"), study(SPACE + NODE, "direct")
    request.getfixturevalue("no_simulation")
    assert main(["reprice", str(at_28), "-o", str(tmp_path / "b"), "--node", "45"]) == 0
    assert "designs priced again" in capsys.readouterr().out
    (meta, found), (direct_meta, direct) = rows(tmp_path / "b"), rows(at_45)
    assert found == direct
    assert {row["status"] for row in found} == {"ok", "infeasible", "invalid"}
    assert {**meta, "created_utc": ""} == {**direct_meta, "created_utc": ""}
    before = {row["point"]: row for row in rows(at_28)[1] if row["status"] == "ok"}
    for row in found:
        if row["status"] == "ok":
            assert row["cycles"] == before[row["point"]]["cycles"]
            assert row["energy_pj"] > before[row["point"]]["energy_pj"]
    # And back again: the way there lost nothing.
    columns = ("cycles", "energy_pj", "edp_pj_s_synthesized", "area_mm2", "power_w", "energy_by_component_pj")
    with pytest.raises(AccelsimError, match=r"varies accelerator\.node_nm already"):
        reprice_study(tmp_path / "b", tmp_path / "c", 28)
    reprice_study(at_28, tmp_path / "same", 28)
    same = {row["point"]: row for row in rows(tmp_path / "same")[1] if row["status"] == "ok"}
    assert {p: [r[c] for c in columns] for p, r in same.items()} == {
        p: [r[c] for c in columns] for p, r in before.items()
    }


def test_mappings_of_least_latency_do_not_depend_on_prices(study, tmp_path):
    text = SPACE.replace("[uniform8, m2q]", "[uniform8]") + "  mapper: [heuristic, exhaustive:latency]\n"
    reprice_study(study(text, "a"), tmp_path / "b", 45)
    found, direct = rows(tmp_path / "b"), rows(study(text + NODE, "direct"))
    assert found[1] == direct[1]
    cycles = {row["mapper"]: row["cycles"] for row in found[1] if row["status"] == "ok"}
    assert cycles["exhaustive:latency"] < cycles["heuristic"]


@pytest.mark.parametrize("mapper", ["exhaustive:energy", "exhaustive:edp", "exhaustive:edp:steady"])
@pytest.mark.parametrize("place", ["base", "axes"])
def test_mappings_of_least_energy_depend_on_prices(tmp_path, mapper, place, capsys):
    text = SPACE.replace("32}", f"32, mapper: {mapper}}}") if place == "base" else SPACE + f"  mapper: [{mapper}]\n"
    (tmp_path / "space.yaml").write_text(text)
    space = load_space(tmp_path / "space.yaml")
    open_study(tmp_path / "a", space.fingerprint(), space=space.to_json()).close()
    assert main(["reprice", str(tmp_path / "a"), "-o", str(tmp_path / "b"), "--node", "45"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"mappings by {mapper} were chosen by energies" in said
    assert not (tmp_path / "b").exists()


def test_a_design_that_could_not_be_priced_is_left_to_a_sweep(study, tmp_path):
    fast = SPACE + "  accelerator.clock_hz: [200_000_000, 5_000_000_000]\n"
    at_28 = study(fast, "a")
    slow = [row for row in rows(at_28)[1] if "cannot be read in one cycle" in row["problem"]]
    assert slow
    summary = reprice_study(at_28, tmp_path / "b", 45)
    assert summary.left_out >= len(slow)
    assert f"{summary.left_out} need a simulation" in str(summary)
    (tmp_path / "fast.yaml").write_text(fast + NODE)
    again = run_sweep(load_space(tmp_path / "fast.yaml"), tmp_path / "b", workers=1)
    assert again.evaluated == summary.left_out
    assert rows(tmp_path / "b")[1] == rows(study(fast + NODE, "direct"))[1]


def test_what_cannot_be_priced_again(study, tmp_path, monkeypatch, capsys):
    source = study(SPACE, "a")
    assert main(["reprice", str(source), "-o", str(tmp_path / "b"), "--node", "7"]) == 2
    assert "no technology data for 7 nm" in capsys.readouterr().err
    with pytest.raises(AccelsimError, match="exists already"):
        reprice_study(source, source, 45)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "program_version", lambda: "other")
        patch.setattr(reprice, "program_version", lambda: "other")
        with pytest.raises(AccelsimError, match="was written by program version"):
            reprice_study(source, tmp_path / "b", 45)
    assert not (tmp_path / "b").exists()


def test_a_file_that_changed_since(study, tmp_path):
    from accelsim.config import dump_accelerator, load_accelerator

    path = tmp_path / "own.yaml"
    path.write_text(dump_accelerator(load_accelerator("m2vit")))
    source = study(SPACE.replace("arch: m2vit", f"arch: {json.dumps(str(path))}"), "a")
    path.write_text(dump_accelerator(load_accelerator("m2vit").replace(clock_hz=300_000_000)))
    with pytest.raises(AccelsimError, match="is not what it was"):
        reprice_study(source, tmp_path / "b", 45)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "a.yaml", "own.yaml"]


def test_a_merged_study_keeps_its_space(study, tmp_path):
    source = study(SPACE, "a")
    merge_studies(tmp_path / "merged", [source])
    assert rows(tmp_path / "merged")[0]["space_data"] == rows(source)[0]["space_data"]
    reprice_study(tmp_path / "merged", tmp_path / "b", 45)
    reprice_study(source, tmp_path / "c", 45)
    assert rows(tmp_path / "b")[1] == rows(tmp_path / "c")[1]
