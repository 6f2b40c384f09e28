"""What a space with methods, two regions, parts and tokens offers, and the plans of its choices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from accelsim.config import load_accelerator
from accelsim.formats import Scheme
from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.token_rules import sliced_ops
from accelsim.workloads.registry import build_workload
from codesign.allocate.families import FAMILIES, LEARNED, without
from codesign.allocate.options import OptionSettings, OptionSpace, option_space
from codesign.allocate.stored_choices import head_counts
from codesign.allocate.switches import TOKENS
from tests.support.option_spaces import ALL, able, glyph_vit, random_selection, space_of_all
from tests.support.penalty_fakes import fake_penalties, fake_penalties_of_all

ARCH = "bitfusion_edge"


def names_of(space: OptionSpace, function: str) -> tuple[str, ...]:
    """Choices of the last group of a function's output."""
    found = [op.name for op in space.workload.ops if op.op_class == function and op.name in space.group_formats]
    return space.group_formats[found[-1]]


def test_a_softmax_has_formats_by_methods_and_log2_codes_of_one() -> None:
    names = names_of(space_of_all(ARCH, False), "softmax")
    plain = {name for name in names if name.startswith("u")}
    assert plain == {f"u{bits}+{method}" for bits in (8, 6, 4) for method in ("ivit", "ibert")}
    assert {name for name in names if name.startswith("log")} == {"log4+fqvit"}
    regions = [name for name in names if name.startswith("r")]
    assert len(regions) == 4
    assert all(name[2] == "p" for name in regions)
    assert names[0] == "u8+ivit"


def test_a_method_that_is_not_asked_for_is_not_offered_and_none_means_real_numbers() -> None:
    one = space_of_all(ARCH, False, replace(ALL, methods=("ibert",)))
    assert {name.partition("+")[2] for name in names_of(one, "softmax")} == {"ibert"}
    assert {name.partition("+")[2] for name in names_of(one, "layernorm")} == {"ibert"}
    real = space_of_all(ARCH, False, replace(ALL, methods=()))
    assert not any("+" in name for group in real.group_formats.values() for name in group)
    only = space_of_all(ARCH, False, replace(ALL, methods=("fqvit",)))
    assert names_of(only, "softmax") == ("log4+fqvit",)
    assert only.start.groups[next(op.name for op in only.workload.ops if op.op_class == "softmax")] == "log4+fqvit"


def test_parts_are_those_that_lose_least_and_add_up() -> None:
    space = space_of_all(ARCH, False)
    for group, by_format in space.penalties.parts.items():
        losses = np.array(by_format["u4"])
        found = {name: one for name, one in space.stored[group].items() if one.heads is not None}
        assert list(found) == [f"u8/u4x{n}" for n in head_counts(len(losses), ALL.head_mixtures)]
        for name, choice in found.items():
            assert choice.heads is not None
            narrow = [k for k, bits in enumerate(choice.heads.bits) if bits == 4]
            wide = [k for k, bits in enumerate(choice.heads.bits) if bits == 8]
            assert len(narrow) + len(wide) == len(losses)
            assert name == f"u8/u4x{len(narrow)}"
            assert losses[narrow].max() <= losses[wide].min()
            assert space.group_penalties[group][name] == pytest.approx(losses[narrow].sum())


