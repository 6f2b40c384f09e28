"""Meaning, bounds and allowed values of every field of the accelerator and plan files, in one table."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from accelsim.arch import Accelerator, BankedDram, Buffer, Dram, Engine, Mode, OutputStage, VectorUnit
from accelsim.counts import MAX_MODES
from accelsim.dram import device_names
from accelsim.engines.registry import ENGINE_KINDS
from accelsim.formats import MAX_REGION_SHIFT, TWO_REGION_BITS, Format
from accelsim.head_widths import MAX_SHIFT, MOST_PARTS, PART_BITS, HeadWidths
from accelsim.nonlinear.methods import method_names
from accelsim.plan import GRANULARITIES, OLD_PLAN_FORMAT, PLAN_FORMAT, QuantPlan, Rule, WeightShare
from accelsim.problems import AccelsimError
from accelsim.token_groups import TokenGroups

FORMATS: dict[str, type] = {
    "accelsim.accelerator/1": Accelerator,
    PLAN_FORMAT: QuantPlan,
    OLD_PLAN_FORMAT: QuantPlan,
}
# The formats that a kind of file may have; the first is what is written.
KINDS: dict[str, tuple[str, ...]] = {
    "accelerator": ("accelsim.accelerator/1",),
    "plan": (PLAN_FORMAT, OLD_PLAN_FORMAT),
}
RESERVED_NAMES = ("vector", "dram")
# The types for which tech/dram_pj_per_bit.csv has an energy (a test keeps the two equal).
DRAM_TYPES = ("DDR3", "DDR4", "LPDDR2", "LPDDR4", "LPDDR4X", "LPDDR5", "GDDR5", "HBM2", "HBM3", "HMC")
BALANCED = "balanced"
MAX_COUNT = 1 << 40
MAX_SLOTS = 1 << 20
MAX_TICKS = 1 << 20
MAX_SHARES = 8
NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,39}"
TITLE = r"[^\x00-\x1f\x7f\u2028\u2029]{1,200}"
PATTERN_WORDS = {
    NAME: "a letter, then letters, digits, `_` or `-`, 40 characters at most",
    TITLE: "1 … 200 printable characters on one line",
}


def _parses(name: str) -> bool:
    try:
        Format.parse(name)
    except AccelsimError:
        return False
    return True


FORMAT_NAMES: tuple[str, ...] = tuple(
    filter(_parses, (f"{scheme}{bits}" for scheme in ("u", "pot", "apot") for bits in range(1, 33)))
)
LOG2_NAMES: tuple[str, ...] = tuple(filter(_parses, (f"log{bits}" for bits in range(1, 33))))
REGION_NAMES: tuple[str, ...] = tuple(
    f"r{bits}{kind}{shift}" for kind in "pn" for bits in TWO_REGION_BITS for shift in range(MAX_REGION_SHIFT + 1)
)
UNIFORM_NAMES: tuple[str, ...] = tuple(name for name in FORMAT_NAMES if not Format.parse(name).is_shift)


class _MethodNames(Collection[str]):
    """Names of the non-linear methods; asked for only where a file names one, because they load their programs."""

    def __contains__(self, name: object) -> bool:
        return name in method_names()

    def __iter__(self) -> Iterator[str]:
        return iter(method_names())

    def __len__(self) -> int:
        return len(method_names())


@dataclass(frozen=True)
class Spec:
    """What a field means and accepts: numbers from `low` to `high`, or one of `choices`, or text of a `pattern`.

    For a list, `low` and `high` bound its length, `item_low` and `item_high` its numbers.
    """

    meaning: str
    low: int | float = 1
    high: int | float = MAX_COUNT
    choices: Collection[str | int] = ()
    pattern: str = ""
    power_of_two: bool = False
    item_low: int = 1
    item_high: int = MAX_COUNT


_ACCELERATOR = {
    "name": Spec("name of the design; does not enter its fingerprint", pattern=TITLE),
    "clock_hz": Spec("core clock", 1_000_000, 5_000_000_000),
    "node_nm": Spec("technology node; selects the energy and area tables", choices=(45, 28)),
    "engines": Spec("array engines", 1, 16),
    "vector": Spec("the element-wise unit"),
    "activation_buffer": Spec("SRAM for activations"),
    "weight_buffer": Spec("SRAM for weights"),
    "dram": Spec("off-chip memory"),
    "notes": Spec("free text"),
}
_ENGINE = {
    "name": Spec("name of the engine in mappings, counts and reports", pattern=NAME),
    "kind": Spec(
        "what a slot is: a multiplier, a fusion unit of 2-bit multipliers, shifters and an adder, a systolic element",
        choices=ENGINE_KINDS.keys(),
    ),
    "lanes": Spec("output channels in parallel; columns of a systolic_array", 1, MAX_SLOTS),
    "lane_width": Spec("inputs of a lane's adder tree (reduction in parallel); rows of a systolic_array", 1, MAX_SLOTS),
    "pixel_groups": Spec("output positions in parallel", 1, MAX_SLOTS),
    "output_stage": Spec("requantization behind the engine"),
    "modes": Spec("precision modes of a mac_array, composable_array or systolic_array, narrowest first", 0, MAX_MODES),
    "terms": Spec("signed powers of two that a shift_array slot adds per cycle", 0, 3),
    "depthwise": Spec("has the reconfigured depthwise mode (not on a shift_array)"),
    "accumulator_bits": Spec("width of every accumulator", 16, 64),
    "activation_port_bits_per_cycle": Spec("private read port for activations"),
    "weight_port_bits_per_cycle": Spec("private read port for weights"),
    "dataflow": Spec("which operand of a systolic_array stays in the elements", choices=("none", "ws", "os", "is")),
    "double_buffered": Spec("a systolic_array loads the next stationary operands while it streams (ws, is)"),
    "accumulator_rows": Spec("streamed steps whose results fit behind a systolic_array (ws, is)", 0, 1 << 16),
    "timing": Spec("of a systolic_array: as derived, or SCALE-Sim's count", choices=("pipelined", "scalesim")),
    "dynamic_shift": Spec("a shift_array can shift the right operand of a matmul by a log2 code of the left one"),
    "region_shift": Spec(
        "largest shift of a mac_array behind products of a two-region activation", 0, MAX_REGION_SHIFT
    ),
}
_VECTOR = {
    **{
        f"{kind}_per_cycle": Spec(f"{words} per cycle")
        for kind, words in (
            ("mul", "multiplications"),
            ("add", "additions"),
            ("shift", "shifts"),
            ("compare", "comparisons"),
            ("table", "table look-ups"),
            ("division", "divisions"),
        )
    },
    "port_bits_per_cycle": Spec("private buffer port"),
    "latency_cycles": Spec("pipeline depth", 0, MAX_SLOTS),
    "leading_one_per_cycle": Spec("highest set bits found per cycle, for methods of non-linear operations", 0),
}

FIELDS: dict[type, dict[str, Spec]] = {
    Accelerator: _ACCELERATOR,
    Engine: _ENGINE,
    Mode: {
        "weight_bits": Spec("widest weight of the mode", 2, 16),
        "activation_bits": Spec("widest activation of the mode", 2, 16),
        "products": Spec("products per multiplier and cycle", 1, 16),
        "passes": Spec("passes of a product: the halves of the activation one after the other", 1, 2),
    },
    OutputStage: {
        "outputs_per_cycle": Spec("requantized outputs per cycle", 1, MAX_SLOTS),
        "latency_cycles": Spec("pipeline depth", 0, MAX_SLOTS),
    },
    VectorUnit: _VECTOR,
    Buffer: {
        "capacity_bits": Spec("total size, a whole number of macros"),
        "macro_bits": Spec("size of one single-port macro"),
        "word_bits": Spec("bits that a macro reads or writes per cycle", 8, 4096),
    },
    Dram: {
        "bandwidth_bits_per_s": Spec("peak bandwidth", 1_000_000, 100_000_000_000_000),
        "burst_bits": Spec("smallest transfer", 64, 4096, power_of_two=True),
        "first_beat_latency_s": Spec("time until the first data of a transfer; overlaps the next transfer", 0, 1e-3),
        "type": Spec("selects the energy per bit", choices=DRAM_TYPES),
    },
    BankedDram: {
        "device": Spec("timing and geometry of a channel", choices=device_names()),
        "channels": Spec("channels in lock step, as one wide bus", 1, 64, power_of_two=True),
        "model": Spec("rows, banks and refresh are simulated", choices=("banked",)),
    },
    QuantPlan: {
        "name": Spec("name of the plan; does not enter its fingerprint", pattern=TITLE),
        "rules": Spec("the first rule that matches an op decides", 1, 4096),
        "division": Spec("method of the linear-attention divider", choices=("log2_shift", "divide")),
        "bias_bits": Spec("stored bits of a bias", 1, 64),
        "scale_bits": Spec("stored bits of an output channel's scale", 1, 64),
        "input_zero_point": Spec("the graph input is stored with a zero point"),
    },
    Rule: {
        "match": Spec("glob on op names or, after `class:`, on op classes", pattern=TITLE),
        "weights": Spec("one format name, or the formats that share the output channels", 1, MAX_SHARES),
        "activation": Spec("format of the streamed operand", choices=UNIFORM_NAMES),
        "output": Spec("format in which the result is stored", choices=(*UNIFORM_NAMES, *LOG2_NAMES, *REGION_NAMES)),
        "right": Spec("format of a matmul's second operand", choices=UNIFORM_NAMES),
        "zero_point": Spec("the result is stored with a zero point"),
        "granularity": Spec("which channels of the result share a scale and an offset", choices=GRANULARITIES),
        "nonlinear": Spec("method of a softmax, GELU or LayerNorm of its own", choices=_MethodNames()),
        "tokens": Spec("the first tokens have the output's format, the others fewer bits"),
        "heads": Spec("widths of equal parts of the result's channels"),
        "weight_heads": Spec("widths of equal parts of the filters along their inputs"),
    },
    TokenGroups: {
        "layer": Spec("name of the layer that ranked the tokens", pattern=TITLE),
        "high": Spec("tokens with all bits", 1, 1 << 24),
        "drop_bits": Spec("bits fewer of the other tokens", 1, 14),
    },
    HeadWidths: {
        "bits": Spec("width of every part", 1, MOST_PARTS, item_low=PART_BITS.start, item_high=PART_BITS.stop - 1),
        "shifts": Spec("a step is 2^shift of the finest", 0, MOST_PARTS, item_low=0, item_high=MAX_SHIFT),
    },
    WeightShare: {
        "format": Spec("number format of the weights", choices=FORMAT_NAMES),
        "share": Spec("fraction of the output channels, or `balanced`: the engines finish together", 0, 1),
        "channels": Spec("the output channels of this format, such as 0-3,7,9-12, instead of a share"),
    },
}
