"""`accelsim quantize --method mnq`: the map of non-linear methods, and how it compares."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.budgets import SIMULATED, Budget

if TYPE_CHECKING:
    from codesign.quantize_request import QuantizeRequest
    from quant.methods.mnq import MNQ

NAME = "mnq"
ARCH = "m2vit_nonlinear"  # the preset whose units run every method
BITS = range(2, 9)
MAPS, IMAGES = 20, 1000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only this method reads."""
    from codesign.arguments import not_negative

    parser.add_argument(
        "--maps", type=not_negative, help=f"of mnq: random maps of non-linear methods beside its own (default {MAPS})"
    )


def chosen_method(request: QuantizeRequest) -> tuple[MNQ, dict[str, Any]]:
    """The method with its map, and a note with the comparison.

    With a budget of latency_s, energy_pj or edp_pj_s the map is the hardware-aware one.  `check_options` has passed.
    Raises AccelsimError for unlabelled data, and a network without such layers.
    """
    from codesign.nonlinear.arms import maps_of, measure_arms, summary
    from codesign.nonlinear.choose import choose_within
    from codesign.nonlinear.price import map_cost
    from quant.data import load_data
    from quant.methods.mnq import WITH_TABLE
    from quant.nonlinear.mixed import Mixed
    from quant.separate import separate

    arguments, accelerator, budget = request.arguments, request.accelerator, request.budget
    count = IMAGES if arguments.images is None else arguments.images
    labelled = load_data(request.data, "val", request.preprocess)
    if labelled.labels is None:
        raise AccelsimError(Problem(labelled.name, "has no labels", "one folder per class, to compare maps"))
    compared = labelled.every(0, max(1, len(labelled) // count)).first(count)
    mixed = Mixed(separate(request.network), request.images, arguments.bits or 8, request.calibration)
    table = mixed.table(progress=_progress("SQNR, batch"))
    maps = maps_of(mixed, table, MAPS if arguments.maps is None else arguments.maps, arguments.seed)
    name, note = NAME, {}
    if budget is not None:
        chosen, cost = choose_within(
            table, lambda one: map_cost(mixed.network.workload, mixed.plan(one), accelerator), budget, WITH_TABLE
        )
        name = "within_budget"
        maps[name] = chosen
        spent = float(getattr(cost, budget.kind))
        note["budget"] = {"kind": budget.kind, "limit": budget.value, "spent": spent, "chosen": "methods"}
    arms = measure_arms(mixed, maps, compared, accelerator, _progress("maps: map"))
    note["nonlinear"] = {**summary(mixed, table, arms), "chosen": name, "arch": accelerator.name}
    return mixed.method(maps[name]), note


def check_options(arguments: argparse.Namespace, budget: Budget | None) -> None:
    """Raise AccelsimError for widths that its methods lack, and budgets of other kinds."""
    if arguments.bits is not None and arguments.bits not in BITS:
        what = f"the integer methods read codes of {BITS[0]} … {BITS[-1]} bits"
        raise AccelsimError(Problem(f"--bits {arguments.bits}", what, "--bits 8 or --bits 6"))
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
