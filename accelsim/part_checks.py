"""What checks of head widths and of token groups share: the parts of some ops, and formats that an engine lacks."""

from __future__ import annotations

from collections.abc import Iterable

from accelsim.kernels.mapper import P_ENGINE, P_SLICE
from accelsim.mapping import MappingArrays
from accelsim.optable import M_MODE, MAX_PROBLEMS, EngineTable, OpTable
from accelsim.problems import InfeasibleError, Problem
from accelsim.program import Int64


def parts_of(arrays: MappingArrays, ops: Int64) -> list[tuple[int, int, int]]:
    """(op, engine, slice) of every part of some ops, each once."""
    return sorted(
        {
            (k, int(part[P_ENGINE]), int(part[P_SLICE]))
            for k in ops.tolist()
            for part in arrays.parts[k, : arrays.n_parts[k]]
        }
    )


def refuse(problems: Iterable[Problem]) -> None:
    """Raise InfeasibleError with the problems if there are some, in the order of their text."""
    found = sorted(problems, key=str)
    if found:
        raise InfeasibleError(found[:MAX_PROBLEMS])


def missing_modes(
    table: OpTable, engines: EngineTable, engine: int, combos: Int64, where: str, of: str, levers: tuple[str, ...]
) -> list[Problem]:
    """One problem if some of the format pairs `combos` have no mode on an engine; `of` says whose activations."""
    missing = (table.combos[c] for c in combos.tolist() if engines.modes[c, engine, M_MODE] < 0)
    # Pairs of one name can differ in what the combination has besides.
    names = " and ".join(dict.fromkeys(f"{weight.name} with {left.name}" for weight, left, *_ in missing))
    if not names:
        return []
    return [Problem(where, f"no mode executes {names} activations of {of}", "a mode for them", levers)]
