"""The commands that make studies: `sweep`, `search`, `reprice`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import announce_compilation, not_negative, positive

if TYPE_CHECKING:
    from codesign.search import Found, Search

EXIT_FAILED_DESIGNS = 1


def add_sweep_commands(commands: Any) -> None:
    """Add their parsers to the subparsers of `accelsim`."""
    sweep = commands.add_parser("sweep", help="evaluate a design space; the same command resumes")
    _add_study(sweep)
    sweep.set_defaults(command=_sweep, resumes=True)
    search = commands.add_parser("search", help="look for the front of a design space; the same command resumes")
    _add_study(search)
    search.add_argument("--searcher", default="nsga2", help="nsga2 (default), nsga3, bottleneck, tpe or random")
    search.add_argument(
        "--objectives", default="latency_s,energy_pj", help="metrics to minimise (default latency_s,energy_pj)"
    )
    search.add_argument("--budget", type=positive, required=True, help="distinct designs to look at")
    search.add_argument("--seed", type=not_negative, default=0, help="of all random choices (default 0)")
    search.add_argument("--population", type=positive, default=40, help="designs of a generation (default 40)")
    search.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="METRIC=VALUE",
        help="upper bound, such as area_mm2=2.0; may be repeated",
    )
    search.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="METRIC=VALUE",
        help="corner of the hypervolume; may be repeated",
    )
    search.add_argument("--history", metavar="FILE.csv", help="write the hypervolume over evaluations and seconds")
    search.set_defaults(command=_search, resumes=True)
    reprice = commands.add_parser("reprice", help="energy, area and EDP of a study at another node, without simulating")
    reprice.add_argument("study")
    reprice.add_argument("-o", "--output", required=True, help="the new study (must not exist)")
    reprice.add_argument("--node", type=int, required=True, metavar="NM", help="technology node in nm: 28 or 45")
    reprice.set_defaults(command=_reprice)


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("space", help="YAML file (see docs/sweeps.md)")
    parser.add_argument("-o", "--output", required=True, help="study file (SQLite)")
    parser.add_argument("--workers", type=positive, help="processes (default: one per usable core)")
    parser.add_argument("--dask", metavar="ADDRESS", help="run on a Dask scheduler, tcp://HOST:PORT (extra `dask`)")


def _sweep(arguments: argparse.Namespace) -> int:
    from codesign.runner import run_sweep
    from codesign.space import load_space

    space = load_space(arguments.space)
    announce_compilation(space.asks_for_exhaustive_mapper)
    summary = run_sweep(space, arguments.output, workers=arguments.workers, dask=arguments.dask)
    print(summary)
    return EXIT_FAILED_DESIGNS if summary.by_status.get("failed") else 0


def _reprice(arguments: argparse.Namespace) -> int:
    from accelsim.technology import load_technology
    from codesign.reprice import reprice_study

    load_technology(arguments.node)
    print(reprice_study(arguments.study, arguments.output, arguments.node))
    return 0


def _search(arguments: argparse.Namespace) -> int:
    from codesign.export import write_csv
    from codesign.outputs import check_outputs
    from codesign.search import Search, check_search, run_search
    from codesign.space import load_space

    space = load_space(arguments.space)
    search = Search(
        arguments.searcher, tuple(arguments.objectives.split(",")), arguments.budget, arguments.seed,
        _bounds("--limit", arguments.limit), arguments.population,
        _bounds("--reference", arguments.reference) if arguments.reference else None,
    )  # fmt: skip
    check_search(search, space)
    check_outputs([arguments.history])
    announce_compilation(space.asks_for_exhaustive_mapper)
    found = run_search(space, arguments.output, search, workers=arguments.workers, dask=arguments.dask)
    print("\n".join(_search_lines(found, search)))
    wanted = min(search.budget, space.grid_size)
    if found.looked_at < wanted:
        early = f"{found.looked_at} of {wanted} designs: {search.searcher} found no new ones"
        print(f"ended early, after {early} (another --seed or --population, or a sweep, looks at the others)")
    if arguments.history:
        corner = {f"reference.{name}": value for name, value in found.reference.items()}
        write_csv([{**row, **corner} for row in found.history], arguments.history)
    return EXIT_FAILED_DESIGNS if found.failed else 0


def _bounds(option: str, texts: Sequence[str]) -> dict[str, float]:
    """METRIC=VALUE arguments as numbers by metric.  Raises AccelsimError for any other text."""
    bounds: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name in bounds:
            raise AccelsimError(Problem(option, f"{name} is given twice", "one value for each metric"))
        try:
            bounds[name] = float(value)
        except ValueError as error:
            raise AccelsimError(Problem(option, f"is {text!r}", "METRIC=VALUE, such as area_mm2=2.0")) from error
    return bounds


def _search_lines(found: Found, search: Search) -> list[str]:
    """Hypervolume of the generations, and the designs of the front by the first objective."""
    lines = ["evaluations   seconds  front  hypervolume"]
    shown = found.history[:: max(1, len(found.history) // 10)]
    for row in [*shown, *([found.history[-1]] if found.history and shown[-1] is not found.history[-1] else [])]:
        cells = f"{row['evaluations']:11} {row['elapsed_s']:9.2f} {row['front_size']:6} {row['hypervolume']:12.6f}"
        lines.append(cells)
    corner = ", ".join(f"{name} {value:.6g}" for name, value in found.reference.items()) or "none: no design is allowed"
    lines.append(f"reference point: {corner}")
    done = f"{found.looked_at} designs looked at, {found.evaluated} evaluated, {found.failed} failed"
    if found.over_limit:
        done += f", {found.over_limit} over the area limit and not simulated"
    lines.append(f"{done}; {len(found.front)} on the front")
    for name in search.objectives:
        if found.front:
            least = min(float(outcome[name]) for outcome in found.front.values())
            lines.append(f"least {name}: {least:.6g}")
    return lines
