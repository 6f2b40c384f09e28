"""Conformance kit: laws that every engine kind keeps.  For the engines of this program and for those of others.

`check_engine(engine)` raises one AccelsimError with every broken law; docs/add_an_engine.md shows its use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from accelsim.arch import Engine, OutputStage
from accelsim.area import engine_area_mm2
from accelsim.counts import MAX_MODES
from accelsim.engines.mac_array import uniform_codes
from accelsim.engines.output_stage import requantize
from accelsim.engines.registry import rules_of
from accelsim.engines.tile import can_execute, decoded, select_mode, tile_cost, walk_tile
from accelsim.formats import Format, Scheme
from accelsim.ir import Loop
from accelsim.kernels.systolic_forms import SCALESIM
from accelsim.parts import Convention
from accelsim.problems import AccelsimError, Problem
from accelsim.technology import NODES_NM
from accelsim.unit_energy import engine_unit_energies

Int64 = NDArray[np.int64]
Pair = tuple[Format, Format]
WIDE_BITS = 1 << 30
WEIGHTS = ("u2", "u3", "u4", "u6", "u8", "u12", "u16", "pot3", "pot4", "apot8", "apot12")
ACTIVATIONS = ("u2", "u4", "u8", "u16", "log2", "log4", "r4n3", "r6p4", "r8p8")
DENSE = (
    Loop(1, 1, 1, 1, 1), Loop(1, 3, 5, 7, 11), Loop(2, 4, 4, 16, 24), Loop(1, 2, 3, 33, 5, 3, 3), Loop(3, 1, 9, 4, 40),
)  # fmt: skip
DEPTHWISE = (Loop(5, 3, 4, 1, 1, 3, 3), Loop(17, 2, 2, 1, 1, 5, 5))
CLOCK_HZ = 500_000_000


def check_engine(engine: Engine) -> None:
    """Raise AccelsimError with every law that the engine breaks; nothing happens when it keeps all of them.

    Laws: some pair of formats runs; the rules do not depend on sizes; no tile is faster than its slots; MACs issued are
    MACs needed; with wide ports more lanes never take more cycles (SCALE-Sim's count excepted); where the kind has a
    stepped model it gives the closed form's cycles and counts and numpy's values; area and energies are positive.
    """
    pairs = [
        (weight, activation)
        for weight in map(Format.parse, WEIGHTS)
        for activation in map(Format.parse, ACTIVATIONS)
        if select_mode(engine, weight, activation) is not None
    ]
    problems = [] if pairs else [_broken(engine, "executes no pair of formats at all", "at least one")]
    problems += _column_problems(engine, pairs)
    if not problems:
        problems += [*_tile_problems(engine, pairs), *_price_problems(engine, pairs)]
    if problems:
        raise AccelsimError(problems)


def _broken(engine: Engine, what: str, expected: str) -> Problem:
    return Problem(f"engine {engine.name} of kind {engine.kind}", what, expected)


def _column_problems(engine: Engine, pairs: Iterable[Pair]) -> Iterator[Problem]:
    rules = rules_of(engine)
    if not 1 <= rules.columns(engine) <= MAX_MODES:
        yield _broken(engine, f"has {rules.columns(engine)} count columns", f"1 … {MAX_MODES}")
    other = replace(engine, lanes=3 * engine.lanes + 1, lane_width=2 * engine.lane_width + 1)
    for weight, activation in pairs:
        column = select_mode(engine, weight, activation)
        assert column is not None
        words = f"{weight.name} × {activation.name}"
        if not 0 <= column < rules.columns(engine):
            yield _broken(engine, f"puts {words} into column {column}", f"0 … {rules.columns(engine) - 1}")
            continue
        rate = rules.rate(engine, column)
        if min(rate) < 1:
            yield _broken(engine, f"has the rate {tuple(rate)} in column {column}", "positive numbers")
        if (select_mode(other, weight, activation), rules.rate(other, column)) != (column, rate):
            yield _broken(engine, f"executes {words} otherwise when it is larger", "rules that do not depend on sizes")


def _tiles(engine: Engine, pairs: Iterable[Pair]) -> Iterator[tuple[Loop, Format, Format]]:
    """Tiles and formats that the engine executes, accumulators included."""
    for weight, activation in pairs:
        for tile in (*DENSE, *DEPTHWISE):
            value_bits = weight.value_bits + activation.value_bits + (tile.reduction - 1).bit_length()
            if can_execute(engine, weight, activation, tile.depthwise) and value_bits <= engine.accumulator_bits:
                yield tile, weight, activation


def _tile_problems(engine: Engine, pairs: Iterable[Pair]) -> Iterator[Problem]:
    rules = rules_of(engine)
    wide = replace(
        engine, activation_port_bits_per_cycle=WIDE_BITS, weight_port_bits_per_cycle=WIDE_BITS,
        output_stage=OutputStage(1 << 20), accumulator_rows=max(engine.accumulator_rows, 2 * engine.lanes),
    )  # fmt: skip
    for tile, weight, activation in _tiles(engine, pairs):
        words = f"a tile of {tile.macs} MACs in {weight.name} × {activation.name}"
        cost = tile_cost(engine, tile, weight, activation)
        column = select_mode(engine, weight, activation)
        assert column is not None
        rate = rules.rate(engine, column)
        least = math.ceil(tile.macs * rate.passes / (engine.slots * rate.products * rate.inputs))
        if cost.products != tile.macs:
            yield _broken(engine, f"issues {cost.products} MACs for {words}", f"{tile.macs}")
        if rules.form(engine) < SCALESIM:
            if cost.occupancy_cycles < least or cost.latency_cycles < cost.occupancy_cycles:
                what = f"takes {cost.occupancy_cycles} cycles, latency {cost.latency_cycles}, for {words}"
                yield _broken(engine, what, f"{least} or more, and no less latency")
            narrow, more = (
                tile_cost(it, tile, weight, activation) for it in (wide, replace(wide, lanes=2 * wide.lanes))
            )
            if more.occupancy_cycles > narrow.occupancy_cycles:
                what = f"takes {more.occupancy_cycles} cycles with twice the lanes for {words}"
                yield _broken(engine, what, f"at most {narrow.occupancy_cycles}")
            if rules.stepped(engine, column) is not None:
                yield from _stepped_problems(engine, tile, weight, activation, words)


def _stepped_problems(
    engine: Engine, tile: Loop, weight: Format, activation: Format, words: str
) -> Iterator[Problem]:  # fmt: skip
    rng = np.random.default_rng(tile.macs)
    acts, values = _activations((tile.groups, tile.rows, tile.taps, tile.depth), activation, rng)
    weights, codes = _weights(engine, (tile.groups, tile.cols, tile.taps, tile.depth), weight, activation, rng)
    scales = np.stack([np.full(weights.shape[:2], value) for value in (-3, 5, 4)], axis=-1)
    low, high = -(1 << 40), 1 << 40
    walked, outputs = walk_tile(engine, tile, weight, activation, acts, codes, scales, (low, high))
    total = values.reshape(*acts.shape[:2], -1) @ weights.reshape(*weights.shape[:2], -1).swapaxes(1, 2)
    if walked != tile_cost(engine, tile, weight, activation):
        expected = str(tile_cost(engine, tile, weight, activation))
        yield _broken(engine, f"is stepped as {walked} for {words}", expected)
    if (outputs != requantize(total, -3, 5, 4, low, high)).any():
        yield _broken(engine, f"computes other values than numpy for {words}", "the integer dot product")


def _activations(shape: tuple[int, ...], activation: Format, rng: np.random.Generator) -> tuple[Int64, Int64]:
    """Random activations as they are stored, and the integers behind them."""
    if activation.scheme is Scheme.LOG2:
        codes = rng.integers(0, 1 << activation.bits, shape)
        return codes, decoded(codes, activation)
    limit = 1 << activation.bits - 1
    if activation.scheme is Scheme.TWO_REGION:
        codes = rng.integers(-limit, limit, shape) if activation.low_negative else rng.integers(0, 2 * limit, shape)
        return codes, decoded(codes, activation)
    acts = rng.integers(-limit, limit, shape)
    return acts, acts


def _weights(
    engine: Engine, shape: tuple[int, ...], weight: Format, activation: Format, rng: np.random.Generator
) -> tuple[Int64, Int64]:
    """Random weights as integers and as codes: one integer where the slot takes it, or (sign, exponent) terms."""
    if weight.scheme is not Scheme.UNIFORM:
        signs = rng.integers(-1, 2, (*shape, weight.terms))
        exponents = rng.integers(0, weight.max_exponent + 1, (*shape, weight.terms))
        return (signs << exponents).sum(axis=-1), np.stack([signs, exponents], axis=-1)
    limit = 1 << weight.bits - 1
    weights = rng.integers(-limit, limit, shape)
    column = select_mode(engine, weight, activation)
    stepped = rules_of(engine).stepped(engine, column if column is not None else 0)
    if stepped is not None and (stepped.row_bits or stepped.dynamic):
        return weights, uniform_codes(weights, weight)
    places = np.arange(weight.bits)
    signs = (weights[..., None] >> places) & 1
    signs[..., -1] *= -1  # the top bit of two's complement
    return weights, np.stack([signs, np.broadcast_to(places, signs.shape)], axis=-1)


def _price_problems(engine: Engine, pairs: Iterable[Pair]) -> Iterator[Problem]:
    columns = sorted({column for pair in pairs if (column := select_mode(engine, *pair)) is not None})
    for node_nm in NODES_NM:
        area = engine_area_mm2(engine, node_nm)
        if min(area.values()) < 0 or area["slots"] <= 0:
            yield _broken(engine, f"has the areas {dict(area)} at {node_nm} nm", "no negative part, and slots")
        for convention in Convention:
            energies = engine_unit_energies(engine, node_nm, CLOCK_HZ, convention)
            used = [energies[column] for column in columns]
            if any(energy is None or energy <= 0 for energy in used) or min(e for e in energies if e is not None) < 0:
                what = f"has the energies {energies} at {node_nm} nm, {convention}"
                yield _broken(engine, what, "positive for every column in use")
