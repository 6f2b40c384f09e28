"""What a searcher is, and the dictionary of those that there are."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from accelsim.arch import Accelerator
from accelsim.problems import AccelsimError, Problem

Floats = NDArray[np.float64]
Genes = NDArray[np.int64]


@dataclass(frozen=True)
class Variables:
    """The design variables: of every axis how many values it has, and whether they are ordered numbers.

    `names` are the fields of the axes and `values` what they take, for searchers that know what an axis means.
    """

    sizes: tuple[int, ...]
    ordered: tuple[bool, ...]
    names: tuple[str, ...] = ()
    values: tuple[tuple[Any, ...], ...] = ()


@dataclass(frozen=True)
class Setup:
    """What a searcher starts from; all that it draws comes from `seed`.

    `costs` and `limits` are the metrics behind the objectives and behind the constraints after the first (cannot run).
    """

    variables: Variables
    objectives: int
    constraints: int
    population: int
    seed: int
    costs: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


class Design(NamedTuple):
    """A design that was asked for: its accelerator and its outcome (`Study.outcomes`), None where it has none."""

    accelerator: Accelerator | None
    outcome: Mapping[str, Any] | None


class Searcher(Protocol):
    """Asked for designs and told what became of them, in turns, until it has no more or the budget is spent."""

    def ask(self) -> Genes:
        """The next designs [n, axes], a value's number per axis; no rows when there are no more."""
        ...

    def tell(self, genes: Genes, objectives: Floats, violations: Floats) -> None:
        """Results of the designs last asked for.

        `objectives` [n, k] are costs, `violations` [n, c] are 0 or less where a constraint holds.
        """
        ...


@runtime_checkable
class Informed(Protocol):
    """A searcher that looks at more than objectives: `learn` is called before every `tell`, for the same designs."""

    def learn(self, designs: Sequence[Design]) -> None:
        """The designs last asked for, in their order."""
        ...


class Optional(NamedTuple):
    """A searcher that is known only where a library is: its name, the library, and the extra that installs it."""

    searcher: str
    library: str
    extra: str


# By file.
OPTIONAL = {"optuna_tpe": Optional("tpe", "optuna", "optuna")}
_SEARCHERS: dict[str, Callable[[Setup], Searcher]] = {}


def searchers() -> dict[str, Callable[[Setup], Searcher]]:
    """All searchers by name: every file of this package is loaded, but those whose extra (`OPTIONAL`) is missing.

    Raises AccelsimError without the extra `search`.
    """
    try:
        package = importlib.import_module("codesign.searchers")
        for module in pkgutil.iter_modules(package.__path__):
            needed = OPTIONAL.get(module.name)
            if needed is None or importlib.util.find_spec(needed.library) is not None:
                importlib.import_module(f"codesign.searchers.{module.name}")
    except ImportError as error:
        raise AccelsimError(_missing("search", f"a library is missing ({error})", "search")) from error
    return dict(sorted(_SEARCHERS.items()))


def missing_extra(name: str) -> Problem | None:
    """Why a searcher that there would be with its extra is not known; None for any other name."""
    for needed in OPTIONAL.values():
        if name == needed.searcher and name not in searchers():
            return _missing("--searcher", f"{name!r} needs the library {needed.library}", needed.extra)
    return None


def _missing(where: str, what: str, extra: str) -> Problem:
    return Problem(
        where, what, f"the extra `{extra}`", (f"pip install 'hybrid-vit-codesign[{extra}]'", "accelsim sweep")
    )


def searcher(name: str) -> Callable[[Callable[[Setup], Searcher]], Callable[[Setup], Searcher]]:
    """Decorator that makes a searcher known under a name."""

    def register(make: Callable[[Setup], Searcher]) -> Callable[[Setup], Searcher]:
        _SEARCHERS[name] = make
        return make

    return register
