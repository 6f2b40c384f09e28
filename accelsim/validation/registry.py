"""The suites by name, in the order in which they run."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module

from accelsim.problems import AccelsimError, Problem
from accelsim.validation.case import Suite

# Modules of this package; imported when they are asked for, because some load kernels.
NAMES: tuple[str, ...] = ("trio_vit", "scalesim", "nvdla", "gemmini", "eyeriss", "tpu", "dram")
# These need a tool that is not a Python package, so they run only when they are named.
ON_REQUEST: tuple[str, ...] = ("rtl", "area")


def suite(name: str) -> Suite:
    """The suite of that name; raises AccelsimError with the nearest name otherwise."""
    known = (*NAMES, *ON_REQUEST)
    if name not in known:
        near = tuple(difflib.get_close_matches(name, known, n=1))
        raise AccelsimError(Problem("validate", f"unknown suite {name!r}", f"one of {', '.join(known)}", near))
    found: Suite = import_module(f"accelsim.validation.{name}").SUITE
    return found


def suites(names: Sequence[str] = ()) -> list[Suite]:
    """The suites of these names (all of `NAMES` when none is given), each once.

    Raises AccelsimError with every unknown name.
    """
    problems: list[Problem] = []
    found: list[Suite] = []
    for name in dict.fromkeys(names or NAMES):
        try:
            found.append(suite(name))
        except AccelsimError as error:
            problems += error.problems
    if problems:
        raise AccelsimError(problems)
    return found
