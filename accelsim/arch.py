"""The accelerator: engines, their output stages, buffers and DRAM as frozen dataclasses with units in the names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from accelsim.dram import load_device
from accelsim.ir import digest_text, plain_text
from accelsim.program import Int64

# Engine fields of one kind only.  They enter a fingerprint where they are set: designs without them keep theirs.
FIELDS_OF_KIND: dict[str, dict[str, Any]] = {
    "systolic_array": {"dataflow": "none", "double_buffered": True, "accumulator_rows": 0, "timing": "pipelined"},
    "shift_array": {"dynamic_shift": False},
    "mac_array": {"region_shift": 0},
}
_KIND_DEFAULTS = {name: value for defaults in FIELDS_OF_KIND.values() for name, value in defaults.items()}
# The same of the vector unit: one without leading-one units has the fingerprint it had before there were any.
VECTOR_DEFAULTS = {"leading_one_per_cycle": 0}


class EngineKind(StrEnum):
    """Array engines that come with the program (the vector unit is not one of them); others register themselves.

    Compare with ==: `Engine.kind` may be plain text.
    """

    MAC_ARRAY = "mac_array"
    SHIFT_ARRAY = "shift_array"
    COMPOSABLE_ARRAY = "composable_array"
    SYSTOLIC_ARRAY = "systolic_array"


@dataclass(frozen=True)
class Mode:
    """A precision mode: operands up to `weight_bits × activation_bits`, `products` per multiplier and cycle.

    In dense work the products of one multiplier share the activation (two output channels); in depthwise work they
    have separate activations (two output positions), so the activation port must deliver them.  On a composable array
    `products` counts both splits of a fusion unit: narrower weights give channels (or positions), narrower activations
    give more reduction inputs.

    A multiplier array may have modes of two `passes` over a step: the multipliers of the mode with half the activation
    bits take the unsigned low half first, then the signed high half, whose sums are shifted into the accumulators.
    """

    weight_bits: int
    activation_bits: int
    products: int = 1
    passes: int = 1


@dataclass(frozen=True)
class OutputStage:
    """Requantization behind an engine: bias, multiply, round, shift, clamp, activation or table."""

    outputs_per_cycle: int
    latency_cycles: int = 4


@dataclass(frozen=True)
class Engine:
    """An adder-tree array: `pixel_groups` positions × `lanes` output channels × `lane_width` reduction inputs.

    `kind` (a name of `accelsim.engines.registry`) decides what a slot is: a multiplier (`modes`), a fusion unit of 16
    2-bit multipliers (`modes`), or `terms` shifters and an adder (shift-add).
    `depthwise` allows the reconfigured mode (channels across lane inputs, positions across lanes and groups).
    Port widths are per cycle and private to the engine.  `accumulator_bits` is the width of every accumulator.
    A systolic array has `lane_width` rows and `lanes` columns, and is the only kind with `dataflow`, `double_buffered`,
    `accumulator_rows` (the streamed steps whose results fit behind the array) and `timing` ("scalesim" charges the
    serial folds of SCALE-Sim).  A shift array with `dynamic_shift` can shift the right operand by the streamed one.  A
    multiplier array with a `region_shift` has a shifter behind every multiplier, which moves the products of a
    two-region activation's coarse codes by up to so many bits.
    """

    name: str
    kind: str
    lanes: int
    lane_width: int
    pixel_groups: int
    output_stage: OutputStage
    modes: tuple[Mode, ...] = ()
    terms: int = 0
    depthwise: bool = False
    accumulator_bits: int = 32
    activation_port_bits_per_cycle: int = 4096
    weight_port_bits_per_cycle: int = 4096
    dataflow: str = "none"
    double_buffered: bool = True
    accumulator_rows: int = 0
    timing: str = "pipelined"
    dynamic_shift: bool = False
    region_shift: int = 0

    @property
    def slots(self) -> int:
        """Multipliers, fusion units, or shift-add slots."""
        return self.lanes * self.lane_width * self.pixel_groups

    @property
    def pipeline_cycles(self) -> int:
        """Of an adder tree: operand register, product, tree levels, accumulator, and the output stage's latency."""
        return 3 + max(0, (self.lane_width - 1).bit_length()) + self.output_stage.latency_cycles


@dataclass(frozen=True)
class VectorUnit:
    """Element-wise engine: operations per cycle of each kind of functional unit; a pass runs all kinds in parallel.

    `leading_one_per_cycle` finds the highest set bit of a word; only methods of non-linear operations need it.
    """

    mul_per_cycle: int
    add_per_cycle: int
    shift_per_cycle: int
    compare_per_cycle: int
    table_per_cycle: int
    division_per_cycle: int
    port_bits_per_cycle: int = 1024
    latency_cycles: int = 8
    leading_one_per_cycle: int = 0

    def throughput(self) -> tuple[int, ...]:
        """Operations per cycle in `VECTOR_KINDS` order."""
        return (
            self.mul_per_cycle,
            self.add_per_cycle,
            self.shift_per_cycle,
            self.compare_per_cycle,
            self.table_per_cycle,
            self.division_per_cycle,
            self.leading_one_per_cycle,
        )


