"""Combining the shares of the ops of a chain loses no best combination: all products of options, in plain Python."""

from __future__ import annotations

from itertools import product

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.kernels.chain_search import combine
from accelsim.kernels.splits import Scratch

# Cycles of two engines, of the vector unit and of a tile's way, weight bursts, femtojoules.
WIDTH, ROOM = 6, 4096
columns = st.tuples(*[st.integers(0, 12)] * 4, st.integers(0, 3), st.integers(-3, 3))
combined = numba.njit(lambda scratch, n_ops: combine(scratch, n_ops))
Row = tuple[int, ...]


def scratch_of(ops: list[list[Row]]) -> Scratch:
    """Room for the combinations, with the options of the ops in it."""
    empty = {name: np.zeros((1, 1), np.int64) for name in Scratch._fields}
    shapes = {
        "labels": (2, ROOM, WIDTH), "back": (len(ops), ROOM, 2), "flexible": (len(ops),), "n": (len(ops),),
        "rest": (len(ops) + 1, WIDTH), "found": (ROOM, 4), "found_option": (ROOM, len(ops)),
        "x": (len(ops), max(len(options) for options in ops), WIDTH),
    }  # fmt: skip
    scratch = Scratch(**{**empty, **{name: np.zeros(shape, np.int64) for name, shape in shapes.items()}})
    for k, options in enumerate(ops):
        scratch.x[k, : len(options)] = options
        scratch.n[k] = len(options)
    return scratch


def figures(rows: tuple[Row, ...]) -> tuple[int, int, int]:
    """(cycles, bursts, femtojoules) of one option of every op."""
    sums = [sum(column) for column in zip(*rows, strict=True)]
    return max(sums[:-2]), sums[-2], sums[-1]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(columns, min_size=1, max_size=6), min_size=1, max_size=4))
def test_all_that_no_other_beats_are_found(ops: list[list[Row]]) -> None:
    scratch = scratch_of(ops)
    count = combined(scratch, len(ops))
    every = {figures(rows) for rows in product(*ops)}
    best = {a for a in every if not any(b != a and all(p <= q for p, q in zip(b, a, strict=True)) for b in every)}
    found = [tuple(row[:3]) for row in scratch.found[:count].tolist()]
    assert sorted(found) == sorted(best)
    for row, options in zip(found, scratch.found_option[:count].tolist(), strict=True):
        assert figures(tuple(ops[k][option] for k, option in enumerate(options))) == row
