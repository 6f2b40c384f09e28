"""Cycle-stepped model of the vector unit that computes values: micro-operations over rows of elements.

Every cycle each functional-unit kind issues up to its throughput from its own stream of issue slots (rows in order, the
row's own operations first) and the port moves its bits.  An operation wider than its functional unit takes several
slots, and a wide product adds its partial products in the adders.  An element's values appear once every kind has
issued the slots of that element and its bits have moved; the skew between dependent kinds is part of the unit's
latency.  A pass ends when every stream is empty and every bit has moved.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.ir import VECTOR_KINDS, VectorKind
from accelsim.kernels.jit import jit

# Columns of a micro-operation: SLOTS of its KIND and JOINS of the adders, operands of LEFT_BITS and RIGHT_BITS.
(
    PASS, KIND, PER_ROW, OPCODE, OPERAND, DEST, LEFT, RIGHT, SLOTS, JOINS, LEFT_BITS, RIGHT_BITS, MICRO_SIZE,
) = range(13)  # fmt: skip
# Operation codes; registers are per element, and every row has one more set of them (index `width`) of its own.
(
    MULTIPLY, ADD, SUBTRACT, SUBTRACT_FROM, SUM_TO_ROW, SHIFT_LEFT, SHIFT_RIGHT, SHIFT_EVEN, MAX, MIN, MAX_TO_ROW, SIGN,
    AT_LEAST, TABLE, DIVIDE, DIVIDE_INTO, DIVIDE_INTO_EVEN, LEADING_ONE,
) = range(18)  # fmt: skip
# What RIGHT names: a register of the element, one of the row, or the value itself.
REGISTER, ROW, IMMEDIATE = range(3)
ADDERS = VECTOR_KINDS.index(VectorKind.ADD)


@jit
def _fits(value: int, bits: int) -> bool:
    """True when a word of `bits` bits holds the value, as a signed or as an unsigned number."""
    return -(1 << (bits - 1)) <= value < (1 << bits)


@jit
def _quotient(numerator: int, divisor: int, bits: int) -> int:
    """⌊numerator / divisor⌋, at most the largest number of `bits` bits; a zero divisor gives zero."""
    if divisor == 0:
        return 0
    return min(numerator // divisor, (1 << bits) - 1)


@jit
def _nearest(numerator: int, divisor: int, bits: int) -> int:
    """The quotient by a divisor > 0 rounded to nearest, ties to even; limits as `_quotient`."""
    if divisor == 0:
        return 0
    quotient = numerator // divisor
    rest = numerator - quotient * divisor
    above = rest > divisor - rest or (rest == divisor - rest and quotient & 1 == 1)
    return min(quotient + (1 if above else 0), (1 << bits) - 1)


@jit
def _leading_one(value: int) -> int:
    """Index of the highest set bit, −1 for a value of zero or less."""
    index = -1
    while value > 0:
        value >>= 1
        index += 1
    return index


@jit
def _result(code: int, left: int, right: int, bits: int) -> int:
    """What an operation on two integers gives; `bits` limits a quotient."""
    if code == MULTIPLY:
        return left * right
    if code in (ADD, SUM_TO_ROW):
        return left + right
    if code == SUBTRACT:
        return left - right
    if code == SUBTRACT_FROM:
        return right - left
    if code == SHIFT_LEFT:
        return left << right
    if code == SHIFT_RIGHT:
        return left >> right
    if code == SHIFT_EVEN:
        return _nearest(left, 1 << right, 62)
    if code in (MAX, MAX_TO_ROW):
        return max(left, right)
    if code == MIN:
        return min(left, right)
    if code == SIGN:
        return -right if left < 0 else right
    if code == AT_LEAST:
        return 1 if left >= right else 0
    if code == DIVIDE:
        return _quotient(left, right, bits)
    if code == DIVIDE_INTO:
        return _quotient(right, left, bits)
    if code == DIVIDE_INTO_EVEN:
        return _nearest(right, left, bits)
    return _leading_one(left)


@jit
def _misfits(micro: Any, left: int, right: int, result: int) -> bool:
    """True when an operand or the result does not fit the widths that the micro-operation declares."""
    code, bits, right_bits = micro[OPCODE], micro[LEFT_BITS], micro[RIGHT_BITS]
    if code == TABLE:
        return False
    if code == MULTIPLY:
        return not (_fits(left, bits) and _fits(right, right_bits))
    if code in (DIVIDE, DIVIDE_INTO, DIVIDE_INTO_EVEN):
        numerator, divisor = (left, right) if code == DIVIDE else (right, left)
        wide = min(bits + right_bits, 62)  # a quotient times a divisor
        return not (_fits(numerator, wide) and _fits(divisor, right_bits) and _fits(result, bits))
    if code == SHIFT_LEFT and 0 <= right <= 62 and (left << right) >> right != left:
        return True  # int64 lost bits: the result may look small
    if code in (SHIFT_LEFT, SHIFT_RIGHT, SHIFT_EVEN):
        return not (_fits(left, bits) and _fits(result, bits)) or right < 0 or right > 62
    if code == LEADING_ONE:
        return not _fits(left, bits)
    return not (_fits(left, bits) and _fits(right, bits) and _fits(result, bits))


@jit
def _execute(micro: Any, registers: Any, row: int, j: int, table: Any) -> bool:
    """One micro-operation on element (row, j); True when a value does not fit its declared width."""
    own = registers[row, registers.shape[1] - 1]
    regs = registers[row, j]
    code, dest, right = micro[OPCODE], micro[DEST], micro[RIGHT]
    left = regs[micro[LEFT]]
    if code == TABLE:
        regs[dest] = table[left % table.shape[0]]
        return False
    if code in (SUM_TO_ROW, MAX_TO_ROW):
        value = own[dest]
    elif micro[OPERAND] == IMMEDIATE:
        value = right
    else:
        value = own[right] if micro[OPERAND] == ROW else regs[right]
    result = _result(code, left, value, micro[LEFT_BITS])
    if code in (SUM_TO_ROW, MAX_TO_ROW):
        own[dest] = result
    else:
        regs[dest] = result
    return _misfits(micro, left, value, result)


@jit
def _run_slot(program: Any, p: int, per_row: int, registers: Any, row: int, j: int, table: Any, ops: Any) -> int:
    """All micro-operations of pass p on one element, or on the row's own registers; returns how many do not fit.

    `ops` counts the issue slots by kind.
    """
    misfits = 0
    for m in range(program.shape[0]):
        if program[m, PASS] == p and program[m, PER_ROW] == per_row:
            if _execute(program[m], registers, row, j, table):
                misfits += 1
            ops[program[m, KIND]] += program[m, SLOTS]
            ops[ADDERS] += program[m, JOINS]
    return misfits


@jit
def _slot_ready(per_row: Any, per_element: Any, issued: Any, row: int, j: int, width: int) -> bool:
    """True when every kind has issued its slots of all elements up to j of a row."""
    for k in range(issued.shape[0]):
        before = row * (per_row[k] + width * per_element[k]) + per_row[k] + (j + 1) * per_element[k]
        if issued[k] < before:
            return False
    return True


@jit
def _stream_lengths(program: Any, p: int, per_row: Any, per_element: Any) -> None:
    per_row[:] = 0
    per_element[:] = 0
    for m in range(program.shape[0]):
        if program[m, PASS] == p:
            stream = per_row if program[m, PER_ROW] else per_element
            stream[program[m, KIND]] += program[m, SLOTS]
            stream[ADDERS] += program[m, JOINS]


@jit
def _issue(per_row: Any, per_element: Any, throughput: Any, rows: int, width: int, issued: Any) -> bool:
    """One cycle of every functional-unit kind; True when all streams of the pass are empty."""
    empty = True
    for k in range(issued.shape[0]):
        total = rows * (per_row[k] + width * per_element[k])
        issued[k] = min(total, issued[k] + throughput[k])
        if issued[k] < total:
            empty = False
    return empty


@jit
def walk_vector(
    program: Any, throughput: Any, bits: Any, port: int, latency: int, table: Any, registers: Any, ops: Any
) -> tuple[int, int, int]:
    """Walk a vector program cycle by cycle; returns (occupancy_cycles, latency_cycles, misfits).

    `program` [micro-operations, MICRO_SIZE]; `throughput` and `ops` (zeroed; slots issued) by `VECTOR_KINDS`;
    `bits` [passes] moved through a port of `port` bits per cycle; `registers` [rows, width + 1, n] is read and written.
    `misfits` counts executed operations with a value that does not fit the declared widths.
    """
    rows, width = registers.shape[0], registers.shape[1] - 1
    kinds = throughput.shape[0]
    per_row, per_element = np.zeros(kinds, np.int64), np.zeros(kinds, np.int64)
    cycle = misfits = 0
    for p in range(bits.shape[0]):
        _stream_lengths(program, p, per_row, per_element)
        issued = np.zeros(kinds, np.int64)
        moved = front = 0
        done = False
        while not done:
            cycle += 1
            moved = min(bits[p], moved + port)
            done = _issue(per_row, per_element, throughput, rows, width, issued) and moved == bits[p]
            while front < rows * width:
                row, j = front // width, front % width
                if moved * rows * width < bits[p] * (front + 1):
                    break
                if not _slot_ready(per_row, per_element, issued, row, j, width):
                    break
                if j == 0:
                    misfits += _run_slot(program, p, 1, registers, row, width, table, ops)
                misfits += _run_slot(program, p, 0, registers, row, j, table, ops)
                front += 1
    occupancy = cycle
    for _ in range(latency):  # the last values travel through the unit's pipeline
        cycle += 1
    return occupancy, cycle, misfits