@dataclass(frozen=True)
class Buffer:
    """On-chip SRAM made of equal single-port macros of `macro_bits`, `word_bits` wide."""

    capacity_bits: int
    macro_bits: int = 65536
    word_bits: int = 128


class BusTicks(NamedTuple):
    """Bus times of a program: parts of a core cycle, a burst, and how long after its bus time a transfer ends."""

    per_cycle: int
    burst: int
    read_latency: int
    write_latency: int


@dataclass(frozen=True)
class Dram:
    """Fixed-bandwidth DRAM: transfers are whole bursts, the first-beat latency overlaps the next transfer."""

    bandwidth_bits_per_s: int
    burst_bits: int
    first_beat_latency_s: float
    type: str = "LPDDR4"

    def faster(self, factor: int) -> Dram:
        """The same with `factor` times the bandwidth."""
        return replace(self, bandwidth_bits_per_s=factor * self.bandwidth_bits_per_s)

    def bus_ticks(self, clock_hz: int) -> BusTicks:
        """Ticks are the denominator of the exact burst time; the first-beat latency is rounded up to a core cycle."""
        burst = Fraction(self.burst_bits * clock_hz, self.bandwidth_bits_per_s)
        latency = Fraction(repr(self.first_beat_latency_s)) * clock_hz
        cycles = -(-latency.numerator // latency.denominator)
        return BusTicks(burst.denominator, burst.numerator, cycles * burst.denominator, 0)

    def timing(self, clock_hz: int) -> Int64 | None:
        """None: a transfer takes what its bursts take."""
        return None


@dataclass(frozen=True)
class BankedDram:
    """DRAM with banks, rows and refresh: `channels` of a device of `accelsim.dram` in lock step, as one wide bus."""

    device: str
    channels: int = 1
    model: str = "banked"

    @property
    def type(self) -> str:
        """Selects the energy per bit."""
        return load_device(self.device).energy_type

    @property
    def burst_bits(self) -> int:
        """Smallest transfer: a burst on every channel."""
        return load_device(self.device).burst_bits * self.channels

    @property
    def bandwidth_bits_per_s(self) -> int:
        """Peak: a burst in every slot.  Refresh, rows and turnaround take their share at run time."""
        return load_device(self.device).bandwidth_bits_per_s * self.channels

    def faster(self, factor: int) -> BankedDram:
        """The same with `factor` times the channels."""
        return replace(self, channels=factor * self.channels)

    def bus_ticks(self, clock_hz: int) -> BusTicks:
        """Ticks divide a core cycle and a device clock.  Times are those of hits without any wait: lower bounds."""
        device, nck = load_device(self.device), self._nck_cycles(clock_hz)
        slot = device.slot_nck
        read, write = (latency + device.burst_nck - slot for latency in (device.cl_nck, device.cwl_nck))
        return BusTicks(nck.denominator, slot * nck.numerator, read * nck.numerator, write * nck.numerator)

    def timing(self, clock_hz: int) -> Int64 | None:
        """What the controller reads (`accelsim.dram.DRAM_COLUMNS`)."""
        return load_device(self.device).timing(self.channels, self._nck_cycles(clock_hz).numerator)

    def _nck_cycles(self, clock_hz: int) -> Fraction:
        return Fraction(clock_hz, load_device(self.device).clock_hz)


@dataclass(frozen=True)
class Accelerator:
    """A complete design.  `node_nm` selects the technology file; `clock_hz` turns cycles into seconds."""

    name: str
    clock_hz: int
    node_nm: int
    engines: tuple[Engine, ...]
    vector: VectorUnit
    activation_buffer: Buffer
    weight_buffer: Buffer
    dram: Dram | BankedDram
    notes: str = field(default="", compare=False)

    def bus_ticks(self) -> BusTicks:
        """All simulated time is an integer number of ticks of 1 / `per_cycle` core cycle."""
        return self.dram.bus_ticks(self.clock_hz)

    def replace(self, **changes: Any) -> Accelerator:
        """A copy with fields changed."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Plain data, the same fields as the YAML form."""
        return asdict(self)

    def fingerprint(self) -> str:
        """Hash of every field that can change cycles, counts, energy or area (name and notes do not)."""
        names = [item.name for item in fields(self) if item.name not in ("name", "notes", "engines")]
        parts = {name: _part_text(getattr(self, name)) for name in names}
        parts["engines"] = f"[{','.join(_part_text(engine) for engine in self.engines)}]"
        return digest_text("{" + ",".join(f'"{name}":{parts[name]}' for name in sorted(parts)) + "}")


@lru_cache(maxsize=4096, typed=True)
def _part_text(part: Any) -> str:
    """JSON of one field of an accelerator, kept because designs of a sweep share most of them."""
    if not is_dataclass(part) or isinstance(part, type):
        return plain_text(part)
    data = asdict(part)
    if isinstance(part, Engine):
        data = {key: value for key, value in data.items() if _KIND_DEFAULTS.get(key) != value}
        data["modes"] = [{k: v for k, v in mode.items() if (k, v) != ("passes", 1)} for mode in data["modes"]]
    elif isinstance(part, VectorUnit):
        data = {key: value for key, value in data.items() if VECTOR_DEFAULTS.get(key) != value}
    return plain_text(data)
