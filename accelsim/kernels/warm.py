"""Compile the two largest kernels side by side on the first run, so that it takes little more than one of them.

Numba compiles under one lock per process; a second process compiles lowering into the shared cache meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
from numba import int64, typeof

from accelsim.kernels.lower import lower_program
from accelsim.kernels.tables import Output, Tables

# Dimensions of the arrays, in the order of the fields.
_TABLES = (2, 3, 2, 3, 2, 3, 1, 2, 3, 1, 1, 1, 2, 2, 3, 2, 2, 2, 5)
_OUTPUT = (2, 2, 2, 2, 2, 1, 1, 2, 1, 2)


def compile_lowering() -> None:
    """Compile the lowering kernel for the one signature with which it is called, into numba's cache."""
    tables = Tables(*(np.zeros((1,) * n, np.int64) for n in _TABLES))
    output = Output(*(np.zeros((1,) * n, np.int64) for n in _OUTPUT))
    kernel: Any = lower_program
    type_of: Any = typeof
    kernel.compile((type_of(tables), type_of(output), int64))


def start_compiling_lowering() -> subprocess.Popen[bytes] | None:
    """A process that compiles the lowering kernel; None when none can be started (then it is compiled when needed)."""
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "accelsim.kernels.warm"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None


if __name__ == "__main__":
    compile_lowering()
