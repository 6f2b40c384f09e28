"""The authors' cycle model: golden integers, every quirk corrected alone, agreement with the workloads."""

from __future__ import annotations

import csv
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.analysis.trio_vit_model import (
    ALL,
    MULTIPLIERS,
    NONE,
    Quirks,
    _fused_cycles,
    authors_cycles,
    quirk_contributions,
)
from accelsim.problems import AccelsimError
from accelsim.workloads import build_workload

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs" / "workloads.md"


def golden() -> list[dict[str, str]]:
    with (HERE / "data" / "trio_vit_cycles.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("row", golden(), ids=lambda row: f"{row['model']}-{row['resolution']}")
def test_exact_cycles_and_macs(row):
    counted = authors_cycles(row["model"], int(row["resolution"]))
    assert (counted.cycles, counted.macs) == (int(row["cycles"]), int(row["macs"]))
    assert f"{counted.utilization:.4f}" == row["utilization"]
    assert f"{counted.gops:.1f}" == row["gops"]


def test_published_throughput_is_within_half_a_percent():
    # arXiv 2403.20230 (EfficientViT-FPGA): 780.2 GOPS at 200 MHz with 2048 products per cycle, peak 819.2.
    assert authors_cycles("efficientvit_b1", 224).gops == pytest.approx(780.2, rel=0.005)


@pytest.mark.parametrize("model", ["efficientvit_b0", "efficientvit_b1", "efficientvit_b2", "efficientvit_b3"])
@pytest.mark.parametrize("resolution", [224, 288])
def test_all_quirks_corrected_counts_the_macs_of_the_workload(model, resolution):
    assert authors_cycles(model, resolution, NONE).macs == build_workload(model, resolution).macs


@pytest.mark.parametrize("model", ["efficientvit_b1", "efficientvit_b2"])
def test_contributions(model):
    table = {row.quirk: row for row in quirk_contributions(model, 224)}
    classes = build_workload(model).macs_by_class()
    assert list(table) == [item.name for item in fields(Quirks)] + ["all"]
    base = authors_cycles(model, 224)
    for row in table.values():
        assert row.corrected.cycles == base.cycles + row.cycles_change
        assert row.corrected.macs == base.macs + row.macs_change
    # C is a multiple of 16 everywhere, so exchanging C and 2C in the ceilings changes nothing.
    assert table["projection_swapped"].cycles_change == 0
    assert table["group_conv_macs_missing"].macs_change == classes["gconv"]
    assert table["group_conv_macs_missing"].cycles_change == 0
    assert table["head_missing"].macs_change == classes["head_conv"] + classes["fc"]
    ones = 1 + (16 if model == "efficientvit_b1" else 32)
    attention = classes["ktv"] + classes["q_ktv"]
    assert table["ones_column_missing"].macs_change == attention // ones
    assert table["ones_column_missing"].cycles_change > 0
    assert table["fused_progress_truncated"].cycles_change < 0
    assert table["fused_drain_missing"].cycles_change > 0
    assert table["all"].corrected == authors_cycles(model, 224, NONE)


def test_head_cycles_by_hand():
    # 1536/16 · 256/8 · 49 + 1600/16 · 1536/8 + ceil(1000/16) · 1600/8
    by_hand = 96 * 32 * 49 + 100 * 192 + 63 * 200
    corrected = authors_cycles("efficientvit_b1", 224, replace(ALL, head_missing=False))
    assert corrected.cycles - authors_cycles("efficientvit_b1", 224).cycles == by_hand


def test_grouped_convolution_matters_where_the_depthwise_part_no_longer_hides_it():
    corrected = replace(ALL, group_conv_c_outputs=False)
    assert authors_cycles("efficientvit_b1", 224, corrected).cycles == authors_cycles("efficientvit_b1", 224).cycles
    assert authors_cycles("efficientvit_b2", 224, corrected).cycles > authors_cycles("efficientvit_b2", 224).cycles


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.sampled_from([3, 5]),
    st.integers(1, 16),
    st.integers(2, 24),
    st.integers(1, 12),
    st.booleans(),
    st.booleans(),
)
def test_fused_block_lies_between_work_and_serial_execution(edge, kernel, lanes, blocks, steps, truncated, drained):
    channels, cols, depth = 8 * lanes, 16 * (blocks // 2 + 1), 8 * steps
    quirks = replace(ALL, fused_progress_truncated=truncated, fused_drain_missing=drained)
    setup = lanes * kernel**2
    depthwise = -(-edge // 8) * edge * setup
    product = cols // 16 * steps * edge**2
    total = _fused_cycles(quirks, edge, kernel, channels, cols, depth)
    assert max(depthwise, product) <= total <= depthwise + product
    # One of two arrays works on the product from `setup` to the end of the depthwise part, then both do.
    assert 2 * (total - depthwise) >= 2 * product - (depthwise - setup)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["efficientvit_b1", "efficientvit_b2"]), st.integers(7, 16), st.booleans(), st.booleans())
def test_no_array_does_more_than_one_product_per_multiplier_and_cycle(model, multiple, truncated, drained):
    quirks = replace(ALL, fused_progress_truncated=truncated, fused_drain_missing=drained)
    counted = authors_cycles(model, 32 * multiple, quirks)
    assert counted.macs <= counted.cycles * MULTIPLIERS
    assert counted.utilization == counted.macs / (counted.cycles * MULTIPLIERS)
    assert counted.gops == pytest.approx(819.2 * counted.utilization)


@pytest.mark.parametrize(("model", "resolution", "message"), [
    ("deit_tiny", 224, "does not cover 'deit_tiny'"),
    ("efficientvit_b1", 225, "multiple of 32"),
    ("efficientvit_b1", 128, "needs 17 positions in stage 4, has 16"),
    ("efficientvit_b2", 160, "linear attention only"),
])  # fmt: skip
def test_errors(model, resolution, message):
    with pytest.raises(AccelsimError, match=message):
        authors_cycles(model, resolution)


def test_the_documented_table_is_what_the_model_says():
    text = DOCS.read_text(encoding="utf-8")
    b1, b2 = (quirk_contributions(model, 224) for model in ("efficientvit_b1", "efficientvit_b2"))
    for first, second in zip(b1, b2, strict=True):
        cells = [f"{first.quirk}", f"{first.cycles_change:+,}", f"{first.corrected.gops:.1f}",
                 f"{second.cycles_change:+,}", f"{second.corrected.gops:.1f}"]  # fmt: skip
        assert "| " + " | ".join(cells) + " |" in text
