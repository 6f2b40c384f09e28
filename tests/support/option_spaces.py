"""Spaces with every kind of option on a small vision transformer, ranked or not, and random choices of them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from accelsim.arch import Accelerator, EngineKind
from accelsim.config import load_accelerator
from accelsim.ir import Workload
from accelsim.workloads.rank import rank_tokens, ranked_layers
from accelsim.workloads.registry import build_workload
from codesign.allocate.options import OptionSettings, OptionSpace, Selection, option_space
from tests.support.penalty_fakes import METHODS, fake_penalties_of_all

ALL = OptionSettings(
    ("u8", "u4", "apot8"), ("u8", "u6", "u4", "r6", "r4"), mixtures=1, methods=METHODS, head_formats=("u4",),
    token_shares=(0.5, 0.25),
)  # fmt: skip


@lru_cache(maxsize=2)
def glyph_vit(ranked: bool) -> Workload:
    """`glyph_vit_small`, 17 tokens and 3 heads; ranked: with the ranking ops of all layers that can be ranked."""
    workload = build_workload("glyph_vit_small")
    return rank_tokens(workload, [one.name for one in ranked_layers(workload)]) if ranked else workload


@lru_cache(maxsize=8)
def able(arch: str) -> Accelerator:
    """A preset with the units that methods and codes may need: leading ones, dynamic and region shifts."""
    made = load_accelerator(arch)
    engines = []
    for one in made.engines:
        shift = 8 if one.kind == EngineKind.MAC_ARRAY else 0
        engines.append(replace(one, region_shift=shift, dynamic_shift=one.kind == EngineKind.SHIFT_ARRAY))
    return made.replace(engines=tuple(engines), vector=replace(made.vector, leading_one_per_cycle=8))


@lru_cache(maxsize=16)
def space_of_all(arch: str, ranked: bool, settings: OptionSettings = ALL) -> OptionSpace:
    """The space of `glyph_vit` with made-up penalties on `able(arch)`."""
    workload = glyph_vit(ranked)
    return option_space(workload, fake_penalties_of_all(workload), able(arch), settings)


def random_selection(space: OptionSpace, rng: np.random.Generator, change: float = 1.0) -> Selection:
    """A choice that leaves the base with probability `change` at every op, group and switch."""

    def drawn(names: tuple[str, ...]) -> str:
        return names[int(rng.integers(len(names)))] if rng.random() < change else names[0]

    return Selection(
        {one.op: int(rng.integers(len(one.penalty))) if rng.random() < change else 0 for one in space.ops},
        {name: drawn(choices) for name, choices in space.group_formats.items()},
        {name: drawn(values) for name, values in space.switches.items()},
    )
