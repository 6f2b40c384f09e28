"""A study as a flat table for other programs: CSV, or Parquet with the optional `parquet` extra."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from accelsim.files import replacing, write_text_atomic
from accelsim.problems import AccelsimError, Problem

Table = dict[str, list[Any]]


def flat_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Columns of the rows of `Study.rows`, in their order; nested details become columns `name.part.part`.

    Every column has one value per row, None where a design lacks it (a metric of an infeasible design).
    """
    table: Table = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        leaves = [dict(_leaves(name, row.get(name))) for row in rows]
        for leaf in dict.fromkeys(leaf for found in leaves for leaf in found) or (name,):
            table[leaf] = [found.get(leaf) for found in leaves]
    return table


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of what a cell holds; nothing for None."""
    if isinstance(value, dict):
        for part, inner in value.items():
            yield from _leaves(f"{name}.{part}", inner)
    elif isinstance(value, list):
        yield name, json.dumps(value)
    elif value is not None:
        yield name, value


def write_csv(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    """Write rows as CSV with a header; ``-`` prints it.  Nothing half: the file is whole or not there."""
    table = flat_table(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    write_text_atomic(path, text.getvalue())


def require_parquet(path: str) -> None:
    """Refuse early: raises AccelsimError when the parquet library is missing, or `path` is standard output."""
    if path == "-":
        raise AccelsimError(Problem("--parquet -", "Parquet cannot go to standard output", "a file name", ("--csv -",)))
    if find_spec("pyarrow") is None:
        levers = ("pip install 'hybrid-vit-codesign[parquet]'", "--csv instead")
        raise AccelsimError(Problem("--parquet", "the library pyarrow is not installed", "the extra `parquet`", levers))


def write_parquet(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    """Write rows as Parquet: integers as Int64, numbers as Float64, all else (mixed axes too) as text.

    Raises AccelsimError as `require_parquet` does.
    """
    require_parquet(path)
    import pandas as pd

    columns = {name: pd.Series(*_typed(values)) for name, values in flat_table(rows).items()}
    with replacing(path) as temporary:
        pd.DataFrame(columns).to_parquet(temporary, engine="pyarrow", index=False)


def _typed(values: list[Any]) -> tuple[list[Any], None, str]:
    """Arguments (data, index, dtype) of a Series whose column type depends on all its values."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return values, None, "boolean"
    if kinds == {int}:
        return values, None, "Int64"
    if kinds and kinds <= {int, float}:
        return values, None, "Float64"
    return [None if value is None else str(value) for value in values], None, "string"
