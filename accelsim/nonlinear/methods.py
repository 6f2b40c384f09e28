"""The registry of methods: which integer algorithm computes a softmax, a GELU or a LayerNorm, and its passes.

A method is named after the work that published it (`ibert`, `ivit`, `fqvit`); `table` is a table look-up.  The recipe
of an op that names no method is the one of `accelsim.workloads.recipes`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from accelsim.ir import Op, Recipe, VectorPass
from accelsim.problems import AccelsimError, Problem

if TYPE_CHECKING:
    from accelsim.plan import QuantPlan

FUNCTIONS = ("softmax", "gelu", "layernorm")
TABLE = "table"  # the method that looks every code up


@dataclass(frozen=True)
class Method:
    """How a function is computed: its passes over a row, and the widest input (in bits) that its widths are for."""

    function: str
    name: str
    passes: tuple[VectorPass, ...]
    input_bits: int


_METHODS: dict[tuple[str, str], Method] = {}


def register_method(method: Method) -> Method:
    """Offer a method under its function and name."""
    _METHODS[method.function, method.name] = method
    return method


def methods_of(function: str) -> tuple[str, ...]:
    """Names of the methods of a function, "" for the recipe that names none not among them."""
    _load()
    return tuple(name for of, name in _METHODS if of == function)


def method_names() -> tuple[str, ...]:
    """Every method of any function, each name once, sorted."""
    _load()
    return tuple(sorted({name for _, name in _METHODS}))


def method_of(function: str, name: str, where: str = "nonlinear") -> Method:
    """The method of that name.  Raises AccelsimError with the nearest name otherwise."""
    _load()
    found = _METHODS.get((function, name))
    if found is None:
        known = methods_of(function)
        close = tuple(difflib.get_close_matches(name, known, n=1, cutoff=0.4))
        raise AccelsimError(Problem(where, f"no method {name!r} of {function}", f"one of {', '.join(known)}", close))
    return found


def function_of(recipe: Recipe | None) -> str:
    """Which of `FUNCTIONS` a recipe computes, "" when none that has methods."""
    head = "" if recipe is None else recipe.name.partition("_")[0]
    return head if head in FUNCTIONS and recipe is not None and recipe.name == head else ""


def named_method(plan: QuantPlan, op: Op) -> str:
    """The method that a plan names for an op; "" for none and for ops without such a function."""
    return plan.rule_for(op).nonlinear if function_of(op.recipe) else ""


def method_recipe(base: Recipe, name: str, where: str = "nonlinear") -> Recipe:
    """The recipe with the geometry of `base` and the passes of a method.  Raises AccelsimError as `method_of` does."""
    method = method_of(function_of(base), name, where)
    return replace(base, name=f"{method.function}_{name}", passes=method.passes)


def _load() -> None:
    """Fill the registry: programs register themselves when they are imported."""
    from accelsim.nonlinear import programs  # noqa: F401
