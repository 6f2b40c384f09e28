"""Head widths of a plan: files, what the readers get, and every plan that is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim import config
from accelsim.config import load_plan
from accelsim.formats import Format, accumulator_bits_needed
from accelsim.head_checks import aligned_sum_bits
from accelsim.head_forms import has_heads
from accelsim.head_widths import HeadWidths, without_heads
from accelsim.optable import S_STORED, build_op_table
from accelsim.plan import QuantPlan, Rule, WeightShare, apply_plan
from accelsim.problems import AccelsimError
from accelsim.token_groups import TokenGroups
from accelsim.workloads.registry import build_workload
from tests.support.config_files import fault_of, plan_data, write
from tests.support.head_plans import DIM, HEADS, head_plan, small_vit

WIDTHS = st.lists(st.integers(2, 16), min_size=1, max_size=6)
ALIGNED = (8, 4, 4)


def of(name: str, **changes: Any) -> QuantPlan:
    """The plan of 8 bits with a rule of its own for one op."""
    plan = load_plan("uniform8")
    rule = replace(plan.rule_for(small_vit().op_by_name[name]), match=name, **changes)
    return replace(plan, rules=(rule, *plan.rules))


@given(WIDTHS, WIDTHS, st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_plan_survives_its_file(tmp_path_factory: Any, own: list[int], filters: list[int], shifts: bool) -> None:
    """Every field, with shifts and without; plans without widths say nothing of them."""
    heads = HeadWidths(tuple(own), tuple(range(len(own))) if shifts else ())
    plan = of("b0.values", heads=heads, weight_heads=HeadWidths(tuple(filters)))
    path: Path = write(tmp_path_factory.mktemp("plan"), config.dump_plan(plan))
    assert config.load_plan(path) == plan
    assert config.load_plan(path).fingerprint() == plan.fingerprint() != load_plan("uniform8").fingerprint()
    assert without_heads(plan).to_json() == replace(plan, rules=tuple(map(bare, plan.rules))).to_json()
    assert "heads" not in config.dump_plan(without_heads(plan))


def bare(rule: Rule) -> Rule:
    """A rule with no head widths."""
    return replace(rule, heads=None, weight_heads=None)


@pytest.mark.parametrize(
    ("value", "field", "what"),
    [
        ({"bits": [8, 1]}, "bits[1]", "found 1"),
        ({"bits": [17]}, "bits[0]", "found 17"),
        ({"bits": []}, "bits", "the list has 0 entries"),
        ({"bits": [8, 4], "shifts": [0, 16]}, "shifts[1]", "found 16"),
        ({"bits": [8, 4], "shifts": [-1, 0]}, "shifts[0]", "found -1"),
        ({"bits": [8, 4], "shifts": [1]}, "shifts", "1 shifts for 2 parts"),
        ({"shifts": [1]}, "bits", "the field is missing"),
    ],
)
@pytest.mark.parametrize("name", ["heads", "weight_heads"])
def test_faults_of_the_fields(name: str, value: dict[str, Any], field: str, what: str) -> None:
    """Each with its path."""
    data = plan_data()
    data["rules"][0][name] = value
    problem = fault_of(data, "plan")
    assert (problem.where, problem.what) == (f"here: rules[0].{name}.{field}", what)


def test_readers_get_their_third_and_their_parts() -> None:
    """q, k and v of a product, shares of attention, parts of the projection's inputs."""
    ops = {item.op.name: item for item in apply_plan(small_vit(), head_plan(small_vit(), 5)).ops}
    qkv = ops["b0.qkv"].heads
    assert qkv is not None
    assert ops["b0.scores"].left_heads == HeadWidths(qkv.bits[:HEADS])
    assert ops["b0.scores"].right_heads == HeadWidths(qkv.bits[HEADS : 2 * HEADS])
    assert ops["b0.values"].left_heads == ops["b0.softmax"].heads
    assert ops["b0.values"].right_heads == HeadWidths(qkv.bits[2 * HEADS :])
    assert ops["b0.proj"].left_heads == ops["b0.values"].heads
    assert ops["b0.norm2"].left_heads is None


