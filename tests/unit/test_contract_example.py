"""docs/contract.md draws a program cycle by cycle; kernel and oracle must give exactly that."""

from __future__ import annotations

from pathlib import Path

from accelsim.reference import simulate_by_stepping
from tests.support.hand_programs import Times, play
from tests.support.worked_example import NAMES, example_program, render

CONTRACT = Path(__file__).parents[2] / "docs" / "contract.md"
# Worked out by hand from the rules of the contract.  Ticks are half cycles.
EXPECTED = {
    "L0": Times(0, 5, 10),  # 5 of bus, 4 of first-beat latency: 9, rounded up to a whole cycle
    "L1": Times(5, 10, 14),  # starts at the half cycle at which the bus is free
    "A0": Times(10, 16, 20, 10, "bus", 0),
    "V0": Times(20, 24, 26, 20, "input", 2),
    "A1": Times(24, 30, 34, 8, "region", 3),  # `mid` closes when V0 releases it, two ticks before its result is usable
    "S0": Times(26, 31, 32, 16, "input", 3),
    "V1": Times(34, 38, 40, 10, "input", 4),
    "S1": Times(40, 45, 46, 9, "input", 6),
}


def test_oracle_gives_the_table() -> None:
    rows = simulate_by_stepping(example_program())
    assert [(row.start, row.free, row.finish) for row in rows] == [
        (EXPECTED[name].start, EXPECTED[name].free, EXPECTED[name].finish) for name in NAMES
    ]


def test_kernel_gives_the_table_and_the_reasons() -> None:
    run = play(example_program())
    assert dict(zip(NAMES, run.rows, strict=True)) == EXPECTED
    assert run.total == 46
    for unit in range(3):
        assert run.busy[unit] + run.waits[unit].sum() + run.drained[unit] == run.total


def test_page_shows_what_the_kernel_does() -> None:
    program = example_program()
    block = f"```text\n{render(program, play(program))}\n```"
    assert block in CONTRACT.read_text(encoding="utf-8")
