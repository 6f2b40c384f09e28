"""Unite studies of one design space: parts of a sweep that ran in different places become one study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.files import replacing
from accelsim.problems import AccelsimError, Problem
from codesign.store import COLUMNS_ALL, DETAILS, METRICS, open_study, read_study

KEY, POINT, STATUS = (COLUMNS_ALL.index(name) for name in ("key", "point", "status"))
# What two evaluations of one design must agree on; the time, the point and the text of a problem are not numbers.
NUMBERS = tuple(COLUMNS_ALL.index(name) for name in ("status", *(name for name, _, _ in METRICS), *DETAILS, "shortage"))
MAX_CONFLICTS = 8

Cells = tuple[Any, ...]


@dataclass(frozen=True)
class Merged:
    """What a merge did: designs read from all studies, designs now in the new one, and its counts by status."""

    read: int
    stored: int
    by_status: dict[str, int]

    def __str__(self) -> str:
        held = ", ".join(f"{count} {status}" for status, count in self.by_status.items()) or "nothing"
        return f"{self.read} designs read, {self.stored} stored. The study holds {held}."


def merge_studies(output: str | Path, sources: Sequence[str | Path]) -> Merged:
    """Write the union of `sources` to the new file `output`; the sources stay as they are.

    A design that several studies hold is stored once, with the lowest of its points; a `failed` row gives way to any
    other.  Rows keep the time at which they were computed.  Raises AccelsimError, without writing anything, when
    `output` exists, a source is no study, the studies are of different spaces or program versions, or one design has
    different numbers in two of them.
    """
    if Path(output).exists():
        levers = ("another file name", f"delete {output}")
        raise AccelsimError(Problem(str(output), "exists already", "the name of a new study", levers))
    if not Path(output).absolute().parent.is_dir():
        raise AccelsimError(Problem(str(output), "its folder does not exist", "an existing folder"))
    metas, tables = [], []
    for source in sources:
        with read_study(source) as study:
            metas.append(study.meta())
            tables.append(study.cells())
    _same_kind(sources, metas)
    united = _unite(sources, tables)
    meta, data = metas[0], metas[0].get("space_data")
    space = None if data is None else json.loads(data)
    with replacing(output) as temporary, open_study(temporary, meta["space"], meta["program"], space) as study:
        study.add_cells(united)
        by_status = study.counts()
    return Merged(sum(len(table) for table in tables), len(united), by_status)


def _same_kind(sources: Sequence[str | Path], metas: Sequence[dict[str, str]]) -> None:
    problems = []
    for source, meta in zip(sources[1:], metas[1:], strict=True):
        for name, what, why in (
            ("program", "program version", "their numbers must not mix"),
            ("space", "design space", "their points mean other designs"),
        ):
            if meta[name] != metas[0][name]:
                fault = f"is of {what} {meta[name]}, {sources[0]} is of {metas[0][name]}; {why}"
                problems.append(Problem(str(source), fault, f"studies of one {what}"))
    if problems:
        raise AccelsimError(problems)


def _unite(sources: Sequence[str | Path], tables: Sequence[Sequence[Cells]]) -> list[Cells]:
    kept: dict[str, Cells] = {}
    origin: dict[str, str | Path] = {}
    conflicts = []
    for source, table in zip(sources, tables, strict=True):
        for cells in table:
            key = cells[KEY]
            before = kept.get(key)
            if before is None or before[STATUS] == "failed":
                kept[key], origin[key] = cells, source
            elif cells[STATUS] != "failed":
                different = [COLUMNS_ALL[column] for column in NUMBERS if before[column] != cells[column]]
                if different:
                    conflicts.append(_conflict(before, cells, different, origin[key], source))
                elif cells[POINT] < before[POINT]:
                    kept[key], origin[key] = cells, source
    if conflicts:
        raise AccelsimError(conflicts[:MAX_CONFLICTS])
    return sorted(kept.values(), key=lambda cells: (cells[POINT], cells[KEY]))


def _conflict(before: Cells, cells: Cells, different: list[str], first: str | Path, second: str | Path) -> Problem:
    one, other = dict(zip(COLUMNS_ALL, before, strict=True)), dict(zip(COLUMNS_ALL, cells, strict=True))
    design = f"design {one['point']} ({one['model']}, {one['arch']}, {one['plan']}, key {one['key']})"
    what = "; ".join(f"{name} is {one[name]} in {first}, {other[name]} in {second}" for name in different[:3])
    return Problem(design, what, "the same numbers in both", ("find out which study is wrong before merging",))
