import pytest

from accelsim.problems import AccelsimError
from codesign.runner import run_sweep
from codesign.space import Axis, Space, load_space
from codesign.store import design_key, read_study
from tests.support.design_fakes import CATALOG, TWO, dying_evaluate, evaluate

TEXT = """\
format: accelsim.space/1
base: {arch: two, plan: eight, model: small, resolution: 32}
axes:
  arch: [one, two]
  plan: [eight, mixed]
  accelerator.engines.shift.pixel_groups: [default, 8, 16]
  accelerator.activation_buffer.capacity_bits: [1048576, 4194304]
"""
# 2·2·3·2 points; "one" has no shift engine (2·2·2 points), and 8 is what "two" has anyway (2·2 points).
POINTS, NOT_APPLICABLE, DUPLICATES = 24, 8, 4
DESIGNS = POINTS - NOT_APPLICABLE - DUPLICATES


@pytest.fixture
def space(tmp_path):
    (tmp_path / "space.yaml").write_text(TEXT)
    return load_space(tmp_path / "space.yaml", CATALOG)


@pytest.fixture
def sweep(space, tmp_path):
    def run(evaluator=evaluate, workers=1, **more):
        return run_sweep(space, tmp_path / "a.sqlite", workers, evaluator, catalog=CATALOG, **more)

    return run


def stored(tmp_path):
    with read_study(tmp_path / "a.sqlite") as study:
        return [{k: v for k, v in row.items() if k != "created_utc"} for row in study.rows()]


