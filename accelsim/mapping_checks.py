"""Checks of the optional decisions of a mapping: sub-arrays of an engine, and rows kept for the next tile."""

from __future__ import annotations

from accelsim.arch import Engine
from accelsim.optable import (
    AXIS_ROWS,
    KIND_CONV,
    O_IN0_ROOT0,
    O_KERNEL_H,
    O_KIND,
    O_ROWS_H,
    O_STRIDE,
    OpTable,
)  # fmt: skip
from accelsim.problems import Problem
from accelsim.program import Int64

HALOS = ("reload", "keep")  # a chain's column C_HALO is the index


def sub_array_problems(where: str, engine: Engine, adder_tree: bool, sizes: tuple[int, int, int]) -> list[Problem]:
    """Faults of a part's (lanes, lane width, pixel groups); 0 is all of the engine."""
    if any(sizes) and not adder_tree:
        what = f"a sub-array of {engine.name}, through whose rows and columns operands pass"
        return [Problem(where, what, "0, 0, 0: a systolic array is used whole")]
    wholes = {"lanes": engine.lanes, "lane_width": engine.lane_width, "pixel_groups": engine.pixel_groups}
    return [
        Problem(where, f"{name} {size} of {engine.name}", f"1 … {whole}, or 0 for all")
        for (name, whole), size in zip(wholes.items(), sizes, strict=True)
        if not 0 <= size <= whole
    ]


def halo_problems(where: str, halo: str, chain: tuple[int, int, int], table: OpTable, resident: Int64) -> list[Problem]:
    """The first reason why the chain (first op, axis, tile) cannot have this `halo`, if there is one.

    Rows can be kept where tiles of a convolution load some of them twice, from the tile before only.
    """
    if halo == "reload":
        return []
    if halo not in HALOS:
        return [Problem(f"{where}.halo", f"unknown policy {halo!r}", " or ".join(map(repr, HALOS)))]
    first, axis, tile = chain
    op, name = table.ops[first], table.op_names[first]
    overlap, loaded = int(op[O_KERNEL_H] - op[O_STRIDE]), tile * int(op[O_STRIDE])
    problem: tuple[str, str] | None = None
    if axis != AXIS_ROWS:
        problem = "the chain is not cut along rows", "axis 'rows', or halo 'reload'"
    elif op[O_KIND] != KIND_CONV or overlap <= 0:
        problem = f"tiles of {name} share no rows of their input", "'reload'"
    elif resident[op[O_IN0_ROOT0]]:
        problem = f"the input of {name} is resident, nothing is loaded", "'reload'"
    elif tile >= op[O_ROWS_H]:
        problem = f"{name} is a single tile", "more than one tile, or 'reload'"
    elif overlap > loaded:
        problem = (
            f"tiles of {name} share {overlap} rows, and one brings {loaded}",
            f"a tile of {-(-overlap // int(op[O_STRIDE]))}",
        )
    return [] if problem is None else [Problem(f"{where}.halo", *problem)]
