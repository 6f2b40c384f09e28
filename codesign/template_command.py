"""`accelsim template`: the accelerator file of a set of parameters, or which parameters there are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from accelsim.problems import AccelsimError, Problem


def add_template(commands: Any) -> None:
    """Add its parser to the subparsers of `accelsim`."""
    parser = commands.add_parser(
        "template", help="write the accelerator of a template and its parameters, or list them"
    )
    parser.add_argument("name", nargs="?", help="name of a template (without it: all templates and parameters)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PARAMETER=VALUE", help="such as mult_groups=8; may be repeated"
    )
    parser.add_argument("-o", "--output", default="-", help="accelerator file ('-', the default: standard output)")
    parser.set_defaults(command=_template)


def _template(arguments: argparse.Namespace) -> int:
    from codesign.outputs import check_outputs

    settings = _settings(arguments.set)
    if arguments.name is None:
        if settings or arguments.output != "-":
            raise AccelsimError(Problem("template", "no name is given", "a name with --set and -o"))
        print("\n".join(_list_lines()))
        return 0
    check_outputs([arguments.output])
    text = accelerator_text(arguments.name, settings)
    if arguments.output == "-":
        print(text, end="")
        return 0
    with open(arguments.output, "w", encoding="utf-8") as file:
        file.write(text)
    return 0


def accelerator_text(name: str, settings: dict[str, Any]) -> str:
    """YAML of a template's accelerator, with every parameter in the comment at its head.

    Raises AccelsimError with every fault of the settings.
    """
    from accelsim.config import dump_accelerator
    from codesign.templates.registry import KEY, accelerator_of_template, checked_values

    data = {KEY: name, **settings}
    chosen, values = checked_values(data, f"template {name}")
    head = [f"# Template {name}: {chosen.meaning}", "# Made by `accelsim template`; its parameters:"]
    head += [f"#   {parameter}: {_text(value)}" for parameter, value in values.items()]
    return "\n".join(head) + "\n" + dump_accelerator(accelerator_of_template(data, f"template {name}"))


def _list_lines() -> list[str]:
    from codesign.templates.registry import templates

    lines = []
    for chosen in templates().values():
        lines += [f"{chosen.name}: {chosen.meaning}"]
        for name, parameter in chosen.parameters.items():
            accepts = f"{parameter.meaning} ({parameter.expected})"
            lines.append(f"  {name:24} {_text(parameter.default):>16}  {accepts}")
    return lines


def _text(value: Any) -> str:
    """A value as YAML and `--set` take it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    """PARAMETER=VALUE arguments by parameter.  Raises AccelsimError for any other text, or a parameter given twice."""
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise AccelsimError(Problem("--set", f"is {text!r}", "PARAMETER=VALUE, such as mult_groups=8"))
        if name in settings:
            raise AccelsimError(Problem("--set", f"{name} is given twice", "one value for each parameter"))
        settings[name] = _value(value)
    return settings


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
