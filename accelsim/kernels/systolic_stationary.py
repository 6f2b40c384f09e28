"""Cycle-stepped systolic array with a stationary operand (ws, is) that computes values; proves `systolic_forms.py`.

One clock cycle per loop turn.  Operands move register by register: streamed words to the right, one column per cycle;
partial sums down, one row per cycle; stationary words down a chain of shadow registers (double-buffered), or down the
registers that are computed with.  Row r and column c run r + c cycles behind element (0, 0), so control that starts
there at cycle t acts at t + r + c; a ring of past cycles stands for the registers that delay it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.kernels.arrays import requantize_one
from accelsim.kernels.jit import jit
from accelsim.kernels.products import split_product

# Geometry of one tile on one array; the first fifteen are arguments of `systolic_cycles`, in order.
(
    FORM, GROUPS, POSITIONS, CHANNELS, REDUCTION, ROWS, COLS, PRODUCTS, DOUBLE, ACCUMULATOR_ROWS, ACTIVATION_BITS,
    WEIGHT_BITS, ACTIVATION_PORT, WEIGHT_PORT, OUTPUTS_PER_CYCLE, OUTPUT_LATENCY, FIELD_BITS, ACCUMULATOR_BITS,
    CLAMP_LOW, CLAMP_HIGH, WEIGHT_STATIONARY, GEOMETRY_SIZE,
) = range(22)  # fmt: skip
# What a walk returns.
STATUS, LATENCY, ACTIVATION_READ, WEIGHT_READ, ACCUMULATES, MACS, OUTPUTS, RESULT_SIZE = range(8)
STATUS_HAZARD, STATUS_OVERFLOW = 1, 2
# A fold: the block it belongs to (group, first across, first streamed step), its reduction, and its place in the block.
_GROUP, _ACROSS, _STEP0, _K0, _BLOCK, _FIRST, _LAST, _FOLD_SIZE = range(8)
# Sequencer: folds loaded and started, fold in the stream, its step, words of the load, port counters, output slots
# reserved for the block, first cycle at which a single-buffered array may load again.
_LOADED, _STARTED, _STREAMING, _STEP, _WORD, _HAVE_LOAD, _HAVE_STREAM, _ROW_SLOTS, _ROWS_KEPT, _WAIT, _SEQ = range(11)


@jit
def _fold_list(geo: Any, steps: int, channels_per_step: int) -> Any:
    """All folds of the tile in order: groups, blocks across, chunks of the stream, folds of the reduction."""
    width = geo[COLS] * geo[PRODUCTS] if geo[WEIGHT_STATIONARY] else geo[COLS]
    across = geo[CHANNELS] if geo[WEIGHT_STATIONARY] else geo[POSITIONS]
    streamed = geo[POSITIONS] if geo[WEIGHT_STATIONARY] else geo[CHANNELS]
    count = 0
    for _ in range(2):
        folds = np.zeros((max(1, count), _FOLD_SIZE), np.int64)
        count = block = 0
        for g in range(geo[GROUPS]):
            for a in range(0, across, width):
                for first in range(0, streamed, steps * channels_per_step):
                    for k in range(0, geo[REDUCTION], geo[ROWS]):
                        if count < folds.shape[0]:
                            fold = folds[count]
                            fold[_GROUP], fold[_ACROSS], fold[_STEP0], fold[_K0] = g, a, first, k
                            fold[_BLOCK], fold[_FIRST] = block, k == 0
                            fold[_LAST] = k + geo[ROWS] >= geo[REDUCTION]
                        count += 1
                    block += 1
    return folds


@jit
def packed_weights(geo: Any, weights: Any, g: int, channel: int, k: int) -> int:
    """Weights of neighbouring channels in one register, a field each; 0 outside the tile."""
    packed = 0
    for p in range(geo[PRODUCTS]):
        if channel + p < geo[CHANNELS] and k < geo[REDUCTION]:
            packed |= (weights[g, channel + p, k] & ((1 << geo[FIELD_BITS]) - 1)) << (p * geo[FIELD_BITS])
    return packed


@jit
def _read(geo: Any, weight_side: bool, g: int, at: int, k: int, acts: Any, weights: Any, result: Any) -> int:
    """One operand register filled from SRAM: packed weights of the channels from `at`, or an activation; counted."""
    if weight_side:
        if k < geo[REDUCTION]:
            result[WEIGHT_READ] += max(0, min(geo[PRODUCTS], geo[CHANNELS] - at)) * geo[WEIGHT_BITS]
        return packed_weights(geo, weights, g, at, k)
    if at < geo[POSITIONS] and k < geo[REDUCTION]:
        result[ACTIVATION_READ] += geo[ACTIVATION_BITS]
        return acts[g, at, k]
    return 0


@jit
def _fetch_load(
    geo: Any, seq: Any, fold: Any, used: int, bits: int, acts: Any, weights: Any, entry: Any, result: Any
) -> bool:
    """One cycle of the stationary operand's port; True when a word (one row of the array, last row first) is there."""
    seq[_HAVE_LOAD] += geo[WEIGHT_PORT] if geo[WEIGHT_STATIONARY] else geo[ACTIVATION_PORT]
    if seq[_HAVE_LOAD] < bits:
        return False
    seq[_HAVE_LOAD] = 0
    k = fold[_K0] + used - 1 - seq[_WORD]
    for c in range(geo[COLS]):
        at = fold[_ACROSS] + (c * geo[PRODUCTS] if geo[WEIGHT_STATIONARY] else c)
        entry[c] = _read(geo, geo[WEIGHT_STATIONARY] == 1, fold[_GROUP], at, k, acts, weights, result)
    seq[_WORD] += 1
    if seq[_WORD] == used:
        seq[_WORD] = 0
        seq[_LOADED] += 1
    return True


