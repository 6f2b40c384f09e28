"""Price a study again under another technology: the integers of every design are stored, so nothing is simulated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.arch import Accelerator
from accelsim.area import accelerator_area
from accelsim.energy import convention_spread
from accelsim.files import replacing
from accelsim.mappers.choice import mapper_of
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.catalog import Catalog, default_catalog
from codesign.chunks import Task, row_of, shortage
from codesign.runner import TaskMaker
from codesign.space import PREFIX, Axis, Space, space_from_json
from codesign.store import METRICS, Row, Study, open_study, program_version, read_study

NODE_FIELD = f"{PREFIX}node_nm"


@dataclass(frozen=True)
class Repriced:
    """What a re-pricing did: designs priced again, designs carried over without numbers, and those left to a sweep."""

    priced: int
    carried: int
    left_out: int
    by_status: dict[str, int]

    def __str__(self) -> str:
        held = ", ".join(f"{count} {status}" for status, count in self.by_status.items()) or "nothing"
        left = f", {self.left_out} need a simulation (`accelsim sweep` of the space adds them)" if self.left_out else ""
        return f"{self.priced} designs priced again, {self.carried} without numbers{left}. The study holds {held}."


def reprice_study(source: str | Path, output: str | Path, node_nm: int, catalog: Catalog | None = None) -> Repriced:
    """Write the study `output`: every design of `source` at `node_nm`, as a sweep of the same space would give it.

    The new study is one of the same space with a last axis `accelerator.node_nm: [node_nm]`, so such a sweep goes on in
    it.  A design that could not be priced at its own node (a buffer slower than the clock) or that failed was not
    counted, so it is left out.  Raises AccelsimError, with nothing written, when `output` exists, `source` is of
    another program version or keeps no space, the space varies the node itself or has a mapper that minimizes energy or
    EDP (its mappings depend on prices), or its files have changed since.
    """
    catalog = catalog or default_catalog()
    if Path(output).exists():
        levers = ("another file name", f"delete {output}")
        raise AccelsimError(Problem(str(output), "exists already", "the name of a new study", levers))
    with read_study(source) as study:
        space = _space_of(source, study)
        rows = study.rows()
    moved = replace(space, axes=(*space.axes, Axis(NODE_FIELD, (node_nm,), 0)))
    repriced, left_out = [], 0
    maker = TaskMaker(catalog, program_version())
    for row in rows:
        point = row["point"]
        found = _row_at(row, maker.task(space.point(point)), maker.task(moved.point(point)), str(source))
        left_out += found is None
        repriced += [found] if found is not None else []
    with (
        replacing(output) as temporary,
        open_study(temporary, moved.fingerprint(), program_version(), moved.to_json()) as study,
    ):
        study.add(repriced)
        by_status = study.counts()
    priced = sum(row["status"] == "ok" for row in rows)
    return Repriced(priced, len(rows) - priced - left_out, left_out, by_status)


def _space_of(source: str | Path, study: Study) -> Space:
    meta = study.meta()
    if meta["program"] != program_version():
        what = f"was written by program version {meta['program']}, this is {program_version()}"
        levers = ("sweep the space again", "the program that wrote it")
        raise AccelsimError(Problem(str(source), what, "a study of this version", levers))
    if "space_data" not in meta:
        raise AccelsimError(Problem(str(source), "does not keep its space", "a study of `accelsim sweep`"))
    space = space_from_json(json.loads(meta["space_data"]), str(source))
    if any(axis.field == NODE_FIELD for axis in space.axes):
        raise AccelsimError(Problem(str(source), f"its space varies {NODE_FIELD} already", "a space of one node"))
    weighing = [name for name in space.choices("mapper") if mapper_of(name).objective != "latency"]
    if weighing:
        what = f"mappings by {', '.join(weighing)} were chosen by energies, which are others at another node"
        expected, lever = "mappings by heuristic or exhaustive:latency", f"a sweep with an axis {NODE_FIELD}"
        raise AccelsimError(Problem(str(source), what, expected, (lever,)))
    return space


def _row_at(row: Mapping[str, Any], before: Task | None, after: Task | None, source: str) -> Row | None:
    """The row of the task `after` from the stored row of `before`; None when only a simulation can tell."""
    if before is None or after is None or before.key != row["key"]:
        what = f"design {row['point']} is not what it was: a file that the space names has changed"
        raise AccelsimError(Problem(source, what, "the files of the sweep"))
    if before.accelerator is None or after.accelerator is None:
        return row_of(after, "invalid", problem=after.problem)
    if row["status"] == "ok":
        return _priced(row, after, after.accelerator)
    # An infeasible design that has a price was refused by mapping or lowering, which know no technology.
    if row["status"] != "infeasible" or not _can_be_priced(before.accelerator):
        return None
    return row_of(after, "infeasible", problem=row["problem"], shortage=row["shortage"])


def _can_be_priced(accelerator: Accelerator) -> bool:
    try:
        accelerator_area(accelerator)
    except AccelsimError:
        return False
    return True


def _priced(row: Mapping[str, Any], task: Task, accelerator: Accelerator) -> Row:
    try:
        prices = price_numbers(row["counts"], row["cycles"], row["busy_cycles"], accelerator)
    except InfeasibleError as error:
        return row_of(task, "infeasible", problem=str(error), shortage=shortage(error))
    except AccelsimError as error:
        return row_of(task, "invalid", problem=str(error))
    kept = {name: row[name] for name in (*(name for name, _, _ in METRICS), "utilization", "busy_cycles", "counts")}
    return row_of(task, "ok", metrics={**kept, **prices})


def price_numbers(
    counts: list[int], cycles: int, busy_cycles: Mapping[str, int], accelerator: Accelerator
) -> dict[str, Any]:
    """The priced columns of a study from the integers of one image.  Raises as `accelsim.energy.price`."""
    spread = convention_spread(np.array(counts, np.int64), cycles, busy_cycles, accelerator)
    price, synthesized = spread.arithmetic, spread.synthesized
    return {
        "energy_pj": price.energy_pj,
        "energy_by_component_pj": dict(price.energy_by_component_pj),
        "energy_pj_synthesized": synthesized.energy_pj,
        "edp_pj_s": price.energy_pj * cycles / accelerator.clock_hz,
        "edp_pj_s_synthesized": synthesized.energy_pj * cycles / accelerator.clock_hz,
        "area_mm2": price.area_mm2,
        "power_w": price.power_w,
    }
