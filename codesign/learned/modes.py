"""Widths between which a target's cost is interpolated: those at which its engines change their mode."""

from __future__ import annotations

from accelsim.arch import Accelerator, Engine
from accelsim.engines.registry import rules_of
from accelsim.formats import Format, Scheme
from quant.learned.quantizer import HIGHEST_BITS, LOWEST_BITS

WIDTHS = tuple(range(LOWEST_BITS, HIGHEST_BITS + 1))
Columns = dict[tuple[int, int], tuple[int | None, ...]]


def modes_of(accelerator: Accelerator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widest widths of every mode, of left operands and of right ones (filters), ascending; the last is 8.

    A mode is what all engines do with a width, whatever the other operand's width: widths between two of them are
    executed in the wider mode.
    """
    columns: Columns = {
        (left, right): tuple(_column(engine, left, right) for engine in accelerator.engines)
        for left in WIDTHS
        for right in WIDTHS
    }
    lefts = [tuple(columns[left, right] for right in WIDTHS) for left in WIDTHS]
    rights = [tuple(columns[left, right] for left in WIDTHS) for right in WIDTHS]
    return _ends(lefts), _ends(rights)


def knots_of(modes: tuple[int, ...]) -> tuple[int, ...]:
    """Widths at which a cost is simulated: every one of the narrowest mode, where only storage differs, and the modes.

    Within a wider mode 3 and 4 bits may cost the same, so the cost is a line from mode to mode there: every width has
    a slope.
    """
    return tuple(width for width in WIDTHS if width <= modes[0] or width in modes)


def _column(engine: Engine, left: int, right: int) -> int | None:
    return rules_of(engine).column(engine, Format(Scheme.UNIFORM, right), Format(Scheme.UNIFORM, left))


def _ends(found: list[tuple[tuple[int | None, ...], ...]]) -> tuple[int, ...]:
    """Widths whose successor is executed otherwise."""
    return tuple(width for k, width in enumerate(WIDTHS) if k + 1 == len(WIDTHS) or found[k] != found[k + 1])
