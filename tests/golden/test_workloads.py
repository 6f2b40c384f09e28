"""Networks against published sizes, the layer list of EfficientViT-B1 and the checks of the builder."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.ir import VECTOR_KINDS, OpKind, Recipe, Workload
from accelsim.plan import QuantPlan, Rule, apply_plan
from accelsim.problems import AccelsimError
from accelsim.workloads import build_workload, describe, model_names, recipes, register
from accelsim.workloads.builder import WorkloadBuilder, check_workload

DATA = Path(__file__).parent / "data"
CLASS_OF = {"CONV": ("stem",), "DW": ("dw",), "PW": ("pw", "head_conv"), "GPW": ("gconv",),
            "MATMUL": ("ktv", "q_ktv"), "FC": ("fc",)}  # fmt: skip


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def counts(recipe: Recipe) -> dict[str, int]:
    return {str(kind): n for kind, n in zip(VECTOR_KINDS, recipe.operations(), strict=True) if n}


def test_b1_layers_match_the_golden_list_in_order():
    golden = rows("efficientvit_b1_224_layers.csv")
    array_ops = [op for op in build_workload("efficientvit_b1").ops if op.loop]
    assert [op.name for op in array_ops] == [row["name"] for row in golden]


@pytest.mark.parametrize("row", rows("efficientvit_b1_224_layers.csv"), ids=lambda row: row["name"])
def test_b1_layer(row):
    workload = build_workload("efficientvit_b1", 224)
    op = workload.op_by_name[row["name"]]
    loop = op.loop
    assert loop is not None
    golden = {key: int(row[key]) for key in ("Ci", "Co", "K", "S", "groups", "Hin", "Hout", "MACs", "weights")}
    assert op.op_class in CLASS_OF[row["cls"]]
    assert (op.macs, op.weights, loop.groups) == (golden["MACs"], golden["weights"], golden["groups"])
    assert workload.tensor_by_name[op.output].elements == int(row["out_elems"])
    if op.kind is OpKind.CONV:
        shape = (loop.groups * loop.depth, loop.groups * loop.cols, loop.kernel_h, loop.stride, loop.in_h, loop.rows_h)
        assert shape == tuple(golden[key] for key in ("Ci", "Co", "K", "S", "Hin", "Hout"))
        assert workload.tensor_by_name[op.inputs[0]].elements == int(row["in_elems"])
    else:
        assert (loop.depth, loop.cols) == (golden["Ci"], golden["Co"])
        right = loop.groups * loop.depth * (loop.cols - loop.right_implicit_cols)
        assert loop.groups * loop.rows * loop.depth + right == int(row["in_elems"])


@pytest.mark.parametrize("row", rows("efficientvit_mac_split.csv"), ids=lambda r: f"{r['model']}-{r['resolution']}")
def test_mac_split(row):
    facts = describe(row["model"], int(row["resolution"]))
    classes = ("stem", "dw", "pw", "gconv", "ktv", "q_ktv", "head_conv", "fc")
    assert tuple(facts["macs_by_class"]) == classes
    assert {name: f"{facts['macs_by_class'][name] / 1e6:.2f}" for name in classes} == {n: row[n] for n in classes}
    assert f"{facts['macs'] / 1e6:.1f}" == row["total"]


@pytest.mark.parametrize("row", rows("model_sizes.csv"), ids=lambda row: row["model"])
def test_published_sizes(row):
    facts = describe(row["model"])
    assert facts["resolution"] == 224
    assert facts["params"] == int(row["params"])
    assert f"{facts['params'] / 1e6:.3f}" == row["params_m"]
    assert facts["macs"] / 1e9 == pytest.approx(float(row["gmacs_224"]), rel=float(row["gmacs_tolerance"]))


def test_every_model_has_a_golden_size():
    assert set(model_names()) >= {row["model"] for row in rows("model_sizes.csv")}
    assert len(rows("model_sizes.csv")) == 8


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["efficientvit_b0", "efficientvit_b1"]), st.integers(6, 14))
def test_linear_attention_work_is_proportional_to_pixels(model, multiple):
    usual, other = build_workload(model, 224), build_workload(model, 32 * multiple)
    fixed = usual.macs_by_class()["fc"]
    assert (other.macs - fixed) * 49 == (usual.macs - fixed) * multiple**2
    assert other.params == usual.params


@pytest.mark.parametrize(("model", "resolution", "quadratic"), [
    ("efficientvit_b1", 160, ""), ("efficientvit_b1", 128, "s4"), ("efficientvit_b1", 64, "s3 s4"),
    ("efficientvit_b2", 192, ""), ("efficientvit_b2", 160, "s4"),
])  # fmt: skip
def test_quadratic_attention_below_the_limit(model, resolution, quadratic):
    workload = build_workload(model, resolution)
    stages = {op.name.split(".")[0] for op in workload.ops if op.op_class == "attn_scores"}
    linear = {op.name.split(".")[0] for op in workload.ops if op.op_class == "ktv"}
    assert stages == set(quadratic.split())
    assert linear == {"s3", "s4"} - stages


def test_quadratic_attention_counts():
    workload = build_workload("efficientvit_b1", 128)
    heads, tokens, dim = 2 * 256 // 16, 16, 16
    assert workload.op_by_name["s4.b0.scores"].macs == heads * tokens * tokens * dim
    assert workload.op_by_name["s4.b0.values"].macs == heads * tokens * tokens * dim
    normalize = workload.op_by_name["s4.b0.normalize"].recipe
    assert normalize is not None
    n = heads * tokens * tokens
    assert counts(normalize) == {"mul": n, "add": 2 * n, "shift": n, "division": heads * tokens}


def test_learned_and_folded_parameters_of_efficientvit_blocks():
    ops = build_workload("efficientvit_b1").op_by_name
    assert (ops["s1.mb0.expand"].bias, ops["s1.mb0.expand"].bn_channels) == (0, 64)
    assert (ops["s3.down.dw"].bias, ops["s3.down.dw"].bn_channels) == (256, 0)
    assert (ops["s3.down.proj"].bias, ops["s3.down.proj"].bn_channels) == (0, 128)
    assert (ops["s3.b0.qkv"].bias, ops["s3.b0.qkv"].bn_channels) == (0, 0)
    assert (ops["s3.b0.aggr.dw5"].params, ops["s3.b0.aggr.pwg"].params) == (9600, 6144)
    assert (ops["head.fc1"].bias, ops["head.fc2"].bias, ops["head.norm"].params) == (0, 1000, 3200)
    assert [ops[n].activation for n in ("stem.conv", "stem.ds0.dw", "stem.ds0.pw", "s1.mb0.expand", "s1.mb0.proj")] == [
        "hardswish", "hardswish", "", "hardswish", ""]  # fmt: skip


def test_vit_graph_reads_one_token_and_slices_of_qkv():
    workload = build_workload("deit_tiny")
    ops = workload.op_by_name
    assert workload.tensor_by_name["norm"].elements == 192
    assert ops["b0.scores"].inputs == ("b0.qkv", "b0.qkv")
    assert ops["b0.scores"].macs == ops["b0.values"].macs == 197 * 197 * 192
    assert ops["embed"].params == 198 * 192
    assert workload.storage_of("class_token") == ("b11.mlp_add",)
    assert workload.graph().number_of_nodes() == len(workload.ops)


def test_concat_keeps_both_roots_alive_until_the_values_are_read():
    workload = build_workload("efficientvit_b1")
    index = {op.name: k for k, op in enumerate(workload.ops)}
    assert workload.storage_of("s3.b0.concat") == ("s3.b0.qkv", "s3.b0.aggr.pwg")
    lifetimes = workload.lifetimes()
    assert lifetimes["s3.b0.qkv"] == (index["s3.b0.qkv"], index["s3.b0.KtV"])
    assert lifetimes["s3.b0.aggr.pwg"] == (index["s3.b0.aggr.pwg"], index["s3.b0.KtV"])


@settings(max_examples=30, deadline=None)
@given(*(st.integers(1, 5) for _ in range(4)))
def test_recipe_operations(groups, rows_h, rows_w, width):
    shape = (groups, rows_h, rows_w, width)
    r = groups * rows_h * rows_w
    n = r * width
    assert counts(recipes.residual_add(*shape)) == {"mul": 2 * n, "add": 3 * n, "shift": 2 * n, "compare": 2 * n}
    assert counts(recipes.elementwise_add(*shape)) == {"mul": n, "add": 2 * n, "shift": n, "compare": 2 * n}
    assert counts(recipes.relu(*shape)) == {"compare": n}
    base = recipes.division(*shape)
    shift = recipes.division_recipe(base, "log2_shift")
    assert shift == base
    assert counts(shift) == {"mul": n, "add": n, "shift": 2 * n + r, "compare": 2 * n + r}
    true = recipes.division_recipe(base, "divide")
    assert counts(true) == {"mul": n, "add": n, "shift": n, "compare": 2 * n, "division": n}
    assert (true.elements, true.tiles_rows, true.tiles_groups) == (n, base.tiles_rows, base.tiles_groups)
    soft = recipes.softmax(*shape)
    assert len(soft.passes) == 3
    assert counts(soft) == {"mul": n, "add": 2 * n, "shift": n, "compare": n, "table": n, "division": r}
    pool = recipes.average_pool(groups, width)
    positions = groups * width
    expected = {"mul": groups, "add": positions + groups, "shift": groups, "compare": 2 * groups}
    assert counts(pool) == expected
    m = rows_h * width
    norm = counts(recipes.layernorm(rows_h, width))
    assert norm == {"mul": 3 * m + 2 * rows_h, "add": 4 * m, "shift": m + rows_h, "compare": 2 * m, "table": rows_h}
    after = counts(recipes.layernorm(rows_h, width, table_after="hardswish"))
    assert after == {**norm, "table": rows_h + m}


def test_unknown_division_method():
    with pytest.raises(AccelsimError, match="divide or log2_shift"):
        recipes.division_recipe(recipes.division(1, 1, 1, 1), "newton")


@pytest.mark.parametrize("method", ["divide", "log2_shift"])
def test_plan_chooses_the_division_of_linear_attention(method):
    workload = build_workload("efficientvit_b1")
    quantized = apply_plan(workload, QuantPlan("all8", (Rule("*"),), division=method))
    chosen = [item.op.recipe for item in quantized.ops if item.op.op_class == "division"]
    assert len(chosen) == 7
    assert {recipe.name for recipe in chosen if recipe} == {f"division_{method}"}
    assert chosen[0] is not None
    assert chosen[0].elements == 14 * 14 * 256


def test_unknown_model_names_the_closest_and_all():
    with pytest.raises(AccelsimError) as caught:
        build_workload("efficentvit_b1")
    assert "did you mean 'efficientvit_b1'?" in str(caught.value)
    assert all(name in str(caught.value) for name in model_names())


@pytest.mark.parametrize(("model", "resolution"), [
    ("efficientvit_b1", 0), ("efficientvit_b1", -32), ("efficientvit_b1", 240), ("efficientvit_b1", True),
    ("efficientvit_b1", 224.0), ("deit_tiny", 230), ("deit_tiny", 0),
])  # fmt: skip
def test_bad_resolution(model, resolution):
    with pytest.raises(AccelsimError, match="positive multiple of"):
        build_workload(model, resolution)


def test_builds_are_cached_and_resolutions_differ():
    assert build_workload("deit_tiny") is build_workload("deit_tiny", 224)
    assert build_workload("deit_tiny", 240).fingerprint() != build_workload("deit_tiny").fingerprint()


def test_a_name_is_registered_once():
    with pytest.raises(AccelsimError, match="already registered"):
        register("deit_tiny", 224)(lambda resolution: build_workload("deit_tiny", resolution))


def test_op_names_are_unique_in_the_builder():
    net = WorkloadBuilder("twice", 8)
    net.conv("a", "pw", net.input, 4)
    with pytest.raises(AccelsimError, match="already taken"):
        net.conv("a", "pw", net.input, 4)


def with_op(workload: Workload, name: str, **changes: object) -> Workload:
    ops = tuple(replace(op, **changes) if op.name == name else op for op in workload.ops)
    return replace(workload, ops=ops)


def with_loop(workload: Workload, name: str, **changes: int) -> Workload:
    return with_op(workload, name, loop=replace(workload.op_by_name[name].loop, **changes))


def with_recipe(workload: Workload, name: str, **changes: int) -> Workload:
    return with_op(workload, name, recipe=replace(workload.op_by_name[name].recipe, **changes))


FAULTS: dict[str, tuple[Callable[[Workload], Workload], str]] = {
    "missing producer": (lambda w: replace(w, ops=w.ops[1:]), "'stem.conv' is not produced earlier"),
    "wrong order": (lambda w: replace(w, ops=w.ops[::-1]), "not produced earlier"),
    "two producers": (lambda w: replace(w, ops=(*w.ops, w.ops[-1])), "two producers"),
    "same tensor twice": (lambda w: replace(w, tensors=(*w.tensors, w.tensors[0])), "two tensors"),
    "output": (lambda w: replace(w, output="nothing"), "never produced"),
    "nest output": (lambda w: with_loop(w, "s1.mb0.dw", cols=2), "the nest makes"),
    "conv input": (lambda w: with_loop(w, "s1.mb0.expand", depth=8), "reads one tensor of"),
    "conv geometry": (lambda w: with_loop(w, "s1.mb0.dw", padding=0), "do not give"),
    "weights": (lambda w: with_op(w, "head.fc1", weights=1), "it has 1 weights"),
    "matmul operand": (lambda w: with_loop(w, "s3.b0.KtV", depth=1960), "operand needs"),
    "matmul inputs": (lambda w: with_op(w, "s3.b0.KtV", inputs=("s3.b0.relu",)), "two inputs"),
    "no nest": (lambda w: with_op(w, "stem.conv", loop=None), "needs a loop nest"),
    "no recipe": (lambda w: with_op(w, "head.pool", recipe=None), "needs a recipe"),
    "recipe output": (lambda w: with_recipe(w, "s3.b0.division", width=15), "the recipe makes"),
    "recipe input": (lambda w: with_recipe(w, "head.norm", width=3200), "the recipe visits"),
    "residual size": (lambda w: with_op(w, "s1.mb1.add", inputs=("s1.mb1.proj", "s2.mb0.dw")), "another size|earlier"),
    "skip size": (lambda w: with_op(w, "s1.mb1.add", inputs=("s1.mb1.proj", "s1.mb0.expand")), "another size"),
    "view storage": (lambda w: with_op(w, "s3.b0.concat", inputs=("s3.b0.qkv",)), "shares the storage"),
    "no input": (lambda w: with_op(w, "head.fc2", inputs=()), "no input"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_inconsistent_workloads_are_rejected(fault):
    good = build_workload("efficientvit_b1")
    check_workload(good)
    change, message = FAULTS[fault]
    with pytest.raises(AccelsimError, match=message):
        check_workload(change(good))
