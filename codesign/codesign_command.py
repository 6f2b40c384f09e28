"""The commands `codesign` and `table`: the closed loop, and the prices that it works with."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from codesign.arguments import announce_compilation, not_negative, positive


def add_codesign(commands: Any) -> None:
    """Add their parsers to the subparsers of `accelsim`."""
    parser = commands.add_parser(
        "codesign", help="choose plan, mapping and hardware together; the same command resumes"
    )
    parser.add_argument("spec", help="YAML file (see docs/codesign.md)")
    parser.add_argument("-o", "--output", required=True, metavar="STUDY", help="folder of the study")
    parser.add_argument("--seed", type=not_negative, help="instead of the file's")
    parser.add_argument("--workers", type=positive, help="processes (default: one per usable core)")
    parser.add_argument("--dask", metavar="ADDRESS", help="run on a Dask scheduler, tcp://HOST:PORT (extra `dask`)")
    parser.set_defaults(command=_codesign, resumes=True)
    table = commands.add_parser("table", help="what every option of every op costs on an accelerator, simulated")
    table.add_argument("model", help="name from `accelsim models`, or a workload file (.json)")
    table.add_argument("--resolution", type=positive, help="input pixels per side (default: the model's own)")
    table.add_argument("--arch", default="m2vit", help="preset or YAML file (default m2vit)")
    table.add_argument(
        "--penalties", metavar="FILE", help="penalty table: the context is its base plan (default: none)"
    )
    table.add_argument("--weight-formats", default="u8,u6,u4,apot8", help="default u8,u6,u4,apot8")
    table.add_argument("--activation-formats", default="u8,u6", help="default u8,u6")
    table.add_argument("--mixtures", type=not_negative, default=7, help="mixtures of two formats per op (default 7)")
    table.add_argument(
        "-o", "--output", default="-", metavar="FILE.json", help="the table ('-', the default: print it)"
    )
    table.set_defaults(command=_table)


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
    names = {one for one in result["chosen"].values() if one}
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


def _table(arguments: argparse.Namespace) -> int:
    from accelsim.config import load_accelerator
    from accelsim.trace import write_json
    from accelsim.workloads.registry import build_workload
    from codesign.allocate.cost_table import cost_table
    from codesign.allocate.options import OptionSettings, option_space
    from codesign.outputs import check_outputs
    from quant.penalties.table import load_penalties
    from quant.penalties.weights_only import workload_penalties

    check_outputs([arguments.output])
    workload = build_workload(arguments.model, arguments.resolution)
    weights, activations = (
        tuple(part.strip() for part in text.split(","))
        for text in (arguments.weight_formats, arguments.activation_formats)
    )
    settings = OptionSettings(weights, activations, mixtures=arguments.mixtures)
    if arguments.penalties is None:
        penalties = workload_penalties(workload, weights)
    else:
        penalties = load_penalties(arguments.penalties)
    accelerator = load_accelerator(arguments.arch)
    space = option_space(workload, penalties, accelerator, settings)
    write_json(arguments.output, cost_table(space, accelerator).to_json(space), indent=1)
    return 0
