"""Sets of output channels as text ranges ("0-3,7,9-12"): the index table of an op with filters of several formats."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from accelsim.problems import AccelsimError, Problem

# Far beyond any layer; a channel that an op lacks is reported with the op, before anything of its size is made.
MAX_CHANNEL = (1 << 24) - 1
GRAMMAR = "channels and ranges of channels such as 0-3,7,9-12"
_PART = re.compile(r"\s*([0-9]{1,8})\s*(?:-\s*([0-9]{1,8})\s*)?\Z")


@dataclass(frozen=True)
class Channels:
    """A set of output channels; `text` is the shortest ascending text of it, so equal sets are equal.

    Make one with `parse` (text) or `of` (numbers).  A text and not a tuple of numbers, because a plan of a large
    network holds tens of thousands of channels and is hashed with every look-up of its arrays.
    """

    text: str

    @staticmethod
    def parse(text: str, where: str = "channels") -> Channels:
        """The set that a text names, in any order.

        Raises AccelsimError with the part at fault: no channel or range, an end below its start, a channel named twice.
        """
        ranges = []
        for part in text.split(","):
            found = _PART.match(part)
            first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
            if not found or last > MAX_CHANNEL:
                raise AccelsimError(Problem(where, f"{part[:40]!a} is no channel or range", GRAMMAR))
            if last < first:
                what = f"the range {part.strip()} ends below its start"
                raise AccelsimError(Problem(where, what, GRAMMAR, (f"{last}-{first}",)))
            ranges.append((first, last))
        ranges.sort()
        for (_, before), (first, _) in pairwise(ranges):
            if first <= before:
                raise AccelsimError(Problem(where, f"channel {first} is named twice", "every channel once"))
        return Channels(_text(ranges))

    @staticmethod
    def of(indices: Iterable[int], where: str = "channels") -> Channels:
        """The set of channel numbers.  Raises AccelsimError for none, for a number twice or one that is no channel."""
        numbers = [int(index) for index in indices]
        if not numbers:
            raise AccelsimError(Problem(where, "no channels", GRAMMAR, ("leave the format out",)))
        for number in numbers:
            if not 0 <= number <= MAX_CHANNEL:
                raise AccelsimError(Problem(where, f"{number} is no channel", f"0 … {MAX_CHANNEL:,}"))
        if len(set(numbers)) < len(numbers):
            twice = next(number for number in sorted(numbers) if numbers.count(number) > 1)
            raise AccelsimError(Problem(where, f"channel {twice} is named twice", "every channel once"))
        return Channels(_text((number, number) for number in sorted(numbers)))

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """First and last channel of every run, ascending."""
        return _ranges(self.text)

    @property
    def count(self) -> int:
        """Number of channels."""
        return sum(last - first + 1 for first, last in self.ranges)

    @property
    def last(self) -> int:
        """Largest channel."""
        return self.ranges[-1][1]

    @property
    def indices(self) -> NDArray[np.int64]:
        """Every channel, ascending (read-only)."""
        return _indices(self.text)


def _text(ranges: Iterable[tuple[int, int]]) -> str:
    """Text of ascending ranges without overlap; neighbours are joined."""
    joined: list[list[int]] = []
    for first, last in ranges:
        if joined and first == joined[-1][1] + 1:
            joined[-1][1] = last
        else:
            joined.append([first, last])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in joined)


@lru_cache(maxsize=4096)
def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    runs = (part.partition("-") for part in text.split(","))
    return tuple((int(first), int(last or first)) for first, _, last in runs)


@lru_cache(maxsize=4096)
def _indices(text: str) -> NDArray[np.int64]:
    found = np.concatenate([np.arange(first, last + 1, dtype=np.int64) for first, last in _ranges(text)])
    found.setflags(write=False)
    return found