def test_equal_losses_take_the_first_parts() -> None:
    workload = glyph_vit(False)
    table = fake_penalties_of_all(workload)
    table = replace(table, parts={name: {"u4": (0.5,) * len(one["u4"])} for name, one in table.parts.items()})
    space = option_space(workload, table, load_accelerator(ARCH), replace(ALL, head_mixtures=1))
    for name in table.parts:
        parts = len(table.parts[name]["u4"])
        heads = space.stored[name][f"u8/u4x{parts // 2}"].heads
        assert heads is not None
        assert heads.bits == (4,) * (parts // 2) + (8,) * (parts - parts // 2)


@pytest.mark.parametrize(("parts", "most"), [(18, 3), (9, 3), (9, 1), (3, 5), (1, 3), (12, 0)])
def test_numbers_of_narrow_parts_leave_some_of_each(parts: int, most: int) -> None:
    counts = head_counts(parts, most)
    assert len(counts) <= most
    assert len(set(counts)) == len(counts)
    assert all(0 < n < parts for n in counts)
    assert counts == tuple(sorted(counts))
    assert (parts - 1 in counts) or most < 2 or parts < 2


def test_a_ranked_network_has_tokens_and_no_parts() -> None:
    space = space_of_all(ARCH, True)
    assert not any(one.heads for choices in space.stored.values() for one in choices.values())
    layers = [name for name in space.switches if name.startswith(TOKENS)]
    assert layers
    # 17 tokens: half of them, and a quarter.
    assert all(space.switches[name] == ("full", "8", "4") for name in layers)
    assert space.start.switches == dict.fromkeys(layers, "full")
    for op in space.workload.ops:
        if op.op_class == "rank":
            assert op.name not in space.group_of
            assert space.plan(space.start).rule_for(op).output.name == "u6"


def test_tokens_are_in_the_uniform_outputs_of_their_layer_only() -> None:
    space = space_of_all(ARCH, True)
    name = next(name for name in space.switches if name.startswith(TOKENS))
    layer = name.removeprefix(TOKENS)
    chosen = replace(space.start, switches={**space.start.switches, name: "4"})
    plan = space.plan(chosen)
    grouped = {rule.match for rule in plan.rules if rule.tokens is not None}
    assert grouped == set(sliced_ops(space.workload, layer))
    assert {rule.tokens.high for rule in plan.rules if rule.tokens} == {4}
    apply_plan(space.workload, plan)
    gelu = next(op for op in space.workload.ops if op.activation == "gelu" and op.name in grouped)
    regions = next(name for name in space.group_formats[gelu.name] if name.startswith("r"))
    plan = space.plan(replace(chosen, groups={**chosen.groups, gelu.name: regions}))
    rule = plan.rule_for(gelu)
    assert rule.tokens is None
    assert rule.output.scheme is Scheme.TWO_REGION
    apply_plan(space.workload, plan)


def test_tokens_that_cannot_lose_the_bits_are_infeasible() -> None:
    workload = glyph_vit(True)
    table = fake_penalties_of_all(workload, drop_bits=4)
    space = option_space(workload, table, load_accelerator(ARCH), replace(ALL, drop_bits=4))
    name = next(name for name in space.switches if name.startswith(TOKENS))
    op = sliced_ops(workload, name.removeprefix(TOKENS))[0]
    group = space.group_of[op]
    narrow = next(n for n, one in space.stored[group].items() if one.format.name == "u4")
    chosen = replace(
        space.start, groups={**space.start.groups, group: narrow}, switches={**space.start.switches, name: "4"}
    )
    with pytest.raises(InfeasibleError, match="no number format"):
        space.plan(chosen)
    with pytest.raises(AccelsimError, match="drop_bits"):
        option_space(workload, table, load_accelerator(ARCH), ALL)


@pytest.mark.parametrize("ranked", [False, True])
def test_plans_of_random_choices_are_legal_and_nearest_to_their_choice(ranked: bool) -> None:
    space = space_of_all("m2vit", ranked)
    rng = np.random.default_rng(5)
    for change in (0.0, 0.3, 1.0, 1.0, 1.0, 1.0):
        chosen = random_selection(space, rng, change)
        for channels in (True, False):
            plan = space.plan(chosen, channels=channels)
            apply_plan(space.workload, plan)
            assert space.nearest(plan) == chosen


def test_the_nearest_choice_to_a_plan_from_elsewhere() -> None:
    """Heads of other widths go to the closest mean width, filters to the closest bits, other values to the base."""
    space = space_of_all(ARCH, False)
    group = next(iter(space.penalties.parts))
    parts = len(space.penalties.parts[group]["u4"])
    fewest = f"u8/u4x{head_counts(parts, ALL.head_mixtures)[0]}"
    chosen = replace(space.start, groups={**space.start.groups, group: fewest})
    plan = space.plan(chosen)
    other = tuple(
        replace(rule, heads=replace(rule.heads, bits=(5,) * (parts // 3) + (8,) * (parts - parts // 3)))
        if rule.heads
        else rule
        for rule in plan.rules
    )
    assert space.nearest(replace(plan, rules=other)).groups[group] == fewest
    one = space.ops[0]
    rules = tuple(
        replace(rule, weights=(replace(rule.weights[0], format=replace(rule.weights[0].format, bits=3)),))
        if rule.match == one.op
        else rule
        for rule in plan.rules
    )
    picked = space.nearest(replace(plan, rules=rules)).options[one.op]
    assert one.counts[picked, ALL.weight_formats.index("u4")] == one.counts[picked].sum()
    assert space.nearest(replace(plan, division="log2_shift")).switches == space.start.switches


def test_the_division_is_a_switch_where_something_divides() -> None:
    hybrid = build_workload("glyph_hybrid_narrow")
    space = option_space(hybrid, fake_penalties(hybrid), load_accelerator(ARCH))
    assert space.switches == {"division": ("divide", "log2_shift")}
    chosen = replace(space.start, switches={"division": "log2_shift"})
    assert space.plan(chosen).division == "log2_shift"
    assert space.penalty(chosen) == pytest.approx(1e-3)
    assert "division" not in space_of_all(ARCH, False).switches


def offered(space: OptionSpace) -> set[tuple[str, str]]:
    """Everything that can be chosen."""
    formats = space.settings.weight_formats
    found = {("group " + name, choice) for name, choices in space.group_formats.items() for choice in choices}
    found |= {(name, value) for name, values in space.switches.items() for value in values}
    for one in space.ops:
        for row in one.counts.tolist():
            used = [(name, count) for name, count in zip(formats, row, strict=True) if count]
            found.add((f"op {one.op}", str(used)))
    return found


def belongs(family: str, space: OptionSpace, place: str, choice: str) -> bool:
    """Whether a choice is of a family, by its name."""
    return {
        "schemes": place.startswith("op ") and "pot" in choice,
        "channels": place.startswith("op ") and choice.count("(") > 1,
        "regions": place.startswith("group ") and choice.startswith("r"),
        "methods": place.startswith("group ") and "+" in choice and not choice.endswith(f"+{ALL.methods[0]}"),
        "heads": "/" in choice,
        "tokens": place.startswith(TOKENS),
        LEARNED: False,
    }[family]


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_taking_a_family_away_removes_exactly_its_choices(family: str, ranked: bool) -> None:
    whole = space_of_all("m2vit", ranked)
    less = space_of_all("m2vit", ranked, without(ALL, family))
    expected = {(place, choice) for place, choice in offered(whole) if not belongs(family, whole, place, choice)}
    assert offered(less) == expected


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"methods": ("ivitt",)}, "options.methods"), ({"head_formats": ("u8",)}, "options.head_formats"),
        ({"head_formats": ("apot8",)}, "options.head_formats"), ({"token_shares": (1.5,)}, "options.token_shares"),
        ({"token_shares": (0.5,), "drop_bits": 0}, "options.token_shares"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(changed: dict[str, object], match: str) -> None:
    with pytest.raises(AccelsimError, match=match):
        replace(OptionSettings(), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"methods": ("ivit", "table")}, "lacks the method table"),
        ({"head_formats": ("u4", "u3")}, "lacks parts of tensors in u3"),
    ],
)
def test_what_a_table_was_not_measured_with_is_named(changed: dict[str, object], match: str) -> None:
    workload = glyph_vit(False)
    settings = replace(ALL, **changed)  # type: ignore[arg-type]
    with pytest.raises(AccelsimError, match=match):
        option_space(workload, fake_penalties_of_all(workload), able("m2vit"), settings)


def test_methods_need_a_table_with_methods() -> None:
    workload = glyph_vit(False)
    with pytest.raises(AccelsimError, match="lacks the method ivit"):
        option_space(workload, fake_penalties(workload), able("m2vit"), replace(ALL, methods=("ivit",)))


@pytest.mark.parametrize(
    ("changed", "match"),
    [({"methods": ("fqvit",)}, "no codes by fqvit"), ({"token_shares": (0.75,)}, "has no 13 full tokens")],
)
def test_a_ranked_network_needs_uniform_shares_and_counts_of_the_table(changed: dict[str, object], match: str) -> None:
    workload = glyph_vit(True)
    settings = replace(ALL, **changed)  # type: ignore[arg-type]
    with pytest.raises(AccelsimError, match=match):
        option_space(workload, fake_penalties_of_all(workload), able("m2vit"), settings)
