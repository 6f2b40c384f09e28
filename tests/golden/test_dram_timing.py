"""The banked DRAM gives the latencies and peaks of published configurations, unloaded and in long streams."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accelsim.arch import BankedDram
from accelsim.config import load_accelerator
from accelsim.dram import DramDevice, device_names, load_device
from accelsim.technology import load_technology, read_csv
from tests.support.hand_programs import hand_program
from tests.support.kernel import run_kernel_with_dram

with open(Path(__file__).parent / "data" / "dram_timing.csv", encoding="utf-8") as stream:
    GOLDEN = {row["device"]: row for row in csv.DictReader(line for line in stream if not line.startswith("#"))}
# gem5 LPDDR5_6400_1x16_8B_BL32, which counts in ns and never rounds to clocks.
LPDDR5_NS = {"row_hit_ns": 26.25, "row_closed_ns": 44.25, "row_conflict_ns": 62.25}
NEVER = 1 << 40


def moved(
    made: DramDevice, *transfers: tuple[int, int, int, int], refresh: bool = False
) -> tuple[list[Any], list[int]]:
    """Times of reads (base, run, runs, stride; in bursts) back to back, one tick per device clock, and the counts."""
    if not refresh:
        made = replace(made, trefi_nck=NEVER)
    size = made.burst_bits
    rows = [
        {"unit": "dram", "write": "xy"[k % 2], "address": (base * size, run * size, runs, stride * size)}
        for k, (base, run, runs, stride) in enumerate(transfers)
    ]
    program = hand_program(("dram",), {"x": (0, 0, 8), "y": (0, 8, 8)}, rows, 1, made.timing(1, 1))
    result, state = run_kernel_with_dram(program)
    return result[-1][:, :3].tolist(), state[:4]


def latencies_nck(made: DramDevice) -> dict[str, int]:
    """From the first command to the last beat; the row of a conflict has been open for long."""
    stripe = made.bank_groups * made.row_bursts
    row = stripe * made.banks_per_group
    (closed,), _ = moved(made, (0, 1, 1, 0))
    long = (0, stripe, 1, 0)
    (first, hit), counts = moved(made, long, (0, 1, 1, 0))
    assert counts == [stripe + 1 - made.bank_groups, made.bank_groups, 0, 0]
    (_, conflict), counts = moved(made, long, (row, 1, 1, 0))
    assert counts[2] == 1
    assert hit[0] == conflict[0] == first[1]
    return {
        "row_hit_ns": hit[2] - hit[0],
        "row_closed_ns": closed[2] - closed[0],
        "row_conflict_ns": conflict[2] - conflict[0],
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_unloaded_latency(name: str) -> None:
    golden = GOLDEN[name]
    for kind, clocks in latencies_nck(load_device(name)).items():
        assert clocks * float(golden["tCK_ns"]) == pytest.approx(float(golden[kind]), abs=0.006), kind


def test_unloaded_latency_of_lpddr5_rounds_every_part_up_to_a_clock() -> None:
    for parts, (kind, clocks) in enumerate(latencies_nck(load_device("LPDDR5-6400")).items()):
        assert LPDDR5_NS[kind] <= clocks * 1.25 < LPDDR5_NS[kind] + 1.25 * (parts + 1e-9)


@pytest.mark.parametrize("name", GOLDEN)
def test_parameters_are_those_of_the_configuration(name: str) -> None:
    made, golden = load_device(name), GOLDEN[name]
    for column in ("CL", "CWL", *(name for name in golden if name.startswith("t") and name != "tCK_ns")):
        if column in ("tRC_ns",):
            continue
        assert getattr(made, f"{column.lower()}_nck") == int(float(golden[column])), column
    assert made.burst_length == float(golden["BL"])
    assert made.bus_bits == float(golden["bus_bits"])
    assert made.tras_nck + made.trp_nck == pytest.approx(float(golden["tRC_ns"]) / float(golden["tCK_ns"]))
    # The configurations round tCK to 0.83 ns, so their peak is 0.4 % high.
    assert made.bandwidth_bits_per_s / 8e9 == pytest.approx(float(golden["peak_GBps"]), rel=0.005)


@pytest.mark.parametrize("name", device_names())
def test_a_long_stream_runs_at_the_peak_less_the_refreshes(name: str) -> None:
    made = load_device(name)
    n = 200_000
    ((start, free, _),), counts = moved(made, (3, n, 1, 0))
    assert start == 0
    # Exactly one burst a slot behind the first rows: no rounding, no later row in the way.
    first_rows = made.trcd_nck + (made.bank_groups - 1) * max(0, made.trrd_s_nck - made.slot_nck)
    assert free == first_rows + n * made.slot_nck
    assert sum(counts[:3]) == n
    ((_, free, _),), (*_, refreshes) = moved(made, (3, n, 1, 0), refresh=True)
    share = n * made.slot_nck / free
    assert share < 1 - made.trfc_nck / made.trefi_nck + 0.001
    # Around a refresh: drain, precharge, and the rows of all groups again.
    around = made.trtp_nck + made.trp_nck + made.trcd_nck + made.trrd_l_nck * made.bank_groups + made.tras_nck
    assert share > 1 - (made.trfc_nck + around) / made.trefi_nck - 0.001
    assert refreshes == pytest.approx(free / made.trefi_nck, abs=2)


@pytest.mark.parametrize("name", device_names())
def test_single_bursts_in_one_bank_are_limited_by_trc(name: str) -> None:
    made = load_device(name)
    row = made.bank_groups * made.row_bursts * made.banks_per_group
    times, _ = moved(made, *((k * row, 1, 1, 0) for k in range(20)))
    free = [end for _, end, _ in times]
    trc = made.tras_nck + made.trp_nck
    read_to_read = made.trcd_nck + max(made.slot_nck, made.trtp_nck) + made.trp_nck
    assert set(np.diff(free)) == {max(trc, read_to_read)}


@pytest.mark.parametrize("name", device_names())
def test_single_bursts_in_all_banks_are_limited_by_the_activates(name: str) -> None:
    made = load_device(name)
    groups = made.bank_groups
    # One burst of every group, then the next bank of each: a new row for every burst.
    free = {n: moved(made, (0, groups, n // groups, groups * made.row_bursts))[0][0][1] for n in (256, 512)}
    per_four = max(
        made.tfaw_nck,
        4 * made.trrd_s_nck,
        4 * made.trrd_l_nck // groups,
        4 * made.slot_nck,
        4 * (made.tras_nck + made.trp_nck) // (groups * made.banks_per_group),
    )
    assert free[512] - free[256] == 256 // 4 * per_four


def test_every_number_of_a_device_has_a_source() -> None:
    for row in read_csv("dram_timing.csv"):
        assert row["source"]
        assert row["evidence"] in ("published simulator data", "derived", "definition")
        assert row["energy_type"] in load_technology(28).dram_pj_per_bit


@pytest.mark.parametrize("name", device_names())
def test_devices_are_accepted_and_have_an_energy(name: str) -> None:
    made = load_device(name)
    assert not list(made.faults())
    dram = BankedDram(name, 2)
    assert dram.bandwidth_bits_per_s == 2 * made.bandwidth_bits_per_s
    assert dram.burst_bits == 2 * made.burst_bits
    assert load_technology(28).dram_pj_per_bit[dram.type].value > 0


@pytest.mark.parametrize(
    ("preset", "base"),
    [
        ("m2vit_ddr4_banked", "m2vit"),
        ("m2vit_lpddr5_banked", "m2vit"),
        ("m2vit_hbm2_banked", "m2vit"),
        ("trio_vit_lpddr4_banked", "trio_vit"),
    ],
)
def test_banked_presets_differ_in_dram_only(preset: str, base: str) -> None:
    design, other = load_accelerator(preset), load_accelerator(base)
    assert design.replace(name=base, dram=other.dram) == other
    assert isinstance(design.dram, BankedDram)
