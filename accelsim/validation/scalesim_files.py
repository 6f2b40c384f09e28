"""SCALE-Sim's files: topology CSV (convolutions or GEMMs), `.cfg`, and tables of cases with its results.

Conventions of SCALE-Sim: a convolution has ⌈(input − kernel + stride) / stride⌉ outputs per axis (the padding is part
of the input); a layer with "DP" in its name is depthwise, one layer of one channel and one filter per channel; a GEMM
line is `name, M, N, K`.
"""

from __future__ import annotations

import configparser
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from accelsim.problems import AccelsimError, Problem

DATAFLOWS = ("ws", "os", "is")
MAX_VALUE = 1 << 20
CONV_FIELDS = ("ifmap height", "ifmap width", "filter height", "filter width", "channels", "filters", "stride")
RESULTS = ("scalesim_cycles", "sram_ifmap_reads", "sram_filter_reads", "sram_ofmap_writes")


@dataclass(frozen=True)
class Layer:
    """One layer as `repeat` products of `rows` × `depth` by `depth` × `cols`: outputs × window × filters."""

    name: str
    rows: int
    depth: int
    cols: int
    repeat: int = 1


@dataclass(frozen=True)
class ArrayConfig:
    """Array of a `.cfg` file: processing elements, dataflow, SRAM sizes in KiB."""

    name: str
    rows: int
    cols: int
    dataflow: str
    ifmap_sram_kib: int
    filter_sram_kib: int
    ofmap_sram_kib: int


@dataclass(frozen=True)
class ReferenceCase:
    """A layer on an array, and what SCALE-Sim reports for it (only the columns that the file has)."""

    layer: Layer
    rows: int
    cols: int
    dataflow: str
    results: dict[str, int]


