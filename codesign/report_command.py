"""The command `report`: a co-design study as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import announce_compilation

SUFFIXES = (".html", ".htm")


def add_report(commands: Any) -> None:
    """Add its parser to the subparsers of `accelsim`."""
    report = commands.add_parser("report", help="a co-design study as one HTML page that needs no network")
    report.add_argument("study", help="folder of `accelsim codesign`")
    report.add_argument("-o", "--output", required=True, metavar="PAGE", help="a name that ends in .html")
    report.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> int:
    from accelsim.files import write_text_atomic
    from codesign.outputs import check_outputs

    check_outputs([arguments.output])
    if Path(arguments.output).suffix.lower() not in SUFFIXES:
        raise AccelsimError(Problem(arguments.output, "unknown kind of page", "a name that ends in .html"))
    from codesign.report.study import read_study

    study = read_study(arguments.study)
    if any(design.folder is not None for design in study.result.designs):
        announce_compilation()
    from codesign.report.page import page

    text = page(study)
    write_text_atomic(arguments.output, text)
    print(f"wrote {arguments.output} ({len(text.encode()) / 1e3:,.0f} kB)")
    return 0
