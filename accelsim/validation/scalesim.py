"""SCALE-Sim 3.0.0: compute cycles and SRAM counts of weight-, output- and input-stationary arrays.

Compared: every row of a table of convolutions and GEMMs on 8 × 8, 16 × 16 and 32 × 32 arrays, demanded equal: compute
cycles (its total is the index of the last cycle: folds × cycles per fold − 1), SRAM reads of inputs and filters, SRAM
writes of outputs.  For os its count of writes has R + C too many per fold, which are added here.  `--cases FILE.csv`
compares a table of your own with the columns case, kind (gemm or conv), M, K, N or ifmap_h, ifmap_w, filt_h, filt_w,
channels, num_filters, stride, then rows, cols, dataflow, scalesim_cycles and, if known, sram_ifmap_reads,
sram_filter_reads, sram_ofmap_writes; a row without results shows ours with the ideal (MACs ÷ elements) as a bound.
So do the layers of a topology of SCALE-Sim with `--cases TOPOLOGY.csv --config FILE.cfg` (`--gemm` if its lines are
M, N, K).
Not the recommended timing: SCALE-Sim charges fill and drain on every fold and loads no weights in advance.  This
suite is about compatibility; a `systolic_array` engine uses its own forms unless it asks for `timing: scalesim`.  Its
finite-bandwidth mode and its DRAM counts are not compared.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from accelsim.validation.case import DATA, Case, Demand, Suite, ceil_div
from accelsim.validation.scalesim_files import Layer, ReferenceCase, read_cases, read_config, read_topology

SOURCE = "SCALE-Sim 3.0.0 (scalesim-project/SCALE-Sim), run once per row"
UNITS = {
    "scalesim_cycles": ("compute cycles", "cycles"),
    "sram_ifmap_reads": ("SRAM input reads", "words"),
    "sram_filter_reads": ("SRAM filter reads", "words"),
    "sram_ofmap_writes": ("SRAM output writes", "words"),
}


def results(layer: Layer, rows: int, cols: int, dataflow: str) -> dict[str, int]:
    """What SCALE-Sim reports for a layer on an array of `rows` × `cols` elements, by the names of its columns."""
    from accelsim.kernels.systolic_forms import (
        FORM_IS,
        FORM_OS,
        FORM_WS,
        SCALESIM,
        scalesim_cycles,
        systolic_accumulates,
        systolic_reads,
    )

    form = {"ws": FORM_WS, "os": FORM_OS, "is": FORM_IS}[dataflow]
    nest = (layer.repeat, layer.rows, layer.cols, layer.depth)
    inputs, filters = systolic_reads(SCALESIM + form, *nest, rows, cols, 1, 1, 1, 1)
    if dataflow == "os":
        folds = layer.repeat * ceil_div(layer.rows, rows) * ceil_div(layer.cols, cols)
        writes = layer.repeat * layer.rows * layer.cols + folds * (rows + cols)
    else:
        writes = int(systolic_accumulates(SCALESIM + form, *nest, rows))
    cycles = int(scalesim_cycles(form, *nest, rows, cols, 1))
    return dict(zip(UNITS, (cycles, int(inputs), int(filters), writes), strict=True))


def compare(found: list[ReferenceCase]) -> list[Case]:
    """A case for every result of the table."""
    cases = []
    for item in found:
        name = f"{item.layer.name} {item.dataflow} {item.rows}×{item.cols}".strip()
        ours = results(item.layer, item.rows, item.cols, item.dataflow)
        for key, value in item.results.items():
            cases.append(Case(name, *UNITS[key], value, ours[key]))
        if not item.results:
            macs = item.layer.repeat * item.layer.rows * item.layer.depth * item.layer.cols
            ideal = macs / (item.rows * item.cols)
            counted = ours["scalesim_cycles"] + item.layer.repeat
            cases.append(Case(name, "its total + 1, ideal as bound", "cycles", ideal, counted, Demand.AT_LEAST))
    return cases


def suite_of_file(path: str) -> Suite:
    """The suite over a table of one's own.  Raises AccelsimError with every faulty line of the file."""
    found = read_cases(path)
    run: Callable[[], list[Case]] = partial(compare, found)
    return Suite("scalesim", f"SCALE-Sim, {path}", path, __doc__ or "", run)


def suite_of_topology(path: str, config: str, gemm: bool) -> Suite:
    """The suite over a topology file on the array of a `.cfg` file: ours, with the ideal as a bound.

    Raises AccelsimError with every faulty line or field of a file.
    """
    array = read_config(config)
    layers = read_topology(path, gemm)
    found = [ReferenceCase(layer, array.rows, array.cols, array.dataflow, {}) for layer in layers]
    run: Callable[[], list[Case]] = partial(compare, found)
    return Suite("scalesim", f"SCALE-Sim, {path} on {array.name}", path, __doc__ or "", run)


def _own_cases() -> list[Case]:
    return compare(read_cases(DATA / "scalesim_cases.csv"))


SUITE = Suite(name="scalesim", title="SCALE-Sim 3.0.0", source=SOURCE, text=__doc__ or "", run=_own_cases)
