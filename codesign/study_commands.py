"""The commands that look into results: `explain`, `diff`, `merge`, `export`, and what `check --fit` says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import announce_compilation
from codesign.run_design import add_design_options, read_names

if TYPE_CHECKING:
    from accelsim.arch import Accelerator
    from accelsim.ir import Workload
    from accelsim.plan import QuantPlan

FIT_PLAN = "uniform8"


def add_commands(commands: Any) -> None:
    """Add their parsers to the subparsers of `accelsim`."""
    explain = commands.add_parser("explain", help="why a design takes its time, and what would help")
    add_design_options(explain)
    explain.add_argument("--json", help="write the explanation as JSON ('-': standard output)")
    explain.add_argument("--heads", action="store_true", help="what every attention head costs, instead")
    explain.add_argument("--csv", help="write the table of --heads as CSV ('-': standard output)")
    explain.set_defaults(command=_explain)
    diff = commands.add_parser("diff", help="two reports of `run --json` side by side")
    diff.add_argument("a", metavar="A.json")
    diff.add_argument("b", metavar="B.json")
    diff.add_argument("--json", help="write the comparison as JSON ('-': standard output)")
    diff.set_defaults(command=_diff)
    merge = commands.add_parser("merge", help="unite studies of one space into a new one")
    merge.add_argument("output", metavar="OUT", help="the new study (must not exist)")
    merge.add_argument("studies", metavar="STUDY", nargs="+", help="studies of the same space and program version")
    merge.set_defaults(command=_merge)
    export = commands.add_parser("export", help="write a study as a flat table")
    export.add_argument("study")
    kind = export.add_mutually_exclusive_group(required=True)
    kind.add_argument("--csv", help="CSV file ('-': standard output)")
    kind.add_argument("--parquet", help="Parquet file (needs the extra `parquet`)")
    export.set_defaults(command=_export)


def _explain(arguments: argparse.Namespace) -> int:
    from codesign.outputs import check_outputs

    if arguments.csv and not arguments.heads:
        raise AccelsimError(Problem("--csv", "is a table of heads", "--csv beside --heads", ("--heads",)))
    workload, accelerator, plan = read_names(arguments)
    check_outputs([arguments.json, arguments.csv])
    announce_compilation()
    if arguments.heads:
        return _explain_heads(arguments, workload, accelerator, plan)
    from accelsim.explain import explain
    from accelsim.optable import op_table
    from accelsim.trace import write_json
    from codesign.explain_text import explanation_lines

    found = explain(op_table(workload, plan), accelerator)
    if arguments.json:
        write_json(arguments.json, found.to_json(), indent=1)
    if arguments.json != "-":
        print("\n".join(explanation_lines(found)))
    return 0


def _explain_heads(arguments: argparse.Namespace, workload: Workload, accelerator: Accelerator, plan: QuantPlan) -> int:
    from accelsim.head_costs import head_costs
    from accelsim.trace import write_json
    from codesign.explain_text import head_lines
    from codesign.export import write_csv

    costs = head_costs(workload, plan, accelerator)
    rows = [cost.to_json() for cost in costs]
    if arguments.json:
        write_json(arguments.json, {"format": "accelsim.heads/1", "heads": rows}, indent=1)
    if arguments.csv:
        write_csv(rows, arguments.csv)
    if "-" not in (arguments.json, arguments.csv):
        print("\n".join(head_lines(costs)))
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from accelsim.trace import write_json
    from codesign.diff import lines_and_data
    from codesign.outputs import check_outputs

    check_outputs([arguments.json])
    lines, data = lines_and_data([arguments.a, arguments.b])
    if arguments.json:
        write_json(arguments.json, data, indent=1)
    if arguments.json != "-":
        print("\n".join(lines))
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    from codesign.merge import merge_studies

    print(merge_studies(arguments.output, arguments.studies))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from codesign.export import require_parquet, write_csv, write_parquet
    from codesign.outputs import check_outputs
    from codesign.store import read_study

    if arguments.parquet is not None:
        require_parquet(arguments.parquet)
    check_outputs([arguments.csv, arguments.parquet])
    with read_study(arguments.study) as study:
        rows = study.rows()
    if not rows:
        raise AccelsimError(Problem(arguments.study, "holds no designs yet", "a study with at least one"))
    if arguments.parquet is not None:
        write_parquet(rows, arguments.parquet)
    else:
        write_csv(rows, arguments.csv)
    if arguments.csv != "-":
        print(f"wrote {len(rows)} designs to {arguments.csv or arguments.parquet}")
    return 0


def print_fit(path: str) -> None:
    """Say which built-in networks the accelerator of a file or preset can run.  AccelsimError when there is none."""
    from accelsim.config import load_accelerator, load_plan, preset_names

    named = path in preset_names() and not Path(path).exists()
    accelerator, plan = load_accelerator(path if named else Path(path)), load_plan(FIT_PLAN)
    announce_compilation()
    from codesign.fit import fit_lines, fit_networks

    print("\n".join(fit_lines(fit_networks(accelerator, plan), accelerator, plan)))
