"""Tiles on the RTL array engine: operands laid out as its buffers hold them, cycles and values that it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accelsim.arch import Engine, EngineKind
from accelsim.engines import require, rules_of, slot_products
from accelsim.formats import Format
from accelsim.ir import Loop
from accelsim.kernels import engine_forms
from accelsim.problems import AccelsimError, Problem
from accelsim.program import Int64
from accelsim.rtl.build import build, run

MODULES = ("engine_pkg", "operand_buffer", "tile_walker", "operand_registers", "slot_array", "accumulators",
           "output_stage", "array_engine")  # fmt: skip
ACTIVATION_BITS = 8  # as in engine_pkg.sv
CHANNEL_BITS = 69
LINES = 8192  # of each operand buffer, one port wide
CHANNEL_LINES = 512  # blocks of channels in the requantization table
# Fields of tile_t, first the most significant.
_TILE_FIELDS = (
    *((name, 16) for name in ("groups", "rows", "cols", "taps", "depth")),
    *(("depthwise", 1), ("split", 1), ("weight_bits", 4), ("terms", 2), ("exponent_bits", 2), ("passes", 2)),
    *((name, 16) for name in ("lead", "activation_base", "weight_base", "channel_base", "low", "high")),
)
TILE_BITS = sum(bits for _, bits in _TILE_FIELDS)


@dataclass(frozen=True, eq=False)
class TileJob:
    """A tile with its operands, as `engines.walk_tile` takes them; `lead_cycles` replaces the right one in tests."""

    tile: Loop
    weight: Format
    activations: Int64
    codes: Int64
    requant: Int64
    clamp: tuple[int, int]
    lead_cycles: int | None = None


@dataclass(frozen=True, eq=False)
class RtlTile:
    """What the RTL did with a tile: cycles from the first tile's start, outputs [groups, rows, cols]."""

    start: int
    free: int
    finish: int
    outputs: Int64


@dataclass(frozen=True)
class _Shape:
    """Blocks of a tile: [blocks of a, …] as the engine walks them."""

    block_a: int
    block_b: int
    n_a: int
    n_b: int
    inputs: int
    chunks: int


def _products(engine: Engine) -> int:
    return max((mode.products for mode in engine.modes), default=1)


def _line_channels(engine: Engine) -> int:
    return max(engine.lanes * _products(engine), engine.lane_width)


def check_engine(engine: Engine) -> None:
    """AccelsimError when the RTL has no such engine: other modes than 8x8 and two 8x4, other kinds."""
    known = {(8, 8, 1), (4, 8, 2)}
    modes = {(mode.weight_bits, mode.activation_bits, mode.products) for mode in engine.modes}
    buildable = (EngineKind.MAC_ARRAY, EngineKind.SHIFT_ARRAY)
    shifting = engine.dynamic_shift or engine.region_shift
    if engine.kind not in buildable or not modes <= known or engine.terms > 3 or shifting:
        found = f"{engine.kind} with modes {sorted(modes)}, {engine.terms} terms"
        found += " and dynamic shifts" * engine.dynamic_shift + " and aligned products" * bool(engine.region_shift)
        raise AccelsimError(
            Problem(f"rtl of engine {engine.name}", found,
                    "a multiplier array with 8x8 and two products of 4x8, or 1 to 3 shifted terms")
        )  # fmt: skip


def build_engine(engine: Engine, folder: Path | None = None, defines: tuple[str, ...] = ()) -> Path:
    """The simulation of an engine; errors as in `check_engine`."""
    check_engine(engine)
    ports = (engine.activation_port_bits_per_cycle, engine.weight_port_bits_per_cycle)
    outputs = engine.output_stage.outputs_per_cycle
    parameters = {
        "SHIFT_ADD": int(engine.kind == EngineKind.SHIFT_ARRAY), "LANES": engine.lanes, "LANE_WIDTH": engine.lane_width,
        "PIXEL_GROUPS": engine.pixel_groups, "PRODUCTS": _products(engine), "TERMS": max(1, engine.terms),
        "DEPTHWISE": int(engine.depthwise), "ACTIVATION_PORT": ports[0], "WEIGHT_PORT": ports[1],
        "OUTPUTS_PER_CYCLE": outputs, "OUTPUT_LATENCY": engine.output_stage.latency_cycles, "LINES": LINES,
        "CHANNEL_LINES": CHANNEL_LINES,
    }  # fmt: skip
    constants = {"ACTIVATION_PORT": ports[0], "WEIGHT_PORT": ports[1], "OUTPUTS_PER_CYCLE": outputs,
                 "TILE_BITS": TILE_BITS, "CHANNEL_BITS": CHANNEL_BITS}  # fmt: skip
    return build("array_engine", MODULES, parameters, constants, folder, defines)


