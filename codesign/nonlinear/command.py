"""`accelsim quantize --method mnq`: the map of non-linear methods, and how it compares."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from accelsim.arch import Accelerator
from accelsim.problems import AccelsimError, Problem
from codesign.budgets import SIMULATED, Budget

if TYPE_CHECKING:
    from torch import Tensor

    from quant.calibrate import Calibration
    from quant.data.dataset import Preprocess
    from quant.methods.mnq import MNQ
    from quant.network import Network

NAME = "mnq"
FOREIGN = ("ratio", "terms", "activation_bits")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only this method reads."""
    from codesign.arguments import not_negative, positive

    parser.add_argument(
        "--maps", type=not_negative, default=20, help="random maps of non-linear methods beside mnq's (default 20)"
    )
    parser.add_argument(
        "--images", type=positive, default=1000, help="validation images that maps are compared on (default 1000)"
    )


def mixed_methods(
    arguments: argparse.Namespace,
    network: Network,
    images: list[Tensor],
    accelerator: Accelerator,
    budget: Budget | None,
    options: Calibration,
    data: str,
    preprocess: Preprocess | None,
) -> tuple[MNQ, dict[str, Any]]:
    """The method with its map, and a note with the comparison.

    With a budget of latency_s, energy_pj or edp_pj_s the map is the hardware-aware one.  Raises AccelsimError for
    options of other methods, another budget, unlabelled data, and a network without such layers.
    """
    from codesign.nonlinear.arms import maps_of, measure_arms, summary
    from codesign.nonlinear.choose import choose_within
    from codesign.nonlinear.price import map_cost
    from quant.data import load_data
    from quant.methods.mnq import MNQ, WITH_TABLE
    from quant.nonlinear.mixed import Mixed

    _check(arguments, budget)
    mixed = Mixed(MNQ().prepare(network), images, arguments.bits or 8, options)
    table = mixed.table(progress=_progress("SQNR, batch"))
    maps = maps_of(mixed, table, arguments.maps, arguments.seed)
    name, note = NAME, {}
    if budget is not None:
        chosen, cost = choose_within(
            table, lambda one: map_cost(mixed.network.workload, mixed.plan(one), accelerator), budget, WITH_TABLE
        )
        name = "within_budget"
        maps[name] = chosen
        spent = float(getattr(cost, budget.kind))
        note["budget"] = {"kind": budget.kind, "limit": budget.value, "spent": spent, "chosen": "methods"}
    labelled = load_data(data, "val", preprocess)
    if labelled.labels is None:
        raise AccelsimError(Problem(labelled.name, "has no labels", "one folder per class, to compare maps"))
    step = max(1, len(labelled) // arguments.images)
    arms = measure_arms(
        mixed, maps, labelled.every(0, step).first(arguments.images), accelerator, _progress("maps: map")
    )
    note["nonlinear"] = {**summary(mixed, table, arms), "chosen": name, "arch": accelerator.name}
    return mixed.method(maps[name]), note


def _check(arguments: argparse.Namespace, budget: Budget | None) -> None:
    given = [f"--{name.replace('_', '-')}" for name in FOREIGN if getattr(arguments, name) is not None]
    if given:
        raise AccelsimError(Problem(given[0], f"the method {NAME} has no such option", "--bits 8 or --bits 6"))
    if arguments.reconstruct:
        what = f"the method {NAME} rounds to nearest: its plan is compared map by map"
        raise AccelsimError(Problem("--reconstruct", what, "without it", ("accelsim finetune on the result",)))
    if budget is not None and budget.kind not in SIMULATED:
        raise AccelsimError(
            Problem(f"--budget {budget.kind}", f"no map of {NAME} changes it", f"one of {', '.join(SIMULATED)}")
        )


def _progress(what: str) -> Any:
    import sys

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{what} {done} of {total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def lines(note: dict[str, Any]) -> list[str]:
    """What `quantize` prints of a comparison."""
    found = note["nonlinear"]
    arms = {arm["name"]: arm for arm in found["arms"]}
    methods = arms[found["chosen"]]["methods"]
    rows = [f"  map ({found['chosen']})"]
    width = max(len(slot["op"]) for slot in found["sqnr"]["slots"])
    for slot in found["sqnr"]["slots"]:
        values = ", ".join(
            f"{name} {value:.1f}" for name, value in zip(found["sqnr"]["methods"], slot["difference_db"], strict=True)
        )
        rows.append(f"    {slot['op']:{width}}  {methods.get(slot['op'], 'float'):6}  difference, dB: {values}")
    rows += [
        f"  {'':14}{'top-1 %':>9}{'vector kcycles':>16}{'vector µJ':>11}{'latency ms':>12}{'EDP pJ·s':>13}   "
        f"validation; {found['arch']}"
    ]
    for name, arm in arms.items():
        if not name.startswith("random"):
            rows.append(_row(name, arm))
    drawn = found["random"]
    if drawn["maps"]:
        rows.append(
            f"  {'random maps':14}{100 * drawn['mean_top1']:9.2f}   mean of {drawn['maps']}, best "
            f"{100 * drawn['best_top1']:.2f}"
        )
    return rows


def _row(name: str, arm: dict[str, Any]) -> str:
    cost = arm["cost"]
    head = f"  {name:14}{100 * arm['top1']:9.2f}"
    if cost is None:
        return f"{head}   cannot run: {arm['reason']}"
    latency_ms = 1e3 * cost["latency_cycles"] / cost["clock_hz"]
    return (
        f"{head}{cost['vector_cycles'] / 1e3:16.1f}{cost['vector_energy_pj'] / 1e6:11.2f}{latency_ms:12.4f}"
        f"{cost['edp_pj_s']:13.1f}"
    )
