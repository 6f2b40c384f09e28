"""The command line: `accelsim run | explain | diff | sweep | …`.  Bad input prints problems and exits with 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.ablation_commands import add_ablation
from codesign.allocate_command import add_allocate
from codesign.arguments import announce_compilation as _announce_compilation
from codesign.arguments import refuse_overwriting
from codesign.codesign_command import add_codesign
from codesign.finetune_command import add_finetune
from codesign.front_command import add_front
from codesign.penalties_command import add_penalties
from codesign.plot_commands import add_plot_commands
from codesign.quantize_command import add_quantize
from codesign.report_command import add_report
from codesign.run_design import add_run_options, read_design
from codesign.sensitivity_command import add_sensitivity
from codesign.study_commands import add_commands, print_fit
from codesign.sweep_commands import add_sweep_commands
from codesign.template_command import add_template
from codesign.validate_command import add_validate

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    # The kernels are recurrences: vectorizing passes find nothing in them and double the time of the first run.
    os.environ.setdefault("NUMBA_LOOP_VECTORIZE", "0")
    os.environ.setdefault("NUMBA_SLP_VECTORIZE", "0")
    os.environ.setdefault("NUMBA_OPT", "2")
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        refuse_overwriting(arguments)
        status = command(arguments)
        sys.stdout.flush()
        return status
    except InfeasibleError as error:
        _complain("infeasible", error)
    except AccelsimError as error:
        _complain("error", error)
    except KeyboardInterrupt:
        resumes = getattr(arguments, "resumes", False)
        left = "what was finished is stored, the same command continues" if resumes else "nothing was written"
        print(f"interrupted; {left}", file=sys.stderr)
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
    add_run_options(run)
    run.add_argument(
        "--save-mapping", help="write the mapping used, to change it and bring it back ('-': standard output)"
    )
    run.add_argument("--json", help="write the report as JSON ('-': standard output)")
    run.add_argument("--trace", help="write a trace for ui.perfetto.dev")
    run.set_defaults(command=_run)
    models = commands.add_parser("models", help="list the built-in models")
    models.add_argument("--json", help="write the list as JSON ('-': standard output)")
    models.set_defaults(command=_models)
    check = commands.add_parser("check", help="check an accelerator, plan, sweep or workload file; every fault at once")
    check.add_argument("file")
    check.add_argument(
        "--fit", action="store_true", help="also say which built-in networks fit an accelerator with plan uniform8"
    )
    check.set_defaults(command=_check)
    add_front(commands)
    add_quantize(commands)
    add_finetune(commands)
    add_sensitivity(commands)
    add_penalties(commands)
    add_sweep_commands(commands)
    add_codesign(commands)
    add_allocate(commands)
    add_template(commands)
    add_plot_commands(commands)
    add_report(commands)
    add_commands(commands)
    add_ablation(commands)
    add_validate(commands)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from codesign.outputs import check_outputs

    design = read_design(arguments)
    check_outputs([arguments.json, arguments.trace, arguments.save_mapping])
    mapping = design.mapping()
    _announce_compilation(design.mapper.exhaustive)
    from accelsim.trace import write_json
    from codesign.outputs import print_summary, recorded_trace

    report = design.simulate(mapping, record=bool(arguments.trace))
    if arguments.trace:
        write_json(arguments.trace, recorded_trace(report))
    if arguments.save_mapping:
        write_json(arguments.save_mapping, report.mapping.to_json(), indent=1)
    if arguments.json:
        write_json(arguments.json, report.to_json(), indent=1)
    if "-" not in (arguments.json, arguments.save_mapping):
        print_summary(report)
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