def conv_layer(name: str, sizes: list[int], strides: tuple[int, int]) -> Layer:
    """Layer of input height and width, filter height and width, channels, filters; strides along height and width.

    Raises ValueError when the filter is larger than the input.
    """
    height, width, filter_height, filter_width, channels, filters = sizes
    if filter_height > height or filter_width > width:
        raise ValueError("the filter is larger than the input")
    out = [
        -(-(size - kernel + stride) // stride)
        for size, kernel, stride in ((height, filter_height, strides[0]), (width, filter_width, strides[1]))
    ]
    if "DP" in name:
        return Layer(name, out[0] * out[1], filter_height * filter_width, 1, channels)
    return Layer(name, out[0] * out[1], filter_height * filter_width * channels, filters)


def read_topology(path: str | Path, gemm: bool = False) -> list[Layer]:
    """Layers of a topology CSV; `gemm` says that its lines are `name, M, N, K`.

    The first line is the header; a comma at the end of a line is common and ignored.  Raises AccelsimError with every
    faulty line.
    """
    layers, problems = [], []
    for line, cells in _lines(path, header=True):
        try:
            name, values = cells[0], _whole(cells[1:])
            if gemm:
                rows, cols, depth = values[:3]
                layers.append(Layer(name, rows, depth, cols))
            else:
                strides = (values[6], values[7] if len(values) > 7 else values[6])
                layers.append(conv_layer(name, values[:6], strides))
        except (ValueError, IndexError) as error:
            expected = "name, M, N, K" if gemm else "name, " + ", ".join(CONV_FIELDS)
            problems.append(Problem(f"{path}:{line}", f"not a layer ({error})", expected))
    if not layers and not problems:
        problems.append(Problem(str(path), "holds no layers", "a header and a line per layer"))
    if problems:
        raise AccelsimError(problems)
    return layers


def read_config(path: str | Path) -> ArrayConfig:
    """Array of a `.cfg` file.  Raises AccelsimError with every fault."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(_text(path))
    except configparser.Error as error:
        raise AccelsimError(Problem(str(path), f"not a .cfg file ({error.message.splitlines()[0]})")) from error
    problems: list[Problem] = []

    def number(key: str) -> int:
        text = parser.get("architecture_presets", key, fallback="")
        try:
            return _whole([text])[0]
        except (ValueError, IndexError):
            what = f"{key} is {text!a:.40}" if text else f"{key} is missing"
            problems.append(Problem(f"{path}: architecture_presets", what, f"a whole number 1 … {MAX_VALUE:,}"))
            return 0

    keys = ("ArrayHeight", "ArrayWidth", "IfmapSramSzkB", "FilterSramSzkB", "OfmapSramSzkB")
    height, width, *sram = [number(key) for key in keys]
    dataflow = parser.get("architecture_presets", "Dataflow", fallback="").strip().lower()
    if dataflow not in DATAFLOWS:
        where = f"{path}: architecture_presets"
        problems.append(Problem(where, f"Dataflow is {dataflow!a:.40}", "one of " + ", ".join(DATAFLOWS)))
    if problems:
        raise AccelsimError(problems)
    name = parser.get("general", "run_name", fallback=Path(path).stem).strip()
    return ArrayConfig(name, height, width, dataflow, *sram)


def read_cases(path: str | Path) -> list[ReferenceCase]:
    """Cases of a CSV with the columns case, kind, M, K, N or ifmap_h … stride, rows, cols, dataflow, and results.

    Raises AccelsimError with every faulty line.
    """
    found, problems, header = [], [], list[str]()
    for line, cells in _lines(path, header=False):
        if not header:
            header = cells
            missing = [name for name in ("kind", "rows", "cols", "dataflow") if name not in header]
            if missing:
                raise AccelsimError(Problem(f"{path}:{line}", f"no column {', '.join(missing)}", "a header line"))
            continue
        try:
            found.append(_case(dict(zip(header, cells, strict=False))))
        except (ValueError, KeyError) as error:
            problems.append(Problem(f"{path}:{line}", f"not a case ({error})", "the columns of docs/validation.md"))
    if not found and not problems:
        problems.append(Problem(str(path), "holds no cases", "a header and a line per case"))
    if problems:
        raise AccelsimError(problems)
    return found


def _case(row: dict[str, str]) -> ReferenceCase:
    name = row.get("case", "")
    if row["dataflow"] not in DATAFLOWS:
        raise ValueError(f"dataflow {row['dataflow']!a:.40}")
    if row["kind"] == "gemm":
        layer = Layer(name, *_whole([row["M"], row["K"], row["N"]]))
    elif row["kind"] == "conv":
        columns = ("ifmap_h", "ifmap_w", "filt_h", "filt_w", "channels", "num_filters", "stride")
        *sizes, stride = _whole([row[column] for column in columns])
        layer = conv_layer(name, sizes, (stride, stride))
    else:
        raise ValueError(f"kind {row['kind']!a:.40}")
    rows, cols = _whole([row["rows"], row["cols"]])
    results = {key: int(row[key]) for key in RESULTS if row.get(key)}
    return ReferenceCase(layer, rows, cols, row["dataflow"], results)


def _whole(cells: list[str]) -> list[int]:
    """Whole numbers 1 … 2^20 up to the first empty cell; raises ValueError otherwise."""
    values = []
    for cell in cells:
        if not cell:
            break
        value = int(cell)
        if not 1 <= value <= MAX_VALUE:
            raise ValueError(f"{cell:.40} is not a number 1 … {MAX_VALUE:,}")
        values.append(value)
    return values


def _lines(path: str | Path, header: bool) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of every line; empty lines, lines that begin with #, and a header are left out."""
    lines = csv.reader(_text(path).splitlines())
    try:
        for cells in lines:
            stripped = [cell.strip() for cell in cells]
            if not any(stripped) or stripped[0].startswith("#"):
                continue
            if header:
                header = False
                continue
            yield lines.line_num, stripped
    except csv.Error as error:
        raise AccelsimError(
            Problem(f"{path}:{lines.line_num}", f"not CSV ({error})", "comma-separated lines")
        ) from error


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or "not UTF-8 text"
        raise AccelsimError(Problem(str(path), f"cannot be read ({what})", "a text file")) from error
