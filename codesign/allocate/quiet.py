"""HiGHS prints a line of its own debugging to the C library's stdout (1.12, whatever its log options say): not here.

The line would land amid tables and JSON that a command prints.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_kept = -1


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Nothing written to file descriptor 1 meanwhile arrives; several threads may be inside at once."""
    _enter()
    try:
        yield
    finally:
        _leave()


def _flush() -> None:
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)


def _enter() -> None:
    global _inside, _kept
    with _lock:
        if _inside == 0:
            _flush()
            _kept = os.dup(1)
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 1)
            os.close(nothing)
        _inside += 1


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0:
            _flush()
            os.dup2(_kept, 1)
            os.close(_kept)
