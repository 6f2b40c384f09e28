"""Vector unit: cost of a recipe from the closed form, and programs of micro-operations on the stepped model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from accelsim.arch import VectorUnit
from accelsim.ir import VECTOR_KINDS, Recipe, VectorKind
from accelsim.kernels import engine_forms, vector_array
from accelsim.problems import AccelsimError, InfeasibleError, Problem

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class VectorCost:
    """Cycles of a recipe or program, and operations executed by kind (`VECTOR_KINDS` order)."""

    occupancy_cycles: int
    latency_cycles: int
    operations: tuple[int, ...]


class OpCode(IntEnum):
    """Micro-operations; `row` is the register set that every row has beside those of its elements."""

    MULTIPLY = vector_array.MULTIPLY  # dest = left · immediate
    ADD = vector_array.ADD  # dest = left + register
    SUBTRACT_ROW = vector_array.SUBTRACT_ROW  # dest = left − row register
    SUM_TO_ROW = vector_array.SUM_TO_ROW  # row dest += left
    MAX_TO_ROW = vector_array.MAX_TO_ROW  # row dest = max(row dest, left)
    SHIFT_ROUND = vector_array.SHIFT_ROUND  # dest = (left + 2^(immediate − 1)) >> immediate
    CLAMP = vector_array.CLAMP  # dest = clamp(left, −immediate − 1, immediate)
    TABLE = vector_array.TABLE  # dest = table[left]
    DIVIDE_BY_ROW = vector_array.DIVIDE_BY_ROW  # dest = ⌊left / row register⌋, 0 for a zero divisor


KIND_OF: dict[OpCode, VectorKind] = {
    OpCode.MULTIPLY: VectorKind.MUL,
    OpCode.ADD: VectorKind.ADD,
    OpCode.SUBTRACT_ROW: VectorKind.ADD,
    OpCode.SUM_TO_ROW: VectorKind.ADD,
    OpCode.MAX_TO_ROW: VectorKind.COMPARE,
    OpCode.SHIFT_ROUND: VectorKind.SHIFT,
    OpCode.CLAMP: VectorKind.COMPARE,
    OpCode.TABLE: VectorKind.TABLE,
    OpCode.DIVIDE_BY_ROW: VectorKind.DIVISION,
}


@dataclass(frozen=True)
class MicroOp:
    """One operation of a pass, on every element or, with `per_row`, once per row on the row's own registers."""

    step: int
    code: OpCode
    dest: int
    left: int
    right: int = 0
    per_row: bool = False


def pass_operations(recipe: Recipe) -> Int64:
    """Operations [passes, kinds] of a recipe, kinds in `VECTOR_KINDS` order."""
    totals = np.zeros((len(recipe.passes), len(VECTOR_KINDS)), np.int64)
    for p, step in enumerate(recipe.passes):
        for counts, times in ((step.per_element, recipe.elements), (step.per_row, recipe.norm_rows)):
            for kind, count in counts:
                totals[p, VECTOR_KINDS.index(kind)] += count * times
    return totals


def recipe_cost(unit: VectorUnit, recipe: Recipe, bits_per_pass: Sequence[int]) -> VectorCost:
    """Closed-form cost of a recipe whose pass p moves `bits_per_pass[p]` bits through the port.

    Raises InfeasibleError when the recipe needs a functional unit that `unit` lacks, AccelsimError when the number of
    passes differs.
    """
    return operations_cost(unit, pass_operations(recipe), bits_per_pass, recipe.name)


def operations_cost(unit: VectorUnit, operations: Int64, bits_per_pass: Sequence[int], where: str) -> VectorCost:
    """Closed-form cost of `operations` [passes, kinds]; errors as in `recipe_cost`."""
    if len(bits_per_pass) != len(operations):
        raise AccelsimError(Problem(where, f"bits of {len(bits_per_pass)} passes", f"{len(operations)} passes"))
    totals = operations.sum(axis=0)
    throughput = np.array(unit.throughput(), np.int64)
    missing = [kind for k, kind in enumerate(VECTOR_KINDS) if totals[k] and throughput[k] < 1]
    if missing:
        needs = f"needs {', '.join(missing)}, which the vector unit does not have"
        raise InfeasibleError(Problem(where, needs, levers=tuple(f"{kind}_per_cycle ≥ 1" for kind in missing)))
    bits = np.array(bits_per_pass, np.int64)
    cycles = engine_forms.vector_cycles(operations, throughput, bits, unit.port_bits_per_cycle, unit.latency_cycles)
    return VectorCost(*cycles, tuple(int(value) for value in totals))


def program_operations(program: Sequence[MicroOp], rows: int, width: int) -> Int64:
    """Operations [passes, kinds] of a program over `rows` rows of `width` elements."""
    totals = np.zeros((max(item.step for item in program) + 1, len(VECTOR_KINDS)), np.int64)
    for item in program:
        totals[item.step, VECTOR_KINDS.index(KIND_OF[item.code])] += rows if item.per_row else rows * width
    return totals


def walk_program(
    unit: VectorUnit,
    program: Sequence[MicroOp],
    bits_per_pass: Sequence[int],
    registers: Int64,
    table: Int64 | None = None,
) -> tuple[VectorCost, Int64]:
    """Step a program cycle by cycle; returns the observed cost and the registers afterwards.

    `registers` is [rows, width + 1, n]: registers of every element, then those of the row.  Row operations of a
    pass run before the row's elements.  Errors as in `recipe_cost`.
    """
    rows, width = registers.shape[0], registers.shape[1] - 1
    operations_cost(unit, program_operations(program, rows, width), bits_per_pass, "vector program")
    micro = np.array(
        [(p.step, VECTOR_KINDS.index(KIND_OF[p.code]), p.per_row, p.code, p.dest, p.left, p.right) for p in program],
        np.int64,
    )
    state = np.array(registers, np.int64, order="C")
    executed = np.zeros(len(VECTOR_KINDS), np.int64)
    occupancy, latency = vector_array.walk_vector(
        micro,
        np.array(unit.throughput(), np.int64),
        np.array(bits_per_pass, np.int64),
        unit.port_bits_per_cycle,
        unit.latency_cycles,
        np.zeros(1, np.int64) if table is None else np.asarray(table, np.int64),
        state,
        executed,
    )
    return VectorCost(occupancy, latency, tuple(int(value) for value in executed)), state
