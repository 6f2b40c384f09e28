"""Our own SystemVerilog of sequencer and array engines, run in Verilator, against the simulator.

Compared: start, unit-free and finish time of every row of random programs on the sequencer, and occupancy, latency and
output values of tiles on the engines.  A case sums the cycles of its programs or tiles; the second row counts
comparisons that differ.  A short run: `pytest tests/rtl` has the long one.

Needs verilator (`apt-get install verilator`), so it runs only when it is named: `accelsim validate rtl`.
"""

from __future__ import annotations

from accelsim.validation.case import Case, Suite


def cases() -> list[Case]:
    """Rows of the suite; raises AccelsimError without verilator."""
    from accelsim.rtl.validate import validate_rtl

    found = []
    for row in validate_rtl(quick=True):
        found += [
            Case(row.case, "cycles", "cycles", row.reference, row.ours),
            Case(row.case, "comparisons that differ", "", 0, row.error),
        ]
    return found


SUITE = Suite(
    name="rtl",
    title="sequencer and array engines in SystemVerilog",
    source="accelsim/rtl of this program; docs/rtl.md",
    text=__doc__ or "",
    run=cases,
)