def test_every_point_is_accounted_for(sweep, tmp_path):
    summary = sweep()
    assert (summary.evaluated, summary.reused) == (DESIGNS, 0)
    assert (summary.not_applicable, summary.duplicates, summary.space_size) == (NOT_APPLICABLE, DUPLICATES, POINTS)
    assert summary.by_status == {"ok": DESIGNS // 2, "infeasible": DESIGNS // 2}
    assert "8 not applicable" in str(summary)
    infeasible = [row for row in stored(tmp_path) if row["status"] == "infeasible"]
    assert all("needs 2,097,152 bits, has 1,048,576" in row["problem"] for row in infeasible)


def test_the_second_run_evaluates_nothing_and_changes_nothing(sweep, tmp_path):
    sweep()
    before = (tmp_path / "a.sqlite").read_bytes()
    summary = sweep(lambda *design: pytest.fail("evaluated again"))
    assert (summary.evaluated, summary.reused, summary.duplicates) == (0, DESIGNS, DUPLICATES)
    assert (tmp_path / "a.sqlite").read_bytes() == before


def test_several_workers_give_the_same_rows(space, sweep, tmp_path):
    sweep()
    run_sweep(space, tmp_path / "b.sqlite", workers=2, evaluate=evaluate, catalog=CATALOG, batch_size=3)
    one = stored(tmp_path)
    (tmp_path / "b.sqlite").replace(tmp_path / "a.sqlite")
    assert stored(tmp_path) == one


@pytest.mark.parametrize("calls", [0, 1, 5, DESIGNS - 1])
def test_ctrl_c_keeps_what_is_finished(sweep, tmp_path, calls):
    done = []

    def interrupted(*design):
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(design)
        return evaluate(*design)

    with pytest.raises(KeyboardInterrupt):
        sweep(interrupted, batch_size=4)
    # Only the chunk in flight (at most a batch) is lost.
    kept = len(stored(tmp_path))
    assert calls - 4 < kept <= calls
    assert sweep().evaluated == DESIGNS - kept


def test_a_fault_in_one_design_is_kept_with_it_and_tried_again(sweep, tmp_path):
    def faulty(model, resolution, design, quant_plan, mapper):
        if quant_plan.name == "mixed":
            raise ZeroDivisionError("oops")
        return evaluate(model, resolution, design, quant_plan, mapper)

    assert sweep(faulty).by_status == {"ok": 3, "infeasible": 3, "failed": 6}
    assert {row["problem"] for row in stored(tmp_path) if row["status"] == "failed"} == {"ZeroDivisionError: oops"}
    again = sweep()
    assert (again.evaluated, again.by_status) == (6, {"ok": 6, "infeasible": 6})


def test_keys_name_the_mapper(tmp_path):
    """Designs of the heuristic mapper keep the key that they had before there was another."""
    text = TEXT.partition("axes")[0] + "axes:\n  plan: [eight, mixed]\n"
    (tmp_path / "plain.yaml").write_text(text)
    run_sweep(load_space(tmp_path / "plain.yaml", CATALOG), tmp_path / "a.sqlite", 1, evaluate, catalog=CATALOG)
    plain = stored(tmp_path)
    (tmp_path / "a.sqlite").unlink()
    (tmp_path / "more.yaml").write_text(text + "  mapper: [heuristic, exhaustive, 'exhaustive:edp']\n")
    space = load_space(tmp_path / "more.yaml", CATALOG)
    assert run_sweep(space, tmp_path / "a.sqlite", 1, evaluate, catalog=CATALOG).evaluated == 6
    more = stored(tmp_path)
    assert {row["key"] for row in plain} == {row["key"] for row in more if row["mapper"] == "heuristic"}
    assert len({row["key"] for row in more}) == 6
    (first,) = [row for row in plain if row["plan"] == "eight"]
    ids = ("small-32", CATALOG.plan("eight").fingerprint(), TWO.fingerprint())
    assert first["key"] == design_key(*ids, "heuristic", first["program"])
    assert "mapper" not in first
    cycles = {row["mapper"]: row["cycles"] for row in more if row["plan"] == "eight"}
    assert cycles["heuristic"] - cycles["exhaustive:latency"] == 20
    assert cycles["heuristic"] - cycles["exhaustive:edp"] == 10


def test_a_mapper_of_the_base_stands_in_the_rows(tmp_path):
    (tmp_path / "space.yaml").write_text(TEXT.replace("32}", "32, mapper: 'exhaustive:edp'}"))
    run_sweep(load_space(tmp_path / "space.yaml", CATALOG), tmp_path / "a.sqlite", 1, evaluate, catalog=CATALOG)
    assert {row["mapper"] for row in stored(tmp_path)} == {"exhaustive:edp"}


def test_an_unknown_mapper_of_a_space_made_in_code_is_invalid(tmp_path):
    base = {"arch": "two", "plan": "eight", "model": "small", "resolution": 32}
    space = Space("here", base, (Axis("mapper", ("heuristic", "exhaustive", "exhaustiv"), 0),))
    run_sweep(space, tmp_path / "a.sqlite", 1, evaluate, catalog=CATALOG)
    found = {row["mapper"]: row for row in stored(tmp_path)}
    assert found["heuristic"]["cycles"] - found["exhaustive"]["cycles"] == 20
    assert "unknown mapper 'exhaustiv'" in found["exhaustiv"]["problem"]
    assert found["exhaustiv"]["status"] == "invalid"


def test_values_that_are_invalid_only_together_are_rows_too(tmp_path):
    (tmp_path / "space.yaml").write_text(
        TEXT.partition("axes")[0]
        + "axes:\n  accelerator.weight_buffer.capacity_bits: [98304, 131072]\n"
        + "  accelerator.weight_buffer.macro_bits: [32768, 65536]\n"
    )
    space = load_space(tmp_path / "space.yaml", CATALOG)
    summary = run_sweep(space, tmp_path / "a.sqlite", 1, evaluate, catalog=CATALOG)
    assert summary.by_status == {"ok": 3, "invalid": 1}
    (invalid,) = [row for row in stored(tmp_path) if row["status"] == "invalid"]
    assert invalid["accelerator.weight_buffer.capacity_bits"] == 98304
    assert "macro_bits" in invalid["problem"]


def test_a_dead_worker_is_reported(sweep):
    with pytest.raises(AccelsimError, match="a worker process died"):
        sweep(dying_evaluate, workers=2)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"batch_size": 0}])
def test_counts_must_be_positive(sweep, wrong):
    with pytest.raises(AccelsimError, match="positive numbers"):
        sweep(**wrong)


def test_progress_is_silent_without_a_terminal_unless_forced(sweep, capsys):
    sweep()
    assert capsys.readouterr().err == ""
    sweep(force_progress=True)
    captured = capsys.readouterr()
    assert "24/24" in captured.err
    assert captured.out == ""
