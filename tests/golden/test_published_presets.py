"""Presets after published designs: their geometry, what they can run, and what is published beside what we count."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from accelsim.api import evaluate
from accelsim.arch import EngineKind
from accelsim.area import engine_area_mm2
from accelsim.config import load_accelerator, load_plan
from accelsim.energy import Convention
from accelsim.engines.tile import tile_cost
from accelsim.formats import Format
from accelsim.ir import Loop
from accelsim.problems import InfeasibleError
from accelsim.unit_energy import engine_unit_energies
from tests.support.commands import ROOT, cli

U8 = Format.parse("u8")
KIB = 8192
PAGE = (ROOT / "docs" / "accelerators.md").read_text(encoding="utf-8")


def run(preset: str, model: str):
    return evaluate(model, None, load_accelerator(preset), load_plan("uniform8"))


# --- nvdla_small ---------------------------------------------------------------------------------------------------


def traces():
    text = (Path(__file__).parent / "data" / "nvdla_nv_small_rtl.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        shape = re.match(r"dc_\d+x\d+x(\d+)_(\d+)x(\d+)x\d+x(\d+)", row["trace"])
        yield row["trace"], tuple(map(int, shape.groups())), int(row["rtl_cycles"]), int(row["out_bytes"])


@pytest.mark.parametrize(("trace", "shape", "rtl_cycles", "out_bytes"), list(traces()))
def test_nvdla_small_counts_the_published_compute_floor(trace, shape, rtl_cycles, out_bytes):
    channels, r, s, k = shape
    pixels = out_bytes // (-(-k // 8) * 8)
    (engine,) = load_accelerator("nvdla_small").engines
    tile = Loop(groups=1, rows_h=1, rows_w=pixels, cols=k, depth=channels, kernel_h=r, kernel_w=s)
    cycles = tile_cost(engine, tile, U8, U8).occupancy_cycles
    assert cycles == pixels * r * s * -(-channels // 8) * -(-k // 8)
    assert cycles <= rtl_cycles
    assert f"| {trace.removeprefix('dc_').removesuffix('_int8_0')} | {cycles:,} | {rtl_cycles:,} |" in PAGE


def test_nvdla_small_geometry_and_what_it_runs():
    design = load_accelerator("nvdla_small")
    assert [(e.lanes, e.lane_width, e.pixel_groups) for e in design.engines] == [(8, 8, 1)]
    assert design.activation_buffer.capacity_bits + design.weight_buffer.capacity_bits == 128 * KIB
    assert design.dram.bandwidth_bits_per_s == 64 * design.clock_hz
    assert run("nvdla_small", "swin_tiny").result.cycles_total > 0
    with pytest.raises(InfeasibleError, match="in depthwise mode"):
        run("nvdla_small", "efficientvit_b1")
    with pytest.raises(InfeasibleError, match="does not fit the activation buffer"):
        run("nvdla_small", "deit_small")


# --- vitcod_dense --------------------------------------------------------------------------------------------------


def test_vitcod_dense_has_the_constants_of_its_simulator():
    design = load_accelerator("vitcod_dense")
    assert [engine.slots for engine in design.engines] == [64 * 8]
    assert design.clock_hz == 500_000_000
    assert design.dram.bandwidth_bits_per_s == 8 * 76_800_000_000
    assert design.activation_buffer.capacity_bits == (53 + 108) * KIB
    assert design.weight_buffer.capacity_bits == 2 * 53 * KIB


def test_vitcod_dense_runs_plain_transformers_only():
    report = run("vitcod_dense", "deit_small")
    # 512 multipliers cannot be faster than their MACs.
    assert report.result.cycles_total > report.table.quantized.workload.macs / 512
    with pytest.raises(InfeasibleError, match="in depthwise mode"):
        run("vitcod_dense", "efficientvit_b1")


# --- bitfusion_256 --------------------------------------------------------------------------------------------------


def test_bitfusion_256_geometry_and_energy_are_the_benchmarks():
    design = load_accelerator("bitfusion_256")
    (engine,) = design.engines
    assert engine.kind == EngineKind.COMPOSABLE_ARRAY
    assert (engine.slots, design.clock_hz, design.node_nm) == (256, 1_000_000_000, 28)
    prices = engine_unit_energies(engine, 28, design.clock_hz, Convention.SYNTHESIZED)
    # pJ per MAC of BitFusion at 1 GHz, the same file as the prices, rounded.
    by_mode = {(mode.weight_bits, mode.activation_bits): pj for mode, pj in zip(engine.modes, prices, strict=False)}
    published = {(8, 8): 1.122, (4, 8): 0.544, (2, 8): 0.270, (4, 4): 0.266, (2, 2): 0.065}
    for mode, pj in published.items():
        assert by_mode[mode] == pytest.approx(pj, rel=0.01)


def test_bitfusion_256_area_is_the_benchmarks_at_200_mhz():
    (engine,) = load_accelerator("bitfusion_256").engines
    parts = engine_area_mm2(engine, 28)
    slots = round(parts["slots"] * 1e6)
    assert slots == pytest.approx(180_674, abs=2)  # the array at 200 MHz
    assert f"{slots:,} µm² against 185,925 µm²" in PAGE


# --- all of them ---------------------------------------------------------------------------------------------------


def test_trio_vit_beside_its_published_throughput():
    report = run("trio_vit", "efficientvit_b1")
    macs, seconds = report.table.quantized.workload.macs, report.result.cycles_total / 200e6
    gops = 2 * macs / seconds / 1e9
    assert f"{gops:.0f} GOPS against 780.2 GOPS" in PAGE
    assert gops < 780.2 < 2 * 2048 * 200e6 / 1e9


@pytest.mark.parametrize("preset", ["nvdla_small", "vitcod_dense", "bitfusion_256"])
def test_check_and_fit_take_the_name(tmp_path, preset):
    found = cli(tmp_path, "check", preset, "--fit")
    assert f"{preset}: no faults" in found.stdout
    fitting = {"nvdla_small": 6, "vitcod_dense": 13, "bitfusion_256": 24}[preset]
    assert f"{fitting} of 24 built-in networks fit {preset}" in found.stdout
