"""The commands `table` and `allocate`: what every choice costs on an accelerator, and the best choice within limits."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import not_negative

if TYPE_CHECKING:
    from accelsim.arch import Accelerator
    from codesign.allocate.bounds import PlanBounds
    from codesign.allocate.feedback import Allocation
    from codesign.allocate.options import OptionSpace

# Objective of the command → of the loop.
OBJECTIVES = {"edp": "edp", "latency": "latency_cycles", "energy": "energy_pj", "loss": "penalty"}
LIMITS = ("loss", "latency_s", "energy_pj", "edp_pj_s", "size_bits", "bus_bits")


def add_allocate(commands: Any) -> None:
    """Add their parsers to the subparsers of `accelsim`."""
    table = commands.add_parser("table", help="what every option of every op costs on an accelerator, simulated")
    _add_space(table)
    table.add_argument(
        "-o", "--output", default="-", metavar="FILE.json", help="the table ('-', the default: print it)"
    )
    table.set_defaults(command=_table)
    allocate = commands.add_parser(
        "allocate", help="the best plan for one accelerator within limits, with a bound on any other"
    )
    _add_space(allocate)
    allocate.add_argument("--objective", default="edp", choices=tuple(OBJECTIVES), help="what is least (default edp)")
    allocate.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE", help=f"{', '.join(LIMITS)}; may be repeated"
    )
    allocate.add_argument("--solver", default="exact", choices=("exact", "fast"), help="default exact")
    allocate.add_argument("--no-bound", action="store_true", help="leave the bound out")
    allocate.add_argument("-o", "--output", metavar="PLAN.yaml", help="write the plan")
    allocate.add_argument("--json", help="write what was found as JSON ('-': standard output)")
    allocate.set_defaults(command=_allocate)


def _add_space(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="name from `accelsim models`, or a workload file (.json)")
    parser.add_argument("--resolution", type=int, help="input pixels per side (default: the model's own)")
    parser.add_argument("--arch", default="m2vit", help="preset or YAML file (default m2vit)")
    parser.add_argument(
        "--penalties", metavar="FILE", help="of `accelsim penalties` (default: noise of normal weights, not a loss)"
    )
    parser.add_argument("--weight-formats", default="u8,u6,u4,apot8", help="default u8,u6,u4,apot8")
    parser.add_argument("--activation-formats", help="default u8,u6 as far as the penalties have them")
    parser.add_argument("--methods", default="", help="of softmax and LayerNorm, the base's first (default: none)")
    parser.add_argument("--head-formats", default="", help="narrow widths of parts of q, k and v (default: none)")
    parser.add_argument("--token-shares", default="", help="shares of full tokens in ranked layers (default: none)")
    parser.add_argument("--mixtures", type=not_negative, default=7, help="mixtures of two formats per op (default 7)")


def _space(arguments: argparse.Namespace) -> tuple[OptionSpace, Accelerator]:
    from accelsim.config import load_accelerator
    from accelsim.workloads.registry import build_workload
    from codesign.allocate.options import OptionSettings, option_space
    from quant.penalties.table import load_penalties
    from quant.penalties.weights_only import workload_penalties

    workload = build_workload(arguments.model, arguments.resolution)
    weights = _names(arguments.weight_formats)
    if arguments.penalties is None:
        penalties = workload_penalties(workload, weights)
    else:
        penalties = load_penalties(arguments.penalties)
    settings = OptionSettings(
        weights, _names(arguments.activation_formats or "u8,u6"), mixtures=arguments.mixtures,
        methods=_names(arguments.methods), head_formats=_names(arguments.head_formats),
        token_shares=_shares(arguments.token_shares), drop_bits=penalties.drop_bits or 2,
    )  # fmt: skip
    accelerator = load_accelerator(arguments.arch)
    return option_space(workload, penalties, accelerator, settings), accelerator


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _names(text))
    except ValueError as error:
        raise AccelsimError(Problem("--token-shares", f"is {text!r}", "numbers between 0 and 1: 0.5,0.25")) from error


def _table(arguments: argparse.Namespace) -> int:
    from accelsim.trace import write_json
    from codesign.allocate.cost_table import cost_table
    from codesign.outputs import check_outputs

    check_outputs([arguments.output])
    space, accelerator = _space(arguments)
    write_json(arguments.output, cost_table(space, accelerator).to_json(space), indent=1)
    return 0


def _limits(texts: list[str], accelerator: Accelerator) -> dict[str, float]:
    """NAME=VALUE arguments in the units of the solvers.  Raises AccelsimError for any other text."""
    clock = accelerator.clock_hz
    names = {"loss": ("penalty", 1), "latency_s": ("latency_cycles", clock), "edp_pj_s": ("edp", clock)}
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in LIMITS or not 0 <= number < float("inf"):
            raise AccelsimError(
                Problem("--limit", f"is {text!r}", f"NAME=VALUE of {', '.join(LIMITS)}", ("loss=0.01",))
            )
        solver, factor = names.get(name, (name, 1))
        if solver in found:
            raise AccelsimError(Problem("--limit", f"{name} is given twice", "one value for each"))
        found[solver] = number * factor
    return found


def _allocate(arguments: argparse.Namespace) -> int:
    from accelsim.config import dump_plan
    from accelsim.files import write_text_atomic
    from accelsim.trace import write_json
    from codesign.allocate.bounds import plan_bounds
    from codesign.allocate.feedback import LoopSettings, allocate
    from codesign.allocate.goal import Limits
    from codesign.outputs import check_outputs

    check_outputs([arguments.output, arguments.json])
    space, accelerator = _space(arguments)
    limits = _limits(arguments.limit, accelerator)
    settings = LoopSettings(OBJECTIVES[arguments.objective], rounds=8, tries=200, method=arguments.solver)
    found = allocate(space, accelerator, Limits(**limits), settings)
    bound = None
    if not arguments.no_bound:
        edp = found.report.prices.arithmetic.edp_pj_s
        bound = plan_bounds(space, accelerator, limits.get("penalty", float("inf")), edp)
    if arguments.output:
        write_text_atomic(arguments.output, dump_plan(space.plan(found.selection)))
    if arguments.json:
        write_json(arguments.json, _facts(space, found, bound), indent=1)
    if arguments.json != "-":
        print("\n".join(_lines(space, accelerator, found, bound)))
    return 0


def _facts(space: OptionSpace, found: Allocation, bound: PlanBounds | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "network": space.workload.name,
        "arch": found.report.accelerator.name,
        "predicted_loss": found.penalty,
        **{
            k: v
            for k, v in found.report.metrics().items()
            if k in ("cycles_total", "latency_s", "energy_pj", "edp_pj_s")
        },
        "rounds": [asdict(one) for one in found.rounds],
        "stable": found.stable,
        "table_gap": found.gap,
        "simulations": found.simulations,
        "bound": None if bound is None else asdict(bound),
        "plan": space.plan(found.selection).to_json(),
    }


def _lines(space: OptionSpace, accelerator: Accelerator, found: Allocation, bound: PlanBounds | None) -> list[str]:
    """An allocation in a screen: the design, table against simulation, bounds."""
    price, cycles = found.report.prices.arithmetic, found.report.result.cycles_total
    filters: dict[str, int] = {}
    for one in space.ops:
        counts = one.counts[found.selection.options[one.op]].tolist()
        for name, count in zip(space.settings.weight_formats, counts, strict=True):
            filters[name] = filters.get(name, 0) + count
    shares = ", ".join(f"{count:,} {name}" for name, count in filters.items() if count)
    base = space.start.groups
    changed = sum(choice != base[group] for group, choice in found.selection.groups.items())
    switches = "".join(f"; {name} {value}" for name, value in found.selection.switches.items())
    lines = [
        f"{space.workload.name} on {accelerator.name}",
        f"  predicted loss {found.penalty:.6g} ({space.penalties.metric})",
        f"  {cycles:,} cycles, {price.energy_pj / 1e6:.4g} µJ, EDP {price.edp_pj_s:.4g} pJ·s",
        f"  filters {shares}; {changed} of {len(base)} tensors stored otherwise than in 8 bits{switches}",
        f"  {found.simulations:,} simulations; "
        + ("the choice repeated itself" if found.stable else "rounds used up")
        + f"; gap of the solver {found.gap:.1e}",
        "  table against simulation, round by round:",
    ]
    for number, turn in enumerate(found.rounds, 1):
        energy = turn.predicted_energy_pj / turn.simulated_energy_pj - 1
        lines.append(
            f"    {number}  {turn.simulated_cycles:>12,} cycles {turn.cycles_error:+.2%}   energy {energy:+.2%}"
        )
    if bound is not None:
        gap = 1 - bound.edp_pj_s / price.edp_pj_s
        lines.append(
            f"  no plan within this limit of the predicted loss, in any mapping: EDP below {bound.edp_pj_s:.4g} pJ·s"
            f" (gap {gap:.1%}), {bound.latency_cycles:,.0f} cycles, {bound.energy_pj / 1e6:.4g} µJ"
        )
    return lines
