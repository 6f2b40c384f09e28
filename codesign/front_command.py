"""The command `front`: mappings of one design of which none is beaten in both time and energy."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import announce_compilation
from codesign.run_design import add_design_options, read_names

if TYPE_CHECKING:
    from accelsim.arch import Accelerator
    from accelsim.mapping import Mapping as DesignMapping
    from accelsim.optable import OpTable

FORMAT = "accelsim.front/1"


def add_front(commands: Any) -> None:
    """Add its parser to the subparsers of `accelsim`."""
    front = commands.add_parser("front", help="mappings of one design that none beats in both time and energy")
    add_design_options(front)
    front.add_argument(
        "--steady", action="store_true", help="time is the interval between images, not the latency of the first"
    )
    front.add_argument("--json", help="write the mappings' figures as JSON ('-': standard output)")
    front.add_argument("--save-mappings", metavar="DIR", help="write the front's mappings into a new or empty folder")
    front.add_argument("-o", "--output", metavar="PICTURE", help="draw time and energy, PNG or SVG")
    front.set_defaults(command=_front)


def _front(arguments: argparse.Namespace) -> int:
    from codesign.outputs import check_outputs

    workload, accelerator, plan = read_names(arguments)
    check_outputs([arguments.json], arguments.output)
    folder = _folder(arguments.save_mappings, (arguments.json, arguments.output))
    announce_compilation(exhaustive=True)
    from accelsim.optable import op_table
    from accelsim.trace import write_json

    data, mappings = tried_mappings(op_table(workload, plan), accelerator, arguments.steady)
    if folder is not None:
        _save(folder, mappings)
    if arguments.output:
        from codesign.plots.mapping_front import plot_mapping_front

        plot_mapping_front(data, arguments.output)
    if arguments.json:
        write_json(arguments.json, data, indent=1)
    if arguments.json != "-":
        print("\n".join(front_lines(data)))
    return 0


def _folder(name: str | None, files: Iterable[str | None]) -> Path | None:
    """The folder of the mappings: nothing lies in it, and no other output goes there."""
    from codesign.outputs import check_folder

    if name is None:
        return None
    folder = check_folder(name, "--save-mappings")
    if folder.is_dir() and any(folder.iterdir()):
        raise AccelsimError(Problem(name, "is not empty", "a new or an empty folder"))
    for file in files:
        if file not in (None, "-") and Path(str(file)).resolve().parent == folder.resolve():
            raise AccelsimError(Problem(str(file), "lies in the folder of --save-mappings", "another folder"))
    return folder


def _save(folder: Path, mappings: list[DesignMapping]) -> None:
    from accelsim.trace import write_json
    from codesign.outputs import make_folder

    make_folder(folder)
    digits = max(2, len(str(len(mappings))))
    for number, mapping in enumerate(mappings, start=1):
        write_json(folder / f"mapping_{number:0{digits}d}.json", mapping.to_json(), indent=1)


def tried_mappings(
    table: OpTable, accelerator: Accelerator, steady: bool
) -> tuple[dict[str, Any], list[DesignMapping]]:
    """Figures of all mappings tried, as plain data, and the mappings of the front, fastest first.

    `number` counts the front's mappings from 1 and is None for a mapping that another beats.  With `steady`, cycles and
    seconds are those between two images.  Raises as `accelsim.mappers.exhaustive.find_front` does.
    """
    from accelsim.bounds import design_bound
    from accelsim.mappers.exhaustive import not_beaten, try_front
    from accelsim.mapping import arrays_to_mapping
    from accelsim.optable import engine_table

    tried = try_front(table, accelerator, steady)
    front = not_beaten(tried)
    numbers = {id(one): number for number, one in enumerate(front, start=1)}
    mappings = {id(one): arrays_to_mapping(one.arrays, table, accelerator) for one in tried}
    clock = accelerator.clock_hz
    rows = [
        {
            "number": numbers.get(id(one)),
            "origin": one.origin,
            "cycles": one.cycles if steady else int(one.cycles),
            "time_s": one.cycles / clock,
            "energy_pj": one.energy_pj,
            "edp_pj_s": one.energy_pj * one.cycles / clock,
            "mapping": mappings[id(one)].fingerprint(),
        }
        for one in sorted(tried, key=lambda one: (one.cycles, one.energy_pj))
    ]
    workload, plan = table.quantized.workload, table.quantized.plan
    data = {
        "format": FORMAT,
        "model": workload.name,
        "resolution": workload.resolution,
        "arch": accelerator.name,
        "plan": plan.name,
        "clock_hz": clock,
        "steady": steady,
        "bound_cycles": design_bound(table, engine_table(accelerator, table), accelerator).cycles,
        "tried": len(tried),
        "mappings": rows,
    }
    return data, [mappings[id(one)] for one in front]


def design_text(data: Mapping[str, Any]) -> str:
    """Network, resolution, accelerator and plan in a line."""
    return f"{data['model']} at {data['resolution']} on {data['arch']}, plan {data['plan']}"


def bound_text(data: Mapping[str, Any], amount: str) -> str:
    """The design bound, which is one of the latency."""
    return f"design bound{' of the latency' if data['steady'] else ''} {amount}"


def front_lines(data: Mapping[str, Any]) -> list[str]:
    """The front as a table, fastest first; the heuristic mapping follows when it is beaten."""
    rows = data["mappings"]
    front = [row for row in rows if row["number"] is not None]
    beaten = [row for row in rows if row["number"] is None and row["origin"] == "heuristic"]
    time = "interval" if data["steady"] else "latency"
    bound = bound_text(data, f"{data['bound_cycles']:,} cycles")
    lines = [
        f"{design_text(data)}: {bound}; {data['tried']} mappings tried, {len(front)} not beaten",
        f"   #         cycles  {time + ' ms':>11}   energy µJ    EDP nJ·s  origin",
    ]
    for row in [*front, *beaten]:
        number, note = (row["number"], "") if row["number"] is not None else ("-", " (beaten)")
        lines.append(
            f"{number:>4} {row['cycles']:>14,.0f} {row['time_s'] * 1e3:>12.3f} {row['energy_pj'] / 1e6:>11,.1f} "
            f"{row['edp_pj_s'] / 1e3:>11,.1f}  {row['origin']}{note}"
        )
    if all(row["origin"] != "heuristic" for row in rows):
        lines.append("   -  the heuristic mapper finds no mapping")
    return lines
