"""The axes of a study's space, read from its rows: which fields vary, and the values of each in a reader's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from codesign.plots.frame import Rows

DESIGN_FIELDS = ("model", "resolution", "arch", "plan", "mapper")
PREFIX = "accelerator."
BITS_PER_KIB = 8192


def varying(rows: Rows) -> dict[str, list[Any]]:
    """Field → its values in order, for every field of the design space that takes more than one value in `rows`."""
    fields = [name for name in DESIGN_FIELDS if any(name in row for row in rows)]
    fields += [name for name in dict.fromkeys(key for row in rows for key in row) if name.startswith(PREFIX)]
    found = {name: ordered({value_of(row, name) for row in rows}) for name in fields}
    return {name: values for name, values in found.items() if len(values) > 1}


def value_of(row: Mapping[str, Any], field: str) -> Any:
    """The value of a field, as something that compares: lists and tables become text."""
    value = row.get(field)
    return str(value) if isinstance(value, (list, dict)) else value


def ordered(values: set[Any]) -> list[Any]:
    """Numbers by size, then all else by its text."""
    return sorted(values, key=lambda value: (not _is_number(value), value if _is_number(value) else 0, str(value)))


def field_text(field: str) -> str:
    """A field as a title of a few words, its unit last: `engines.1.lanes` is "engine 1 lanes"."""
    text = field.removeprefix(PREFIX).replace("engines.", "engine ").replace(".", " ").replace("_", " ")
    for ending, unit in (("capacity bits", "[KiB]"), ("bandwidth bits per s", "bandwidth [GB/s]"), ("hz", "[MHz]")):
        if text.endswith(ending):
            return f"{text.removesuffix(ending).rstrip()} {unit}"
    return text


def value_text(field: str, value: Any) -> str:
    """A value in the unit of `field_text`."""
    if not _is_number(value):
        return "the model's" if value is None else str(value)
    if field.endswith("capacity_bits"):
        return f"{value / BITS_PER_KIB:g}"
    if field.endswith("bandwidth_bits_per_s"):
        return f"{value / 8e9:g}"
    return f"{value / 1e6:g}" if field.endswith("_hz") else f"{value:g}" if isinstance(value, float) else str(value)


def shortened(text: str, most: int = 18) -> str:
    """`text`, cut in the middle when it is longer than `most` letters: names of files differ at their ends."""
    head = (most - 1) // 2
    return text if len(text) <= most else f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def wrapped(text: str, most: int = 14) -> str:
    """`text` in lines of about `most` letters."""
    lines: Sequence[str] = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], joined] if len(joined) <= most or not lines[-1] else [*lines, word]
    return "\n".join(lines)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
