"""The engine kinds: a dictionary, a decorator that fills it, and modules named by the user that fill it further."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module

from accelsim.arch import Engine
from accelsim.engines.rules import EngineRules
from accelsim.problems import AccelsimError, Problem

MODULES_VARIABLE = "ACCELSIM_ENGINES"  # module names, separated by commas, imported when kinds are looked up
ENGINE_KINDS: dict[str, EngineRules] = {}


def register_engine(kind: str) -> Callable[[type[EngineRules]], type[EngineRules]]:
    """Class decorator: the rules of `kind`; a name that is taken by another class raises AccelsimError."""

    def register(rules: type[EngineRules]) -> type[EngineRules]:
        taken = type(ENGINE_KINDS.get(kind))
        if kind in ENGINE_KINDS and (taken.__module__, taken.__qualname__) != (rules.__module__, rules.__qualname__):
            raise AccelsimError(
                Problem(f"engine kind {kind!a}", f"is registered by {taken.__module__}", "another name")
            )
        ENGINE_KINDS[kind] = rules()
        return rules

    return register


def named_modules() -> tuple[str, ...]:
    """The modules that the environment variable names."""
    return tuple(os.environ.get(MODULES_VARIABLE, "").replace(",", " ").split())


def import_named_modules() -> None:
    """Import the named modules; AccelsimError when one cannot be imported."""
    for name in named_modules():
        try:
            import_module(name)
        except ImportError as error:
            raise AccelsimError(
                Problem(f"{MODULES_VARIABLE}={name}", str(error), "modules that can be imported")
            ) from error


def rules_of(engine: Engine) -> EngineRules:
    """The rules of an engine's kind; AccelsimError with the registered names when there are none."""
    if engine.kind not in ENGINE_KINDS:
        import_named_modules()
    if engine.kind not in ENGINE_KINDS:
        raise AccelsimError(
            Problem(f"engine {engine.name}", f"unknown kind {str(engine.kind)!a}", f"one of {', '.join(ENGINE_KINDS)}")
        )
    return ENGINE_KINDS[engine.kind]
