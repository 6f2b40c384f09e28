"""Which engines can execute the token groups of the parts that a mapping gave them."""

from __future__ import annotations

import numpy as np

from accelsim.arch import Accelerator
from accelsim.kernels.systolic_forms import FORM_TREE
from accelsim.mapping import MappingArrays
from accelsim.optable import (
    E_FORM,
    FORMS,
    G_LEFT_DROP,
    G_RIGHT_AXIS,
    G_RIGHT_DROP,
    RIGHT_DEPTH,
    S_FULL,
    S_NARROW,
    EngineTable,
    OpTable,
)
from accelsim.part_checks import missing_modes, parts_of, refuse
from accelsim.problems import Problem
from accelsim.token_forms import combos_of

_LEVERS = ("a smaller drop_bits", "a mode that holds both widths", "no `tokens` in the rules of its operands")


def check_forms(table: OpTable, engines: EngineTable, accelerator: Accelerator, arrays: MappingArrays) -> None:
    """Raise InfeasibleError with the parts of which an engine cannot execute some token group, whatever the counts.

    A systolic array has no way to shift its partial sums between two modes, so the values of an attention must all
    have one mode there.
    """
    parts = parts_of(arrays, np.flatnonzero(table.groups[:, G_LEFT_DROP] + table.groups[:, G_RIGHT_DROP]))
    refuse(problem for part in parts for problem in _part_problems(table, engines, accelerator, *part))


def _part_problems(
    table: OpTable, engines: EngineTable, accelerator: Accelerator, k: int, e: int, s: int
) -> list[Problem]:
    where = f"op {table.op_names[k]} on {accelerator.engines[e].name}"
    combos = combos_of(table, k)[:, s]
    missing = missing_modes(table, engines, e, combos, where, "a token group", _LEVERS)
    if missing:
        return missing
    if engines.engines[e, E_FORM] == FORM_TREE or table.groups[k, G_RIGHT_AXIS] != RIGHT_DEPTH:
        return []
    for rows in (0, FORMS // 2):
        full, narrow = (engines.modes[combos[rows + right], e] for right in (S_FULL, S_NARROW))
        if (full != narrow).any():
            formats = " and ".join(table.combos[combos[rows + right]][0].name for right in (S_FULL, S_NARROW))
            what = f"values of {formats} run in two modes, and a systolic array cannot shift its sums between them"
            return [Problem(where, what, "one mode for both widths", ("an adder-tree array", *_LEVERS))]
    return []
