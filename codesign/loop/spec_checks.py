"""What values of a co-design's file must be: checks of single fields, each with the words of what it expects."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from accelsim.formats import Format
from accelsim.mappers.choice import MAPPER_NAMES, mapper_of
from accelsim.problems import AccelsimError
from codesign.allocate.option_counts import BASE
from codesign.allocate.stored_choices import REGIONS

# (value) → (whether it is good, what is expected).
Check = Callable[[Any], tuple[bool, str]]


def text(value: Any) -> tuple[bool, str]:
    """A text that is not empty."""
    return isinstance(value, str) and bool(value), "a text"


def flag(value: Any) -> tuple[bool, str]:
    """A truth value."""
    return isinstance(value, bool), "true or false"


def whole_number(least: int) -> Check:
    """A whole number, `least` or more."""
    return lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and value >= least, f"a whole number, {least} or more",
    )  # fmt: skip


def number(low: float, high: float, expected: str) -> Check:
    """A number from `low` to `high`."""
    return lambda value: (
        isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high, expected,
    )  # fmt: skip


def optional(check: Check) -> Check:
    """What `check` accepts, or nothing."""
    return lambda value: (True, "") if value is None else (check(value)[0], f"{check(value)[1]}, or null")


def list_of(check: Check, least: int = 1) -> Check:
    """A list of at least so many values that `check` accepts."""

    def checked(value: Any) -> tuple[bool, str]:
        if not isinstance(value, list) or len(value) < least:
            return False, f"a list of at least {least}, each {check(None)[1]}"
        wrong = next((one for one in value if not check(one)[0]), value[0] if value else None)
        return all(check(one)[0] for one in value), f"a list of at least {least}, each {check(wrong)[1]}"

    return checked


def different(check: Check) -> Check:
    """A list without repetition."""

    def checked(value: Any) -> tuple[bool, str]:
        good, expected = check(value)
        return good and len(set(value)) == len(value), f"{expected}, each once"

    return checked


def named_folders(value: Any) -> tuple[bool, str]:
    """Folders whose last parts differ: these are the names of what they hold."""
    good, expected = list_of(text, 0)(value)
    names = [Path(one).name for one in value] if good else []
    good = good and all(names) and len(set(names)) == len(names)
    return good, f"{expected}, folders with a name of their own each"


def level(value: Any) -> tuple[bool, str]:
    """A limit of the predicted loss; the names of designs have six digits of it."""
    good, expected = number(0, 1e300, "a number, 0 or more")(value)
    return good and float(f"{value:g}") == value, f"{expected}, of at most six digits"


def number_format(value: Any) -> tuple[bool, str]:
    """A number format."""
    try:
        Format.parse(str(value))
    except AccelsimError as error:
        return False, error.problems[0].expected
    return True, "a number format"


def uniform_format(value: Any) -> tuple[bool, str]:
    """A uniform format."""
    return number_format(value)[0] and str(value).startswith("u"), "a uniform format, u2 … u16"


def narrow_format(value: Any) -> tuple[bool, str]:
    """A uniform format that is narrower than the base."""
    good = uniform_format(value)[0] and Format.parse(str(value)).bits < Format.parse(BASE).bits
    return good, f"a uniform format narrower than {BASE}"


def having(name: str, check: Check) -> Check:
    """A list that has some value among others."""

    def checked(value: Any) -> tuple[bool, str]:
        good, expected = check(value)
        return good and name in value, f"{expected}, {name} among them"

    return checked


def stored_format(value: Any) -> tuple[bool, str]:
    """A format of stored tensors: uniform, or two regions of some bits whose ratio comes from data."""
    good = uniform_format(value)[0] or REGIONS.fullmatch(str(value)) is not None
    return good, "a uniform format, u2 … u16, or two regions, r3 … r8"


def share(value: Any) -> tuple[bool, str]:
    """A share of tokens that is neither none nor all."""
    good, _ = number(0, 1, "")(value)
    return good and 0 < value < 1, "a share between 0 and 1"


def one_of(names: Collection[str]) -> Check:
    """One of some names."""
    return lambda value: (value in names, " | ".join(names))


def mapper(value: Any) -> tuple[bool, str]:
    """The name of a mapper."""
    try:
        mapper_of(str(value))
    except AccelsimError:
        return False, " | ".join(MAPPER_NAMES)
    return True, ""


def width(value: Any) -> tuple[bool, str]:
    """A width in bits."""
    return whole_number(2)(value)[0] and value <= 16, "a whole number, 2 … 16"


POSITIVE = number(1e-300, 1e300, "a positive number")