def _split(engine: Engine, job: TileJob) -> int:
    """Products per multiplier in the mode of this tile."""
    mode = require(engine, job.tile, job.weight, Format.parse("u8"))
    return slot_products(engine, mode)[0]


def _shape(engine: Engine, job: TileJob) -> _Shape:
    tile, products = job.tile, _split(engine, job)
    if tile.depthwise:
        positions = engine.lanes * engine.pixel_groups * products
        block_a, block_b = min(engine.lane_width, tile.groups), min(positions, tile.rows)
        return _Shape(block_a, block_b, -(-tile.groups // engine.lane_width), -(-tile.rows // positions), 1, 1)
    channels, inputs = engine.lanes * products, min(engine.lane_width, tile.depth)
    block_a, block_b = min(engine.pixel_groups, tile.rows), min(channels, tile.cols)
    n_a, n_b = -(-tile.rows // engine.pixel_groups), -(-tile.cols // channels)
    return _Shape(block_a, block_b, n_a, n_b, inputs, -(-tile.depth // engine.lane_width))


def stored_words(codes: Int64, weight: Format) -> Int64:
    """Weights as stored: two's complement, or per term a sign above its exponent (highest exponent: zero)."""
    if not weight.is_shift:
        return np.asarray(codes[..., 0, 0] & ((1 << weight.bits) - 1), np.int64)
    signs, exponents = codes[..., 0], codes[..., 1]
    fields = np.where(signs == 0, (1 << weight.exponent_bits) - 1, exponents + ((signs < 0) << weight.exponent_bits))
    places = np.arange(weight.terms) * (weight.exponent_bits + 1)
    return np.asarray((fields << places).sum(axis=-1), np.int64)


def _padded(array: Int64, shape: tuple[int, ...], bits: int) -> Int64:
    """`array` in the corner of a larger one; the rest is noise, which the RTL must mask."""
    full = np.random.default_rng(array.size).integers(0, 1 << bits, shape)
    full[tuple(slice(0, size) for size in array.shape)] = array
    return full


def _lines(words: Int64, bits: int, port: int) -> Int64:
    """Lines [n, 32-bit words] of a buffer; `words` [n, elements] are packed without gaps, each from a new line on."""
    n, elements = words.shape
    beats = -(-elements * bits // port)
    flat = ((words[:, :, None] >> np.arange(bits)) & 1).astype(np.uint8).reshape(n, -1)
    flat = np.pad(flat, ((0, 0), (0, beats * port - flat.shape[1]))).reshape(n * beats, port)
    flat = np.pad(flat, ((0, 0), (0, -port % 32)))
    return np.packbits(flat, axis=1, bitorder="little").view(np.uint32).astype(np.int64)


def _operand_words(engine: Engine, job: TileJob) -> tuple[Int64, Int64]:
    """Operand words [n, elements] of activations and weights in the order in which the engine reads them."""
    s, tile, bits = _shape(engine, job), job.tile, job.weight.bits
    acts = np.asarray(job.activations & 0xFF, np.int64)
    weights = stored_words(job.codes, job.weight)
    if tile.depthwise:
        acts = _padded(acts[..., 0], (s.n_a * s.block_a, s.n_b * s.block_b, tile.taps), ACTIVATION_BITS)
        acts = acts.reshape(s.n_a, s.block_a, s.n_b, s.block_b, tile.taps).transpose(0, 2, 4, 1, 3)
        weights = _padded(weights[:, 0, :, 0], (s.n_a * s.block_a, tile.taps), bits)
        weights = weights.reshape(s.n_a, s.block_a, tile.taps).transpose(0, 2, 1)
        return acts.reshape(-1, s.block_a * s.block_b), weights.reshape(-1, s.block_a)
    words = []
    for array, n, block, width in ((acts, s.n_a, s.block_a, ACTIVATION_BITS), (weights, s.n_b, s.block_b, bits)):
        full = _padded(array, (tile.groups, n * block, tile.taps, s.chunks * s.inputs), width)
        full = full.reshape(tile.groups, n, block, tile.taps, s.chunks, s.inputs).transpose(0, 1, 3, 4, 2, 5)
        words.append(full.reshape(-1, block * s.inputs))
    return words[0], words[1]


def buffer_lines(engine: Engine, job: TileJob) -> tuple[Int64, Int64]:
    """Lines [n, 32-bit words] of activations and of weights, from the first word of the tile on."""
    activations, weights = _operand_words(engine, job)
    return (
        _lines(activations, ACTIVATION_BITS, engine.activation_port_bits_per_cycle),
        _lines(weights, job.weight.bits, engine.weight_port_bits_per_cycle),
    )


def channel_blocks(engine: Engine, job: TileJob) -> int:
    """Lines of the requantization table that a tile uses."""
    shape = _shape(engine, job)
    return shape.n_a if job.tile.depthwise else job.tile.groups * shape.n_b


def channel_entries(engine: Engine, job: TileJob, base: int) -> Int64:
    """Entries [n, 1 + words] of the requantization table: address, then bias, multiplier, shift as packed words."""
    s, width = _shape(engine, job), _line_channels(engine)
    bias, multiplier, shift = np.moveaxis(job.requant, -1, 0)
    step = s.block_a if job.tile.depthwise else s.block_b
    groups, cols = bias.shape
    flat = np.arange(groups * cols)
    if job.tile.depthwise:
        line, place = flat // step, flat % step
    else:
        group, col = flat // cols, flat % cols
        line, place = group * s.n_b + col // step, col % step
    bias, multiplier, shift = (array.reshape(-1) for array in (bias, multiplier, shift))
    middle = multiplier & 0x7FFFFFFF | (shift & 1) << 31
    return np.stack([(base + line) * width + place, bias & 0xFFFFFFFF, middle, shift >> 1], axis=1)


def _passes(engine: Engine, weight: Format) -> int:
    """Passes over the terms of a weight; 1 for uniform weights."""
    return rules_of(engine).rate(engine, weight.terms - 1).passes if weight.is_shift else 1


def lead_cycles(engine: Engine, job: TileJob) -> int:
    """Cycles from the start of a tile until its first block needs the output stage: the compute time of a block."""
    products = _split(engine, job)
    ports = (ACTIVATION_BITS, job.weight.bits, engine.activation_port_bits_per_cycle, engine.weight_port_bits_per_cycle)
    tail = (*ports, engine.output_stage.outputs_per_cycle)
    geometry, tile = (engine.lanes, engine.lane_width, engine.pixel_groups, products), job.tile
    if tile.depthwise:
        return int(engine_forms.depthwise_tile(tile.groups, tile.rows, tile.taps, *geometry, *tail)[3])
    nest = (tile.groups, tile.rows, tile.cols, tile.taps, tile.depth)
    return int(engine_forms.dense_tile(*nest, *geometry, _passes(engine, job.weight), *tail)[3])


def descriptor(engine: Engine, job: TileJob, bases: tuple[int, int, int]) -> Int64:
    """tile_t as 32-bit words."""
    tile, weight = job.tile, job.weight
    lead = lead_cycles(engine, job) if job.lead_cycles is None else job.lead_cycles
    values = {
        "groups": tile.groups, "rows": tile.rows, "cols": tile.cols, "taps": tile.taps, "depth": tile.depth,
        "depthwise": tile.depthwise, "split": _split(engine, job) == 2, "weight_bits": weight.bits,
        "terms": weight.terms, "exponent_bits": weight.exponent_bits, "passes": _passes(engine, weight),
        "lead": min(lead, 0xFFFF), "activation_base": bases[0], "weight_base": bases[1], "channel_base": bases[2],
        "low": job.clamp[0], "high": job.clamp[1],
    }  # fmt: skip
    packed = 0
    for name, bits in _TILE_FIELDS:
        packed = packed << bits | int(values[name]) & (1 << bits) - 1
    return np.array([packed >> 32 * k & 0xFFFFFFFF for k in range(-(-TILE_BITS // 32))], np.int64)


def check_room(engine: Engine, lines: int, blocks: int) -> None:
    """AccelsimError when tiles need more lines of a buffer, or channel blocks of the table, than the RTL has."""
    for name, used, there in (("lines", lines, LINES), ("channel blocks", blocks, CHANNEL_LINES)):
        if used > there:
            what = f"the tiles do not fit its {name}"
            raise AccelsimError(Problem(f"rtl of engine {engine.name}", what, demand=used, bound=there, unit=name))


def _job_numbers(engine: Engine, jobs: Sequence[TileJob]) -> list[Int64]:
    """Input of the harness for tiles that run back to back; AccelsimError when they do not fit the buffers."""
    acts: list[Int64] = []
    weights: list[Int64] = []
    channels, descriptors = [], []
    bases = (0, 0, 0)
    for job in jobs:
        for table, lines in zip((acts, weights), buffer_lines(engine, job), strict=True):
            table.append(lines)
        channels.append(channel_entries(engine, job, bases[2]))
        descriptors.append(descriptor(engine, job, bases))
        bases = (bases[0] + len(acts[-1]), bases[1] + len(weights[-1]), bases[2] + channel_blocks(engine, job))
    check_room(engine, max(bases[:2]), bases[2])
    parts = [np.concatenate(tables) for tables in (acts, weights, channels)]
    sizes = np.array([*map(len, parts), len(jobs)], np.int64)
    interleaved = [
        part[line].ravel() for line in range(max(map(len, parts))) for part in parts if line < len(part)
    ]  # the harness writes one line of each per cycle
    return [sizes, *interleaved, *descriptors]


def _blocks(engine: Engine, job: TileJob) -> tuple[int, int, int]:
    """Blocks of a tile, slots of a block, and result slots that a block drains as (whole cycles)."""
    s, per_cycle = _shape(engine, job), engine.output_stage.outputs_per_cycle
    blocks, size = s.n_a * s.n_b * (1 if job.tile.depthwise else job.tile.groups), s.block_a * s.block_b
    return blocks, size, -(-size // per_cycle) * per_cycle


def result_slots(engine: Engine, job: TileJob) -> int:
    """Result slots of a tile, masked ones included."""
    blocks, _, drained = _blocks(engine, job)
    return blocks * drained


def outputs(engine: Engine, job: TileJob, slots: Int64) -> Int64:
    """Outputs [groups, rows, cols] of a tile from its result slots [n, (inside, value)].

    Raises AccelsimError when a slot outside the tile is not masked, or one inside is.
    """
    s, tile = _shape(engine, job), job.tile
    blocks, size, drained = _blocks(engine, job)
    slots = slots.reshape(blocks, drained, 2)[:, :size]
    if tile.depthwise:
        full = slots.reshape(s.n_a, s.n_b, s.block_a, s.block_b, 2).transpose(0, 2, 1, 3, 4)
        full = full.reshape(s.n_a * s.block_a, s.n_b * s.block_b, 1, 2)
    else:
        full = slots.reshape(tile.groups, s.n_b, s.n_a, s.block_a, s.block_b, 2).transpose(0, 2, 3, 1, 4, 5)
        full = full.reshape(tile.groups, s.n_a * s.block_a, s.n_b * s.block_b, 2)
    inside = np.zeros(full.shape[:3], np.int64)
    inside[: tile.groups, : tile.rows, : tile.cols] = 1
    if (full[..., 0] != inside).any():
        raise AccelsimError(Problem(f"rtl of engine {engine.name}", "marks the wrong slots as inside the tile"))
    return np.asarray(full[: tile.groups, : tile.rows, : tile.cols, 1], np.int64)


@dataclass(frozen=True, eq=False)
class RtlTiles:
    """Tiles of every job; simulated cycles and seconds of all."""

    jobs: list[list[RtlTile]]
    cycles: int
    seconds: float


def run_tiles(engine: Engine, jobs: Sequence[Sequence[TileJob]], executable: Path) -> RtlTiles:
    """Run jobs, each some tiles back to back, on the RTL engine.

    Raises AccelsimError when an accumulator bank is overwritten before it was drained, when outputs are masked
    wrongly or a job does not fit the buffers; InfeasibleError like `engines.require`.
    """
    numbers = [part for job in jobs for part in _job_numbers(engine, job)]
    output, cycles, seconds = run(executable, np.concatenate(numbers))
    results, place = [], 0
    for job in jobs:
        if output[place]:
            what = "overwrites an accumulator bank that still drains" if output[place] == 1 else "does not end"
            raise AccelsimError(Problem(f"rtl of engine {engine.name}", what))
        times = output[place + 1 : place + 1 + 3 * len(job)].reshape(-1, 3).tolist()
        place += 2 + 3 * len(job)
        slots = output[place : place + 2 * int(output[place - 1])].reshape(-1, 2)
        place += slots.size
        tiles, begin = [], 0
        for item, row in zip(job, times, strict=True):
            end = begin + result_slots(engine, item)
            tiles.append(RtlTile(row[0], row[1], row[2], outputs(engine, item, slots[begin:end])))
            begin = end
        results.append(tiles)
    return RtlTiles(results, cycles, seconds)
