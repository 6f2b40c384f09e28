"""Cycle-stepped model of the vector unit that computes values: micro-operations over rows of elements.

Every cycle each functional-unit kind issues up to its throughput from its own stream of micro-operations (rows in
order, the row's own operations first) and the port moves its bits.  An element's values appear once every kind has
issued its operations of that element and its bits have moved; the skew between dependent kinds is part of the unit's
latency.  A pass ends when every stream is empty and every bit has moved.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.kernels.jit import jit

# Columns of a micro-operation.
PASS, KIND, PER_ROW, OPCODE, DEST, LEFT, RIGHT, MICRO_SIZE = range(8)
# Operation codes; registers are per element, and every row has one more set of them (index `width`) of its own.
MULTIPLY, ADD, SUBTRACT_ROW, SUM_TO_ROW, MAX_TO_ROW, SHIFT_ROUND, CLAMP, TABLE, DIVIDE_BY_ROW = range(9)


@jit
def _execute(micro: Any, registers: Any, row: int, j: int, table: Any) -> None:
    """One micro-operation on element (row, j); `RIGHT` is a register, or the immediate of MULTIPLY, SHIFT and CLAMP."""
    own = registers[row, registers.shape[1] - 1]
    regs = registers[row, j]
    code, dest, right = micro[OPCODE], micro[DEST], micro[RIGHT]
    left = regs[micro[LEFT]]
    if code == MULTIPLY:
        regs[dest] = left * right
    elif code == ADD:
        regs[dest] = left + regs[right]
    elif code == SUBTRACT_ROW:
        regs[dest] = left - own[right]
    elif code == SUM_TO_ROW:
        own[dest] += left
    elif code == MAX_TO_ROW:
        own[dest] = max(own[dest], left)
    elif code == SHIFT_ROUND:
        regs[dest] = (left + (1 << (right - 1))) >> right
    elif code == CLAMP:
        regs[dest] = min(max(left, -right - 1), right)
    elif code == TABLE:
        regs[dest] = table[left]
    elif own[right] == 0:  # DIVIDE_BY_ROW: a zero divisor gives zero
        regs[dest] = 0
    else:
        regs[dest] = left // own[right]


@jit
def _run_slot(program: Any, p: int, per_row: int, registers: Any, row: int, j: int, table: Any, ops: Any) -> None:
    """All micro-operations of pass p on one element, or on the row's own registers; `ops` counts them by kind."""
    for m in range(program.shape[0]):
        if program[m, PASS] == p and program[m, PER_ROW] == per_row:
            _execute(program[m], registers, row, j, table)
            ops[program[m, KIND]] += 1


@jit
def _slot_ready(per_row: Any, per_element: Any, issued: Any, row: int, j: int, width: int) -> bool:
    """True when every kind has issued its operations of all slots up to element j of a row."""
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
            if program[m, PER_ROW]:
                per_row[program[m, KIND]] += 1
            else:
                per_element[program[m, KIND]] += 1


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
) -> tuple[int, int]:
    """Walk a vector program cycle by cycle; returns (occupancy_cycles, latency_cycles).

    `program` [micro-operations, MICRO_SIZE]; `throughput` and `ops` (zeroed; operations executed) by `VECTOR_KINDS`;
    `bits` [passes] moved through a port of `port` bits per cycle; `registers` [rows, width + 1, n] is read and written.
    """
    rows, width = registers.shape[0], registers.shape[1] - 1
    kinds = throughput.shape[0]
    per_row, per_element = np.zeros(kinds, np.int64), np.zeros(kinds, np.int64)
    cycle = 0
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
                    _run_slot(program, p, 1, registers, row, width, table, ops)
                _run_slot(program, p, 0, registers, row, j, table, ops)
                front += 1
    occupancy = cycle
    for _ in range(latency):  # the last values travel through the unit's pipeline
        cycle += 1
    return occupancy, cycle
