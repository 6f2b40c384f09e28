"""Options of a plan: lane breakpoints, formats that engines execute, plans and their predicted loss."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace

import numpy as np
import pytest

from accelsim.arch import Accelerator
from accelsim.config import load_accelerator
from accelsim.ir import Workload
from accelsim.mappers.choice import mapper_of
from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError
from accelsim.workloads.registry import build_workload
from codesign.allocate.feedback import LoopSettings
from codesign.allocate.option_counts import breakpoints, lane_step
from codesign.allocate.options import OptionSettings, OptionSpace, option_space
from codesign.loop.arms import random_choice
from codesign.loop.designs import PlanMaker
from codesign.loop.variants import PLAIN, Variant
from quant.penalties.table import PenaltyTable
from quant.penalties.weights_only import workload_penalties

FORMATS = ("u8", "u6", "u4", "apot8")


def space_on(accelerator: Accelerator, model: str = "glyph_hybrid_narrow", mixtures: int = 7) -> OptionSpace:
    workload = build_workload(model)
    penalties = workload_penalties(workload, FORMATS)
    return option_space(workload, penalties, accelerator, OptionSettings(FORMATS, ("u8",), mixtures=mixtures))


def test_breakpoints_fill_the_lanes_of_one_format_or_the_other() -> None:
    assert breakpoints(20, 8, 6) == [4, 6, 12, 18]
    assert breakpoints(8, 8, 8) == []


def test_a_step_is_the_lanes_times_the_products_of_the_format() -> None:
    m2vit = load_accelerator("m2vit")
    op = build_workload("glyph_hybrid_narrow").op_by_name["s4.mb0.expand"]
    assert [lane_step(m2vit, op, name) for name in FORMATS] == [8, 8, 16, 8]
    assert lane_step(load_accelerator("trio_vit"), op, "apot8") == 0  # no engine shifts


def test_depthwise_filters_have_one_format_and_no_shifts() -> None:
    space = space_on(load_accelerator("m2vit"))
    for one in space.ops:
        loop = space.workload.op_by_name[one.op].loop
        assert loop is not None
        if loop.depthwise:
            assert (one.counts[:, FORMATS.index("apot8")] == 0).all()
            assert ((one.counts > 0).sum(axis=1) == 1).all()


def test_every_option_has_all_filters_and_the_base_comes_first() -> None:
    space = space_on(load_accelerator("m2vit"))
    for one in space.ops:
        loop = space.workload.op_by_name[one.op].loop
        assert loop is not None
        assert (one.counts.sum(axis=1) == loop.groups * loop.cols).all()
        assert one.counts[0, 0] == loop.groups * loop.cols
        assert len(np.unique(one.counts, axis=0)) == len(one.counts)
    assert space.penalty(space.start) == 0.0


def test_fewer_mixtures_are_a_part_of_more() -> None:
    many, few = (space_on(load_accelerator("m2vit"), mixtures=number) for number in (100, 2))
    for one, other in zip(few.ops, many.ops, strict=True):
        assert {tuple(row) for row in one.counts.tolist()} <= {tuple(row) for row in other.counts.tolist()}
        pairs = (one.counts > 0).sum(axis=1) == 2
        used = {tuple(np.flatnonzero(row)) for row in one.counts[pairs]}
        assert pairs.sum() <= 2 * len(used)


@pytest.mark.parametrize("seed", range(8))
def test_the_penalty_of_a_choice_is_the_tables_loss_of_its_plan(seed: int) -> None:
    """Filters are given to formats such that their penalties sum to that of the counts."""
    space = _uneven(space_on(load_accelerator("m2vit")), seed)
    chosen = random_choice(space, 1e9, random.Random(seed))
    plan = space.plan(chosen)
    assert space.penalties.loss_of(plan) == pytest.approx(space.penalty(chosen), rel=1e-9, abs=1e-12)
    apply_plan(space.workload, plan)


def _uneven(space: OptionSpace, seed: int) -> OptionSpace:
    """The same options with penalties that differ from filter to filter."""
    draw = np.random.default_rng(seed)
    filters = {op: rows * draw.uniform(0.1, 3.0, rows.shape) for op, rows in space.penalties.filters.items()}
    table: PenaltyTable = replace(space.penalties, filters=filters)
    workload: Workload = space.workload
    return option_space(workload, table, load_accelerator("m2vit"), space.settings)


def test_plans_without_channels_have_the_same_shares() -> None:
    space = space_on(load_accelerator("m2vit"))
    chosen = random_choice(space, 1e9, random.Random(3))
    for full, counted in zip(space.plan(chosen).rules, space.plan(chosen, channels=False).rules, strict=True):
        assert [(p.format, p.share) for p in full.weights] == [(p.format, p.share) for p in counted.weights]
        assert all(part.channels is None for part in counted.weights)


def test_random_choices_stay_within_the_limit() -> None:
    space = space_on(load_accelerator("m2vit"))
    for seed in range(5):
        assert space.penalty(random_choice(space, 0.05, random.Random(seed))) <= 0.05 + 1e-12


def test_a_format_that_the_table_lacks_is_named() -> None:
    workload = build_workload("glyph_hybrid_narrow")
    penalties = workload_penalties(workload, ("u8", "u4"))
    with pytest.raises(AccelsimError, match="lacks u6"):
        option_space(workload, penalties, load_accelerator("m2vit"), OptionSettings(("u8", "u6"), ("u8",)))


def test_a_table_of_another_network_is_refused() -> None:
    penalties = workload_penalties(build_workload("efficientvit_b1"), FORMATS)
    with pytest.raises(AccelsimError, match="which glyph_hybrid_narrow has not"):
        option_space(
            build_workload("glyph_hybrid_narrow"),
            penalties,
            load_accelerator("m2vit"),
            OptionSettings(FORMATS, ("u8",)),
        )


@pytest.mark.parametrize("other", ["glyph_hybrid_wide", "digits_hybrid"])
def test_a_table_of_a_network_with_the_same_ops_is_refused(other: str) -> None:
    """Their ops have the same names, but other numbers of filters."""
    penalties = workload_penalties(build_workload(other), FORMATS)
    with pytest.raises(AccelsimError, match="glyph_hybrid_narrow"):
        option_space(
            build_workload("glyph_hybrid_narrow"),
            penalties,
            load_accelerator("m2vit"),
            OptionSettings(FORMATS, ("u8",)),
        )


def test_a_table_without_an_op_is_refused() -> None:
    workload = build_workload("glyph_hybrid_narrow")
    penalties = workload_penalties(workload, FORMATS)
    last = list(penalties.filters)[-1]
    kept = replace(
        penalties,
        filters={name: rows for name, rows in penalties.filters.items() if name != last},
        classes={name: kind for name, kind in penalties.classes.items() if name != last},
    )
    with pytest.raises(AccelsimError, match=f"lacks the op {last}"):
        option_space(workload, kept, load_accelerator("m2vit"), OptionSettings(FORMATS, ("u8",)))


def test_options_need_the_base_format() -> None:
    with pytest.raises(AccelsimError, match="lacks u8"):
        OptionSettings(("u6", "u4"))


def test_the_work_of_a_search_travels() -> None:
    """What goes to another process or machine gives the same numbers there."""
    workload = build_workload("digits_hybrid")
    options = OptionSettings(("u8", "u4"), ("u8",), ("divide",), mixtures=1)
    plain = Variant(PLAIN, workload, workload_penalties(workload, ("u8", "u4")), options)
    maker = PlanMaker({PLAIN: plain}, LoopSettings(rounds=1, tries=2))
    sent = pickle.loads(pickle.dumps(maker.fixed()))
    assert sent.request("allocated@0.05").fingerprint() == maker.request("allocated@0.05").fingerprint()
    for name in ("allocated@0.05", "uniform4"):
        here, there = (
            one("digits_hybrid", None, load_accelerator("tiny"), one.request(name), mapper_of("heuristic"))
            for one in (maker, sent)
        )
        assert here == there
        assert here["predicted_loss"] >= 0


def test_unknown_plans_of_a_search_are_named() -> None:
    workload = build_workload("digits_hybrid")
    plain = Variant(PLAIN, workload, workload_penalties(workload, FORMATS), OptionSettings(FORMATS, ("u8",)))
    maker = PlanMaker({PLAIN: plain}, LoopSettings())
    for name in ("m2q", "allocated@much", "uniform"):
        with pytest.raises(AccelsimError, match="allocated@LOSS"):
            maker.request(name)
