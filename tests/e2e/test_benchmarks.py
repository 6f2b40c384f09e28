"""The benchmarks run, print tables and keep numbers; what is exact is checked, times never are."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from accelsim.config import dump_plan, load_plan
from benchmarks.all_methods import blocks, main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
MAPPING_PAGE = ROOT / "docs" / "mapping.md"
ALL_METHODS_PAGE = ROOT / "docs" / "all_methods.md"
PEERS = ROOT / "benchmarks" / "data" / "peers.csv"


def run(name: str, folder: Path, *options: str) -> tuple[str, dict[str, Any]]:
    """Printed text and numbers of `benchmarks/<name>.py --quick`."""
    numbers = folder / f"{name}.json"
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick", "--json", str(numbers), *options]
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", env=env)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("Machine: cpus ")
    return found.stdout, json.loads(numbers.read_text(encoding="utf-8"))


def tables(text: str) -> list[list[list[str]]]:
    """Cells of every Markdown table: lines of the head and the body; all lines of a table have as many cells."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            if not line.startswith("|---"):
                found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    whole = [table for table in found if table]
    assert all(len(line) == len(table[0]) for table in whole for line in table)
    return whole


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    return run("peers", tmp_path_factory.mktemp("peers"))


def test_timing_scalesim_gives_the_cycles_of_scalesim(peers: tuple[str, dict[str, Any]]) -> None:
    checks = {(c["dataflow"], c["workload"]): c for c in peers[1]["scalesim"]}
    simulated = {key: check["simulated"] for key, check in checks.items()}
    assert simulated == {
        ("ws", "gemm"): 125_279, ("os", "gemm"): 112_391, ("is", "gemm"): 104_663,
        ("ws", "gemms"): 6_740_638, ("os", "gemms"): 5_996_726, ("is", "gemms"): 6_252_118,
    }  # fmt: skip
    with open(PEERS, encoding="utf-8", newline="") as file:
        reported = [row for row in csv.DictReader(file) if row["tool"] == "SCALE-Sim"]
    assert len(reported) == len(checks)
    for row in reported:
        check = checks[row["setting"], row["workload"]]
        assert check["closed_form"] == check["simulated"]
        # As exact as the peer's number was kept.
        assert abs(int(row["cycles"]) - check["simulated"]) * 2 < int(row["rounded_to"]) + 1


def test_cycles_of_the_arrays_beside_the_peers(peers: tuple[str, dict[str, Any]]) -> None:
    text, numbers = peers
    cycles = {row["system"]: row["cycles"] for row in numbers["ours"]}
    assert len(cycles) == 13
    # Nothing of it depends on a mapper's taste: whole operands fit, and every fold streams without a gap.
    assert cycles["systolic ws, endless memory"]["gemm"] == 84_777
    assert cycles["adder tree 32 x 32 x 1, endless memory"]["gemm"] == 84_689
    for name, found in cycles.items():
        assert found["gemm"] > 84_672, name
        assert found["gemms"] > 4_491_096, name
        if "scalesim" not in name:
            assert found["deit_small"] > found["gemm_network"] > 4_491_096, name
            assert cycles[f"{name.removesuffix(', endless memory')}, endless memory"]["gemm"] <= found["gemm"]
    beside, own, scalesim = tables(text)
    assert len(beside) == 1 + 1 + len({(row["tool"], row["setting"]) for row in numbers["peers"]}) + 13
    assert (len(own), len(scalesim)) == (14, 7)
    assert all(line[-1] for line in beside[2:]), "a row does not say what its cycles hold"


def test_the_page_has_the_cycles_of_this_version(peers: tuple[str, dict[str, Any]]) -> None:
    here, page = tables(peers[0]), tables(PAGE.read_text(encoding="utf-8"))
    beside, own, scalesim = (next(t for t in page if t[0] == table[0]) for table in here)
    assert [(line[0], line[1], line[3], line[5]) for line in beside] == [
        (line[0], line[1], line[3], line[5]) for line in here[0]
    ]
    assert [line[:3] for line in own] == [line[:3] for line in here[1]]
    assert scalesim == here[2]


def test_a_gemm_of_the_peers_is_known_by_its_macs() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from gemms import GEMM, deit_small_gemms, gemm_network
    finally:
        sys.path.pop(0)
    counts = deit_small_gemms()
    assert (len(counts), sum(counts.values())) == (8, 194)
    assert sum(gemm.macs * count for gemm, count in counts.items()) == gemm_network().macs == 4_598_882_304
    assert GEMM.macs == 86_704_128


