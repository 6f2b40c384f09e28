"""Cell areas of processing elements: synthesises the modules in `pe/` with yosys and ABC.

Recipe: `synth` without Booth multipliers and without flattening (a multiplier stays a module of its own: fused with the
adder behind it, it would be another circuit), flip-flops and gates mapped to `cells_45nm.lib`, smallest drive strength.
Areas are sums of cells before placement.  The library has no delays, so ABC maps for area alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from accelsim.problems import AccelsimError, Problem

FOLDER = Path(__file__).parent
LIBRARY = FOLDER / "cells_45nm.lib"
SOURCES = FOLDER / "pe"


@dataclass(frozen=True)
class Design:
    """A module of `pe/` with its parameters; `name` is what it is called in tables."""

    name: str
    module: str
    parameters: tuple[tuple[str, int], ...] = ()


def multiplier(a_bits: int, b_bits: int) -> Design:
    """Signed multiplier."""
    return Design(f"mul{a_bits}x{b_bits}", "multiplier", (("A_BITS", a_bits), ("B_BITS", b_bits)))


def mac_pe(a_bits: int, b_bits: int) -> Design:
    """Operand registers, multiplier and 24-bit accumulator."""
    return Design(f"pe_mac{a_bits}x{b_bits}", "mac_pe", (("A_BITS", a_bits), ("B_BITS", b_bits), ("SUM_BITS", 24)))


MULTIPLIERS = tuple(multiplier(a, b) for a, b in ((16, 16), (8, 8), (8, 6), (8, 4), (8, 2), (4, 4)))
SPLIT = Design("mul8x8_split", "split_multiplier")
ONE_TERM = Design("one_term", "shift_terms", (("TERMS", 1), ("NEGATE_FIRST", 0)))
ONE_TERM_EARLY = Design("one_term_negate_first", "shift_terms", (("TERMS", 1), ("NEGATE_FIRST", 1)))
FOLDED_TERM = Design("one_term_folded", "folded_term")
TWO_TERMS = Design("two_terms", "shift_terms", (("TERMS", 2), ("NEGATE_FIRST", 0)))
TWO_TERMS_EARLY = Design("two_terms_negate_first", "shift_terms", (("TERMS", 2), ("NEGATE_FIRST", 1)))
SHIFT_SLOT = Design("two_terms_any_format", "shift_slot")
ADDERS = tuple(Design(f"add{bits}", "adder", (("BITS", bits),)) for bits in (16, 24, 32))
ACCUMULATORS = tuple(Design(f"acc{bits}", "accumulator", (("BITS", bits), ("VALUE_BITS", bits))) for bits in (24, 32))
MAC_PES = tuple(mac_pe(a, b) for a, b in ((8, 8), (8, 4), (4, 4)))
SHIFT_PES = tuple(Design(f"pe_shift{bits}", "shift_pe", (("SUM_BITS", bits),)) for bits in (24, 32))
SLOTS = (SPLIT, ONE_TERM, ONE_TERM_EARLY, FOLDED_TERM, TWO_TERMS, TWO_TERMS_EARLY, SHIFT_SLOT)
DESIGNS = (*MULTIPLIERS, *SLOTS, *ADDERS, *ACCUMULATORS, *MAC_PES, *SHIFT_PES)


def yosys_path() -> str | None:
    """Where the yosys program is, None when it is not installed."""
    return shutil.which("yosys")


def area_um2(design: Design, netlist: Path | None = None) -> float:
    """Area of the mapped cells of a design in µm², modules below it included.

    With `netlist` the mapped design is also written there as yosys JSON, its cells replaced by what their functions in
    the library say (gates and flip-flops of yosys).  AccelsimError without yosys or when it fails.
    """
    program = yosys_path()
    if program is None:
        raise AccelsimError(Problem("area", "yosys is not installed", "yosys on the path", ("apt-get install yosys",)))
    with tempfile.TemporaryDirectory() as work:
        # Everything lies in one folder under plain names: yosys and ABC do not agree on how to quote a path.
        for path in (LIBRARY, *SOURCES.glob("*.sv")):
            shutil.copy(path, work)
        Path(work, "script.ys").write_text("\n".join(_commands(design)))
        command = [program, "-q", "-s", "script.ys"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AccelsimError(Problem(f"area of {design.name}", f"yosys failed: {done.stderr[-2000:]}"))
        text = Path(work, "area.txt").read_text()
        if netlist is not None:
            shutil.copy(Path(work, "netlist.json"), netlist)
    # Modules below the top have no area in the library; any other cell without one would be left out of the sum.
    modules = {path.stem for path in SOURCES.glob("*.sv")}
    unknown = [name for name in re.findall(r"cell type (\S+) is unknown", text) if modules.isdisjoint(name.split("\\"))]
    areas = re.findall(r"Chip area for (?:top )?module .*: ([\d.]+)", text)
    if not areas or unknown:
        raise AccelsimError(Problem(f"area of {design.name}", f"no area for {', '.join(unknown) or 'the design'}"))
    # One line per module, the sum of all of them last.
    return float(areas[-1])


def _commands(design: Design) -> list[str]:
    library = LIBRARY.name
    return [
        *(f"read_verilog -sv {path.name}" for path in sorted(SOURCES.glob("*.sv"))),
        *(f"chparam -set {name} {value} {design.module}" for name, value in design.parameters),
        f"synth -top {design.module}",
        f"dfflibmap -liberty {library}",
        f"abc -liberty {library}",
        "opt_clean",
        f"tee -q -o area.txt stat -top {design.module} -liberty {library}",
        f"read_liberty -overwrite {library}",
        "flatten",
        "simplemap",
        "opt_clean -purge",
        "write_json netlist.json",
    ]
