"""Which engines can execute the head widths of the parts that a mapping gave them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from accelsim.arch import Accelerator
from accelsim.head_forms import head_combos
from accelsim.kernels.systolic_forms import FORM_TREE
from accelsim.mapping import MappingArrays
from accelsim.optable import E_FORM, H_FORM, EngineTable, OpTable
from accelsim.part_checks import missing_modes, parts_of, refuse
from accelsim.problems import Problem
from accelsim.segment_table import grouped_parts, reduction_parts, sums_parts

_LEVERS = ("a mode that holds these widths", "the same bits and shifts for all parts", "no head widths in these rules")


def check_heads(table: OpTable, engines: EngineTable, accelerator: Accelerator, arrays: MappingArrays) -> None:
    """Raise InfeasibleError with the parts of which an engine cannot execute some head, or cannot add up the heads.

    A systolic array has no way to shift its partial sums, nor to change its mode within them.
    """
    parts = parts_of(arrays, np.flatnonzero(table.heads[:, H_FORM] >= 0))
    refuse(problem for part in parts for problem in _part_problems(table, engines, accelerator, *part))


def aligned_sum_bits(table: OpTable, k: int, s: int) -> int:
    """Two's complement bits that hold any sum of a linear layer's slice in steps of its finest part.

    With one width and no shifts that of `formats.accumulator_bits_needed`.
    """
    item = table.quantized.ops[k]
    assert item.op.loop is not None
    parts = reduction_parts(item, s)
    size = item.op.loop.reduction // len(parts)
    total = sum(size << (part.activation.value_bits + part.weight.value_bits + part.shift) for part in parts)
    return (total - 1).bit_length()


def _part_problems(
    table: OpTable, engines: EngineTable, accelerator: Accelerator, k: int, e: int, s: int
) -> Iterator[Problem]:
    engine = accelerator.engines[e]
    where = f"op {table.op_names[k]} on {engine.name}"
    missing = missing_modes(table, engines, e, head_combos(table, k)[:, s], where, "a head", _LEVERS)
    if missing:
        yield from missing
        return
    if not sums_parts(table.quantized.ops[k]):
        return
    segments = len(grouped_parts(table, engines, k, s, e))
    if engines.engines[e, E_FORM] != FORM_TREE and segments > 1:
        what = f"its sums have {segments} modes or shifts, and a systolic array cannot change them within a sum"
        yield Problem(where, what, "one mode and one shift for all parts", ("an adder-tree array", *_LEVERS))
    need = aligned_sum_bits(table, k, s)
    if need > engine.accumulator_bits:
        yield Problem(
            where, "aligned sums of its parts", "", ("wider accumulators", "smaller shifts", *_LEVERS), need,
            engine.accumulator_bits, "accumulator bits",
        )  # fmt: skip
