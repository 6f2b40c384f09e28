"""Programs of the vector unit: how they are written, what they cost, and how one is run on the stepped model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.arch import VectorUnit
from accelsim.engines.vector_unit import MicroOp, OpCode, Operand, VectorCost, program_passes, walk_program
from accelsim.formats import Format
from accelsim.ir import VectorPass
from accelsim.problems import AccelsimError, Problem

MAX_ROW_WIDTH = 4096  # elements of a row for which the declared widths of sums hold
MULTIPLIER_BITS = 16  # of a requantization, with its sign
SIGNED = 1  # added to the bits of a magnitude


class Register(NamedTuple):
    """A register of every element, or of the row."""

    number: int
    of_row: bool = False


@dataclass(frozen=True)
class Program:
    """Micro-operations of a method with its constants, the registers that hold operands, and those with results.

    `operands` and `results` are (name, register of every element); `row_start` what the row's registers hold when a
    row begins; `registers` how many an element (and a row) has.  "code" is the result that is stored, "value" the
    integer of the method before its requantization.
    """

    micro: tuple[MicroOp, ...]
    operands: tuple[tuple[str, int], ...]
    results: tuple[tuple[str, int], ...]
    row_start: tuple[int, ...]
    registers: int

    @property
    def passes(self) -> tuple[VectorPass, ...]:
        """Issue slots by kind of every pass, per element and per row."""
        return program_passes(self.micro)


@dataclass(frozen=True)
class Requantize:
    """Immediates of the last step: code = clamp((y · multiplier + addend) >> shift, low, high); 16 bits and sign.

    `addend` holds the rounding and the zero point, zero · 2^shift + 2^(shift − 1).  With `regions`, a two-region
    format, what is clamped are fine steps, and the code of the nearest level is stored.
    """

    multiplier: int
    addend: int
    shift: int
    low: int = -128
    high: int = 127
    regions: Format | None = None


class Builder:
    """Writes a program: every call appends one micro-operation and names its result.

    An operation whose left operand is a row register runs once per row, before the elements of its pass.
    """

    def __init__(self) -> None:
        self._micro: list[MicroOp] = []
        self._operands: list[tuple[str, int]] = []
        self._row_start: list[int] = []
        self._elements = 0
        self._step = 0

    def operand(self, name: str) -> Register:
        """A register that holds an input of every element when the row begins."""
        register = self._new(of_row=False)
        self._operands.append((name, register.number))
        return register

    def row(self, start: int = 0) -> Register:
        """A row register that holds `start` when a row begins."""
        self._row_start.append(start)
        return Register(len(self._row_start) - 1, of_row=True)

    def next_pass(self) -> None:
        """What follows belongs to the next pass over the row."""
        self._step += 1

    def op(
        self, code: OpCode, left: Register, right: Register | int = 0, bits: int = 0, right_bits: int = 0
    ) -> Register:
        """One micro-operation; an int is an immediate, `bits` and `right_bits` as of `MicroOp`."""
        dest = self._new(left.of_row)
        self._append(code, dest, left, right, bits, right_bits)
        return dest

    def to_row(self, code: OpCode, dest: Register, left: Register, bits: int = 0) -> None:
        """SUM_TO_ROW or MAX_TO_ROW of every element into a row register."""
        self._append(code, dest, left, 0, bits, 0)

    def requantize(self, value: Register, store: Requantize, bits: int) -> Register:
        """(value · M + C) >> s, the clamp and the region, as the codes are stored; `value` has `bits` bits.

        Raises AccelsimError when M has more than 16 bits or C more than the product.
        """
        wide = bits + MULTIPLIER_BITS
        require_bits("requantization", "multiplier", store.multiplier, MULTIPLIER_BITS)
        require_bits("requantization", "addend", store.addend, wide)
        product = self.op(OpCode.MULTIPLY, value, store.multiplier, bits, MULTIPLIER_BITS)
        moved = self.op(OpCode.SHIFT_RIGHT, self.op(OpCode.ADD, product, store.addend, wide), store.shift, wide)
        clamped = self.clamp(moved, store.low, store.high)
        return self.region_code(clamped, store.regions) if store.regions else clamped

    def region_code(self, steps: Register, fmt: Format) -> Register:
        """The stored word of the level nearest to a number of fine steps in the range of a two-region format.

        Ties go to the lower level.  With h = 2^(m−1) − 1 (0 for m = 0) and a negative region the word is
        min(v, (v + h) >> m): the first is less where v is negative, the second where it is not.  Without one it
        is (v + h) >> m with the flag for v > T, else min(v, 2^(b−1) − 1); the flag is added before the shift, and the
        sign of v − T − 1 selects.
        """
        shift, flag = fmt.region_shift, fmt.low_codes
        half = max(0, (1 << shift) // 2 - 1)
        if fmt.low_negative:
            coarse = self.op(OpCode.SHIFT_RIGHT, self.op(OpCode.ADD, steps, half), shift)
            return self.op(OpCode.MIN, steps, coarse)
        coarse = self.op(OpCode.SHIFT_RIGHT, self.op(OpCode.ADD, steps, half + (flag << shift)), shift)
        above = self.op(OpCode.ADD, steps, -1 - last_fine_step(fmt))
        fine = self.op(OpCode.MIN, steps, flag - 1)
        return self.op(OpCode.MAX, fine, self.op(OpCode.SIGN, above, coarse))

    def clamp(self, value: Register, low: int, high: int) -> Register:
        """Two compares."""
        return self.op(OpCode.MIN, self.op(OpCode.MAX, value, low), high)

    def finish(self, code: Register, value: Register) -> Program:
        """The program, with its stored code and the method's own integer."""
        results = (("code", code.number), ("value", value.number))
        registers = max(self._elements, len(self._row_start))
        return Program(tuple(self._micro), tuple(self._operands), results, tuple(self._row_start), registers)

    def _new(self, of_row: bool) -> Register:
        if of_row:
            return self.row()
        self._elements += 1
        return Register(self._elements - 1)

    def _append(
        self, code: OpCode, dest: Register, left: Register, right: Register | int, bits: int, right_bits: int
    ) -> None:
        kind, number = Operand.IMMEDIATE, right
        if isinstance(right, Register):
            kind, number = Operand.ROW if right.of_row else Operand.REGISTER, right.number
        assert isinstance(number, int)
        self._micro.append(
            MicroOp(self._step, code, dest.number, left.number, number, left.of_row, kind, bits, right_bits)
        )


