"""The one numba decorator of the project, and the question whether a run will have to compile first."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.misc.appdirs import user_cache_dir

_F = TypeVar("_F", bound=Callable[..., Any])


def jit(function: _F) -> _F:
    """Compile at the first call for the argument types of that call; keep the machine code on disk.

    Lazy signatures, because eager ones compile at import.  `nogil` lets threads run kernels side by side;
    `error_model="numpy"` drops the zero-division branches (kernels get checked input).
    """
    return cast(_F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def inner(function: _F) -> _F:
    """As `jit`, for functions that only other kernels call: the Python wrapper is not compiled."""
    njit: Any = numba.njit  # the type stubs do not know these two options
    return cast(_F, njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function))


def compiled_once_notice() -> bool:
    """True when no kernel of this package has been compiled into numba's cache yet.

    A caller can then say that the first run takes longer.  Looks where numba writes its index files (``*.nbi``):
    `NUMBA_CACHE_DIR` if set, else beside the kernels, else numba's folder of the user.  Folders that cannot be read
    count as empty.
    """
    here = Path(__file__).resolve().parent
    configured = os.environ.get("NUMBA_CACHE_DIR")
    folders = [Path(configured)] if configured else [here / "__pycache__", _user_folder()]
    modules = tuple(f"{path.stem}." for path in here.glob("*.py"))
    return not any(_has_index(folder, modules) for folder in folders)


def _user_folder() -> Path:
    """Where numba caches when the folder of the source is read-only."""
    return Path(cast(Any, user_cache_dir)(appname="numba", appauthor=False))


def _has_index(folder: Path, modules: tuple[str, ...]) -> bool:
    try:
        return any(path.name.startswith(modules) for path in folder.rglob("*.nbi"))
    except OSError:
        return False
