"""The command line as a user meets it: every command in a process of its own, good input and bad."""

from __future__ import annotations

import csv
import json

import pytest

from accelsim.config import PRESETS
from accelsim.workloads import model_names
from tests.support.commands import ROOT, cli, complaints, read_json

SMALL = ("run", "efficientvit_b0", "--resolution", "64")
CLOCK_HZ = 200_000_000
REPORT_KEYS = {
    "model", "arch", "plan", "cycles_total", "clock_hz", "latency_s", "energy_pj", "energy_by_component_pj", "area_mm2",
    "edp_pj_s", "macs", "dram_read_bits", "dram_write_bits", "utilization", "first_image_latency_s",
    "initiation_interval_cycles", "ops",
}  # fmt: skip
OP_KEYS = {"name", "kind", "engines", "start_cycles", "finish_cycles", "cycles", "waits_cycles", "counts"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folder with report, trace and mapping of one small run; "printed" is what it said."""
    folder = tmp_path_factory.mktemp("small")
    found = cli(
        folder, *SMALL, "--json", "report.json", "--trace", "trace.json",
        "--save-mapping", "mapping.json",
    )  # fmt: skip
    (folder / "printed").write_text(found.stdout, encoding="utf-8")
    return folder


def test_models_as_json(tmp_path):
    rows = json.loads(cli(tmp_path, "models", "--json", "-").stdout)
    assert [row["name"] for row in rows] == list(model_names())
    for row in rows:
        assert sum(row["macs_by_class"].values()) == row["macs"] > 0
        assert row["params"] > 0


def test_run_to_standard_output_is_json_and_nothing_else(tmp_path, small):
    found = cli(tmp_path, *SMALL, "--json", "-")
    assert json.loads(found.stdout) == read_json(small / "report.json")
    assert list(tmp_path.iterdir()) == []


def test_summary_names_the_run(small):
    text = (small / "printed").read_text(encoding="utf-8")
    report = read_json(small / "report.json")
    assert text.startswith("efficientvit_b0 at 64 on m2vit, plan m2q, batch 1")
    assert f"{report['cycles_total']:,}" in text


def test_report_has_every_key_and_is_consistent(small):
    report = read_json(small / "report.json")
    assert report.keys() >= REPORT_KEYS
    assert (report["model"], report["arch"], report["plan"]) == ("efficientvit_b0", "m2vit", "m2q")
    assert report["clock_hz"] == CLOCK_HZ
    assert report["latency_s"] == report["cycles_total"] / CLOCK_HZ == report["first_image_latency_s"]
    assert report["energy_pj"] == pytest.approx(sum(report["energy_by_component_pj"].values()))
    assert report["edp_pj_s"] == pytest.approx(report["energy_pj"] * report["latency_s"])
    for engine in ("mult", "shift"):
        assert all(0 < share <= 1 for share in report["utilization"][engine].values())


def test_report_has_a_row_per_op(small):
    report = read_json(small / "report.json")
    units = {"mult", "shift", "vector"}
    for row in report["ops"]:
        assert row.keys() >= OP_KEYS
        assert set(row["engines"]) <= units
        assert row["engines"]
        assert 0 <= row["start_cycles"] < row["finish_cycles"] <= report["cycles_total"]
        assert row["waits_cycles"].keys() == {"region", "bus", "input", "dependency", "output"}
        issued = sum(count for name, count in row["counts"].items() if ".products_" in name)
        assert issued == row["macs"]
    assert sum(row["macs"] for row in report["ops"]) == report["macs"]
    assert report["cycles_total"] - 1 < sum(row["cycles"] for row in report["ops"]) <= report["cycles_total"] + 1e-6
    for key in ("dram_read_bits", "dram_write_bits"):
        assert sum(row["counts"].get(key, 0) for row in report["ops"]) == report[key]


def test_trace_is_a_chrome_trace(small):
    trace, report = read_json(small / "trace.json"), read_json(small / "report.json")
    events = trace["traceEvents"]
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert sorted(lanes.values()) == ["dram", "mult", "shift", "vector"]
    end_us = report["cycles_total"] / CLOCK_HZ * 1e6
    for tid in lanes:
        slices = [e for e in events if e["ph"] == "X" and e["tid"] == tid]
        assert any(e["cat"] == "busy" for e in slices)
        time_us = 0.0
        for event in slices:
            assert event["dur"] >= 0
            assert event["ts"] >= time_us - 1e-9
            time_us = event["ts"] + event["dur"]
        assert time_us <= end_us + 1e-9
    assert {e["tid"] for e in events if e["ph"] == "X"} == set(lanes)
    busy_us = {name: sum(e["dur"] for e in events if e["ph"] == "X" and e["tid"] == tid and e["cat"] == "busy")
               for tid, name in lanes.items()}  # fmt: skip
    for engine in ("mult", "shift"):
        assert busy_us[engine] / end_us == pytest.approx(report["utilization"][engine]["temporal"])


def test_trace_counters_stay_within_the_buffers(small):
    steps: dict[str, list[tuple[float, float]]] = {}
    for event in read_json(small / "trace.json")["traceEvents"]:
        if event["ph"] == "C":
            steps.setdefault(event["name"], []).append((event["ts"], event["args"]["value"]))
    assert steps.keys() == {"activation buffer bits", "weight buffer bits", "DRAM MB moved"}
    for name in ("activation buffer bits", "weight buffer bits"):
        assert steps[name] == sorted(steps[name], key=lambda step: step[0])
        assert 0 < max(value for _, value in steps[name]) <= 2_097_152
        assert min(value for _, value in steps[name]) == 0
        assert steps[name][-1][1] == 0
    report = read_json(small / "report.json")
    moved = (report["dram_read_bits"] + report["dram_write_bits"]) / 8e6
    assert steps["DRAM MB moved"][-1][1] == pytest.approx(moved, rel=1e-9)


def test_saved_mapping_comes_back_with_the_same_report(tmp_path, small):
    found = cli(tmp_path, *SMALL, "--mapping", small / "mapping.json", "--json", "-")
    assert json.loads(found.stdout) == read_json(small / "report.json")


def test_changed_mapping_is_used(tmp_path, small):
    mapping = read_json(small / "mapping.json")
    chain = next(chain for chain in mapping["chains"] if chain["axis"] == "rows" and chain["tile"] > 1)
    chain["tile"] = 1
    (tmp_path / "m.json").write_text(json.dumps(mapping), encoding="utf-8")
    report = json.loads(cli(tmp_path, *SMALL, "--mapping", "m.json", "--json", "-").stdout)
    before = read_json(small / "report.json")
    assert report["macs"] == before["macs"]
    assert report["fingerprints"]["mapping"] != before["fingerprints"]["mapping"]


def test_bad_mapping_names_the_chains(tmp_path, small):
    mapping = read_json(small / "mapping.json")
    mapping["chains"][1]["parts"][0][0][2] += 1
    mapping["chains"][2]["parts"][0][0][0] = "mulx"
    (tmp_path / "m.json").write_text(json.dumps(mapping), encoding="utf-8")
    text = "\n".join(complaints(tmp_path, *SMALL, "--mapping", "m.json"))
    assert "m.json" in text
    for number in (1, 2):
        assert f"chains[{number}]" in text or mapping["chains"][number]["ops"][0] in text


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "m.json:1"), ("[]", "not a mapping"), ('{"format": "accelsim.mapping/1", "chains": [{}]}', "chains[0]")],
)
def test_malformed_mapping(tmp_path, content, said):
    (tmp_path / "m.json").write_text(content, encoding="utf-8")
    (line,) = complaints(tmp_path, *SMALL, "--mapping", "m.json")
    assert said in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "eficientvit_b1"), "did you mean 'efficientvit_b1'?"),
        (("run", "efficientvit_b0", "--arch", "m2vitt"), "try: m2vit"),
        (("run", "efficientvit_b0", "--plan", "unifrm8"), "try: uniform8"),
        (("run", "efficientvit_b0", "--resolution", "65"), "multiple of 32"),
        (("run", "vit_large", "--arch", "tiny"), "short by"),
    ],
)
def test_bad_names_get_a_suggestion(tmp_path, arguments, said):
    assert said in "\n".join(complaints(tmp_path, *arguments))


def test_check_lists_every_fault_with_its_line(tmp_path):
    text = (PRESETS / "tiny.yaml").read_text(encoding="utf-8")
    for old, new in (("node_nm:", "node_mm:"), ("mac_array", "mac_arry"), ("lanes: 8", "lanes: 0")):
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "broken.yaml").write_text(text, encoding="utf-8")
    lines = complaints(tmp_path, "check", "broken.yaml")
    wanted = {"node_mm": "try: node_nm", "mac_arry": "try: mac_array", "lanes: 0": "found 0"}
    numbers = {key: next(n for n, row in enumerate(text.splitlines(), 1) if key in row and "#" not in row)
               for key in wanted}  # fmt: skip
    for key, said in wanted.items():
        assert any(f"broken.yaml:{numbers[key]}:" in line and said in line for line in lines), key
    assert complaints(tmp_path, "run", "efficientvit_b0", "--arch", "broken.yaml") == lines


def test_check_accepts_what_comes_with_the_program(tmp_path):
    for path in (PRESETS / "m2vit.yaml", ROOT / "examples" / "sweep_b1.yaml"):
        assert "no faults" in cli(tmp_path, "check", path).stdout


@pytest.mark.parametrize("option", ["--json", "--trace", "--save-mapping"])
def test_unwritable_output_is_refused_before_the_work(tmp_path, option):
    others = {"--json": "r.json", "--trace": "t.json"}
    others.pop(option, None)
    (tmp_path / "folder").mkdir()
    flat = [text for pair in others.items() for text in pair]
    for bad in ("missing/out.png", "folder"):
        (line,) = complaints(tmp_path, *SMALL, *flat, option, bad)
        assert bad in line
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert list((tmp_path / "folder").iterdir()) == []


def test_standard_output_is_given_once(tmp_path):
    assert "more than once" in complaints(tmp_path, *SMALL, "--json", "-", "--trace", "-")[0]


def test_batch(tmp_path, small):
    one = read_json(small / "report.json")
    images = 4
    report = json.loads(cli(tmp_path, *SMALL, "--batch", images, "--json", "-").stdout)
    assert report["batch"] == images
    busiest = max(one["utilization"][engine]["temporal"] * one["cycles_total"] for engine in ("mult", "shift"))
    assert images * one["cycles_total"] >= report["cycles_total"] >= images * busiest - 1e-6
    assert one["first_image_latency_cycles"] == report["first_image_latency_cycles"] <= report["cycles_total"]
    assert report["first_image_latency_s"] == report["first_image_latency_cycles"] / CLOCK_HZ
    assert busiest - 1 <= report["initiation_interval_cycles"] <= one["cycles_total"]
    assert report["frames_per_s"] == pytest.approx(CLOCK_HZ / report["initiation_interval_cycles"])
    assert report["macs"] == one["macs"]


SPACE = """format: accelsim.space/1
base: {model: efficientvit_b0, resolution: 64}
axes:
  arch: [trio_vit, m2vit]
  plan: [uniform8, m2q]
  accelerator.dram.bandwidth_bits_per_s: [51.2e9, 153.6e9]
"""


def test_sweep_resumes_and_pareto_draws(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    first = cli(tmp_path, "sweep", "space.yaml", "-o", "study.sqlite")
    assert "8 evaluated" in first.stdout
    assert "0 already stored" in first.stdout
    again = cli(tmp_path, "sweep", "space.yaml", "-o", "study.sqlite", "--workers", 2)
    assert "0 evaluated" in again.stdout
    assert "8 already stored" in again.stdout
    cli(tmp_path, "pareto", "study.sqlite", "-o", "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG\r\n")
    with (tmp_path / "front.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8
    assert all(None not in row and None not in row.values() for row in rows)


def test_bad_sweep_and_study(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE.replace("plan:", "plam:").replace("trio_vit", "trio_vitt"))
    lines = complaints(tmp_path, "sweep", "space.yaml", "-o", "study.sqlite")
    assert any("space.yaml:5:" in line and "plam" in line for line in lines)
    assert not (tmp_path / "study.sqlite").exists()
    (tmp_path / "space.yaml").write_text(SPACE)
    complaints(tmp_path, "sweep", "space.yaml", "-o", "missing/study.sqlite")
    complaints(tmp_path, "pareto", "nothing.sqlite", "-o", "front.png")
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m.update(chains=5), "chains: not a list"),
        (lambda m: m["chains"][0].update(weight_blocks=2**39), "chains[0].weight_blocks"),
        (lambda m: m["chains"][0].update(weight_outer="yes"), "chains[0]"),
        (lambda m: m["chains"][0].update(tile=0), "chains[0].tile"),
        (lambda m: m["chains"][0].update(axis="columns"), "chains[0].axis"),
        (lambda m: m["chains"].pop(), "the end"),
        (lambda m: m["resident"].append("nothing"), "unknown tensor 'nothing'"),
    ],
)
def test_faulty_mapping_is_one_clear_error(tmp_path, small, change, expected):
    mapping = read_json(small / "mapping.json")
    change(mapping)
    (tmp_path / "m.json").write_text(json.dumps(mapping), encoding="utf-8")
    assert expected in "\n".join(complaints(tmp_path, *SMALL, "--mapping", "m.json", "--json", "r.json"))
    assert not (tmp_path / "r.json").exists()


def test_unknown_kind_of_picture_is_refused_before_anything_is_written(tmp_path):
    assert "unknown kind of picture" in complaints(tmp_path, "plot", "gantt", *SMALL[1:], "-o", "g.bad")[0]
    assert list(tmp_path.iterdir()) == []
