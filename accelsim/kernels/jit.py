"""The one numba decorator of the project, and the question whether a run will have to compile first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.misc.appdirs import user_cache_dir

_F = TypeVar("_F", bound=Callable[..., Any])
_HERE = Path(__file__).resolve().parent


def jit(function: _F) -> _F:
    """Compile at the first call for the argument types of that call; keep the machine code on disk.

    Lazy signatures, because eager ones compile at import.  `nogil` lets threads run kernels side by side;
    `error_model="numpy"` drops the zero-division branches (kernels get checked input).
    """
    return cast(_F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def inner(function: _F) -> _F:
    """As `jit`, for functions that only other kernels call: no Python wrapper, and arrays are not reference-counted.

    Counting costs two atomic operations per array and call, three quarters of the time of small functions (measured
    with perf).  So an inner function must neither allocate an array nor return one; its caller keeps them alive.
    """
    njit: Any = numba.njit  # the type stubs do not know these options
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
    return cast(_F, njit(nogil=True, error_model="numpy", **options)(function))


def compiled_once_notice(module: str | None = None) -> bool:
    """True when no usable kernel of this package (or of one module of it, by its name) is in numba's cache yet.

    A caller can then say that the first run takes longer.  Looks where numba writes its index files (``*.nbi``):
    `NUMBA_CACHE_DIR` if set, else beside the kernels, else numba's folder of the user.  Folders that cannot be read
    count as empty.
    """
    modules = _modules() if module is None else (f"{module}.",)
    return not any(True for folder in _folders() for _ in _indices(folder, modules))


def drop_stale(folders: Iterable[Path], sources: Iterable[Path], modules: tuple[str, ...]) -> int:
    """Remove cached kernels of `modules` that are older than any of `sources`; returns how many.

    Numba looks only at the file of the function itself; callees and constants of other files are inside its machine
    code, too, so one changed source makes all of them stale.  What cannot be removed is left.
    """
    newest = max((path.stat().st_mtime_ns for path in sources), default=0)
    removed = 0
    for index in [path for folder in folders for path in _indices(folder, modules)]:
        with contextlib.suppress(OSError):
            if index.stat().st_mtime_ns < newest:
                index.unlink()
                removed += 1
    return removed


def _drop_stale_kernels() -> None:
    constants = [_HERE.parent / name for name in ("counts.py", "dram.py", "optable.py", "program.py", "ir.py")]
    with contextlib.suppress(OSError):
        drop_stale(_folders(), [*_HERE.glob("*.py"), *constants], _modules())


def _folders() -> list[Path]:
    configured = os.environ.get("NUMBA_CACHE_DIR")
    if configured:
        return [Path(configured)]
    # The second is where numba caches when the folder of the source is read-only.
    return [_HERE / "__pycache__", Path(cast(Any, user_cache_dir)(appname="numba", appauthor=False))]


def _modules() -> tuple[str, ...]:
    return tuple(f"{path.stem}." for path in _HERE.glob("*.py"))


def _indices(folder: Path, modules: tuple[str, ...]) -> list[Path]:
    try:
        return [path for path in folder.rglob("*.nbi") if path.name.startswith(modules)]
    except OSError:
        return []


_drop_stale_kernels()