def test_scaling_counts_rows_exactly_and_fits_slopes(tmp_path: Path) -> None:
    text, numbers = run("scaling", tmp_path)
    curves = numbers["curves"]
    rows = {point["x"]: point["sizes"] for point in curves["tiles"]["points"]}
    # A load and a store per tile and one row on the array, and the weights once.
    assert {count: sizes["rows"] for count, sizes in rows.items()} == {c: 3 * c + 1 for c in (1, 16, 256, 4096, 65536)}
    assert {sizes["templates"] for count, sizes in rows.items() if count > 1} == {10}, "phases are not compressed"
    depths = {point["x"]: point["sizes"]["cycles"] for point in curves["layers"]["points"]}
    assert depths[12] == 2_703_701
    assert [point["x"] for point in curves["designs"]["points"]] == [10, 100]
    assert [point["x"] for point in curves["workers"]["points"]] == [1, 2]
    for curve in curves.values():
        assert set(curve["slopes"]["slope, all"]) == set(curve["points"][0]["times_s"])
    assert [table[0][0] for table in tables(text)] == ["tiles", "blocks", "designs", "processes"]


def test_slope_is_the_exponent() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from timing import slope
    finally:
        sys.path.pop(0)
    x = [1.0, 2.0, 5.0, 30.0]
    assert slope(x, [3 * value**1.5 for value in x]) == pytest.approx(1.5)
    assert slope(x, [7.0] * 4) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="positive"):
        slope([1.0, 1.0], [1.0, 2.0])


def test_search_quality_is_a_share_of_the_true_front(tmp_path: Path) -> None:
    pytest.importorskip("pymoo")
    picture = tmp_path / "quality.png"
    text, numbers = run("search_quality", tmp_path, "--plot", str(picture))
    assert "540 evaluated" in text
    first, second = numbers["results"]
    assert (first["front"], first["allowed"], second["front"], second["allowed"]) == (6, 540, 17, 540)
    assert [list(found["shares"]) for found in (first, second)] == [["nsga2", "random"], ["nsga3", "nsga2", "random"]]
    for found in (first, second):
        for by_budget in found["shares"].values():
            assert list(by_budget) == ["50", "100"]
            assert all(0 < share <= 1 + 1e-12 for shares in by_budget.values() for share in shares)
            # More designs of the same sequence never dominate less.
            assert all(low <= high for low, high in zip(by_budget["50"], by_budget["100"], strict=True))
    assert picture.stat().st_size < 120_000
    assert len(tables(text)) == 2


def test_speed_prints_a_rate_for_every_kernel(tmp_path: Path) -> None:
    text, numbers = run("speed", tmp_path)
    lines, mapped = tables(text)
    assert len(lines) == 1 + len(numbers["timings"])
    # One case by three mappers; only the exhaustive ones have a memo to share and to find full.
    assert [line[1] for line in mapped[1:]] == ["`heuristic`", "`exhaustive:latency`", "`exhaustive:edp`"]
    assert [sum(cell != "" for cell in line[2:]) for line in mapped[1:]] == [3, 9, 9]
    reused = {(row["mapper"], row["sweep"], row["memo"]): row["reused"] for row in numbers["mapped"]}
    assert {share for (mapper, _, memo), share in reused.items() if memo == "again"} == {1.0}
    for mapper in ("exhaustive:latency", "exhaustive:edp"):
        assert reused[mapper, "lanes and pixel groups", "shared"] < reused[mapper, "bandwidth", "shared"]
    kernels = [row for row in numbers["timings"] if row["name"].startswith("kernel") and row["unit"] == "rows"]
    assert [row["work"] for row in kernels][:4] == [2_863, 2_727, 36_233, 36_224]


