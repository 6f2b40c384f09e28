"""Engines: what each can execute, what a tile costs in closed form, and the stepped models that prove it."""

from accelsim.engines.mac_array import uniform_codes
from accelsim.engines.output_stage import requantize
from accelsim.engines.shift_array import term_passes
from accelsim.engines.tile import TileCost, can_execute, require, select_mode, slot_products, tile_cost, walk_tile
from accelsim.engines.vector_unit import MicroOp, OpCode, VectorCost, recipe_cost, walk_program

__all__ = [
    "MicroOp",
    "OpCode",
    "TileCost",
    "VectorCost",
    "can_execute",
    "recipe_cost",
    "requantize",
    "require",
    "select_mode",
    "slot_products",
    "term_passes",
    "tile_cost",
    "uniform_codes",
    "walk_program",
    "walk_tile",
]
