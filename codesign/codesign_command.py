"""The command `codesign`: the closed loop."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from codesign.arguments import announce_compilation, not_negative, positive


def add_codesign(commands: Any) -> None:
    """Add its parser to the subparsers of `accelsim`."""
    parser = commands.add_parser(
        "codesign", help="choose plan, mapping and hardware together; the same command resumes"
    )
    parser.add_argument("spec", help="YAML file (see docs/codesign.md)")
    parser.add_argument("-o", "--output", required=True, metavar="STUDY", help="folder of the study")
    parser.add_argument("--seed", type=not_negative, help="instead of the file's")
    parser.add_argument("--workers", type=positive, help="processes (default: one per usable core)")
    parser.add_argument("--dask", metavar="ADDRESS", help="run on a Dask scheduler, tcp://HOST:PORT (extra `dask`)")
    parser.set_defaults(command=_codesign, resumes=True)


def _codesign(arguments: argparse.Namespace) -> int:
    from codesign.loop.outer import Workers
    from codesign.loop.run import run_codesign
    from codesign.loop.spec import load_spec

    spec = load_spec(arguments.spec)
    if arguments.seed is not None:
        spec = replace(spec, seed=arguments.seed)
    announce_compilation(spec.final.mapper.startswith("exhaustive"))
    result = run_codesign(spec, arguments.output, Workers(arguments.workers, arguments.dask))
    print("\n".join(result_lines(result, arguments.output)))
    return 0


def result_lines(result: dict[str, Any], study: str) -> list[str]:
    """A result in a screen."""
    lines = [f"{result['name']}: {result['model']}" + (f" on {result['data']}" if result["data"] else "")]
    lines.append(
        f"  {'design':24} {'cycles':>10} {'energy µJ':>10} {'area mm²':>9} {'EDP pJ·s':>10} {'top-1':>7}  change"
    )
    names = set(result["final"])
    for one in result["designs"]:
        if one["id"] not in names:
            continue
        numbers = (
            f"{one['cycles']:>10,} {one['energy_pj'] / 1e6:>10.4g} {one['area_mm2']:>9.3g} {one['edp_pj_s']:>10.4g}"
        )
        seen = one["test"] or one["validation"]
        text = (
            ""
            if seen is None
            else f" {seen['top1']:>7.2%}  {100 * seen['change']:+.2f} ({'test' if one['test'] else 'val'})"
        )
        lines.append(f"  {one['id']:24} {numbers}{text}")
    lines += [f"  {text}" for text in result["findings"]]
    lines.append(f"  written {study}/result.json   next: accelsim report {study} -o report.html")
    return lines
