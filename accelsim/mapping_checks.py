"""Checks of the optional decisions of a mapping: sub-arrays of an engine."""

from __future__ import annotations

from accelsim.arch import Engine
from accelsim.problems import Problem


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
