"""Networks beyond EfficientViT-B and DeiT: published sizes, the structure behind them, and that they run."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import evaluate
from accelsim.config import load_accelerator, load_plan
from accelsim.counts import ENGINE_COUNTS, MAX_MODES, count_columns
from accelsim.ir import VECTOR_KINDS, OpKind, Recipe, Tensor
from accelsim.problems import AccelsimError
from accelsim.workloads import build_workload, describe, recipes
from accelsim.workloads.builder import WorkloadBuilder

with (Path(__file__).parent / "data" / "more_model_sizes.csv").open(newline="") as stream:
    ROWS = list(csv.DictReader(stream))
MODELS = tuple(dict.fromkeys(row["model"] for row in ROWS))


def counts(recipe: Recipe) -> dict[str, int]:
    return {str(kind): n for kind, n in zip(VECTOR_KINDS, recipe.operations(), strict=True) if n}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']}-{row['resolution']}")
def test_published_sizes(row):
    facts = describe(row["model"], int(row["resolution"]))
    assert facts["params"] == int(row["params"])
    if row["model"] != "fastvit_t8":
        assert f"{facts['params'] / 1e6:.2f}" == row["params_m"]
    # The source also counts norm and softmax work, and prints two decimals.
    published = float(row["gmacs"])
    assert 0.97 * (published - 0.005) <= facts["macs"] / 1e9 <= published + 0.005


def test_usual_resolutions():
    assert {name: describe(name)["resolution"] for name in MODELS} == {
        name: 256 if name in ("mobilevit_s", "fastvit_t8") else 224 for name in MODELS
    }


def test_training_form_of_fastvit_has_the_published_parameters():
    """Unfold every convolution into the branches it came from; w: outputs, n: weights per output, r: its 1 × 1 form."""
    workload = build_workload("fastvit_t8")
    total = 0
    for op in workload.ops:
        kept = op.params
        if op.loop and op.op_class != "fc":
            w, per_output, r = op.loop.groups * op.loop.cols, op.loop.reduction, op.loop.depth
            branch, scale, identity = per_output + 2, r + 2, 2
            name = op.name.split(".")[-1]
            if name in ("conv1", "conv2", "conv"):
                kept = w * (branch + scale)
            elif name in ("conv3", "pw"):
                kept = w * (branch + identity)
            elif name == "large":
                kept = w * (branch + 9 * r + 2)
            elif name == "mixer":
                # Mixer with three branches, a BatchNorm to subtract, a layer scale.
                kept = w * (branch + scale + identity + 2 + 1)
            elif name == "dw7":
                kept = w * branch
            else:
                assert name in ("fc1", "fc2")
        total += kept
    assert f"{total / 1e6:.2f}" == next(row["params_m"] for row in ROWS if row["model"] == "fastvit_t8")
    assert total > workload.params


@pytest.mark.parametrize("model", MODELS)
def test_ops_stay_within_what_the_tables_hold(model):
    workload = build_workload(model)
    for op in workload.ops:
        assert len(op.inputs) <= 2
        assert all(len(workload.storage_of(name)) <= 2 for name in op.inputs)
        assert op.recipe is None or len(op.recipe.passes) <= 4
    stored = {t.name for t in workload.tensors if not t.aliases}
    read = {
        root for op in workload.ops if op.kind is not OpKind.VIEW for i in op.inputs for root in workload.storage_of(i)
    }
    assert stored - read == {workload.output}


@pytest.mark.parametrize(("stage", "heads", "side"), [(0, 3, 56), (1, 6, 28), (2, 12, 14), (3, 24, 7)])
def test_swin_attends_within_windows(stage, heads, side):
    workload = build_workload("swin_tiny")
    op = workload.op_by_name[f"s{stage}.b1.scores"]
    assert op.loop is not None
    assert (op.loop.groups, op.loop.rows, op.loop.cols, op.loop.depth) == (heads * side**2 // 49, 49, 49, 32)
    assert workload.op_by_name[f"s{stage}.b1.bias"].params == 169 * heads
    assert workload.tensor_by_name[f"s{stage}.b1.qkv"].h == 49


def test_swin_work_grows_with_the_area():
    small, large = build_workload("swin_tiny", 224), build_workload("swin_tiny", 448)
    fixed = small.macs_by_class()["fc"]
    assert large.macs - fixed == 4 * (small.macs - fixed)
    assert large.params == small.params


def test_mobilevit_attends_between_equal_places_of_patches():
    workload = build_workload("mobilevit_s")
    op = workload.op_by_name["s4.t3.scores"]
    assert op.loop is not None
    assert (op.loop.groups, op.loop.rows, op.loop.cols, op.loop.depth) == (16, 64, 64, 48)
    assert workload.storage_of("s4.concat") == ("s4.down.proj", "s4.narrow")
    assert sum(op.op_class == "softmax" for op in workload.ops) == 2 + 4 + 3
    assert {op.activation for op in workload.ops} == {"", "silu"}


def test_levit_shrinks_by_attention_with_fewer_queries():
    ops = build_workload("levit_128").op_by_name
    shapes = {}
    for name in ("s1.down.scores", "s2.down.scores", "s2.b3.scores"):
        loop = ops[name].loop
        assert loop is not None
        shapes[name] = (loop.groups, loop.rows, loop.cols, loop.depth)
    assert shapes == {
        "s1.down.scores": (8, 49, 196, 16), "s2.down.scores": (16, 16, 49, 16), "s2.b3.scores": (12, 16, 16, 16),
    }  # fmt: skip
    assert ops["s1.down.bias"].params == 8 * 196
    assert ops["s0.b0.values"].activation == "hardswish"
    assert (ops["head"].bn_channels, ops["head"].params) == (384, 384 * 1000 + 1000 + 2 * 384)


def test_efficientvit_large_blocks():
    ops = build_workload("efficientvit_l1").op_by_name
    assert {name: ops[name].loop.groups for name in ("s3.down.dw", "s3.b0.mb.dw", "s4.down.dw", "s4.b5.mb.dw")} == {
        "s3.down.dw": 16 * 128, "s3.b0.mb.dw": 4 * 256, "s4.down.dw": 24 * 256, "s4.b5.mb.dw": 6 * 512,
    }  # fmt: skip
    assert (ops["s1.down.spatial"].weights, ops["s1.down.spatial"].bn_channels) == (9 * 32 * 512, 512)
    assert (ops["s3.down.dw"].bias, ops["s3.down.dw"].bn_channels) == (2048, 0)
    assert [op.name for op in ops.values() if op.op_class == "ktv"] == [f"s4.b{k}.KtV" for k in range(6)]
    assert ops["stem.res0.conv1"].activation == ops["head.conv"].activation == "gelu"


def test_efficientformer_mixes_by_pooling_except_in_the_last_block():
    workload = build_workload("efficientformer_l1")
    mixers = [op.name for op in workload.ops if op.op_class == "pool_mixer"]
    assert len(mixers) == 3 + 2 + 6 + 3
    scores = [op for op in workload.ops if op.op_class == "attn_scores"]
    assert [op.name for op in scores] == ["s3.b3.scores"]
    assert scores[0].macs == 8 * 49 * 49 * 32
    assert workload.op_by_name["s0.b0.mlp_add"].params == 48


@settings(max_examples=20, deadline=None)
@given(*(st.integers(1, 5) for _ in range(4)))
def test_recipe_operations(groups, rows_h, rows_w, width):
    n = groups * rows_h * rows_w * width
    bias = counts(recipes.bias_add(groups, rows_h, rows_w, width))
    assert bias == {"mul": n, "add": 2 * n, "shift": n, "compare": 2 * n, "table": n}
    m = groups * rows_h * rows_w
    mixer = recipes.pool_mixer(groups, rows_h, rows_w)
    assert counts(mixer) == {"mul": 2 * m, "add": 11 * m, "shift": 2 * m, "compare": 2 * m}
    gate = {"mul": 2 * m, "add": m, "shift": m, "compare": 2 * m}
    assert counts(recipes.gate(groups, rows_h, rows_w)) == gate
    assert counts(recipes.gate(groups, rows_h, rows_w, "gelu")) == {**gate, "table": m}
    assert (mixer.tiles_rows, mixer.tiles_groups) == (False, True)


def gated(factors: int) -> WorkloadBuilder:
    net = WorkloadBuilder("gated", 4, in_channels=6)
    y = net.conv("factors", "fc", net.view("corner", (net.input,), 1, 1, 6), factors)
    net.vector("gate", "gate", (net.input, y), recipes.gate(6, 4, 4), Tensor("gate", 4, 4, 6))
    return net


def test_a_gate_has_one_factor_per_channel():
    assert gated(6).build("gate").op_by_name["gate"].inputs == ("image", "factors")
    with pytest.raises(AccelsimError, match="'factors' has another size"):
        gated(5).build("gate")


def test_only_a_recipe_cut_along_channels_may_read_a_factor_per_channel():
    workload = gated(6).build("gate")
    recipe = workload.op_by_name["gate"].recipe
    assert recipe is not None
    net = WorkloadBuilder("gated", 4, in_channels=6)
    y = net.conv("factors", "fc", net.view("corner", (net.input,), 1, 1, 6), 6)
    net.vector("gate", "gate", (net.input, y), replace(recipe, tiles_rows=True), Tensor("gate", 4, 4, 6))
    with pytest.raises(AccelsimError, match="'factors' has another size"):
        net.build("gate")


def test_a_layout_keeps_the_elements():
    net = WorkloadBuilder("layout", 4)
    net.conv("a", "pw", net.input, 8, layout=(4, 1, 30))
    with pytest.raises(AccelsimError, match="the nest makes 128 elements, the output has 120"):
        net.build("a")


@pytest.mark.parametrize("model", MODELS)
def test_runs_with_one_mebibyte_of_activations(model):
    base = load_accelerator("trio_vit")
    buffer = replace(base.activation_buffer, capacity_bits=8 * 2**20)
    report = evaluate(model, None, base.replace(activation_buffer=buffer), load_plan("uniform8"))
    columns = count_columns(report.accelerator)
    products = [
        columns.index(f"{engine.name}.{name}")
        for engine in report.accelerator.engines
        for name in ENGINE_COUNTS[:MAX_MODES]
    ]
    assert int(report.result.counts[:, products].sum()) == build_workload(model).macs
    assert report.result.cycles_total >= report.bound.cycles


def test_a_function_of_the_output_stage_is_a_table():
    report = evaluate("fastvit_t8", None, load_accelerator("trio_vit"), load_plan("uniform8"))
    ops = [item.op.name for item in report.table.quantized.ops]
    columns = count_columns(report.accelerator)
    lookups = [k for k, name in enumerate(columns) if name.endswith(".table_lookups")]
    for name, expected in (("final.excite", 768), ("final.squeeze", 0), ("stem.conv3", 48 * 64 * 64)):
        assert int(report.result.counts[ops.index(name), lookups].sum()) == expected