@jit
def _fetch_stream(
    geo: Any, seq: Any, fold: Any, steps: int, bits: int, acts: Any, weights: Any, entry: Any, result: Any
) -> bool:
    """One cycle of the streamed operand's port; True when the word of the next step is complete."""
    seq[_HAVE_STREAM] += geo[ACTIVATION_PORT] if geo[WEIGHT_STATIONARY] else geo[WEIGHT_PORT]
    if seq[_HAVE_STREAM] < bits:
        return False
    seq[_HAVE_STREAM] = 0
    at = fold[_STEP0] + seq[_STEP] * (1 if geo[WEIGHT_STATIONARY] else geo[PRODUCTS])
    for r in range(geo[ROWS]):
        entry[r] = _read(geo, geo[WEIGHT_STATIONARY] == 0, fold[_GROUP], at, fold[_K0] + r, acts, weights, result)
    seq[_STEP] += 1
    if seq[_STEP] == steps:
        seq[_STEP] = seq[_STREAMING] = 0
    return True


@jit
def _move(
    geo: Any, cycle: int, words: Any, swaps: Any, loads: Any, load_valid: Any, active: Any, shadow: Any, hop: Any,
    hop_valid: Any, streamed: Any, sums: Any,
) -> None:  # fmt: skip
    """One cycle of all elements, last row and column first, so that neighbours still hold their old values."""
    past = words.shape[0]
    for r in range(geo[ROWS] - 1, -1, -1):
        for c in range(geo[COLS] - 1, -1, -1):
            value = words[(cycle - r) % past, r] if c == 0 else streamed[r, c - 1]
            if geo[DOUBLE] and swaps[(cycle - r - c) % past]:
                active[r, c] = shadow[r, c]
            streamed[r, c] = value
            for p in range(geo[PRODUCTS]):
                above = sums[r - 1, c, p] if r > 0 else 0
                activation, packed = value, active[r, c]
                if not geo[WEIGHT_STATIONARY]:
                    activation, packed = packed, value
                sums[r, c, p] = above + split_product(activation, packed, p, geo[FIELD_BITS])
            if geo[DOUBLE]:
                arrives = load_valid[(cycle - c) % past] if r == 0 else hop_valid[r - 1, c]
                hop_valid[r, c] = arrives
                if arrives:
                    hop[r, c], shadow[r, c] = shadow[r, c], loads[(cycle - c) % past, c] if r == 0 else hop[r - 1, c]
    if not geo[DOUBLE]:
        for c in range(geo[COLS]):
            if load_valid[(cycle - c) % past]:
                for r in range(geo[ROWS] - 1, 0, -1):
                    active[r, c] = active[r - 1, c]
                active[0, c] = loads[(cycle - c) % past, c]


