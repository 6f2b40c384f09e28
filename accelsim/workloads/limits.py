"""Sizes that a workload may have: whole numbers, none negative, and small enough for every count to stay in int64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from accelsim.ir import Loop, Op, Recipe, Tensor, VectorKind, VectorPass, Workload
from accelsim.problems import Problem

# A count is at most MACs or elements × 2^12 (a burst of 4096 bits for one element) × 2^3 (passes, halo): below 2^63.
MAX_SIZE = 1 << 40
MAX_ELEMENTS = 1 << 40
MAX_MACS = 1 << 46
MAX_PASSES = 4
MAX_OPERATIONS = 1 << 10
# Fields of a loop nest that may be zero: the others count something that exists.
_MAY_BE_ZERO = ("padding", "in_h", "in_w", "right_implicit_cols")


def size_problems(workload: Workload) -> list[Problem]:
    """Every size of tensors and ops that is no whole number, too small or too large; an empty list if all are sound."""
    found = []
    for tensor in workload.tensors:
        where = f"workload {workload.name}: tensor {tensor.name}"
        found += [Problem(where, what, expected) for what, expected in _tensor_faults(tensor)]
    for op in workload.ops:
        where = f"workload {workload.name}: op {op.name}"
        found += [Problem(where, what, expected) for what, expected in _op_faults(op)]
    return found


def whole_number_faults(values: Iterable[tuple[str, Any]], low: int) -> list[tuple[str, str]]:
    """What is wrong with named numbers that must be whole and lie in `low` … 2^40, and what is expected."""
    return [
        (f"{name} is {value!r:.40}", f"a whole number {low} … 2^40")
        for name, value in values
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MAX_SIZE
    ]


def _tensor_faults(tensor: Tensor) -> list[tuple[str, str]]:
    faults = whole_number_faults(((name, getattr(tensor, name)) for name in ("h", "w", "channels")), 1)
    if not faults and tensor.elements > MAX_ELEMENTS:
        faults.append((f"it has {tensor.elements:,} elements", "at most 2^40"))
    return faults


def _op_faults(op: Op) -> list[tuple[str, str]]:
    counts = ((name, getattr(op, name)) for name in ("weights", "bias", "bn_channels", "params_extra"))
    faults = whole_number_faults(counts, 0)
    if op.loop is not None:
        faults += _loop_faults(op.loop)
    if op.recipe is not None:
        faults += _recipe_faults(op.recipe)
    return faults


def _loop_faults(loop: Loop) -> list[tuple[str, str]]:
    sizes = [(member.name, getattr(loop, member.name)) for member in fields(loop)]
    faults = whole_number_faults((item for item in sizes if item[0] not in _MAY_BE_ZERO), 1)
    faults += whole_number_faults((item for item in sizes if item[0] in _MAY_BE_ZERO), 0)
    if not faults and loop.macs > MAX_MACS:
        faults.append((f"it has {loop.macs:,} multiply-accumulates", "at most 2^46"))
    return faults


def _recipe_faults(recipe: Recipe) -> list[tuple[str, str]]:
    faults = whole_number_faults(((name, getattr(recipe, name)) for name in ("groups", "rows_h", "rows_w", "width")), 1)
    if not faults and recipe.elements > MAX_ELEMENTS:
        faults.append((f"it visits {recipe.elements:,} elements", "at most 2^40"))
    if not (isinstance(recipe.passes, tuple) and 1 <= len(recipe.passes) <= MAX_PASSES):
        faults.append(("its recipe has no passes or too many", f"1 … {MAX_PASSES} passes"))
    elif not all(isinstance(step, VectorPass) and _sound(step) for step in recipe.passes):
        faults.append(("a pass of its recipe is malformed", f"pairs of a VectorKind and 0 … {MAX_OPERATIONS}"))
    if not all(isinstance(getattr(recipe, name), bool) for name in ("tiles_rows", "tiles_groups", "reduces_rows")):
        faults.append(("tiles_rows, tiles_groups or reduces_rows is not a truth value", "True or False"))
    elif not (recipe.tiles_rows or recipe.tiles_groups):
        faults.append(("its recipe cannot be cut along any axis", "tiles_rows or tiles_groups"))
    return faults


def _sound(step: VectorPass) -> bool:
    return all(
        isinstance(kind, VectorKind) and type(count) is int and 0 <= count <= MAX_OPERATIONS
        for kind, count in (*step.per_element, *step.per_row)
    )
