"""How many filters of an op have which format: the options of a layer, at the numbers where an engine gains a pass.

Engine cycles are step functions of how many filters have a format.  So the options of an op are its formats alone, and
mixtures whose numbers of filters end where an engine's lanes are full (lane breakpoints).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from accelsim.arch import Accelerator
from accelsim.engines.registry import rules_of
from accelsim.formats import Format, accumulator_bits_needed
from accelsim.ir import Op
from accelsim.problems import AccelsimError, Problem
from codesign.allocate.assign import total_by_count
from codesign.allocate.problem import Floats, Ints

BASE = "u8"  # of weights and activations, in the base plan


@dataclass(frozen=True, eq=False)
class OpOptions:
    """Options of an op with filters: `counts` [K, formats] filters of each format, `penalty` [K] of the best filters.

    `reads` is the activation group of its input, "" when the input's format is not chosen.  Option 0 is the base.
    """

    op: str
    reads: str
    counts: Ints
    penalty: Floats


def op_options(
    op: Op, reads: str, filters: Floats, formats: Sequence[str], mixtures: int, accelerator: Accelerator
) -> OpOptions:
    """The options of an op, `filters` [channels, formats] its penalties, at most `mixtures` mixtures of two formats.

    Raises AccelsimError when no engine executes any of the formats.
    """
    total = len(filters)
    steps = {k: lane_step(accelerator, op, name) for k, name in enumerate(formats)}
    able = [k for k, step in steps.items() if step]
    first = list(formats).index(BASE)
    able.sort(key=lambda k: (k != first, k))
    rows, values = [], []
    for k in able:
        rows.append(_row(len(formats), {k: total}))
        values.append(float(filters[:, k].sum()))
    loop = op.loop
    if loop is not None and loop.groups == 1:
        for a, b in combinations(able, 2):
            sums = total_by_count(filters[:, a], filters[:, b])
            for count in spread(breakpoints(total, steps[a], steps[b]), mixtures):
                rows.append(_row(len(formats), {a: total - count, b: count}))
                values.append(float(sums[count]))
    if not rows:
        what = f"no engine executes {', '.join(formats)} for {op.name}"
        raise AccelsimError(Problem(f"op {op.name} on {accelerator.name}", what, "an engine for one of the formats"))
    return OpOptions(op.name, reads, np.array(rows, np.int64), np.array(values))


def _row(width: int, counts: Mapping[int, int]) -> list[int]:
    return [counts.get(k, 0) for k in range(width)]


def breakpoints(total: int, step_a: int, step_b: int) -> list[int]:
    """Filters of the second format, 0 < n < total, at which either format fills its lanes exactly."""
    found = {*range(step_b, total, step_b), *(total - n for n in range(step_a, total, step_a))}
    return sorted(found)


def spread(values: Sequence[int], most: int) -> Iterable[int]:
    """At most `most` of the values, evenly spread."""
    if len(values) <= most:
        return values
    return [values[round(k)] for k in np.linspace(0, len(values) - 1, most)]


def lane_step(accelerator: Accelerator, op: Op, weight: str, activation: str = BASE) -> int:
    """Filters that a pass of the fastest able engine takes in this format; 0 when no engine executes it."""
    loop, fmt, other = op.loop, Format.parse(weight), Format.parse(activation)
    assert loop is not None
    step = 0
    for engine in accelerator.engines:
        rules = rules_of(engine)
        column = rules.column(engine, fmt, other)
        if column is None or (loop.depthwise and not rules.runs_depthwise(engine, column)):
            continue
        if accumulator_bits_needed(fmt, other, loop.reduction) <= engine.accumulator_bits:
            step = max(step, engine.lanes * rules.rate(engine, column).products)
    return step


def nearest_option(one: OpOptions, formats: Sequence[str], wanted: Mapping[str, float]) -> int:
    """The option closest to these numbers of filters by format name, of which some may not be among `formats`.

    Closest in the distribution of bits (the area between the cumulative counts over the width), then in the counts
    themselves; formats that are not offered count in their bits only.
    """
    bits = np.array([Format.parse(name).bits for name in formats])
    names = list(wanted)
    goal = np.array([wanted.get(name, 0.0) for name in formats])
    axis = np.arange(1, 17)
    cumulative = (bits[:, None] <= axis).astype(float)
    aim = np.array([wanted[name] for name in names]) @ np.array([Format.parse(n).bits <= axis for n in names], float)
    area = np.abs(one.counts @ cumulative - aim).sum(axis=1).round(6)
    apart = np.abs(one.counts - goal).sum(axis=1)
    return int(np.lexsort((apart, area))[0])
