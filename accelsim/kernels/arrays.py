"""Cycle-stepped models of the engines that compute values: the proof behind the closed forms of `engine_forms.py`.

One clock cycle per loop turn, with the state that hardware would have: two port counters that fill the operand
registers, a block and a step odometer, a pipeline ring, two accumulator banks, a drain queue, an output pipe.  The
multiplier is a set of partial-product rows that a precision mode cuts into fields; a shift slot shifts and never
multiplies.  All arguments are int64, so that each model compiles once.  Nothing here evaluates a closed form.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.kernels.bricks import brick_product
from accelsim.kernels.jit import jit
from accelsim.kernels.products import (
    activation_part,
    dynamic_shift,
    region_payload,
    region_places,
    shift_terms,
    split_product,
)

# Geometry of one tile on one array; the first fifteen are the arguments of `dense_tile`, in order.
(
    GROUPS,
    ROWS,
    COLS,
    TAPS,
    DEPTH,
    LANES,
    LANE_WIDTH,
    PIXEL_GROUPS,
    PRODUCTS,
    TERM_PASSES,
    ACTIVATION_BITS,
    WEIGHT_BITS,
    ACTIVATION_PORT,
    WEIGHT_PORT,
    OUTPUTS_PER_CYCLE,
    OUTPUT_LATENCY,
    DEPTHWISE,
    MULTIPLIER_BITS,  # weight bits of the whole multiplier; 0 makes the slot a shifter with SLOT_TERMS terms
    SLOT_TERMS,
    ACCUMULATOR_BITS,
    CLAMP_LOW,
    CLAMP_HIGH,
    DEPTH_PRODUCTS,  # reduction inputs per slot (depthwise: taps): activation-side split of a fusion unit, else 1
    BRICK_BITS,  # activation bits of a product made of bricks; 0: the slot is not a fusion unit
    PART_BITS,  # activation bits of a pass where the passes take parts of the activation, else 0
    ZERO_CODE,  # of a streamed log2 code that shifts the right operand; 0: the shifts are in the weights
    REGION_FLAG,  # bit of a streamed two-region code that says coarse, or SIGN_FLAG; 0: no such codes
    REGION_SHIFT,  # places by which the products of coarse codes are shifted
    GEOMETRY_SIZE,
) = range(29)

# What a walk returns.
(
    STATUS,
    OCCUPANCY,
    LATENCY,
    ACTIVATION_READ,
    WEIGHT_READ,
    ACCUMULATES,
    MACS,
    OUTPUTS,
    RESULT_SIZE,
) = range(9)
STATUS_BANK_HAZARD = 1
STATUS_OVERFLOW = 2

# Registers of the sequencer.
_GROUP, _ROW, _COL, _TAP, _CHUNK, _PASS, _BLOCK, _STEPS_DONE, _RESERVED = range(9)
_A_HAVE, _W_HAVE, _DONE, _SEQ_SIZE = range(9, 13)
# What travels with a step through the pipeline, and with a finished block to the output stage.
_VALID, _BANK, _FIRST, _LAST, _TAG_GROUP, _TAG_ROW, _TAG_COL, _TAG_SIZE = range(8)


@jit
def requantize_one(accumulator: int, row: Any, low: int, high: int) -> Any:
    """Output stage of one result; `row` is (bias, multiplier, shift ≥ 1)."""
    value = ((accumulator + row[0]) * row[1] + (1 << (row[2] - 1))) >> row[2]
    return min(max(value, low), high)


@jit
def _tree(leaves: Any) -> Any:
    """Adder tree: pairs are added level by level (the scratch row is overwritten)."""
    width = leaves.shape[0]
    while width > 1:
        width //= 2
        for i in range(width):
            leaves[i] = leaves[2 * i] + leaves[2 * i + 1]
    return leaves[0]


@jit
def _packed_weights(geo: Any, codes: Any, g: int, col: int, tap: int, d: int) -> int:
    """Weight register of one multiplier: one field per product (dense: neighbouring channels; depthwise: copies)."""
    field = geo[MULTIPLIER_BITS] // geo[PRODUCTS]
    packed = 0
    for p in range(geo[PRODUCTS]):
        c = col if geo[DEPTHWISE] else col + p
        if c < geo[COLS]:
            packed |= (codes[g, c, tap, d, 0, 0] & ((1 << field) - 1)) << (p * field)
    return packed


@jit
def _product(geo: Any, activation: int, packed: int, p: int, terms: Any, term_pass: int) -> int:
    """Product p of one slot: bricks, partial-product rows of a multiplier, the shifted terms of one pass, or an
    operand (in the place of the first term's sign) that the activation shifts.  Of a two-region code the multiplier
    takes the payload, and the product is aligned behind it.
    """
    if geo[BRICK_BITS] > 0:
        field = geo[MULTIPLIER_BITS] // geo[PRODUCTS]
        return brick_product(activation, packed >> (p * field), geo[BRICK_BITS], field)
    if geo[ZERO_CODE] > 0:
        return dynamic_shift(activation, terms[0, 0], geo[ZERO_CODE])
    if geo[REGION_FLAG] != 0:
        payload = region_payload(activation, geo[REGION_FLAG])
        value = split_product(payload, packed, p, geo[MULTIPLIER_BITS] // geo[PRODUCTS])
        return value << region_places(activation, geo[REGION_FLAG], geo[REGION_SHIFT])
    if geo[PART_BITS] > 0:
        activation = activation_part(activation, term_pass, geo[PART_BITS])
    if geo[MULTIPLIER_BITS] > 0:
        return split_product(activation, packed, p, geo[MULTIPLIER_BITS] // geo[PRODUCTS])
    return shift_terms(activation, terms, term_pass * geo[SLOT_TERMS], geo[SLOT_TERMS])


@jit
def _issue_dense(geo: Any, seq: Any, acts: Any, codes: Any, sums: Any, leaves: Any) -> None:
    """One operand word through every lane: products, then adder trees, into the pipeline entry `sums`."""
    inputs = geo[LANE_WIDTH] * geo[DEPTH_PRODUCTS]
    g, tap, d0 = seq[_GROUP], seq[_TAP], seq[_CHUNK] * inputs
    depth = min(inputs, geo[DEPTH] - d0)
    for i in range(min(geo[PIXEL_GROUPS], geo[ROWS] - seq[_ROW])):
        for lane in range(geo[LANES]):
            col = seq[_COL] + lane * geo[PRODUCTS]
            for p in range(min(geo[PRODUCTS], geo[COLS] - col)):
                leaves[:] = 0
                for x in range(depth):
                    a = acts[g, seq[_ROW] + i, tap, d0 + x]
                    packed = _packed_weights(geo, codes, g, col, tap, d0 + x)
                    value = _product(geo, a, packed, p, codes[g, col + p, tap, d0 + x], seq[_PASS])
                    leaves[x // geo[DEPTH_PRODUCTS]] += value
                # The sums of the high part of the activations are shifted on their way into the accumulators.
                sums[i, lane * geo[PRODUCTS] + p] = _tree(leaves) << (geo[PART_BITS] * seq[_PASS])


@jit
def _issue_depthwise(geo: Any, seq: Any, acts: Any, codes: Any, sums: Any) -> None:
    """The taps of one step of every channel at every position; sums bypass the tree to their own accumulators."""
    for x in range(min(geo[LANE_WIDTH], geo[GROUPS] - seq[_GROUP])):
        g = seq[_GROUP] + x
        sums[x, :] = 0
        for tap in range(seq[_TAP], min(seq[_TAP] + geo[DEPTH_PRODUCTS], geo[TAPS])):
            packed = _packed_weights(geo, codes, g, 0, tap, 0)
            for j in range(min(sums.shape[1], geo[ROWS] - seq[_ROW])):
                a = acts[g, seq[_ROW] + j, tap, 0]
                sums[x, j] += _product(geo, a, packed, j % geo[PRODUCTS], codes[g, 0, tap, 0], seq[_PASS])


@jit
def _count_word(geo: Any, seq: Any, result: Any) -> None:
    """Bits of the operand word that really come from SRAM (the first pass of the terms) and the MACs they feed."""
    if seq[_PASS] > 0:
        return
    if geo[DEPTHWISE]:
        channels = min(geo[LANE_WIDTH], geo[GROUPS] - seq[_GROUP])
        rows = min(geo[LANES] * geo[PIXEL_GROUPS] * geo[PRODUCTS], geo[ROWS] - seq[_ROW])
        taps = min(geo[DEPTH_PRODUCTS], geo[TAPS] - seq[_TAP])
        result[ACTIVATION_READ] += channels * rows * taps * geo[ACTIVATION_BITS]
        result[WEIGHT_READ] += channels * taps * geo[WEIGHT_BITS]
        result[MACS] += channels * rows * taps
        return
    inputs = geo[LANE_WIDTH] * geo[DEPTH_PRODUCTS]
    depth = min(inputs, geo[DEPTH] - seq[_CHUNK] * inputs)
    rows = min(geo[PIXEL_GROUPS], geo[ROWS] - seq[_ROW])
    cols = min(geo[LANES] * geo[PRODUCTS], geo[COLS] - seq[_COL])
    result[ACTIVATION_READ] += depth * rows * geo[ACTIVATION_BITS]
    result[WEIGHT_READ] += depth * cols * geo[WEIGHT_BITS]
    result[MACS] += depth * rows * cols


@jit
def _advance_step(geo: Any, seq: Any) -> None:
    """Step odometer: passes of the terms, then chunks of input channels, then taps."""
    seq[_PASS] += 1
    if seq[_PASS] < geo[TERM_PASSES]:
        return
    seq[_PASS] = 0
    seq[_CHUNK] += 1
    if seq[_CHUNK] * geo[LANE_WIDTH] * geo[DEPTH_PRODUCTS] < geo[DEPTH]:
        return
    seq[_CHUNK] = 0
    seq[_TAP] += geo[DEPTH_PRODUCTS] if geo[DEPTHWISE] else 1
    if seq[_TAP] >= geo[TAPS]:
        seq[_TAP] = 0
        seq[_STEPS_DONE] = 1


@jit
def _advance_block(geo: Any, seq: Any) -> None:
    """Block odometer: positions, then output channels, then groups (depthwise: positions, then channels)."""
    seq[_STEPS_DONE] = 0
    seq[_RESERVED] = 0
    seq[_BLOCK] += 1
    if geo[DEPTHWISE]:
        seq[_ROW] += geo[LANES] * geo[PIXEL_GROUPS] * geo[PRODUCTS]
    else:
        seq[_ROW] += geo[PIXEL_GROUPS]
    if seq[_ROW] < geo[ROWS]:
        return
    seq[_ROW] = 0
    if not geo[DEPTHWISE]:
        seq[_COL] += geo[LANES] * geo[PRODUCTS]
        if seq[_COL] < geo[COLS]:
            return
        seq[_COL] = 0
    seq[_GROUP] += geo[LANE_WIDTH] if geo[DEPTHWISE] else 1
    if seq[_GROUP] >= geo[GROUPS]:
        seq[_DONE] = 1


@jit
def _block_shape(geo: Any) -> tuple[int, int]:
    """Slots that a block of this tile uses; edge blocks keep the shape and mask what is outside."""
    if geo[DEPTHWISE]:
        return min(geo[LANE_WIDTH], geo[GROUPS]), min(geo[LANES] * geo[PIXEL_GROUPS] * geo[PRODUCTS], geo[ROWS])
    return min(geo[PIXEL_GROUPS], geo[ROWS]), min(geo[LANES] * geo[PRODUCTS], geo[COLS])


@jit
def _locate(geo: Any, tag: Any, a: int, b: int) -> tuple[int, int, int, bool]:
    """(group, row, col, inside) of slot (a, b) of a block."""
    if geo[DEPTHWISE]:
        g, r, c = tag[_TAG_GROUP] + a, tag[_TAG_ROW] + b, 0
    else:
        g, r, c = tag[_TAG_GROUP], tag[_TAG_ROW] + a, tag[_TAG_COL] + b
    return g, r, c, g < geo[GROUPS] and r < geo[ROWS] and c < geo[COLS]


@jit
def _accumulate(geo: Any, tag: Any, sums: Any, bank: Any, result: Any) -> None:
    """A step leaves the pipeline: load the accumulators on the first step of a block, add on the others."""
    limit = 1 << (geo[ACCUMULATOR_BITS] - 1)
    block_a, block_b = _block_shape(geo)
    for a in range(block_a):
        for b in range(block_b):
            _, _, _, inside = _locate(geo, tag, a, b)
            if inside:
                bank[a, b] = sums[a, b] if tag[_FIRST] else bank[a, b] + sums[a, b]
                result[ACCUMULATES] += 1
                if bank[a, b] >= limit or bank[a, b] < -limit:
                    result[STATUS] = STATUS_OVERFLOW


@jit
def _drain(geo: Any, tag: Any, bank: Any, queue: int, requant: Any, pipe: Any, result: Any) -> int:
    """Up to `outputs_per_cycle` slots of a finished block enter the output pipe; returns the new queue position."""
    block_a, block_b = _block_shape(geo)
    for lane in range(min(geo[OUTPUTS_PER_CYCLE], block_a * block_b - queue)):
        a, b = queue // block_b, queue % block_b
        g, r, c, inside = _locate(geo, tag, a, b)
        pipe[lane, 0] = 1
        pipe[lane, 1] = inside
        if inside:
            pipe[lane, 2], pipe[lane, 3], pipe[lane, 4] = g, r, c
            pipe[lane, 5] = requantize_one(bank[a, b], requant[g, c], geo[CLAMP_LOW], geo[CLAMP_HIGH])
            result[OUTPUTS] += 1
        queue += 1
    return queue


@jit
def _write_back(pipe: Any, out: Any) -> int:
    """Results at the end of the output pipe become usable; returns how many slots left it, masked ones included."""
    left = 0
    for lane in range(pipe.shape[0]):
        if pipe[lane, 0]:
            if pipe[lane, 1]:
                out[pipe[lane, 2], pipe[lane, 3], pipe[lane, 4]] = pipe[lane, 5]
            pipe[lane, 0] = 0
            left += 1
    return left


@jit
def _fetch(geo: Any, seq: Any, word: Any, tag: Any) -> bool:
    """One cycle of the ports and of the block sequencer; True when an operand word became complete.

    A block ends when its words are fetched and the output stage has been reserved for all of its slots, as many per
    cycle as it drains; so a block can never find the stage, or its accumulator bank, still in use by an earlier one.
    """
    complete = False
    seq[_RESERVED] += geo[OUTPUTS_PER_CYCLE]
    if not seq[_STEPS_DONE]:
        seq[_A_HAVE] += geo[ACTIVATION_PORT]
        seq[_W_HAVE] += geo[WEIGHT_PORT]
        if seq[_A_HAVE] >= word[0] and seq[_W_HAVE] >= word[1]:
            seq[_A_HAVE] = seq[_W_HAVE] = 0
            complete = True
            tag[_VALID], tag[_BANK] = 1, seq[_BLOCK] % 2
            tag[_FIRST] = seq[_TAP] == 0 and seq[_CHUNK] == 0 and seq[_PASS] == 0
            tag[_TAG_GROUP], tag[_TAG_ROW], tag[_TAG_COL] = seq[_GROUP], seq[_ROW], seq[_COL]
    return complete


@jit
def _retire(geo: Any, tag: Any, sums: Any, banks: Any, finished: Any, result: Any) -> None:
    """End of the pipeline: accumulate the step that arrives; hand the block over when it was its last."""
    if not tag[_VALID]:
        return
    bank = tag[_BANK]
    if finished[bank, _VALID]:
        result[STATUS] = STATUS_BANK_HAZARD
    _accumulate(geo, tag, sums, banks[bank], result)
    if tag[_LAST]:
        finished[bank] = tag
    tag[_VALID] = 0


@jit
def _sequence(
    geo: Any, seq: Any, word: Any, tag: Any, acts: Any, codes: Any, sums: Any, leaves: Any, result: Any
) -> bool:
    """Front of the pipeline: one cycle of fetching, and the issue of a complete word; True when the block ended."""
    if _fetch(geo, seq, word, tag):
        _count_word(geo, seq, result)
        if geo[DEPTHWISE]:
            _issue_depthwise(geo, seq, acts, codes, sums)
        else:
            _issue_dense(geo, seq, acts, codes, sums, leaves)
        _advance_step(geo, seq)
        tag[_LAST] = seq[_STEPS_DONE]
    if seq[_STEPS_DONE] and seq[_RESERVED] >= word[2]:
        _advance_block(geo, seq)
        return True
    return False


@jit
def walk_array(geo: Any, acts: Any, codes: Any, requant: Any, out: Any, result: Any) -> None:
    """Walk one tile cycle by cycle until its last result is usable.

    Shapes: `acts` [groups, rows, taps, depth]; `codes` [groups, cols, taps, depth, terms, 2], an integer weight in
    [..., 0, 0] for a multiplier, (sign, exponent) per term for shifters; `requant` [groups, cols, 3] = bias,
    multiplier, shift; `out` [groups, rows, cols] is written.  Depthwise tiles have cols = depth = 1 and the channels as
    groups.  `result` (zeroed, RESULT_SIZE) receives status, cycles and counts.
    """
    levels = 0
    while (1 << levels) < geo[LANE_WIDTH]:
        levels += 1
    stages = 3 + levels  # operand register, product, tree levels, accumulator
    block_a, block_b = _block_shape(geo)
    word = np.zeros(3, np.int64)  # bits of the operand words and slots of a block: latched when the tile starts
    inputs = min(geo[LANE_WIDTH] * geo[DEPTH_PRODUCTS], geo[DEPTH])
    if geo[DEPTHWISE]:
        inputs = min(geo[DEPTH_PRODUCTS], geo[TAPS])
    word[0] = block_a * (block_b if geo[DEPTHWISE] else 1) * inputs * geo[ACTIVATION_BITS]
    word[1] = (block_a if geo[DEPTHWISE] else block_b) * inputs * geo[WEIGHT_BITS]
    word[2] = block_a * block_b
    sums = np.zeros((stages + 1, block_a, block_b), np.int64)
    tags = np.zeros((stages + 1, _TAG_SIZE), np.int64)
    banks = np.zeros((2, block_a, block_b), np.int64)
    finished = np.zeros((2, _TAG_SIZE), np.int64)
    pipe = np.zeros((geo[OUTPUT_LATENCY] + 1, geo[OUTPUTS_PER_CYCLE], 6), np.int64)
    leaves = np.zeros(1 << levels, np.int64)
    seq = np.zeros(_SEQ_SIZE, np.int64)
    cycle = queue = drained = left = 0
    while result[STATUS] == 0 and not (seq[_DONE] and left == seq[_BLOCK] * word[2]):
        bank = drained % 2
        if finished[bank, _VALID]:
            entry = pipe[(cycle + geo[OUTPUT_LATENCY]) % pipe.shape[0]]
            queue = _drain(geo, finished[bank], banks[bank], queue, requant, entry, result)
            if queue == word[2]:
                finished[bank, _VALID] = queue = 0
                drained += 1
        left += _write_back(pipe[cycle % pipe.shape[0]], out)
        leaving, entering = cycle % tags.shape[0], (cycle + stages) % tags.shape[0]
        _retire(geo, tags[leaving], sums[leaving], banks, finished, result)
        if not seq[_DONE] and _sequence(geo, seq, word, tags[entering], acts, codes, sums[entering], leaves, result):
            result[OCCUPANCY] = cycle + 1
        cycle += 1
    result[LATENCY] = cycle
