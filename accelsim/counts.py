"""What is counted: one integer column per engine event, vector operation and memory port, in a fixed order."""

from __future__ import annotations

from accelsim.arch import Accelerator
from accelsim.ir import VECTOR_KINDS

# Per engine.  products_i: MACs executed in mode i of a multiplier array, or with i + 1 terms on a shift-add array (the
# column after those: with a right operand that a log2 activation shifts; columns after the modes of a multiplier array:
# products of a two-region activation, aligned behind the multipliers of mode i);
# outputs: requantized results; table_lookups: outputs that also pass a table (hardswish, GELU); accumulates:
# accumulator updates (one per output position, channel and adder-tree step; one per product in depthwise mode).
ENGINE_COUNTS: tuple[str, ...] = (
    "products_0",
    "products_1",
    "products_2",
    "products_3",
    "products_4",
    "products_5",
    "outputs",
    "table_lookups",
    "accumulates",
)
MAX_MODES = 6
MAX_TERMS = 4  # products_i of weights of a shift-add array end here
GLOBAL_COUNTS: tuple[str, ...] = (
    *(f"vector_{kind}" for kind in VECTOR_KINDS),
    "activation_read_bits",
    "activation_write_bits",
    "weight_read_bits",
    "weight_write_bits",
    "dram_read_bits",
    "dram_write_bits",
)


def count_columns(accelerator: Accelerator) -> tuple[str, ...]:
    """Names of the count columns of a design: `<engine>.<event>` for every engine, then the global ones."""
    engine = tuple(f"{unit.name}.{event}" for unit in accelerator.engines for event in ENGINE_COUNTS)
    return engine + GLOBAL_COUNTS
