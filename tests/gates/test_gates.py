"""Every condition of the timing contract is tight: a row starts when its last condition holds, not one tick off.

Each test plays a small program through kernel and oracle, moves the time at which one condition holds by one step in
both directions and sees the start follow by exactly that step, while the times that are no condition move nothing.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.support.hand_programs import Run, Times, hand_program, play

UNITS = ("a", "b", "c", "dram")
REGIONS = {"x": (0, 0, 8), "y": (0, 8, 8), "z": (0, 16, 8)}
OCCUPANCY, LATENCY = 0, 1
Rows = list[dict[str, Any]]


def run(rows: Rows, ticks_per_cycle: int = 1, regions: dict[str, tuple[int, int, int]] = REGIONS) -> Run:
    return play(hand_program(UNITS, regions, rows, ticks_per_cycle))


def lengthened(rows: Rows, which: str, column: int, ticks: int) -> Rows:
    """The rows with the occupancy or latency of one of them changed."""
    changed = deepcopy(rows)
    row = next(row for row in changed if row.get("name") == which)
    times = list(row["ticks"])
    times[column] += ticks
    row["ticks"] = tuple(times)
    return changed


def assert_follows(rows: Rows, gate: str, column: int, number: int) -> None:
    """Row `number` starts exactly as much earlier or later as `column` of row `gate` is made shorter or longer."""
    start = run(rows).rows[number].start
    for step in (-2, -1, 1, 2):
        assert run(lengthened(rows, gate, column, step)).rows[number].start == start + step


def assert_ignores(rows: Rows, row: str, column: int, number: int) -> None:
    before = run(rows).rows[number]
    for step in (-1, 1):
        assert run(lengthened(rows, row, column, step)).rows[number] == before


def test_unit_free() -> None:
    rows: Rows = [{"name": "first", "unit": "a", "ticks": (4, 9)}, {"unit": "a", "ticks": (2, 2)}]
    assert run(rows).rows[1] == Times(4, 6, 6)  # back to back: no wait, the first result is still draining
    assert_follows(rows, "first", OCCUPANCY, 1)
    assert_ignores(rows, "first", LATENCY, 1)


def test_units_do_not_reorder_rows() -> None:
    rows: Rows = [
        {"name": "writer", "unit": "a", "ticks": (3, 9), "write": "x"},
        {"unit": "b", "ticks": (2, 2), "reads": ("x",)},
        {"unit": "b", "ticks": (1, 1)},  # nothing to wait for, but behind a row that waits
    ]
    assert run(rows).rows[2] == Times(11, 12, 12)
    assert_follows(rows, "writer", LATENCY, 2)


def test_read_waits_until_the_result_is_usable() -> None:
    rows: Rows = [
        {"name": "writer", "unit": "a", "ticks": (3, 9), "write": "x"},
        {"unit": "b", "ticks": (2, 2), "reads": ("x",)},
    ]
    assert run(rows).rows[1] == Times(9, 11, 11, 9, "input", 0)
    assert_follows(rows, "writer", LATENCY, 1)
    assert_ignores(rows, "writer", OCCUPANCY, 1)


def test_read_waits_for_the_last_writer_of_a_generation() -> None:
    rows: Rows = [
        {"name": "one", "unit": "a", "ticks": (3, 9), "write": "x"},
        {"name": "two", "unit": "b", "ticks": (3, 12), "write": "x", "opens": False},
        {"unit": "c", "ticks": (1, 1), "reads": ("x",)},
    ]
    assert run(rows).rows[2] == Times(12, 13, 13, 12, "input", 1)
    assert_follows(rows, "two", LATENCY, 2)
    assert_ignores(rows, "one", LATENCY, 2)


def test_read_waits_for_the_last_of_its_regions() -> None:
    rows: Rows = [
        {"name": "one", "unit": "a", "ticks": (3, 9), "write": "x"},
        {"name": "two", "unit": "b", "ticks": (3, 12), "write": "y"},
        {"unit": "c", "ticks": (1, 1), "reads": ("y", "x")},
    ]
    assert run(rows).rows[2] == Times(12, 13, 13, 12, "input", 1)
    assert_follows(rows, "two", LATENCY, 2)
    assert_ignores(rows, "one", LATENCY, 2)


OPEN_AFTER_READER: Rows = [
    {"name": "writer", "unit": "a", "ticks": (2, 2), "write": "x"},
    {"name": "reader", "unit": "b", "ticks": (5, 11), "reads": ("x",)},
    {"unit": "a", "ticks": (1, 1), "write": "x"},
]


def test_open_waits_for_the_release_of_the_last_reader() -> None:
    assert run(OPEN_AFTER_READER).rows[2] == Times(7, 8, 8, 5, "region", 1)
    assert_follows(OPEN_AFTER_READER, "reader", OCCUPANCY, 2)
    assert_ignores(OPEN_AFTER_READER, "reader", LATENCY, 2)


def test_open_waits_for_the_slower_of_two_readers() -> None:
    slow = {"name": "slow", "unit": "c", "ticks": (8, 8), "reads": ("x",)}
    rows = [*OPEN_AFTER_READER[:2], slow, OPEN_AFTER_READER[2]]
    assert run(rows).rows[3] == Times(10, 11, 11, 8, "region", 2)
    assert_follows(rows, "slow", OCCUPANCY, 3)
    assert_ignores(rows, "reader", OCCUPANCY, 3)


def test_open_waits_for_a_writer_that_nobody_reads() -> None:
    rows: Rows = [
        {"name": "writer", "unit": "a", "ticks": (2, 6), "write": "x"},
        {"unit": "b", "ticks": (1, 1), "write": "x"},
    ]
    assert run(rows).rows[1] == Times(6, 7, 7, 6, "region", 0)
    assert_follows(rows, "writer", LATENCY, 1)
    assert_ignores(rows, "writer", OCCUPANCY, 1)


@pytest.mark.parametrize(
    ("other", "waits"),
    [
        ((0, 0, 8), True),
        ((0, 7, 8), True),  # one bit in common
        ((0, 2, 3), True),  # inside
        ((0, 0, 99), True),  # around
        ((0, 8, 8), False),  # next to it
        ((1, 0, 8), False),  # the same addresses of the other buffer
    ],
)
def test_open_waits_for_overlapping_regions_only(other: tuple[int, int, int], waits: bool) -> None:
    rows = [*OPEN_AFTER_READER[:2], {"unit": "c", "ticks": (1, 1), "write": "y"}]
    regions = {"x": (0, 0, 8), "y": other}
    expected = Times(7, 8, 8, 7, "region", 1) if waits else Times(0, 1, 1)
    assert run(rows, regions=regions).rows[2] == expected
    for step in (-1, 1):
        moved = run(lengthened(rows, "reader", OCCUPANCY, step), regions=regions).rows[2]
        assert moved.start == expected.start + step * waits


def test_accumulating_row_does_not_wait_for_its_own_generation() -> None:
    rows: Rows = [
        {"name": "one", "unit": "a", "ticks": (3, 9), "write": "x"},
        {"unit": "b", "ticks": (3, 3), "write": "x", "opens": False},
    ]
    assert run(rows).rows[1] == Times(0, 3, 3)
    opening = [rows[0], {**rows[1], "opens": True}]
    assert run(opening).rows[1] == Times(9, 12, 12, 9, "region", 0)


def test_accumulating_row_waits_until_its_generation_is_open() -> None:
    rows: Rows = [
        *OPEN_AFTER_READER,
        {"unit": "c", "ticks": (1, 1), "write": "x", "opens": False},
    ]
    assert run(rows).rows[3] == Times(7, 8, 8, 7, "region", 1)
    assert_follows(rows, "reader", OCCUPANCY, 3)


def test_open_is_a_time_and_not_the_start_of_the_first_writer() -> None:
    rows: Rows = [
        *OPEN_AFTER_READER[:2],
        {"name": "long", "unit": "a", "ticks": (20, 20)},
        {"unit": "a", "ticks": (1, 1), "write": "x"},
        {"unit": "c", "ticks": (1, 1), "write": "x", "opens": False},
    ]
    result = run(rows).rows
    assert result[3] == Times(22, 23, 23)
    assert result[4] == Times(7, 8, 8, 7, "region", 1)  # before the row that opens the generation


def test_dependency() -> None:
    rows: Rows = [
        {"name": "far", "unit": "a", "ticks": (2, 7)},
        {"name": "near", "unit": "b", "ticks": (1, 3)},
        {"unit": "c", "ticks": (1, 1), "deps": ("near", "far")},
    ]
    assert run(rows).rows[2] == Times(7, 8, 8, 7, "dependency", 0)
    assert_follows(rows, "far", LATENCY, 2)
    assert_ignores(rows, "far", OCCUPANCY, 2)
    assert_ignores(rows, "near", LATENCY, 2)


def test_output_stage() -> None:
    # The first row's results leave until tick 12; the second's first comes 3 ticks after its start.
    rows: Rows = [
        {"name": "long", "unit": "a", "ticks": (4, 12)},
        {"name": "short", "unit": "a", "ticks": (2, 5), "lead": 3},
    ]
    result = run(rows)
    assert result.rows[1] == Times(9, 11, 14, 5, "output", 0)
    assert result.waits[0].tolist() == [0, 0, 0, 0, 5]
    assert_follows(rows, "long", LATENCY, 1)
    for lead, start in ((1, 11), (2, 10), (4, 8), (8, 4), (9, 4), (0, 4)):
        rows[1]["lead"] = lead
        assert run(rows).rows[1].start == start
    # Of the row before on the same unit only, also when an earlier one finishes later.
    other: Rows = [
        {"unit": "b", "ticks": (1, 20)},
        {"unit": "a", "ticks": (1, 2)},
        {"unit": "a", "ticks": (1, 1), "lead": 1},
    ]
    assert run(other).rows[2] == Times(1, 2, 2)


def test_hand_off_in_the_same_cycle() -> None:
    rows: Rows = [
        {"unit": "a", "ticks": (1, 1), "write": "x"},
        {"unit": "b", "ticks": (1, 1), "reads": ("x",), "write": "y"},
        {"unit": "c", "ticks": (1, 1), "reads": ("y",), "write": "x"},
    ]
    assert [row.start for row in run(rows).rows] == [0, 1, 2]


# The bus, with three ticks to the cycle.
LOADS: Rows = [
    {"name": "load", "unit": "dram", "ticks": (4, 7), "write": "x"},
    {"name": "next", "unit": "dram", "ticks": (4, 7), "write": "y"},
    {"unit": "a", "ticks": (3, 3), "reads": ("x",)},
]


@pytest.mark.parametrize(("latency", "usable"), [(5, 6), (6, 6), (7, 9), (8, 9), (9, 9), (10, 12)])
def test_loaded_data_is_usable_at_the_next_whole_cycle(latency: int, usable: int) -> None:
    result = run(lengthened(LOADS, "load", LATENCY, latency - 7), 3).rows
    assert result[0] == Times(0, 4, usable)
    assert result[2] == Times(usable, usable + 3, usable + 3, usable, "bus", 0)
    # The next transfer starts on the tick: first-beat latency and rounding cost the bus nothing.
    assert result[1].start == 4


@pytest.mark.parametrize("occupancy", [1, 2, 3, 4, 5, 6])
def test_next_transfer_starts_at_a_fraction_of_a_cycle(occupancy: int) -> None:
    result = run(lengthened(LOADS, "load", OCCUPANCY, occupancy - 4), 3).rows
    assert result[1] == Times(occupancy, occupancy + 4, -(-(occupancy + 7) // 3) * 3)
    assert result[2].start == 9


STORES: Rows = [
    {"name": "compute", "unit": "a", "ticks": (3, 3), "write": "x"},
    {"name": "store", "unit": "dram", "ticks": (4, 4), "reads": ("x",)},
    {"unit": "dram", "ticks": (2, 2)},
    {"unit": "b", "ticks": (3, 3), "write": "x"},
]


@pytest.mark.parametrize(("occupancy", "released"), [(2, 6), (3, 6), (4, 9), (6, 9), (7, 12)])
def test_store_finishes_and_releases_at_the_end_of_its_bus_time(occupancy: int, released: int) -> None:
    rows = lengthened(lengthened(STORES, "store", OCCUPANCY, occupancy - 4), "store", LATENCY, occupancy - 4)
    result = run(rows, 3).rows
    assert result[1] == Times(3, 3 + occupancy, released, 3, "input", 0)
    assert result[2].start == 3 + occupancy
    assert result[3] == Times(released, released + 3, released + 3, released, "region", 1)


def test_bus_rounds_also_for_itself_when_a_region_is_between() -> None:
    rows: Rows = [*STORES[:2], {"unit": "dram", "ticks": (2, 2), "write": "x"}]
    assert run(rows, 3).rows[2] == Times(9, 11, 12, 2, "region", 1)


def test_dependency_on_a_transfer_is_rounded() -> None:
    rows: Rows = [LOADS[0], {"unit": "a", "ticks": (3, 3), "deps": ("load",)}]
    assert run(rows, 3).rows[1] == Times(9, 12, 12, 9, "dependency", 0)


# Ties: a row with all four conditions satisfied at tick 9, then without the strongest, and so on.
def tied(region: bool, bus: bool, inputs: bool) -> Rows:
    rows: Rows = [
        {"name": "old", "unit": "c", "ticks": (9, 9), "write": "z"},
        {"name": "load", "unit": "dram", "ticks": (4, 9), "write": "x"},
        {"name": "made", "unit": "b", "ticks": (2, 9), "write": "y"},
        {"name": "gated", "unit": "a", "ticks": (1, 1), "deps": ("made",)},
    ]
    rows[3]["reads"] = ("y",) * inputs + ("x",) * bus
    if region:
        rows[3]["write"] = "z"
    return rows


@pytest.mark.parametrize(
    ("conditions", "cause", "blocker"),
    [
        ((True, True, True), "region", 0),
        ((False, True, True), "bus", 1),
        ((False, False, True), "input", 2),
        ((False, False, False), "dependency", 2),
    ],
)
def test_ties(conditions: tuple[bool, bool, bool], cause: str, blocker: int) -> None:
    assert run(tied(*conditions)).rows[3] == Times(9, 10, 10, 9, cause, blocker)


@pytest.mark.parametrize(("row", "cause"), [("old", "region"), ("load", "bus"), ("made", "input")])
def test_the_later_condition_wins_over_the_order_of_ties(row: str, cause: str) -> None:
    result = run(lengthened(tied(True, True, True), row, LATENCY, 1)).rows[3]
    assert (result.start, result.cause) == (10, cause)


def test_condition_that_holds_when_the_unit_gets_free_is_no_wait() -> None:
    rows: Rows = [
        {"name": "busy", "unit": "a", "ticks": (9, 9)},
        {"name": "writer", "unit": "b", "ticks": (2, 9), "write": "x"},
        {"unit": "a", "ticks": (1, 1), "reads": ("x",)},
    ]
    assert run(rows).rows[2] == Times(9, 10, 10)
    assert run(lengthened(rows, "writer", LATENCY, 1)).rows[2] == Times(10, 11, 11, 1, "input", 1)
    assert run(lengthened(rows, "busy", OCCUPANCY, 1)).rows[2] == Times(10, 11, 11)


def test_wait_counts_from_the_unit_being_free_and_the_tail_is_drained() -> None:
    result = run(OPEN_AFTER_READER)
    assert result.total == 13
    assert result.busy.tolist() == [3, 5, 0, 0]
    assert result.waits.tolist() == [[5, 0, 0, 0, 0], [0, 0, 2, 0, 0], [0] * 5, [0] * 5]
    assert result.drained.tolist() == [5, 6, 13, 13]


def test_next_image_waits_for_the_last_of_this_one() -> None:
    program = hand_program(UNITS, {"x": (0, 0, 8), "y": (0, 4, 8)}, [
        {"unit": "a", "ticks": (2, 2), "write": "x"},
        {"unit": "b", "ticks": (5, 5), "reads": ("x",)},
        {"unit": "a", "ticks": (2, 2), "write": "y"},
        {"unit": "b", "ticks": (5, 11), "reads": ("y",)},
    ])  # fmt: skip
    rows = play(program, images=2).rows
    assert rows[2] == Times(7, 9, 9, 5, "region", 1)
    assert rows[3] == Times(9, 14, 20, 2, "input", 2)
    assert rows[4] == Times(14, 16, 16, 5, "region", 3)  # x of image 2 overlaps y of image 1