def test_exhaustive_mapper_is_never_worse_and_never_below_the_bound(tmp_path: Path) -> None:
    text, numbers = run("mapping", tmp_path)
    rows = numbers["rows"]
    assert len(rows) == (2 * 4 + 2) * 2
    fits = {(row["model"], row["preset"]): row["kept"] is not None for row in rows}
    assert [pair for pair, there in fits.items() if not there] == [
        ("efficientvit_b0", "nvdla_small"), ("efficientvit_b0", "vitcod_dense"), ("levit_128", "nvdla_small"),
    ]  # fmt: skip
    for row in (row for row in rows if row["kept"] is not None):
        assert row[row["kept"]] == min(row["heuristic"], row["exhaustive"])
        assert 0 < row["bound_cycles"] <= min(row["heuristic_cycles"], row["exhaustive_cycles"])
        assert row["fraction_placed"] == 1.0
    here, page = tables(text), tables(MAPPING_PAGE.read_text(encoding="utf-8"))
    titles = [line for line in text.splitlines() if line.startswith("### ")]
    ratios = {title: lines for title, lines in zip(titles, here, strict=True) if " over `heuristic`" in title}
    assert len(ratios) == 4
    headed = [line for line in MAPPING_PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("### ")]
    kept = dict(zip(headed, page, strict=True))
    for title, lines in ratios.items():
        known = {line[0]: dict(zip(kept[title][0], line, strict=True)) for line in kept[title]}
        for line in lines[1:-1]:
            assert [known[line[0]][preset] for preset in lines[0][1:]] == line[1:]


def test_cells_of_the_mapping_table_say_who_found_the_mapping() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from mapping import Row, cell
    finally:
        sys.path.pop(0)

    def shown(kept: str | None, heuristic: float | None, exhaustive: float | None) -> str:
        return cell(Row("m", "a", "p", "latency", kept, heuristic, exhaustive, None, None, None, 1, 1.0, 0.0))

    assert shown(None, None, None) == "–"
    assert shown("exhaustive", None, 5.0) == "*"
    assert shown("heuristic", 4.0, 5.0) == shown("heuristic", 4.0, None) == "="
    assert shown("exhaustive", 4.0, 3.0) == "0.75"


def test_exhaustive_cycles_beside_the_peers_are_those_of_the_page(tmp_path: Path) -> None:
    text, numbers = run("peers", tmp_path, "--mapper", "exhaustive")
    here, page = tables(text), tables(PAGE.read_text(encoding="utf-8"))
    _, own, _, rates = here
    systems = {f"**{line[0]}**" for line in own[1:] if "scalesim" not in line[0]}
    cycles = {line[0]: (line[1], line[3]) for line in here[0] if line[0] in systems}
    (beside, details) = ([t for t in page if t[0] == table[0]] for table in here[:2])
    assert {line[0]: (line[1], line[3]) for line in beside[1][1:]} == cycles
    assert [line[:3] for line in details[1][1:]] == [line[:3] for line in own[1:] if "scalesim" not in line[0]]
    assert [line[:4] for line in next(t for t in page if t[0] == rates[0])] == [line[:4] for line in rates]
    gemm = {row["system"]: row for row in numbers["rates"] if row["workload"] == "gemm"}
    # Every tile of 196 positions, its output on chip or not; with 256 KiB the weights pass in blocks, in two orders.
    assert (gemm["systolic ws, endless memory"]["mappings"], gemm["systolic ws"]["mappings"]) == (392, 784)