@pytest.mark.parametrize(
    ("name", "changes", "what"),
    [
        ("b0.qkv", {"heads": (8, 4, 4, 4, 4)}, "5 parts of 72 channels"),
        ("b0.qkv", {"heads": (8, 4)}, "b0.scores has 3 heads for 2 parts"),
        ("b0.qkv", {"heads": (8, 4, 4)}, "b0.scores reads 8 channels of a head, a part has 24"),
        ("b0.qkv", {"heads": (4,) * 9}, "the widest part has 4 bits, the format is u8"),
        ("b0.qkv", {"heads": (8,) * 9, "granularity": "channel_scale"}, "of an output with channel_scale"),
        ("b0.softmax", {"heads": (8, 4)}, "2 parts for 3 heads"),
        ("b0.softmax", {"heads": (4, 4, 3), "output": Format.parse("log4")}, "parts of log4 codes"),
        ("b0.softmax", {"heads": (4, 4, 3), "output": Format.parse("r4p2")}, "parts of r4p2 codes"),
        ("b0.values", {"heads": (8, 4, 4)}, "b0.proj sums parts of 8 and 4 bits without `shifts`"),
        ("b0.values", {"heads": (8, 4)}, "2 parts for 3 heads"),
        ("b0.scores", {"heads": (8, 4, 4)}, "b0.softmax, a vector op, reads them"),
        ("b0.norm1", {"heads": (8, 4, 4)}, "a vector op makes them"),
        ("b0.fc1", {"heads": (8, 4)}, "b0.fc2 sums parts of 8 and 4 bits"),
        ("head", {"heads": (8,)}, "the output of the network has head widths"),
        ("b0.proj", {"weight_heads": (8, 4, 4)}, "a sum over parts of 8 and 4 bits without `shifts`"),
        ("b0.proj", {"weight_heads": (8,) * 5}, "5 parts of 24 inputs"),
        ("b0.proj", {"weight_heads": (4,) * 3}, "the widest part has 4 bits"),
        ("b0.scores", {"weight_heads": (8,) * 3}, "not an ungrouped linear layer"),
        ("patch_embed", {"weight_heads": (8,)}, "a layer whose filters have one tap"),
        ("b0.softmax", {"weight_heads": (8,)}, "not an ungrouped linear layer"),
        (
            "b0.proj",
            {
                "weight_heads": (8,) * 3,
                "weights": (WeightShare(Format.parse("u8"), 0.5), WeightShare(Format.parse("u4"), 0.5)),
            },
            "filters of 2 formats",
        ),
    ],
)
def test_what_is_refused(name: str, changes: dict[str, Any], what: str) -> None:
    """A problem that names the op and the field."""
    given_ = {key: HeadWidths(value) if key.endswith("heads") else value for key, value in changes.items()}
    with pytest.raises(AccelsimError) as caught:
        apply_plan(small_vit(), of(name, **given_))
    field = "weight_heads" if "weight_heads" in changes else "heads"
    text = str(caught.value)
    assert f"{name}: {field}: " in text
    assert what in text or what in "".join(f"{p.what}; {p.expected}" for p in caught.value.problems)


def test_parts_of_filters_are_those_of_the_activations() -> None:
    """A sum over three heads with filters in two parts has no parts."""
    plan = of("b0.values", heads=HeadWidths(ALIGNED, (0, 4, 4)))
    both = of("b0.proj", weight_heads=HeadWidths((8, 4), (0, 4)))
    with pytest.raises(AccelsimError, match="2 parts of the filters, 3 of the activations"):
        apply_plan(small_vit(), replace(plan, rules=(*both.rules[:1], *plan.rules)))


def test_tokens_and_heads_do_not_meet() -> None:
    """One problem for the plan."""
    plan = of("b0.values", heads=HeadWidths(ALIGNED, (0, 4, 4)))
    tokens = replace(plan.rules[-1], match="b1.fc1", tokens=TokenGroups("b1", 3))
    with pytest.raises(AccelsimError, match="`tokens` and head widths in one plan"):
        apply_plan(small_vit(), replace(plan, rules=(*plan.rules[:1], tokens, *plan.rules[1:])))


@pytest.mark.parametrize("model", ["swin_tiny", "levit_128"])
def test_other_layouts_of_heads_are_refused(model: str) -> None:
    """Windows and interleaved heads: a list of reasons, not a program."""
    workload, plan = build_workload(model, None), load_plan("uniform8")
    name = next(op.name for op in workload.ops if op.op_class == "qkv")
    rules = (Rule(name, heads=HeadWidths((8,) * 12)), *plan.rules)
    with pytest.raises(AccelsimError, match=f"{name}: heads: "):
        apply_plan(workload, replace(plan, rules=rules))


def test_equal_widths_without_shifts_are_legal_everywhere() -> None:
    """Parts of one width have one step unless shifts say otherwise."""
    plan = of("b0.values", heads=HeadWidths((8, 8, 8)))
    table = build_op_table(apply_plan(small_vit(), plan))
    assert has_heads(table)
    assert not has_heads(build_op_table(apply_plan(small_vit(), without_heads(plan))))


@given(st.lists(st.integers(2, 8), min_size=HEADS, max_size=HEADS))
@settings(max_examples=10, deadline=None)
def test_filters_are_stored_in_the_sum_of_their_parts(bits: list[int]) -> None:
    """Every filter has DIM / 3 weights of each part."""
    widths = HeadWidths(tuple(bits), tuple(max(bits) - one for one in bits))
    share = (WeightShare(Format.parse(f"u{max(bits)}")),)
    table = build_op_table(apply_plan(small_vit(), of("b0.proj", weight_heads=widths, weights=share)))
    k = table.op_names.index("b0.proj")
    assert table.slices[k, 0, S_STORED] == DIM // HEADS * sum(bits)


@given(st.integers(2, 8), st.integers(2, 8))
@settings(max_examples=10, deadline=None)
def test_aligned_sums_of_one_width_are_plain_sums(a: int, w: int) -> None:
    """The bits of accumulators without parts; a part that is shifted by n needs no more than n bits on top."""
    left, right = Format.parse(f"u{a}"), Format.parse(f"u{w}")
    plain = accumulator_bits_needed(left, right, DIM)
    for shifts in ((0, 0, 0), (0, 5, 0)):
        plan = of("b0.values", heads=HeadWidths((a,) * 3, shifts), output=left)
        filters = of("b0.proj", weights=(WeightShare(right),)).rules[:1]
        table = build_op_table(apply_plan(small_vit(), replace(plan, rules=(*filters, *plan.rules))))
        found = aligned_sum_bits(table, table.op_names.index("b0.proj"), 0)
        assert found == plain if not any(shifts) else plain < found <= plain + max(shifts)
