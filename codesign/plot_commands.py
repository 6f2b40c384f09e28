"""The commands that draw: `pareto` and `plot parallel | sensitivity | roofline | stalls | buffers | gantt`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import announce_compilation
from codesign.run_design import add_run_options, read_design

if TYPE_CHECKING:
    from accelsim.api import Report

STUDY_HELP = "PNG or SVG; a CSV of its numbers is written beside it"


def add_plot_commands(commands: Any) -> None:
    """Add their parsers to the subparsers of `accelsim`."""
    pareto = commands.add_parser("pareto", help="draw the front of a study, and say which designs have the least EDP")
    _study(pareto, _pareto)
    pareto.add_argument(
        "--objectives", default="latency_s,energy_pj", help="two or three stored metrics (default latency_s,energy_pj)"
    )
    plot = commands.add_parser("plot", help="draw a study or a run")
    kinds = plot.add_subparsers(required=True, metavar="PICTURE")
    parallel = kinds.add_parser("parallel", help="every design of a study as a line over its axes and objectives")
    _study(parallel, _parallel)
    parallel.add_argument(
        "--objectives", default="latency_s,energy_pj,area_mm2",
        help="two or three stored metrics (default latency_s,energy_pj,area_mm2)",
    )  # fmt: skip
    sensitivity = kinds.add_parser("sensitivity", help="how much each axis of a study decides the EDP")
    _study(sensitivity, _sensitivity)
    sensitivity.add_argument("--metric", default="edp_pj_s", help="another stored metric (default edp_pj_s)")
    for name, draw, text in (
        ("roofline", _roofline, "every op of a run under the roofs of the design"),
        ("stalls", _stalls, "busy and waiting time of every unit, waits by op class"),
        ("buffers", _buffers, "occupancy of the buffers over time"),
        ("gantt", _gantt, "what every unit does over time"),
    ):
        run = kinds.add_parser(name, help=text)
        add_run_options(run, batch=name != "roofline")
        run.add_argument("-o", "--output", required=True, help="PNG or SVG")
        run.set_defaults(command=_drawing(draw))


def _study(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int]) -> None:
    parser.add_argument("study")
    parser.add_argument("-o", "--output", required=True, help=STUDY_HELP)
    parser.set_defaults(command=command)


def _rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the study, after the names of the files were checked."""
    from codesign.outputs import check_outputs
    from codesign.plots.frame import csv_beside
    from codesign.store import read_study

    check_outputs([], arguments.output)
    table = csv_beside(arguments.output)
    check_outputs([str(table)])
    if table.exists() and Path(arguments.study).exists() and table.samefile(arguments.study):
        what = "the numbers of the picture would replace the study"
        raise AccelsimError(Problem(str(table), what, "another name for the picture"))
    with read_study(arguments.study) as study:
        return study.rows()


def _pareto(arguments: argparse.Namespace) -> int:
    from codesign.pareto import best_edp_lines
    from codesign.plots.fronts import check_objectives, plot_pareto

    objectives = tuple(arguments.objectives.split(","))
    check_objectives(objectives)
    rows = _rows(arguments)
    csv_path = plot_pareto(rows, arguments.output, objectives=objectives)
    for line in best_edp_lines(rows):
        print(line)
    print(f"wrote {arguments.output} and {csv_path}")
    return 0


def _parallel(arguments: argparse.Namespace) -> int:
    from codesign.plots.fronts import check_objectives
    from codesign.plots.parallel import plot_parallel

    objectives = tuple(arguments.objectives.split(","))
    check_objectives(objectives)
    csv_path = plot_parallel(_rows(arguments), arguments.output, objectives=objectives)
    print(f"wrote {arguments.output} and {csv_path}")
    return 0


def _sensitivity(arguments: argparse.Namespace) -> int:
    from codesign.plots.frame import check_metrics
    from codesign.plots.sensitivity import plot_sensitivity

    check_metrics([arguments.metric], "--metric")
    csv_path = plot_sensitivity(_rows(arguments), arguments.output, metric=arguments.metric)
    print(f"wrote {arguments.output} and {csv_path}")
    return 0


def _drawing(draw: Callable[[Report, str], None]) -> Callable[[argparse.Namespace], int]:
    """A command that simulates the design of its arguments with rows recorded, and draws it."""

    def command(arguments: argparse.Namespace) -> int:
        from codesign.outputs import check_outputs

        design = read_design(arguments)
        check_outputs([], arguments.output)
        mapping = design.mapping()
        announce_compilation(design.mapper.exhaustive)
        draw(design.simulate(mapping, record=True), arguments.output)
        print(f"wrote {arguments.output}")
        return 0

    return command


def _roofline(report: Report, path: str) -> None:
    from codesign.plots.roofline import plot_roofline

    plot_roofline(report, path)


def _stalls(report: Report, path: str) -> None:
    from codesign.plots.stalls import plot_stalls

    plot_stalls(report, path)


def _buffers(report: Report, path: str) -> None:
    from codesign.plots.buffers import plot_buffers

    plot_buffers(report, path)


def _gantt(report: Report, path: str) -> None:
    from codesign.outputs import trace_rows
    from codesign.plots.gantt import plot_gantt
    from codesign.plots.runs import run_title

    title = f"Units over time: {run_title(report)}"
    plot_gantt(trace_rows(report), path, report.accelerator.clock_hz, title, report.result.program.units)
