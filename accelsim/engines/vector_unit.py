"""Vector unit: cost of a recipe from the closed form, and programs of micro-operations on the stepped model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from accelsim.arch import VectorUnit
from accelsim.ir import VECTOR_KINDS, Recipe, VectorKind, VectorPass
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
    """Micro-operations of integers; `right` is a register, a row register or an immediate (`Operand`)."""

    MULTIPLY = vector_array.MULTIPLY  # dest = left · right
    ADD = vector_array.ADD  # dest = left + right
    SUBTRACT = vector_array.SUBTRACT  # dest = left − right
    SUBTRACT_FROM = vector_array.SUBTRACT_FROM  # dest = right − left
    SUM_TO_ROW = vector_array.SUM_TO_ROW  # row dest += left
    SHIFT_LEFT = vector_array.SHIFT_LEFT  # dest = left << right
    SHIFT_RIGHT = vector_array.SHIFT_RIGHT  # dest = left >> right (floor)
    SHIFT_EVEN = vector_array.SHIFT_EVEN  # dest = left / 2^right to nearest, ties to even
    MAX = vector_array.MAX  # dest = max(left, right)
    MIN = vector_array.MIN  # dest = min(left, right)
    MAX_TO_ROW = vector_array.MAX_TO_ROW  # row dest = max(row dest, left)
    SIGN = vector_array.SIGN  # dest = −right where left < 0, else right; left = right: the absolute value
    AT_LEAST = vector_array.AT_LEAST  # dest = 1 where left ≥ right, else 0
    TABLE = vector_array.TABLE  # dest = table[left], a negative index counts from the end (two's complement)
    DIVIDE = vector_array.DIVIDE  # dest = ⌊left / right⌋, 0 for a zero divisor, saturated to `bits` quotient bits
    DIVIDE_INTO = vector_array.DIVIDE_INTO  # dest = ⌊right / left⌋, likewise
    DIVIDE_INTO_EVEN = vector_array.DIVIDE_INTO_EVEN  # dest = right / left to nearest, ties to even; limits as DIVIDE
    LEADING_ONE = vector_array.LEADING_ONE  # dest = ⌊log2 left⌋, −1 for left ≤ 0


class Operand(IntEnum):
    """What `MicroOp.right` names."""

    REGISTER = vector_array.REGISTER
    ROW = vector_array.ROW
    IMMEDIATE = vector_array.IMMEDIATE


KIND_OF: dict[OpCode, VectorKind] = {
    OpCode.MULTIPLY: VectorKind.MUL,
    OpCode.ADD: VectorKind.ADD,
    OpCode.SUBTRACT: VectorKind.ADD,
    OpCode.SUBTRACT_FROM: VectorKind.ADD,
    OpCode.SUM_TO_ROW: VectorKind.ADD,
    OpCode.SHIFT_LEFT: VectorKind.SHIFT,
    OpCode.SHIFT_RIGHT: VectorKind.SHIFT,
    OpCode.SHIFT_EVEN: VectorKind.SHIFT,
    OpCode.MAX: VectorKind.COMPARE,
    OpCode.MIN: VectorKind.COMPARE,
    OpCode.MAX_TO_ROW: VectorKind.COMPARE,
    OpCode.SIGN: VectorKind.COMPARE,
    OpCode.AT_LEAST: VectorKind.COMPARE,
    OpCode.TABLE: VectorKind.TABLE,
    OpCode.DIVIDE: VectorKind.DIVISION,
    OpCode.DIVIDE_INTO: VectorKind.DIVISION,
    OpCode.DIVIDE_INTO_EVEN: VectorKind.DIVISION,
    OpCode.LEADING_ONE: VectorKind.LEADING_ONE,
}
# Widths of the functional units in bits: factors of the multiplier; quotient and divisor of a divider; else the word.
MULTIPLIER_BITS = 16
QUOTIENT_BITS, DIVISOR_BITS = 16, 24
WORD_BITS = 32


@dataclass(frozen=True)
class MicroOp:
    """One operation of a pass, on every element or, with `per_row`, once per row on the row's own registers.

    `bits` is the width of the operation: of the left factor of a product (`right_bits`: of the right one), of the
    quotient (`right_bits`: of the divisor; the numerator has as many as both together), of operands and result of
    everything else.  0 is the width of the functional unit.  What is wider takes more issue slots (decision 0017).
    """

    step: int
    code: OpCode
    dest: int
    left: int
    right: int = 0
    per_row: bool = False
    operand: Operand = Operand.REGISTER
    bits: int = 0
    right_bits: int = 0

    @property
    def kind(self) -> VectorKind:
        """The functional unit."""
        return KIND_OF[self.code]

    @property
    def widths(self) -> tuple[int, int]:
        """`bits` and `right_bits` with the functional unit's own where they are 0."""
        if self.kind is VectorKind.MUL:
            return self.bits or MULTIPLIER_BITS, self.right_bits or MULTIPLIER_BITS
        if self.kind is VectorKind.DIVISION:
            return self.bits or QUOTIENT_BITS, self.right_bits or DIVISOR_BITS
        return (self.bits or WORD_BITS,) * 2

    @property
    def slots(self) -> int:
        """Issue slots of its kind."""
        left, right = self.widths
        if self.kind is VectorKind.TABLE:
            return 1
        if self.kind is VectorKind.MUL:
            return -(-left // MULTIPLIER_BITS) * -(-right // MULTIPLIER_BITS)
        if self.kind is VectorKind.DIVISION:
            guard = int(self.code is OpCode.DIVIDE_INTO_EVEN)  # one more quotient bit decides how to round
            return -(-(left + guard) // QUOTIENT_BITS) * -(-right // DIVISOR_BITS)
        return -(-left // WORD_BITS)

    @property
    def joins(self) -> int:
        """Slots of the adders: the increment of a rounded result, and what joins the partial products of a wide one.

        With a ≥ b digits of 16 bits: each of the b rows of a partial products takes a − 1 additions of one word, and
        each but the first is added to the sum of the others over its 16 (a + 1) bits.
        """
        if self.code in (OpCode.SHIFT_EVEN, OpCode.DIVIDE_INTO_EVEN):
            return -(-self.widths[0] // WORD_BITS)
        if self.kind is not VectorKind.MUL:
            return 0
        few, many = sorted(-(-bits // MULTIPLIER_BITS) for bits in self.widths)
        return few * (many - 1) + (few - 1) * -(-MULTIPLIER_BITS * (many + 1) // WORD_BITS)


def micro_counts(items: Iterable[MicroOp]) -> tuple[tuple[VectorKind, int], ...]:
    """Issue slots by kind, in `VECTOR_KINDS` order, kinds without any left out."""
    totals = dict.fromkeys(VECTOR_KINDS, 0)
    for item in items:
        totals[item.kind] += item.slots
        totals[VectorKind.ADD] += item.joins
    return tuple((kind, count) for kind, count in totals.items() if count)


def program_passes(program: Sequence[MicroOp]) -> tuple[VectorPass, ...]:
    """The passes of a recipe that a program is: issue slots per element and per row by kind."""
    return tuple(
        VectorPass(
            micro_counts(item for item in program if item.step == step and not item.per_row),
            micro_counts(item for item in program if item.step == step and item.per_row),
        )
        for step in range(max(item.step for item in program) + 1)
    )


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
    return pass_operations(Recipe("vector program", program_passes(program), 1, rows, 1, width))


def walk_program(
    unit: VectorUnit,
    program: Sequence[MicroOp],
    bits_per_pass: Sequence[int],
    registers: Int64,
    table: Int64 | None = None,
) -> tuple[VectorCost, Int64]:
    """Step a program cycle by cycle; returns the observed cost and the registers afterwards.

    `registers` is [rows, width + 1, n]: registers of every element, then those of the row.  Row operations of a
    pass run before the row's elements.  Errors as in `recipe_cost`; AccelsimError when a value does not fit the width
    that its micro-operation declares.
    """
    rows, width = registers.shape[0], registers.shape[1] - 1
    operations_cost(unit, program_operations(program, rows, width), bits_per_pass, "vector program")
    state = np.array(registers, np.int64, order="C")
    executed = np.zeros(len(VECTOR_KINDS), np.int64)
    occupancy, latency, misfits = vector_array.walk_vector(
        np.array([_columns(item) for item in program], np.int64),
        np.array(unit.throughput(), np.int64),
        np.array(bits_per_pass, np.int64),
        unit.port_bits_per_cycle,
        unit.latency_cycles,
        np.zeros(1, np.int64) if table is None else np.asarray(table, np.int64),
        state,
        executed,
    )
    if misfits:
        what = f"{misfits} operations have values that do not fit their declared widths"
        raise AccelsimError(Problem("vector program", what, "operands within the ranges of the program"))
    return VectorCost(occupancy, latency, tuple(int(value) for value in executed)), state


def _columns(item: MicroOp) -> tuple[int, ...]:
    """A micro-operation as the kernel reads it."""
    return (
        item.step, VECTOR_KINDS.index(item.kind), item.per_row, item.code, item.operand, item.dest, item.left,
        item.right, item.slots, item.joins, *item.widths,
    )  # fmt: skip
