"""Engines: what each can execute, what a tile costs in closed form, and the stepped models that prove it."""

from accelsim.engines.composable_array import ComposableArray
from accelsim.engines.mac_array import MacArray, uniform_codes
from accelsim.engines.output_stage import requantize
from accelsim.engines.registry import register_engine, rules_of
from accelsim.engines.rules import EngineRules, Fault, Rate, Stepped, tree_add_pj
from accelsim.engines.shift_array import ShiftArray
from accelsim.engines.systolic import SystolicArray
from accelsim.engines.tile import TileCost, can_execute, require, select_mode, slot_products, tile_cost, walk_tile
from accelsim.engines.vector_unit import MicroOp, OpCode, Operand, VectorCost, recipe_cost, walk_program

__all__ = [
    "ComposableArray",
    "EngineRules",
    "Fault",
    "MacArray",
    "MicroOp",
    "OpCode",
    "Operand",
    "Rate",
    "ShiftArray",
    "Stepped",
    "SystolicArray",
    "TileCost",
    "VectorCost",
    "can_execute",
    "recipe_cost",
    "register_engine",
    "requantize",
    "require",
    "rules_of",
    "select_mode",
    "slot_products",
    "tile_cost",
    "tree_add_pj",
    "uniform_codes",
    "walk_program",
    "walk_tile",
]
