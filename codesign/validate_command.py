"""`accelsim validate`: suites against references, as tables, JSON and an exit status."""

from __future__ import annotations

import argparse
from typing import Any

EXIT_MISSED = 1


def add_validate(commands: Any) -> None:
    """Add the parser of `accelsim validate`."""
    validate = commands.add_parser("validate", help="compare with closed forms, silicon and the RTL of others")
    validate.add_argument(
        "suites",
        metavar="SUITE",
        nargs="*",
        help="names of suites (default: all that need no other tool; `rtl` needs verilator, `area` yosys)",
    )
    validate.add_argument("--cases", metavar="FILE.csv", help="compare SCALE-Sim cases of your own instead")
    validate.add_argument("--config", metavar="FILE.cfg", help="SCALE-Sim configuration: --cases is its topology")
    validate.add_argument("--gemm", action="store_true", help="the topology has GEMMs (M, N, K), not convolutions")
    validate.add_argument("--json", help="write rows and figures as JSON ('-': standard output)")
    validate.set_defaults(command=_validate)


def _validate(arguments: argparse.Namespace) -> int:
    from accelsim.problems import AccelsimError, Problem
    from accelsim.trace import write_json
    from accelsim.validation.registry import suites
    from codesign.arguments import announce_compilation
    from codesign.outputs import check_outputs

    chosen = suites(arguments.suites)
    if arguments.cases is None and (arguments.config or arguments.gemm):
        raise AccelsimError(Problem("--config", "there is no topology", "--cases TOPOLOGY.csv --config FILE.cfg"))
    if arguments.cases is not None:
        from accelsim.validation.scalesim import suite_of_file, suite_of_topology

        if arguments.suites not in ([], ["scalesim"]):
            raise AccelsimError(Problem("--cases", "the cases are SCALE-Sim's", "no other suite", ("scalesim",)))
        if arguments.config is not None:
            chosen = [suite_of_topology(arguments.cases, arguments.config, arguments.gemm)]
        elif arguments.gemm:
            raise AccelsimError(Problem("--gemm", "belongs to a topology", "--config FILE.cfg beside it"))
        else:
            chosen = [suite_of_file(arguments.cases)]
    check_outputs([arguments.json])
    announce_compilation()
    from accelsim.validation.report import run_suites, text_lines, to_json

    outcomes = run_suites(chosen)
    if arguments.json:
        write_json(arguments.json, to_json(outcomes), indent=1)
    if arguments.json != "-":
        print("\n".join(text_lines(outcomes)))
    return EXIT_MISSED if any(outcome.summary.missed for outcome in outcomes) else 0
