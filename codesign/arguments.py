"""What several commands share: checked arguments and the notice of the first run."""

from __future__ import annotations

import argparse
import sys


def positive(text: str) -> int:
    """A positive whole number of the command line; raises argparse's error otherwise."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return value


def announce_compilation() -> None:
    """Before the first run of all: say on standard error that the kernels are compiled, and compile them."""
    from accelsim.kernels.jit import compiled_once_notice

    if compiled_once_notice():
        print("accelsim: first run: compiling the kernels once, about 20 seconds …", file=sys.stderr, flush=True)
        from accelsim.first_run import compile_kernels

        compile_kernels()
