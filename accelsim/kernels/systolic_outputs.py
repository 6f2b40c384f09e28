"""Cycle-stepped output-stationary systolic array that computes values; proves the os forms of `systolic_forms.py`.

One clock cycle per loop turn.  Activations move right and weights down, one element per cycle; every element adds its
own result.  A finished result moves to the element's drain register; the drain registers of a column are a chain that
shifts down into an exit register, one row of results per turn of the output stage.  A tile with fewer positions than
rows uses the last rows, next to the exit.  Geometry and result as in `systolic_stationary.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.kernels.arrays import requantize_one
from accelsim.kernels.jit import jit
from accelsim.kernels.products import split_product
from accelsim.kernels.systolic_stationary import (
    ACCUMULATES,
    ACCUMULATOR_BITS,
    ACTIVATION_BITS,
    ACTIVATION_PORT,
    ACTIVATION_READ,
    CHANNELS,
    CLAMP_HIGH,
    CLAMP_LOW,
    COLS,
    FIELD_BITS,
    GROUPS,
    LATENCY,
    MACS,
    OUTPUT_LATENCY,
    OUTPUTS,
    OUTPUTS_PER_CYCLE,
    POSITIONS,
    PRODUCTS,
    REDUCTION,
    ROWS,
    STATUS,
    STATUS_HAZARD,
    STATUS_OVERFLOW,
    WEIGHT_BITS,
    WEIGHT_PORT,
    WEIGHT_READ,
    packed_weights,
)

# Sequencer: block (group, first position, first channel, number), reduction step, port counters, what is reserved.
_GROUP, _POSITION, _CHANNEL, _BLOCK, _STEP, _HAVE_A, _HAVE_W, _ROW_SLOTS, _ROWS_KEPT, _FETCHED, _DONE, _SEQ = range(12)
# A word on its way: block number (-1: none), first and last step of the block.
_TAG_BLOCK, _TAG_FIRST, _TAG_LAST, _TAG = range(4)


@jit
def _word(
    geo: Any, seq: Any, used: int, acts: Any, weights: Any, left: Any, top: Any, tag: Any, result: Any
) -> None:  # fmt: skip
    """Both operands of one reduction step into the registers at the edges; counts what comes from SRAM."""
    g, k = seq[_GROUP], seq[_STEP]
    for r in range(geo[ROWS]):
        position = seq[_POSITION] + r - (geo[ROWS] - used)
        if r >= geo[ROWS] - used and position < geo[POSITIONS]:
            left[r] = acts[g, position, k]
            result[ACTIVATION_READ] += geo[ACTIVATION_BITS]
    for c in range(geo[COLS]):
        channel = seq[_CHANNEL] + c * geo[PRODUCTS]
        top[c] = packed_weights(geo, weights, g, channel, k)
        result[WEIGHT_READ] += max(0, min(geo[PRODUCTS], geo[CHANNELS] - channel)) * geo[WEIGHT_BITS]
    tag[_TAG_BLOCK], tag[_TAG_FIRST], tag[_TAG_LAST] = seq[_BLOCK], k == 0, k == geo[REDUCTION] - 1


@jit
def _sequence(
    geo: Any, seq: Any, used: int, slots: int, bits: Any, acts: Any, weights: Any, left: Any, top: Any, tag: Any,
    places: Any, result: Any,
) -> None:  # fmt: skip
    """One cycle of both ports and of the reservation of the output stage; moves on when a block has both."""
    if seq[_STEP] == 0 and not seq[_FETCHED]:
        places[seq[_BLOCK], :3] = seq[: _CHANNEL + 1]
    if not seq[_FETCHED]:
        seq[_HAVE_A] += geo[ACTIVATION_PORT]
        seq[_HAVE_W] += geo[WEIGHT_PORT]
        if seq[_HAVE_A] >= bits[0] and seq[_HAVE_W] >= bits[1]:
            seq[_HAVE_A] = seq[_HAVE_W] = 0
            _word(geo, seq, used, acts, weights, left, top, tag, result)
            seq[_STEP] += 1
            seq[_FETCHED] = seq[_STEP] == geo[REDUCTION]
    seq[_ROW_SLOTS] += geo[OUTPUTS_PER_CYCLE]
    if seq[_ROW_SLOTS] >= slots:
        seq[_ROW_SLOTS] = 0
        seq[_ROWS_KEPT] += 1
    if seq[_FETCHED] and seq[_ROWS_KEPT] >= used:
        seq[_STEP] = seq[_FETCHED] = seq[_ROWS_KEPT] = seq[_ROW_SLOTS] = 0
        seq[_BLOCK] += 1
        seq[_POSITION] += geo[ROWS]
        if seq[_POSITION] >= geo[POSITIONS]:
            seq[_POSITION] = 0
            seq[_CHANNEL] += geo[COLS] * geo[PRODUCTS]
        if seq[_CHANNEL] >= geo[CHANNELS]:
            seq[_CHANNEL] = 0
            seq[_GROUP] += 1
        seq[_DONE] = seq[_GROUP] == geo[GROUPS]


@jit
def _inside(geo: Any, place: Any, row: int, channel_offset: int) -> bool:
    return place[1] + row < geo[POSITIONS] and place[2] + channel_offset < geo[CHANNELS]


@jit
def _element(
    geo: Any, r: int, c: int, used: int, tag: Any, place: Any, left: Any, top: Any, sums: Any, drain: Any, full: Any,
    result: Any,
) -> None:  # fmt: skip
    """Add the product that meets in an element; after the last one hand the result to the drain register."""
    limit = 1 << (geo[ACCUMULATOR_BITS] - 1)
    row = r - (geo[ROWS] - used)
    for p in range(geo[PRODUCTS]):
        product = split_product(left[r, c], top[r, c], p, geo[FIELD_BITS])
        sums[r, c, p] = product if tag[_TAG_FIRST] else sums[r, c, p] + product
        if row >= 0 and _inside(geo, place, row, c * geo[PRODUCTS] + p):
            result[ACCUMULATES] += 1
            result[MACS] += 1
            if sums[r, c, p] >= limit or sums[r, c, p] < -limit:
                result[STATUS] = STATUS_OVERFLOW
    if tag[_TAG_LAST] and row >= 0:
        if full[r, c]:
            result[STATUS] = STATUS_HAZARD
        full[r, c] = 1
        drain[r, c] = sums[r, c]


@jit
def _shift_column(
    geo: Any, c: int, used: int, turn: int, chain: Any, drain: Any, full: Any, exits: Any, result: Any
) -> bool:
    """One cycle of the drain chain of a column; True when a result entered the exit register.

    `chain[c]` is (results still to come, cycles until the next shift, results handed over).
    """
    if chain[c, 0] == 0:
        return False
    chain[c, 1] -= 1
    if chain[c, 1] > 0:
        return False
    bottom = geo[ROWS] - 1
    if not full[bottom, c]:
        result[STATUS] = STATUS_HAZARD
    exits[chain[c, 2], c] = drain[bottom, c]
    # Only what is left of the draining block shifts: above it the next block's results may stand already.
    top = bottom - chain[c, 0] + 1
    for r in range(bottom, top, -1):
        drain[r, c] = drain[r - 1, c]
    full[top, c] = 0
    chain[c, 0] -= 1
    chain[c, 1] = turn
    chain[c, 2] += 1
    return True


@jit
def _array(
    geo: Any, cycle: int, used: int, turn: int, past: int, edges_left: Any, edges_top: Any, tags: Any, places: Any,
    left: Any, top: Any, sums: Any, drain: Any, full: Any, chain: Any, exits: Any, result: Any,
) -> int:  # fmt: skip
    """One cycle of the drain chains and of all elements; returns the rows that left the last column (0 or 1)."""
    rows, cols = geo[ROWS], geo[COLS]
    complete = 0
    for c in range(cols):
        left_column = _shift_column(geo, c, used, turn, chain, drain, full, exits, result)
        complete += left_column and c == cols - 1
    for r in range(rows - 1, -1, -1):
        for c in range(cols - 1, -1, -1):
            left[r, c] = edges_left[(cycle - r) % past, r] if c == 0 else left[r, c - 1]
            top[r, c] = edges_top[(cycle - c) % past, c] if r == 0 else top[r - 1, c]
            tag = tags[(cycle - r - c) % past]
            if tag[_TAG_BLOCK] >= 0:
                _element(geo, r, c, used, tag, places[tag[_TAG_BLOCK]], left, top, sums, drain, full, result)
                if tag[_TAG_LAST] and r == rows - 1:
                    if chain[c, 0] > 0:
                        result[STATUS] = STATUS_HAZARD
                    chain[c, 0], chain[c, 1] = used, 1
    return complete


@jit
def _drain(
    geo: Any, place: Any, row: int, slot: int, slots: int, exits: Any, requant: Any, out: Any, result: Any
) -> int:
    """Up to `outputs_per_cycle` results of the row at the exit enter the output stage; returns its next slot."""
    for _ in range(min(geo[OUTPUTS_PER_CYCLE], slots - slot)):
        if _inside(geo, place, row, slot):
            scales = requant[place[0], place[2] + slot]
            out[place[0], place[1] + row, place[2] + slot] = requantize_one(
                exits[slot // geo[PRODUCTS], slot % geo[PRODUCTS]], scales, geo[CLAMP_LOW], geo[CLAMP_HIGH]
            )
            result[OUTPUTS] += 1
        slot += 1
    return slot


@jit
def walk_outputs(geo: Any, acts: Any, weights: Any, requant: Any, out: Any, result: Any) -> None:
    """Walk one tile until its last result is usable; shapes as in `systolic_stationary.walk_stationary`."""
    rows, cols = geo[ROWS], geo[COLS]
    used, columns = min(rows, geo[POSITIONS]), min(cols * geo[PRODUCTS], geo[CHANNELS])
    bits = np.zeros(2, np.int64)
    bits[0], bits[1] = used * geo[ACTIVATION_BITS], columns * geo[WEIGHT_BITS]
    turn = 1
    while turn * geo[OUTPUTS_PER_CYCLE] < columns:
        turn += 1
    wide = cols * geo[PRODUCTS]
    blocks = geo[GROUPS] * ((geo[POSITIONS] + rows - 1) // rows) * ((geo[CHANNELS] + wide - 1) // wide)
    past = rows + cols + 2
    places, chain = np.zeros((blocks, 3), np.int64), np.zeros((cols, 3), np.int64)
    edges_left, edges_top = np.zeros((past, rows), np.int64), np.zeros((past, cols), np.int64)
    tags = np.full((past, _TAG), -1, np.int64)
    left, top = np.zeros((rows, cols), np.int64), np.zeros((rows, cols), np.int64)
    sums, drain = np.zeros((rows, cols, geo[PRODUCTS]), np.int64), np.zeros((rows, cols, geo[PRODUCTS]), np.int64)
    full = np.zeros((rows, cols), np.int64)
    exits = np.zeros((blocks * used, cols, geo[PRODUCTS]), np.int64)
    seq = np.zeros(_SEQ, np.int64)
    cycle = complete = drained = slot = usable = 0
    while drained < blocks * used and result[STATUS] == 0:
        if drained < complete:
            row = used - 1 - drained % used
            slot = _drain(geo, places[drained // used], row, slot, columns, exits[drained], requant, out, result)
            usable = cycle + geo[OUTPUT_LATENCY] + 1
            if slot == columns:
                slot = 0
                drained += 1
        complete += _array(
            geo, cycle, used, turn, past, edges_left, edges_top, tags, places, left, top, sums, drain, full, chain,
            exits, result,
        )  # fmt: skip
        following = (cycle + 1) % past
        edges_left[following] = edges_top[following] = 0
        tags[following] = -1
        if not seq[_DONE]:
            _sequence(
                geo, seq, used, columns, bits, acts, weights, edges_left[following], edges_top[following],
                tags[following], places, result,
            )  # fmt: skip
        cycle += 1
    result[LATENCY] = usable