@pytest.fixture
def all_methods(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `python -m benchmarks.all_methods` prints, run in a folder."""

    def printed(folder: Path, *options: str | Path) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["all_methods", *map(str, options)])
        main()
        return capsys.readouterr().out

    return printed


def made_up_design(folder: Path, name: str, origin: str, plan: str, edp: float) -> dict[str, Any]:
    place = folder / "designs" / name
    place.mkdir(parents=True)
    (place / "plan.yaml").write_text(dump_plan(load_plan(plan)), encoding="utf-8")
    measured = {"top1": 0.94, "reference": 0.945, "images": 1000, "change": -0.005, "low": -0.01, "high": 0.001,
                "non_inferior": True, "discordant": 9}  # fmt: skip
    level = None if origin.startswith("uniform") else 0.01
    return {"id": name, "origin": origin, "level": level, "edp_pj_s": edp, "area_mm2": 0.5, "shift_share": 0.0,
            "average_weight_bits": 4.5, "on_front": True, "over_limits": [], "folder": f"designs/{name}",
            "validation": measured, "test": None}  # fmt: skip


def made_up_row(design: dict[str, Any], factor: float) -> dict[str, Any]:
    test = {"change": 0.001, "low": -0.002, "high": 0.004, "non_inferior": True}
    return {"baseline": design["origin"], "design": design["id"], "ours": "cd-0", "test": test, "low": -0.0065,
            "edp_ratio": factor * 100 / design["edp_pj_s"], "accuracy_change": 0.0005, "high": 0.0065}  # fmt: skip


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Three made-up studies: one network, two kinds of hardware, of the first one two seeds."""
    place, names = tmp_path_factory.mktemp("studies"), ["first", "second", "third"]
    for name, hardware, seed, factor in zip(names, ("plain", "plain", "wide"), (0, 1, 0), (1.0, 2.0, 1.0), strict=True):
        ours = made_up_design(place / name, "cd-0", "codesign", "m2q:0.25", 100.0)
        rivals = [made_up_design(place / name, one, one, one, 200.0) for one in ("uniform8", "uniform4")]
        ablated = made_up_design(place / name, "ws", "without_schemes", "w4a8", 125.0)
        result = {
            "name": f"all, net, {hardware}", "model": "net", "seed": seed, "best": "cd-0", "cloud": [{}] * 7,
            "seconds": {"search": 2.0}, "spec": {"final": {"margin_points": 0.5}},
            "bounds": [{"design": "cd-0", "gap": 0.07}], "designs": [ours, *rivals, ablated],
            "comparison": [made_up_row(one, 1.0) for one in rivals],
            "families": [{"family": "schemes", **made_up_row(ablated, factor)}],
        }  # fmt: skip
        (place / name / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return place, names


def test_tables_of_all_methods_have_every_rival_of_every_study(
    studies: tuple[Path, list[str]], all_methods: Callable[..., str]
) -> None:
    place, names = studies
    picture = place / "picture.png"
    best, baselines, families, limits, means, times = tables(all_methods(place, *names, "--picture", picture))
    keys = [["net", "plain"], ["net", "wide"]]
    assert [line[:4] for line in best[1:]] == [[*keys[0], seed, "cd-0"] for seed in "01"] + [[*keys[1], "0", "cd-0"]]
    assert {line[8] for line in best[1:]} == {"7%"}
    rivals = ["uniform8", "uniform4"]
    assert [line[:4] for line in baselines[1:]] == [
        [*key, name, n] for key, n in zip(keys, "21", strict=True) for name in rivals
    ]
    # Of two seeds the geometric mean, √(0.8 · 1.6), and the range.
    assert [line[:6] for line in families[1:]] == [
        [*keys[0], "schemes", "2", "125", "1.131 (0.800 … 1.600)"],
        [*keys[1], "schemes", "1", "125", "0.800"],
    ]
    assert [line[6:] for line in families[1:]] == [
        ["+0.05 (-0.65 … +0.65)", "+0.10 (-0.20 … +0.40)", f"{n} of {n}"] for n in (2, 1)
    ]
    assert "with powers of two" in best[1][9]
    # At equal limits: 100 / 125, whatever the accuracy.
    assert [line[2:] for line in limits[1:]] == [
        ["schemes", "2", "0.800"], ["schemes", "1", "0.800"],
    ]  # fmt: skip
    assert [line[1:3] for line in means[1:]] == [[name, "3"] for name in rivals]
    assert [line[:3] for line in times[1:]] == [line[:3] for line in best[1:]]
    assert picture.stat().st_size < 120_000


def test_figures_of_all_methods_are_kept_and_replaced(
    studies: tuple[Path, list[str]], tmp_path: Path, all_methods: Callable[..., str]
) -> None:
    place, names = studies
    kept, page = tmp_path / "kept.json", tmp_path / "page.md"
    page.write_text(ALL_METHODS_PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    all_methods(place, *names[:2], "--json", kept)
    all_methods(place, *names[1:], "--json", kept, "--page", page)
    filled = page.read_text(encoding="utf-8")
    assert len(json.loads(kept.read_text())) == 3
    assert [line for table in tables(all_methods(place, *names)) for line in table] == [
        line for table in tables(all_methods(place, "--json", kept)) for line in table
    ]
    assert {"| net | wide | schemes |" in filled, "cd-0" in filled} == {True}
    all_methods(place, "--json", kept, "--page", page)
    assert page.read_text(encoding="utf-8") == filled


def test_the_page_of_all_methods_has_a_place_for_every_table() -> None:
    page = ALL_METHODS_PAGE.read_text(encoding="utf-8")
    for name in blocks([]):
        assert page.count(f"<!-- {name} -->") == page.count(f"<!-- /{name} -->") == 1, name
        assert page.index(f"<!-- {name} -->") < page.index(f"<!-- /{name} -->")


def test_examples_over_all_options_are_named_by_network_and_hardware() -> None:
    names = [yaml.safe_load(file.read_text())["name"] for file in (ROOT / "examples").glob("codesign_all_*.yaml")]
    pairs = {tuple(name.split(", ")[-2:]) for name in names}
    assert len(pairs) == len(names) == 6
    assert [len({pair[k] for pair in pairs}) for k in range(2)] == [2, 3]
