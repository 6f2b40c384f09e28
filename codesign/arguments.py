"""What several commands share: checked arguments and the notice of the first run."""

from __future__ import annotations

import argparse
import os
import sys

from accelsim.problems import AccelsimError, Problem


def positive(text: str) -> int:
    """A positive whole number of the command line; raises argparse's error otherwise."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return value


def announce_compilation(exhaustive: bool = False) -> None:
    """Say once that the kernels are compiled now, and compile them; `exhaustive`: also those of that mapper."""
    from accelsim.kernels.jit import compiled_once_notice

    first = compiled_once_notice()
    if first or (exhaustive and compiled_once_notice("chain_table")):
        time = "about a minute" if exhaustive else "about half a minute"
        print(f"accelsim: first run: compiling the kernels once, {time} …", file=sys.stderr, flush=True)
        from accelsim.first_run import compile_kernels

        compile_kernels(exhaustive)


def not_negative(text: str) -> int:
    """A whole number from 0 of the command line; raises argparse's error otherwise."""
    return 0 if text.strip() == "0" else positive(text)


# Arguments that name files which a command reads, and which it writes.
READ = (
    "space",
    "study",
    "studies",
    "file",
    "a",
    "b",
    "model",
    "checkpoint",
    "arch",
    "plan",
    "mapping",
    "cases",
    "config",
)
WRITTEN = ("output", "json", "trace", "save_mapping", "save_mappings", "csv", "parquet", "history")


def refuse_overwriting(arguments: argparse.Namespace) -> None:
    """Raise AccelsimError when a command would write over a file that it reads, or two outputs into one file."""
    named = vars(arguments)
    texts = [(name, named.get(name)) for name in WRITTEN]
    outputs = [(name, path) for name, path in texts if isinstance(path, str) and path not in ("", "-")]
    problems = []
    for name in READ:
        value = named.get(name)
        for path in [value] if isinstance(value, str) else value or ():
            for _, output in outputs:
                if os.path.exists(path) and os.path.exists(output) and os.path.samefile(path, output):
                    problems.append(Problem(output, f"is read as {name} and would be overwritten", "another name"))
    places = [os.path.realpath(output) for _, output in outputs]
    for k, (_, output) in enumerate(outputs):
        if places[k] in places[:k]:
            problems.append(Problem(output, "is asked for more than once", "one name for each output"))
    if problems:
        raise AccelsimError(problems)
