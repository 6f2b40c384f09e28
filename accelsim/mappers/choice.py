"""Which mapper, for what: one short name, as it stands in commands and design spaces."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.config_walk import near
from accelsim.problems import AccelsimError, Problem

HEURISTIC, EXHAUSTIVE = "heuristic", "exhaustive"
OBJECTIVES = ("latency", "energy", "edp")
_STEADY = "steady"


@dataclass(frozen=True, kw_only=True)
class Mapper:
    """The heuristic mapper, or the exhaustive one with its objective.

    `steady` compares mappings by the interval between images instead of the latency of the first.
    """

    exhaustive: bool = False
    objective: str = "latency"
    steady: bool = False

    @property
    def name(self) -> str:
        """The short name, which `mapper_of` reads."""
        if not self.exhaustive:
            return HEURISTIC
        return EXHAUSTIVE + f":{self.objective}" + (f":{_STEADY}" if self.steady else "")


DEFAULT_MAPPER = Mapper()
MAPPER_NAMES = (HEURISTIC, *(f"{EXHAUSTIVE}:{objective}" for objective in OBJECTIVES))


def mapper_of(name: str, where: str = "mapper") -> Mapper:
    """The mapper of a name: `heuristic`, `exhaustive[:latency|energy|edp][:steady]`.  Raises AccelsimError."""
    kind, *rest = name.split(":")
    steady = bool(rest) and rest[-1] == _STEADY
    words = rest[:-1] if steady else rest
    objective = words[0] if words else OBJECTIVES[0]
    if kind == HEURISTIC and not rest:
        return DEFAULT_MAPPER
    if kind == EXHAUSTIVE and len(words) <= 1 and objective in OBJECTIVES:
        return Mapper(exhaustive=True, objective=objective, steady=steady)
    expected = (
        f"{HEURISTIC}, or {EXHAUSTIVE}[:OBJECTIVE][:{_STEADY}] with {', '.join(OBJECTIVES)} (default {OBJECTIVES[0]})"
    )
    raise AccelsimError(Problem(where, f"unknown mapper {name!r}", expected, near(name, MAPPER_NAMES)))


def refuse_unused(mapper: Mapper, has_mapping: bool, fuse: bool, where: str = "mapper") -> None:
    """Raise AccelsimError when the exhaustive mapper is asked for and could not be used."""
    other = "a mapping (--mapping)" if has_mapping else "" if fuse else "no fusion (--no-fuse)"
    if mapper.exhaustive and other:
        raise AccelsimError(Problem(where, f"{mapper.name} together with {other}", "one of them"))
