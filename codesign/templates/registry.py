"""What a template is, the dictionary of those that there are, and the accelerator of a set of parameters."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from accelsim.arch import Accelerator
from accelsim.config import accelerator_from_data
from accelsim.config_walk import describe, near
from accelsim.problems import AccelsimError, Problem

# `arch: template:NAME` of a space; plain data of a template name it under KEY, beside its parameters.
PREFIX = "template:"
KEY = "template"

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A parameter: its meaning, its default, and what it accepts.

    Numbers are multiples of `step` from `low` to `high` (whole unless `default` is a float), or one of `choices`.
    """

    meaning: str
    default: Any
    low: float = 0
    high: float = 0
    step: int = 1
    choices: tuple[Any, ...] = ()

    @property
    def expected(self) -> str:
        """What it accepts, in words."""
        if self.choices:
            return " | ".join(
                str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in self.choices
            )
        if isinstance(self.default, float):
            return f"a number from {self.low:g} to {self.high:g}"
        kind = "a whole number" if self.step == 1 else f"a multiple of {self.step:,}"
        return f"{kind} from {int(self.low):,} to {int(self.high):,}"

    def read(self, value: Any) -> Any:
        """The value in its one spelling (`8` for "8", whole floats as integers), or None when it is not accepted."""
        if self.choices:
            return next(
                (c for c in self.choices if str(c) == str(value) and isinstance(c, bool) == isinstance(value, bool)),
                None,
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        if isinstance(self.default, float):
            return float(value)
        return int(value) if value == int(value) and int(value) % self.step == 0 else None


@dataclass(frozen=True)
class Template:
    """A family of accelerators.  `make` turns checked values of all parameters into plain accelerator data."""

    name: str
    meaning: str
    parameters: Mapping[str, Parameter]
    make: Callable[[Values], dict[str, Any]]

    def defaults(self) -> dict[str, Any]:
        """Plain data of the template with every parameter at its default."""
        return {KEY: self.name, **{name: parameter.default for name, parameter in self.parameters.items()}}


_TEMPLATES: dict[str, Template] = {}


def template(
    name: str, parameters: Mapping[str, Parameter]
) -> Callable[[Callable[[Values], dict[str, Any]]], Template]:
    """Decorator of the function that makes the accelerator data; its docstring's first line is the meaning."""

    def register(make: Callable[[Values], dict[str, Any]]) -> Template:
        meaning = (make.__doc__ or "").strip().splitlines()[0]
        _TEMPLATES[name] = Template(name, meaning, parameters, make)
        return _TEMPLATES[name]

    return register


@cache
def templates() -> dict[str, Template]:
    """All templates by name: every file of this package is loaded."""
    package = importlib.import_module("codesign.templates")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"codesign.templates.{module.name}")
    return dict(sorted(_TEMPLATES.items()))


def template_named(name: Any) -> Template:
    """The template of a name; AccelsimError with the nearest one when there is none."""
    known = templates()
    if not isinstance(name, str) or name not in known:
        raise AccelsimError(Problem(str(name), "there is no such template", " | ".join(known), near(name, list(known))))
    return known[name]


def checked_values(data: Values, where: str) -> tuple[Template, dict[str, Any]]:
    """The template of plain data and the values of all its parameters, defaults filled in.

    `where` names the place in messages.  Raises AccelsimError with every fault of names and values.
    """
    chosen = template_named(data.get(KEY))
    values, problems = {name: parameter.default for name, parameter in chosen.parameters.items()}, []
    for name, value in data.items():
        parameter = chosen.parameters.get(name)
        if name == KEY:
            continue
        if parameter is None:
            known = list(chosen.parameters)
            problems.append(Problem(f"{where}: {name}", f"template {chosen.name} has no such parameter",
                                    " | ".join(known), near(name, known)))  # fmt: skip
            continue
        values[name] = parameter.read(value)
        if values[name] is None:
            lever = near(value, [str(choice) for choice in parameter.choices])
            problems.append(Problem(f"{where}: {name}", f"found {describe(value)}", parameter.expected, lever))
    if problems:
        raise AccelsimError(problems)
    return chosen, values


def accelerator_of_template(data: Values, where: str = "template") -> Accelerator:
    """The accelerator of `{"template": NAME, PARAMETER: VALUE, …}`; what is left out has its default.

    Raises AccelsimError with every fault.
    """
    chosen, values = checked_values(data, where)
    return accelerator_from_data(chosen.make(values), where)
