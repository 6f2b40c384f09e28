"""The accelerator: engines, their output stages, buffers and DRAM as frozen dataclasses with units in the names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any

from accelsim.ir import digest


class EngineKind(StrEnum):
    """Array engines; the vector unit is not one of them."""

    MAC_ARRAY = "mac_array"
    SHIFT_ARRAY = "shift_array"
    COMPOSABLE_ARRAY = "composable_array"


@dataclass(frozen=True)
class Mode:
    """A precision mode: operands up to `weight_bits × activation_bits`, `products` per multiplier and cycle.

    In dense work the products of one multiplier share the activation (two output channels); in depthwise work they
    have separate activations (two output positions), so the activation port must deliver them.  On a composable array
    `products` counts both splits of a fusion unit: narrower weights give channels (or positions), narrower activations
    give more reduction inputs.
    """

    weight_bits: int
    activation_bits: int
    products: int = 1


@dataclass(frozen=True)
class OutputStage:
    """Requantization behind an engine: bias, multiply, round, shift, clamp, activation or table."""

    outputs_per_cycle: int
    latency_cycles: int = 4


@dataclass(frozen=True)
class Engine:
    """An adder-tree array: `pixel_groups` positions × `lanes` output channels × `lane_width` reduction inputs.

    `kind` decides what a slot is: a multiplier (`modes`), a fusion unit of 16 2-bit multipliers (`modes`), or `terms`
    shifters and an adder (shift-add).
    `depthwise` allows the reconfigured mode (channels across lane inputs, positions across lanes and groups).
    Port widths are per cycle and private to the engine.  `accumulator_bits` is the width of every accumulator.
    """

    name: str
    kind: EngineKind
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

    @property
    def slots(self) -> int:
        """Multipliers, fusion units, or shift-add slots."""
        return self.lanes * self.lane_width * self.pixel_groups

    @property
    def pipeline_cycles(self) -> int:
        """Operand register, product, adder-tree levels, accumulator; the output stage adds its own latency."""
        return 3 + max(0, (self.lane_width - 1).bit_length()) + self.output_stage.latency_cycles


@dataclass(frozen=True)
class VectorUnit:
    """Element-wise engine: operations per cycle of each kind of functional unit; a pass runs all kinds in parallel."""

    mul_per_cycle: int
    add_per_cycle: int
    shift_per_cycle: int
    compare_per_cycle: int
    table_per_cycle: int
    division_per_cycle: int
    port_bits_per_cycle: int = 1024
    latency_cycles: int = 8

    def throughput(self) -> tuple[int, ...]:
        """Operations per cycle in `VECTOR_KINDS` order."""
        return (
            self.mul_per_cycle,
            self.add_per_cycle,
            self.shift_per_cycle,
            self.compare_per_cycle,
            self.table_per_cycle,
            self.division_per_cycle,
        )


@dataclass(frozen=True)
class Buffer:
    """On-chip SRAM made of equal single-port macros of `macro_bits`, `word_bits` wide."""

    capacity_bits: int
    macro_bits: int = 65536
    word_bits: int = 128


@dataclass(frozen=True)
class Dram:
    """Fixed-bandwidth DRAM: transfers are whole bursts, the first-beat latency overlaps the next transfer."""

    bandwidth_bits_per_s: int
    burst_bits: int
    first_beat_latency_s: float
    type: str = "LPDDR4"


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
    dram: Dram
    notes: str = field(default="", compare=False)

    def burst_cycles(self) -> Fraction:
        """Core cycles per burst, exact."""
        return Fraction(self.dram.burst_bits * self.clock_hz, self.dram.bandwidth_bits_per_s)

    def ticks_per_cycle(self) -> int:
        """Denominator of the burst time: all simulated time is an integer number of ticks of 1/this cycle."""
        return self.burst_cycles().denominator

    def first_beat_cycles(self) -> int:
        """First-beat latency in whole core cycles, rounded up (Fraction of the decimal text, so exact)."""
        latency = Fraction(repr(self.dram.first_beat_latency_s)) * self.clock_hz
        return -(-latency.numerator // latency.denominator)

    def replace(self, **changes: Any) -> Accelerator:
        """A copy with fields changed."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Plain data, the same fields as the YAML form."""
        return asdict(self)

    def fingerprint(self) -> str:
        """Hash of every field that can change cycles, counts, energy or area (name and notes do not)."""
        data = self.to_json()
        return digest({key: value for key, value in data.items() if key not in ("name", "notes")})
