"""One design evaluated by a mapper, with a memo of the caller's choice: what speed.py and peers.py time."""

from __future__ import annotations

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator
from accelsim.mappers.choice import Mapper
from accelsim.mappers.exhaustive import find_mapping
from accelsim.mappers.memo import Memo
from accelsim.optable import OpTable
from accelsim.result import run_program


def evaluated(table: OpTable, accelerator: Accelerator, mapper: Mapper, memo: Memo | None = None) -> Report:
    """Map, lower and simulate as `accelsim.api.simulate` does, which always uses the memo of the process.

    A fresh memo when none is given: then nothing is remembered from another call.
    """
    if not mapper.exhaustive:
        return simulate(table, accelerator)
    found = find_mapping(table, accelerator, mapper.objective, mapper.steady, Memo() if memo is None else memo)
    lowered = found.kept.lowered
    return Report(accelerator, table, found.engines, found.kept.arrays, lowered, run_program(lowered), found)