def run_program(
    unit: VectorUnit,
    program: Program,
    operands: Mapping[str, ArrayLike],
    bits_per_pass: Sequence[int],
    table: ArrayLike | None = None,
) -> tuple[VectorCost, dict[str, NDArray[np.int64]]]:
    """Run a program on the stepped vector unit; returns the observed cost and the results [rows, width] by name.

    `operands` are integers [rows, width], or [width] where all rows share them (constants of channels).  Raises
    InfeasibleError without a functional unit that it needs, AccelsimError for a missing operand, rows of more than
    4,096 elements, or a value that does not fit the width that its micro-operation declares.
    """
    missing = [name for name, _ in program.operands if name not in operands]
    if missing:
        expected = ", ".join(name for name, _ in program.operands)
        raise AccelsimError(Problem("operands", f"no {', '.join(missing)}", expected))
    arrays = [np.asarray(operands[name], np.int64) for name, _ in program.operands]
    rows, width = np.broadcast_shapes(*(array.shape for array in arrays))
    if width > MAX_ROW_WIDTH:
        raise AccelsimError(Problem("operands", f"rows of {width:,}", f"at most {MAX_ROW_WIDTH:,} elements"))
    registers = np.zeros((rows, width + 1, program.registers), np.int64)
    registers[:, width, : len(program.row_start)] = program.row_start
    for (_, number), array in zip(program.operands, arrays, strict=True):
        registers[:, :width, number] = array
    entries = None if table is None else np.asarray(table, np.int64)
    cost, after = walk_program(unit, program.micro, bits_per_pass, registers, entries)
    return cost, {name: after[:, :width, number] for name, number in program.results}


def constant_quotient(build: Builder, value: Register, divisor: int, bits: int) -> Register:
    """⌊value / divisor⌋ for a constant divisor < 0 and −2^bits < value ≤ 0: a multiply and a shift, exact.

    With k = bits + ⌈log2 |divisor|⌉ and R = ⌈2^k / |divisor|⌉ the error of R/2^k is below 2^−bits of 1/|divisor|
    (Granlund and Montgomery, PLDI 1994, theorem 4.2): R has bits + 1 bits.  A positive value below 2^bits gives one
    less where it is a multiple of the divisor.
    """
    places = bits + (-divisor - 1).bit_length()
    reciprocal = -(-(1 << places) // -divisor)
    product = build.op(OpCode.MULTIPLY, value, -reciprocal, bits + SIGNED, bits + 1 + SIGNED)
    return build.op(OpCode.SHIFT_RIGHT, product, places)


def require_bits(where: str, name: str, value: int, bits: int) -> None:
    """Raise AccelsimError unless `value` is a signed number of `bits` bits."""
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise AccelsimError(Problem(where, f"{name} = {value}", f"a signed number of {bits} bits", ("another scale",)))


def last_fine_step(fmt: Format) -> int:
    """T of a two-region format without a negative region: the largest number of fine steps stored in the fine region.

    Halfway, rounded down, between 2^(b−1) − 1 and the smallest multiple of 2^m above.
    """
    top, coarse = fmt.low_codes - 1, 1 << fmt.region_shift
    return (top + (top // coarse + 1) * coarse) // 2
