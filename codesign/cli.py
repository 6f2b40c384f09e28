"""The command line: `accelsim run | explain | diff | sweep | …`.  Bad input prints problems and exits with 2."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.arguments import announce_compilation as _announce_compilation
from codesign.arguments import positive as _positive
from codesign.study_commands import add_commands, print_fit

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_FAILED_DESIGNS = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    # The kernels are recurrences: vectorizing passes find nothing in them and double the time of the first run.
    os.environ.setdefault("NUMBA_LOOP_VECTORIZE", "0")
    os.environ.setdefault("NUMBA_SLP_VECTORIZE", "0")
    os.environ.setdefault("NUMBA_OPT", "2")
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        status = command(arguments)
        sys.stdout.flush()
        return status
    except InfeasibleError as error:
        _complain("infeasible", error)
    except AccelsimError as error:
        _complain("error", error)
    except KeyboardInterrupt:
        print("interrupted; what was finished is stored, the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        # Nothing more can be printed: what is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            return 0  # the reader of a pipe (head, less) left: not an error of ours
        what = f"cannot be written ({error.strerror})"
        _complain("error", AccelsimError(Problem("standard output", what, "a place with room")))
    return EXIT_BAD_INPUT


def _complain(kind: str, error: AccelsimError) -> None:
    for problem in error.problems:
        print(f"accelsim: {kind}: {problem}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="accelsim",
        description="Simulate and search accelerators of quantized hybrid Vision Transformers, to the cycle",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="simulate one model on one accelerator under one plan")
    run.add_argument("model", help="name from `accelsim models`")
    run.add_argument("--resolution", type=_positive, help="input pixels per side (default: the model's own)")
    run.add_argument("--arch", default="m2vit", help="preset or YAML file (default m2vit)")
    run.add_argument("--plan", default="m2q", help="plan name (uniform8, uniform4, w4a8, m2q, m2q:RATIO) or YAML file")
    run.add_argument("--batch", type=_positive, default=1, help="images in a row (default 1)")
    run.add_argument("--no-fuse", action="store_true", help="every op its own chain")
    run.add_argument("--mapping", help="use this mapping file instead of the mapper")
    run.add_argument(
        "--save-mapping", help="write the mapping used, to change it and bring it back ('-': standard output)"
    )
    run.add_argument("--json", help="write the report as JSON ('-': standard output)")
    run.add_argument("--trace", help="write a trace for ui.perfetto.dev")
    run.add_argument("--gantt", help="draw the engines over time (PNG or SVG)")
    run.set_defaults(command=_run)
    models = commands.add_parser("models", help="list the built-in models")
    models.add_argument("--json", help="write the list as JSON ('-': standard output)")
    models.set_defaults(command=_models)
    check = commands.add_parser("check", help="check an accelerator, plan or sweep file; every fault at once")
    check.add_argument("file")
    check.add_argument(
        "--fit", action="store_true", help="also say which built-in networks fit an accelerator with plan uniform8"
    )
    check.set_defaults(command=_check)
    sweep = commands.add_parser("sweep", help="evaluate a design space; the same command resumes")
    sweep.add_argument("space", help="YAML file (see docs/sweeps.md)")
    sweep.add_argument("-o", "--output", required=True, help="study file (SQLite)")
    sweep.add_argument("--workers", type=_positive, default=1, help="processes (default 1)")
    sweep.set_defaults(command=_sweep)
    pareto = commands.add_parser("pareto", help="draw the latency-energy front of a study")
    pareto.add_argument("study")
    pareto.add_argument("-o", "--output", required=True, help="PNG or SVG; a CSV is written beside it")
    pareto.set_defaults(command=_pareto)
    add_commands(commands)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from accelsim.config import load_accelerator, load_plan
    from accelsim.optable import op_table
    from accelsim.workloads.registry import build_workload
    from codesign.outputs import check_outputs

    accelerator, plan = load_accelerator(arguments.arch), load_plan(arguments.plan)
    workload = build_workload(arguments.model, arguments.resolution)
    check_outputs([arguments.json, arguments.trace, arguments.save_mapping], arguments.gantt)
    mapping = None if arguments.mapping is None else _read_mapping(arguments.mapping)
    _announce_compilation()
    from accelsim.api import simulate
    from accelsim.trace import write_json
    from codesign.outputs import print_summary, recorded_trace, write_gantt

    record = bool(arguments.trace or arguments.gantt)
    report = simulate(
        op_table(workload, plan), accelerator, mapping, arguments.batch, record, not arguments.no_fuse,
        arguments.mapping or "mapping",
    )  # fmt: skip
    if arguments.trace:
        write_json(arguments.trace, recorded_trace(report))
    if arguments.gantt:
        write_gantt(report, arguments.gantt)
    if arguments.save_mapping:
        write_json(arguments.save_mapping, report.mapping.to_json(), indent=1)
    if arguments.json:
        write_json(arguments.json, report.to_json(), indent=1)
    if "-" not in (arguments.json, arguments.save_mapping):
        print_summary(report)
    return 0


def _read_mapping(path: str) -> Any:
    from accelsim.mapping import mapping_from_json

    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except OSError as error:
        raise AccelsimError(Problem(path, f"cannot be read ({error.strerror})", "a mapping file")) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise AccelsimError(
            Problem(f"{path}:{line}", f"not JSON ({error})", "a file of `accelsim run --save-mapping`")
        ) from error
    return mapping_from_json(data, path)


def _models(arguments: argparse.Namespace) -> int:
    from accelsim.trace import write_json
    from accelsim.workloads.registry import describe, model_names

    rows = [describe(name) for name in model_names()]
    if arguments.json:
        write_json(arguments.json, rows, indent=1)
    if arguments.json != "-":
        print(f"{'model':18} {'res':>4} {'params M':>9} {'MACs M':>9}  MACs M by class")
        for row in rows:
            classes = ", ".join(f"{name} {macs / 1e6:.2f}" for name, macs in row["macs_by_class"].items())
            print(
                f"{row['name']:18} {row['resolution']:4} {row['params'] / 1e6:9.3f} {row['macs'] / 1e6:9.2f}  {classes}"
            )
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from codesign.outputs import check_any

    problems = check_any(arguments.file)
    if problems:
        raise AccelsimError(problems)
    print(f"{arguments.file}: no faults")
    if arguments.fit:
        print_fit(arguments.file)
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    from codesign.runner import run_sweep
    from codesign.space import load_space

    space = load_space(arguments.space)
    _announce_compilation()
    summary = run_sweep(space, arguments.output, workers=arguments.workers)
    print(summary)
    return EXIT_FAILED_DESIGNS if summary.by_status.get("failed") else 0


def _pareto(arguments: argparse.Namespace) -> int:
    from codesign.pareto import best_edp_lines
    from codesign.plots import plot_pareto
    from codesign.store import read_study

    with read_study(arguments.study) as study:
        rows = study.rows()
    csv_path = plot_pareto(rows, arguments.output)
    for line in best_edp_lines(rows):
        print(line)
    print(f"wrote {arguments.output} and {csv_path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
