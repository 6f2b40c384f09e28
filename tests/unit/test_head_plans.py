"""A head at another width: the changed plan is legal, keeps every range, and changes nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.channels import Channels
from accelsim.config import load_plan
from accelsim.formats import Format
from accelsim.head_plans import attention_layers, head_at, head_channels
from accelsim.plan import WeightShare, apply_plan
from accelsim.workloads.registry import build_workload
from tests.support.head_plans import HEADS, head_plan, small_vit

LAYER = attention_layers(small_vit())[0]


@pytest.mark.parametrize(("model", "layers"), [("deit_tiny", 12), ("glyph_vit", 4), ("swin_tiny", 0), ("levit_128", 0)])
def test_layers_of_plain_vision_transformers(model: str, layers: int) -> None:
    """Others have windows or interleaved heads."""
    workload = build_workload(model, None)
    found = attention_layers(workload)
    assert len(found) == layers
    for layer in found:
        assert head_channels(layer, layer.heads - 1)[-1] + 1 == workload.tensor_by_name[layer.qkv.output].channels


@given(st.integers(0, 99), st.integers(0, HEADS - 1), st.integers(2, 16))
@settings(max_examples=30, deadline=None)
def test_one_head_has_the_new_widths_and_the_others_theirs(seed: int, head: int, bits: int) -> None:
    """Ranges of aligned parts stay: shift + width differs between two parts by as much as before."""
    plan = head_plan(small_vit(), seed)
    changed = apply_plan(small_vit(), head_at(plan, LAYER, head, bits))
    old = {item.op.name: item for item in apply_plan(small_vit(), plan).ops}
    for item in changed.ops:
        before = old[item.op.name]
        for own, was in ((item.heads, before.heads), (item.weight_heads, before.weight_heads)):
            assert (own is None) == (was is None)
            if own is None or was is None:
                continue
            mine = {third * HEADS + head for third in range(3)} if item.op.name.startswith("b0") else set()
            for part, width in enumerate(own.bits):
                assert width == (bits if part in mine else was.bits[part])
            if own.shifts and max(own.shifts) < 15:
                tops = {
                    own.bits[part] + own.shifts[part] - was.bits[part] - was.shifts[part]
                    for part in range(len(own.bits))
                }
                assert len(tops) == 1
                assert min(own.shifts) == 0


def test_a_plan_without_widths_gets_some() -> None:
    """Uniform widths become parts; at their own width nothing but the form changes."""
    plan = load_plan("w4a8")
    quantized = apply_plan(small_vit(), head_at(plan, LAYER, 1, 4))
    items = {item.op.name: item for item in quantized.ops}
    assert items["b0.qkv"].heads is not None
    assert items["b0.qkv"].heads.bits == (8, 4, 8) * 3
    assert items["b0.values"].heads is not None
    assert items["b0.values"].heads.shifts == (0, 4, 0)
    assert items["b0.proj"].weight_heads is not None
    assert items["b0.proj"].weight_heads.bits == (4, 4, 4)
    assert [share.format.name for share in items["b0.qkv"].weights] == ["u4"]
    assert items["b1.qkv"].heads is None


def test_filters_of_a_head_move_to_the_new_format() -> None:
    """Channels of q, k and v; other channels, and formats that are not uniform, stay."""
    own = head_channels(LAYER, 2)
    assert own == [*range(16, 24), *range(40, 48), *range(64, 72)]
    plan = load_plan("uniform8")
    named = (
        WeightShare(Format.parse("u4"), channels=Channels.of(range(20))),
        WeightShare(Format.parse("apot8"), channels=Channels.of(range(20, 72))),
    )
    rule = replace(plan.rule_for(LAYER.qkv), match=LAYER.qkv.name, weights=named)
    changed = head_at(replace(plan, rules=(rule, *plan.rules)), LAYER, 2, 6).rule_for(LAYER.qkv)
    found = {share.format.name: share.channels.indices.tolist() for share in changed.weights if share.channels}
    assert found == {"u4": list(range(16)), "apot8": list(range(20, 72)), "u6": [16, 17, 18, 19]}
