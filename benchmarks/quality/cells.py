"""Files of results: one JSON line a cell, kept as it finishes, so that a killed run goes on where it was."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.files import write_text_atomic

HERE = Path(__file__).parent
Row = dict[str, Any]
Bools = NDArray[np.bool_]


def read_results(path: str | Path) -> list[Row]:
    """Rows of a results file; a line that was cut off when the run was killed is left out."""
    rows = []
    if Path(path).exists():
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows


def keep(path: str | Path, row: Row) -> None:
    """Add a finished cell to a results file, and say so."""
    print(f"{row['model']} seed {row['seed']} {row['bits']} bit {row['arm']}: {row.get('top1')}", file=sys.stderr)
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def rewrite(path: str | Path, rows: Iterable[Row]) -> None:
    """Replace all rows of a results file at once."""
    write_text_atomic(Path(path), "".join(json.dumps(row) + "\n" for row in rows))


def packed(correct: Bools) -> str:
    """Which images were right as text: base64 of packed bits, one an image."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def correct(row: Row) -> Bools:
    """Which images an arm classified correctly."""
    bits = np.frombuffer(base64.b64decode(row["correct"]), np.uint8)
    return np.unpackbits(bits)[: row["images"]].astype(bool)
