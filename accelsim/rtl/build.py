"""Builds the SystemVerilog of this folder with Verilator: once per set of parameters, into a folder of the user's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from accelsim.problems import AccelsimError, Problem
from accelsim.program import Int64

SOURCES = Path(__file__).parent
CACHE_VARIABLE = "ACCELSIM_RTL_CACHE"
# Long loops over slots stay loops: unrolled they take minutes to compile.
_FLAGS = ("-Wall", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "--unroll-count", "1")


def verilator_path() -> str | None:
    """Where the verilator program is, None when it is not installed."""
    return shutil.which("verilator")


def cache_folder(folder: Path | None) -> Path:
    """Where builds are kept: `folder`, or $ACCELSIM_RTL_CACHE, or a folder of this user below the temporary folder."""
    chosen = folder or os.environ.get(CACHE_VARIABLE)
    path = Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"accelsim_rtl_{os.getuid()}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def build(
    top: str,
    modules: tuple[str, ...],
    parameters: Mapping[str, int],
    constants: Mapping[str, int],
    folder: Path | None = None,
    defines: tuple[str, ...] = (),
) -> Path:
    """Executable of module `top` with its harness; `modules` in compile order, packages first.

    `parameters` go to the top module, `constants` to the harness as macros, `defines` to the SystemVerilog.  A build is
    found again by a hash of all of these and of the sources.  AccelsimError without verilator or when it fails.
    """
    program = verilator_path()
    if program is None:
        raise AccelsimError(
            Problem("rtl", "verilator is not installed", "verilator 5 on the path", ("apt-get install verilator",))
        )
    harness = SOURCES / f"{top.removesuffix('_top')}_harness.cpp"
    files = [SOURCES / f"{name}.sv" for name in modules]
    text = [path.read_text() for path in (*files, harness, SOURCES / "harness.h")]
    key = repr((top, sorted(parameters.items()), sorted(constants.items()), defines, _FLAGS, text))
    target = cache_folder(folder) / f"{top}_{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        flags = " ".join(f"-D{name}={value}" for name, value in constants.items())
        command = [program, "--cc", "--exe", "--build", "-j", str(os.cpu_count() or 1), *_FLAGS, "--top-module", top]
        command += [f"-G{name}={value}" for name, value in parameters.items()]
        command += [f"-D{name}" for name in defines]
        command += ["-CFLAGS", f"-O2 -I{SOURCES} {flags}", "--Mdir", work, "-o", "simulation"]
        command += [str(path) for path in (*files, harness)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AccelsimError(Problem(f"rtl {top}", f"the build failed: {done.stderr[-2000:]}"))
        # Other processes may build the same thing: the last rename wins, and all are equal.
        os.replace(Path(work) / "simulation", target)
    return target


def run(executable: Path, numbers: Int64, timeout_s: float = 600.0) -> tuple[Int64, int, float]:
    """Output numbers of a harness fed with `numbers`; simulated clock cycles and seconds that they took.

    AccelsimError when the simulation stops with an error.
    """
    done = subprocess.run(
        [str(executable)], input=numbers.tobytes(), capture_output=True, check=False, timeout=timeout_s
    )
    if done.returncode:
        raise AccelsimError(Problem(f"rtl {executable.name}", f"the simulation failed: {done.stderr[-500:]!r}"))
    cycles, seconds = done.stderr.split()[-2:]
    return np.frombuffer(done.stdout, np.int64), int(cycles), float(seconds)