@jit
def _accumulate(
    geo: Any, cycle: int, steps: int, drained: int, tags: Any, folds: Any, sums: Any, banks: Any, result: Any
) -> int:
    """Partial sums that left the last row are added behind the array; returns the rows that became complete (0, 1)."""
    limit = 1 << (geo[ACCUMULATOR_BITS] - 1)
    complete = 0
    for c in range(geo[COLS]):
        tag = tags[(cycle - geo[ROWS] - c) % tags.shape[0]]
        if tag < 0:
            continue
        fold, step = folds[tag // steps], tag % steps
        kept = banks.shape[0]  # blocks whose results fit into the memory
        bank = banks[fold[_BLOCK] % kept, step, c]
        if fold[_FIRST] and drained <= (fold[_BLOCK] - kept) * steps + step:
            result[STATUS] = STATUS_HAZARD
        for p in range(geo[PRODUCTS]):
            value = sums[geo[ROWS] - 1, c, p]
            bank[p] = value if fold[_FIRST] else bank[p] + value
            if _place(geo, fold, step, c, p)[3]:
                result[ACCUMULATES] += 1
                result[MACS] += min(geo[ROWS], geo[REDUCTION] - fold[_K0])
                if bank[p] >= limit or bank[p] < -limit:
                    result[STATUS] = STATUS_OVERFLOW
        if c == geo[COLS] - 1 and fold[_LAST]:
            complete = 1
    return complete


@jit
def _place(geo: Any, fold: Any, step: int, c: int, p: int) -> tuple[int, int, int, bool]:
    """(group, position, channel, inside) of the result of column c and product p in a step of a block."""
    if geo[WEIGHT_STATIONARY]:
        position, channel = fold[_STEP0] + step, fold[_ACROSS] + c * geo[PRODUCTS] + p
    else:
        position, channel = fold[_ACROSS] + c, fold[_STEP0] + step * geo[PRODUCTS] + p
    return fold[_GROUP], position, channel, position < geo[POSITIONS] and channel < geo[CHANNELS]


@jit
def _drain(
    geo: Any, cycle: int, fold: Any, step: int, slot: int, slots: int, together: int, banks: Any, requant: Any,
    out: Any, usable: Any, result: Any,
) -> int:  # fmt: skip
    """Up to `outputs_per_cycle` results of a complete row enter the output stage; returns the next slot of the row."""
    for _ in range(min(geo[OUTPUTS_PER_CYCLE], slots - slot)):
        c, p = slot // together, slot % together
        g, position, channel, inside = _place(geo, fold, step, c, p)
        if inside:
            value = requantize_one(
                banks[fold[_BLOCK] % banks.shape[0], step, c, p], requant[g, channel], geo[CLAMP_LOW], geo[CLAMP_HIGH]
            )
            out[g, position, channel] = value
            result[OUTPUTS] += 1
        slot += 1
    usable[0] = cycle + geo[OUTPUT_LATENCY] + 1
    return slot


@jit
def _reserve(geo: Any, seq: Any, slots: int) -> None:
    """The block's claim on the output stage: as many slots per cycle as it drains, never of two rows at once."""
    seq[_ROW_SLOTS] += geo[OUTPUTS_PER_CYCLE]
    if seq[_ROW_SLOTS] >= slots:
        seq[_ROW_SLOTS] = 0
        seq[_ROWS_KEPT] += 1


@jit
def _may_start(seq: Any, folds: Any, steps: int) -> bool:
    """A fold streams when it is loaded, the fold before it has streamed, and the block before it drains in time."""
    if seq[_STREAMING] or seq[_STARTED] == folds.shape[0] or seq[_LOADED] <= seq[_STARTED]:
        return False
    return not folds[seq[_STARTED], _FIRST] or seq[_STARTED] == 0 or seq[_ROWS_KEPT] >= steps


@jit
def _sequence(
    geo: Any, cycle: int, seq: Any, folds: Any, steps: int, used: int, load_bits: int, stream_bits: int, slots: int,
    words: Any, loads: Any, swaps: Any, load_valid: Any, tags: Any, acts: Any, weights: Any, result: Any,
) -> None:  # fmt: skip
    """Front of the array: one cycle of starting, streaming, reserving and loading folds, into the next cycle's edge."""
    following = (cycle + 1) % words.shape[0]
    swaps[following] = load_valid[following] = 0
    tags[following] = -1
    words[following] = 0
    if _may_start(seq, folds, steps):
        if folds[seq[_STARTED], _FIRST]:
            seq[_ROWS_KEPT] = seq[_ROW_SLOTS] = 0
        seq[_STREAMING] = swaps[following] = 1
        seq[_STARTED] += 1
    if seq[_STREAMING]:
        current, step = seq[_STARTED] - 1, seq[_STEP]
        if _fetch_stream(geo, seq, folds[current], steps, stream_bits, acts, weights, words[following], result):
            tags[following] = current * steps + step
        seq[_WAIT] = cycle + used
    if seq[_ROWS_KEPT] < steps:
        _reserve(geo, seq, slots)
    free = seq[_LOADED] == seq[_STARTED] and seq[_LOADED] < folds.shape[0]
    if free and (geo[DOUBLE] or (not seq[_STREAMING] and (seq[_STARTED] == 0 or cycle >= seq[_WAIT]))):
        fold = folds[seq[_LOADED]]
        load_valid[following] = _fetch_load(geo, seq, fold, used, load_bits, acts, weights, loads[following], result)


@jit
def walk_stationary(geo: Any, acts: Any, weights: Any, requant: Any, out: Any, result: Any) -> None:
    """Walk one tile until its last result is usable.

    Shapes: `acts` [groups, positions, reduction], `weights` [groups, channels, reduction], `requant` [groups, channels,
    3], `out` [groups, positions, channels] is written; `result` (zeroed, RESULT_SIZE) receives status, cycles, counts.
    """
    ws, rows, cols = geo[WEIGHT_STATIONARY] == 1, geo[ROWS], geo[COLS]
    together = min(geo[PRODUCTS], geo[CHANNELS])
    per_step = 1 if ws else geo[PRODUCTS]
    all_steps = (geo[POSITIONS] if ws else geo[CHANNELS] + per_step - 1) // per_step
    chunks = (all_steps + geo[ACCUMULATOR_ROWS] - 1) // geo[ACCUMULATOR_ROWS]
    steps = (all_steps + chunks - 1) // chunks
    used = min(rows, geo[REDUCTION])
    across = min(cols * geo[PRODUCTS], geo[CHANNELS]) if ws else min(cols, geo[POSITIONS])
    load_bits = across * (geo[WEIGHT_BITS] if ws else geo[ACTIVATION_BITS])
    stream_bits = used * (geo[ACTIVATION_BITS] if ws else together * geo[WEIGHT_BITS])
    slots = across if ws else across * together
    # The columns of ws have one slot per product; a tile with fewer channels than one column has fewer.
    folds = _fold_list(geo, steps, per_step)
    past = rows + cols + 2
    words, loads = np.zeros((past, rows), np.int64), np.zeros((past, cols), np.int64)
    swaps, load_valid, tags = np.zeros(past, np.int64), np.zeros(past, np.int64), np.full(past, -1, np.int64)
    active, shadow = np.zeros((rows, cols), np.int64), np.zeros((rows, cols), np.int64)
    hop, hop_valid = np.zeros((rows, cols), np.int64), np.zeros((rows, cols), np.int64)
    streamed = np.zeros((rows, cols), np.int64)
    sums = np.zeros((rows, cols, geo[PRODUCTS]), np.int64)
    banks = np.zeros((2 * geo[ACCUMULATOR_ROWS] // steps, steps, cols, geo[PRODUCTS]), np.int64)
    seq, usable = np.zeros(_SEQ, np.int64), np.zeros(1, np.int64)
    per_block = (geo[REDUCTION] + rows - 1) // rows
    total = folds.shape[0] // per_block * steps
    cycle = complete = drained = slot = 0
    while drained < total and result[STATUS] == 0:
        if drained < complete:
            fold = folds[drained // steps * per_block]
            slot = _drain(geo, cycle, fold, drained % steps, slot, slots, together, banks, requant, out, usable, result)
            if slot == slots:
                slot = 0
                drained += 1
        complete += _accumulate(geo, cycle, steps, drained, tags, folds, sums, banks, result)
        _move(geo, cycle, words, swaps, loads, load_valid, active, shadow, hop, hop_valid, streamed, sums)
        _sequence(
            geo, cycle, seq, folds, steps, used, load_bits, stream_bits, slots, words, loads, swaps, load_valid, tags,
            acts, weights, result,
        )  # fmt: skip
        cycle += 1
    result[LATENCY] = usable[0]
