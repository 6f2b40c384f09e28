"""The command `ablation`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from codesign.arguments import announce_compilation

FILES = ("ablation.csv", "ablation.json", "ablation.png")


def add_ablation(commands: Any) -> None:
    """Add its parser to the subparsers of `accelsim`."""
    parser = commands.add_parser("ablation", help="where the EDP saving of mixed precision and scheme comes from")
    parser.add_argument(
        "-o", "--output", metavar="DIR", help=f"folder for {', '.join(FILES)} (made if it is not there)"
    )
    parser.add_argument("--json", help="write the cells, means and bounds as JSON ('-': standard output)")
    parser.add_argument(
        "--models", nargs="+", metavar="MODEL[:PIXELS]", help="networks (default: B1 at 224/256/288, B2 at 224)"
    )
    parser.add_argument("--page", help="make the tables of this page anew (docs/ablation.md)")
    parser.set_defaults(command=_ablation)


def _ablation(arguments: argparse.Namespace) -> int:
    from codesign.ablation_tables import read_page
    from codesign.outputs import check_folder, check_outputs

    folder = None if arguments.output is None else check_folder(arguments.output, "-o")
    files = [] if folder is None else [str(folder / name) for name in FILES]
    check_outputs([arguments.json, arguments.page, *(files if folder and folder.is_dir() else [])])
    if arguments.page is not None:
        read_page(arguments.page)
    from codesign.ablation import NETWORKS, parse_networks, run_ablation

    networks = NETWORKS if arguments.models is None else parse_networks(arguments.models)
    announce_compilation()
    data = run_ablation(networks)
    if folder is not None:
        _write_folder(folder, data)
    _write(arguments, data)
    if folder is not None and arguments.json != "-":
        print("wrote " + ", ".join(files))
    return 0


def _write_folder(folder: Path, data: dict[str, Any]) -> None:
    from accelsim.files import write_text_atomic
    from codesign.ablation_plot import plot_ablation
    from codesign.ablation_tables import csv_text
    from codesign.outputs import make_folder

    make_folder(folder)
    csv_path, json_path, picture = (folder / name for name in FILES)
    write_text_atomic(csv_path, csv_text(data))
    write_text_atomic(json_path, json.dumps(data, indent=1) + "\n")
    plot_ablation(data, picture)


def _write(arguments: argparse.Namespace, data: dict[str, Any]) -> None:
    from accelsim.trace import write_json
    from codesign.ablation_tables import refresh_page, summary, tables

    if arguments.page is not None:
        refresh_page(arguments.page, data)
    if arguments.json:
        write_json(arguments.json, data, indent=1)
    if arguments.json != "-":
        made = tables(data)
        print("\n".join(made[name] for name in ("designs", "savings", "bounds")))
        print(summary(data))
