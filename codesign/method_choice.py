"""From the options of `accelsim quantize` to a method: its own parameters, a budget, or the engines' balance."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accelsim.arch import Accelerator
from accelsim.formats import Scheme
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import token_layers
from codesign.budgets import Budget, within
from codesign.frontier import command as pmq
from codesign.greedy import command as mptq
from codesign.learned import command as qvit
from codesign.nonlinear import command as mnq
from codesign.run_design import DEFAULT_ARCH

if TYPE_CHECKING:
    from codesign.quantize_request import QuantizeRequest
    from quant.methods.base import Method
    from quant.network import Network

# Candidates of a budget, best accuracy first.
BITS = (8, 7, 6, 5, 4, 3, 2)
RATIO_STEPS = 16
TERMS = (3, 2, 1)
BALANCED = "balanced"
# Which methods read an option of `quantize`.
READ_BY: dict[str, tuple[str, ...]] = {
    "bits": ("uniform", mnq.NAME, mptq.NAME),
    "activation_bits": ("uniform", "power_of_two", "m2q", mptq.NAME, pmq.NAME),
    "ratio": ("m2q",),
    "terms": ("power_of_two", "m2q"),
    "maps": (mnq.NAME,),
    "images": (mnq.NAME, mptq.NAME, pmq.NAME, qvit.NAME),
    **dict.fromkeys(mptq.OWN, (mptq.NAME,)),
    **dict.fromkeys(pmq.OWN, (pmq.NAME,)),
    **dict.fromkeys(qvit.OWN, (qvit.NAME,)),
}


def given_plan(arguments: argparse.Namespace) -> QuantPlan | None:
    """The plan of ``--plan``, None without one.

    Raises AccelsimError for options that choose formats beside it, for --separate without it, and for token groups.
    """
    if arguments.plan is None:
        if arguments.separate:
            what = "is given without --plan: a method separates the functions that it needs so"
            raise AccelsimError(Problem(f"--separate {arguments.separate}", what, "--plan FILE", ("leave it out",)))
        return None
    # What was smoothed is not in a plan: --smooth does it again.
    choosing = [name for name in ("budget", *READ_BY) if name != "smooth"]
    beside = [_flag(name) for name in choosing if getattr(arguments, name) is not None]
    if beside:
        raise AccelsimError(Problem(beside[0], "is given beside --plan, which has all formats", "one of the two"))
    from accelsim.config import load_plan

    plan = load_plan(arguments.plan)
    layers = token_layers(plan)
    if layers:
        # How tokens are ranked, and by which threshold they are counted, is not in a plan.
        what = f"has token groups in {', '.join(layers)}, for a network that ranks its tokens"
        levers = ("--method pmq --budget KIND=VALUE --patchwise fixed", "quant.quantize.quantize_plan with `ranked`")
        raise AccelsimError(Problem(f"--plan {arguments.plan}", what, "a plan without `tokens`", levers))
    return plan


def default_arch(method: str, plan: QuantPlan | None) -> str:
    """The accelerator where none is named: one that runs what the method, or the plan, asks for."""
    if plan is None:
        return {mnq.NAME: mnq.ARCH, mptq.NAME: mptq.ARCH, qvit.NAME: qvit.ARCH}.get(method, DEFAULT_ARCH)
    if any(rule.output.scheme is Scheme.TWO_REGION for rule in plan.rules):
        return mptq.ARCH
    return mnq.ARCH if any(rule.nonlinear for rule in plan.rules) else DEFAULT_ARCH


def check_options(arguments: argparse.Namespace, budget: Budget | None) -> None:
    """Raise AccelsimError for options that the method does not have; nothing is loaded for it."""
    from quant.methods import method_class

    method_class(arguments.method)
    for name, owners in READ_BY.items():
        if getattr(arguments, name) is not None and arguments.method not in owners:
            what = f"the method {arguments.method} has no {name.replace('_', ' ')}"
            raise AccelsimError(Problem(_flag(name), what, f"--method {' or '.join(owners)}"))
    own = {mnq.NAME: mnq, mptq.NAME: mptq, pmq.NAME: pmq, qvit.NAME: qvit}.get(arguments.method)
    if own is not None:
        own.check_options(arguments, budget)
        return
    _named(arguments)
    searched = _searched(arguments.method)
    if budget is not None and getattr(arguments, searched) is not None:
        what = "is chosen by the budget"
        raise AccelsimError(Problem(f"--{searched}", what, f"--budget or --{searched}", ("leave one out",)))


def choose(request: QuantizeRequest) -> tuple[Method, dict[str, Any]]:
    """The method of the options, and what to note about the choice.

    Methods with a search of their own run it.  Of the others, with a budget, the first candidate that fits: uniform
    widths 8 … 2, ratios 0, 1/16 … 1 of m2q, 3, 2, 1 terms.  `check_options` has passed.  Raises InfeasibleError when
    nothing fits.
    """
    arguments, network, accelerator, budget = request.arguments, request.network, request.accelerator, request.budget
    own: dict[str, Callable[[QuantizeRequest], tuple[Method, dict[str, Any]]]]
    own = {mnq.NAME: mnq.chosen_method, mptq.NAME: mptq.chosen_method, pmq.NAME: pmq.chosen_method}
    if arguments.method in own:
        return own[arguments.method](request)
    method = _named(arguments)
    if budget is None:
        if arguments.ratio == BALANCED:
            return _balanced(method, network, accelerator), {"ratio_from": accelerator.name}
        return method, {}
    from quant.quantize import gather, make_plan

    statistics = gather(network, request.images[:1], method)
    options = dict(_candidates(arguments.method, method))

    def plans() -> Iterator[tuple[str, QuantPlan]]:
        for name, one in options.items():
            yield name, make_plan(network, one, statistics)

    name, spent, limit = within(budget, network.workload, accelerator, plans())
    note = {"budget": {"kind": budget.kind, "limit": limit, "spent": spent, "chosen": name}}
    return options[name], note


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _searched(name: str) -> str:
    """The option of a method that a budget chooses."""
    return {"uniform": "bits", "m2q": "ratio"}.get(name, "terms")


def _named(arguments: argparse.Namespace) -> Method:
    from quant.methods import method_class

    kind = method_class(arguments.method)
    given: dict[str, Any] = {}
    if arguments.activation_bits is not None:
        given["activation_bits"] = arguments.activation_bits
    takes = {"bits": "weight_bits", "ratio": "ratio", "terms": "terms"}
    for option, field in takes.items():
        value = getattr(arguments, option)
        if value is None:
            continue
        if option == "ratio":
            value = _ratio(value)
        if value is not None:
            given[field] = value
    return kind(**given)


def _ratio(text: str) -> float | None:
    if text == BALANCED:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise AccelsimError(Problem("--ratio", f"found {text!r}", "a number 0 … 1, or balanced", ("--ratio 0.5",)))
    return value


def _candidates(name: str, method: Method) -> Iterator[tuple[str, Method]]:
    if name == "uniform":
        for bits in BITS:
            yield f"uniform {bits}", replace(method, weight_bits=bits)  # type: ignore[call-arg]
    elif name == "m2q":
        for step in range(RATIO_STEPS + 1):
            ratio = step / RATIO_STEPS
            yield f"m2q ratio {ratio:g}", replace(method, ratio=ratio)  # type: ignore[call-arg]
    else:
        for terms in TERMS:
            yield f"{name} terms {terms}", replace(method, terms=terms)  # type: ignore[call-arg]


def _balanced(method: Method, network: Network, accelerator: Accelerator) -> Method:
    """M²Q with the number of power-of-two filters per layer that lets the accelerator's engines finish together."""
    from accelsim.api import simulate
    from accelsim.config import load_plan
    from accelsim.optable import op_table
    from accelsim.shares import layer_shares

    if getattr(method, "terms", 2) != 2:
        raise AccelsimError(Problem("--ratio balanced", "engines are balanced for two terms", "--terms 2"))
    report = simulate(op_table(network.workload, load_plan("m2q")), accelerator)
    counts = {name: shares.get("apot8", 0) for name, shares in layer_shares(report).items()}
    return replace(method, counts=counts)  # type: ignore[call-arg]
