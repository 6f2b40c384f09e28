"""A study: the results of a sweep in one SQLite file, one row per design, safe against being killed at any moment.

The journal mode is SQLite's rollback journal (`DELETE`) with `synchronous=FULL`: one file at rest, a transaction is
either wholly there or rolled back by whoever opens the file next.  Rows are committed in batches.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import TracebackType
from typing import Any

from accelsim.engines.registry import import_named_modules, named_modules
from accelsim.ir import digest
from accelsim.problems import AccelsimError, Problem

FORMAT = "accelsim.study/3"
BUSY_TIMEOUT_S = 30.0
METRICS = (
    ("cycles", "cycles_total", "INTEGER"),
    ("clock_hz", "clock_hz", "INTEGER"),
    ("latency_s", "latency_s", "REAL"),
    ("energy_pj", "energy_pj", "REAL"),
    ("edp_pj_s", "edp_pj_s", "REAL"),
    ("energy_pj_synthesized", "energy_pj_synthesized", "REAL"),
    ("edp_pj_s_synthesized", "edp_pj_s_synthesized", "REAL"),
    ("area_mm2", "area_mm2", "REAL"),
    ("macs", "macs", "INTEGER"),
    ("dram_read_bits", "dram_read_bits", "INTEGER"),
    ("dram_write_bits", "dram_write_bits", "INTEGER"),
    ("power_w", "power_w", "REAL"),
    # Only of designs whose plan a loop made.
    ("predicted_loss", "predicted_loss", "REAL"),
)
# Kept as JSON.  `counts` (one image, in `count_columns` order) and `busy_cycles` are what pricing needs.
DETAILS = ("energy_by_component_pj", "utilization", "busy_cycles", "counts")
STATUSES = ("ok", "infeasible", "invalid", "failed")
TEXTS = ("status", "arch", "plan", "model")
COLUMNS = ("key", "point", *TEXTS, "resolution", "axis_values", *(name for name, _, _ in METRICS), *DETAILS)
HISTORY = ("generation", "evaluations", "elapsed_s", "hypervolume", "front_size", "least")
COLUMNS_ALL = (*COLUMNS, "problem", "shortage", "program", "created_utc")


@dataclass(frozen=True)
class Row:
    """One design.  `status` is ok, infeasible (cannot run), invalid (not a design) or failed (a fault of the program).

    `values` are the axis values, `metrics` the numbers of `METRICS` and `DETAILS` (empty unless ok), `problem` the
    reason of any other status, `shortage` what an infeasible design lacks as a share of what it has (if it is known).
    """

    key: str
    point: int
    arch: str
    plan: str
    model: str
    resolution: int | None
    values: Mapping[str, Any]
    status: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    shortage: float | None = None


@cache
def program_version() -> str:
    """Version of this program and a hash of the code and data that decide the numbers, so that results never mix.

    The hash covers every source, preset, plan and technology file of `accelsim` and the engine modules that the
    environment names; it needs no git.
    """
    state = hashlib.sha256()
    files = [*_package_files(resources.files("accelsim"), ""), *_engine_files()]
    for name, data in sorted(files):
        state.update(name.encode() + b"\0" + data)
    return f"{metadata.version('hybrid-vit-codesign')}+{state.hexdigest()[:10]}"


def _engine_files() -> Iterator[tuple[str, bytes]]:
    for name in named_modules():
        import_named_modules()
        source = sys.modules[name].__file__
        if source is not None:
            yield f"engine:{name}", Path(source).read_bytes()


def _package_files(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for item in folder.iterdir():
        if item.is_dir():
            yield from _package_files(item, f"{prefix}{item.name}/")
        elif item.name.endswith((".py", ".yaml", ".csv")):
            yield prefix + item.name, item.read_bytes()


def design_key(workload_id: str, plan_id: str, accelerator_id: str, mapper: str, program: str) -> str:
    """Fingerprint of a design: everything that its numbers depend on."""
    return digest([workload_id, plan_id, accelerator_id, mapper, program])


def metrics_of(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a study from the numbers of a design (`codesign.chunks.study_metrics`)."""
    kept = {column: numbers.get(source) for column, source, _ in METRICS}
    return {**kept, **{name: numbers[name] for name in DETAILS}}


class Study:
    """An open study file; use it as a context manager."""

    def __init__(self, path: str | Path, connection: sqlite3.Connection, program: str) -> None:
        self.path = str(path)
        self.program = program
        self._connection = connection

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was added is already committed."""
        self._connection.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Store rows in one transaction; a row of the same key is replaced.  Raises AccelsimError when it cannot."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        marks = ",".join("?" * len(COLUMNS_ALL))
        with _explained(self.path), self._connection:
            self._connection.executemany(
                f"INSERT OR REPLACE INTO design ({','.join(COLUMNS_ALL)}) VALUES ({marks})",
                [_cells(row, self.program, now) for row in rows],
            )

    def keys(self) -> dict[str, int]:
        """Stored designs that need no second run, key → point; failed ones are tried again."""
        with _explained(self.path):
            return dict(self._connection.execute("SELECT key, point FROM design WHERE status != 'failed'"))

    def outcomes(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Status, shortage, metrics and details of stored designs by key; unknown keys are left out."""
        names = ("status", "shortage", *(name for name, _, _ in METRICS), *DETAILS)
        query = f"SELECT {','.join(names)} FROM design WHERE key = ?"
        with _explained(self.path):
            found = {key: self._connection.execute(query, (key,)).fetchone() for key in keys}
        return {
            key: _with_details(dict(zip(names, cells, strict=True)))
            for key, cells in found.items()
            if cells is not None
        }

    def add_history(self, search: str, row: Mapping[str, Any]) -> None:
        """Store one generation of a search (`HISTORY`); a generation that is there is replaced."""
        marks = ",".join("?" * (len(HISTORY) + 1))
        with _explained(self.path), self._connection:
            cells = (search, *(row[name] for name in HISTORY))
            self._connection.execute(f"INSERT OR REPLACE INTO search_history VALUES ({marks})", cells)

    def history(self, search: str) -> list[dict[str, Any]]:
        """Generations of a search in their order."""
        query = f"SELECT {','.join(HISTORY)} FROM search_history WHERE search = ? ORDER BY generation"
        with _explained(self.path):
            found = self._connection.execute(query, (search,)).fetchall()
        return [dict(zip(HISTORY, cells, strict=True)) for cells in found]

    def counts(self) -> dict[str, int]:
        """Number of stored designs by status."""
        with _explained(self.path):
            found = dict(self._connection.execute("SELECT status, COUNT(*) FROM design GROUP BY status"))
        return {status: found[status] for status in STATUSES if status in found}

    def rows(self) -> list[dict[str, Any]]:
        """All designs in the order of the space, ready for a table: columns, then axis values by field name."""
        with _explained(self.path):
            cells = self._connection.execute(
                f"SELECT {','.join(COLUMNS_ALL)} FROM design ORDER BY point, key"
            ).fetchall()
        return [_table_row(dict(zip(COLUMNS_ALL, row, strict=True))) for row in cells]

    def cells(self) -> list[tuple[Any, ...]]:
        """All rows as stored, columns in `COLUMNS_ALL` order; `add_cells` of another study takes them."""
        with _explained(self.path):
            return self._connection.execute(
                f"SELECT {','.join(COLUMNS_ALL)} FROM design ORDER BY point, key"
            ).fetchall()

    def add_cells(self, cells: Iterable[tuple[Any, ...]]) -> None:
        """Store rows of `cells` in one transaction, with their own time and program.  Raises AccelsimError as `add`."""
        marks = ",".join("?" * len(COLUMNS_ALL))
        with _explained(self.path), self._connection:
            self._connection.executemany(f"INSERT INTO design ({','.join(COLUMNS_ALL)}) VALUES ({marks})", cells)

    def meta(self) -> dict[str, str]:
        """What the file says of itself: format, program, space (fingerprint), space_data (JSON), created_utc."""
        return _meta(self._connection)

    def check(self) -> str:
        """SQLite's integrity check: "ok", or what is damaged."""
        with _explained(self.path):
            return str(self._connection.execute("PRAGMA integrity_check").fetchone()[0])


def open_study(
    path: str | Path, space_id: str, program: str | None = None, space: Mapping[str, Any] | None = None
) -> Study:
    """Create a study, or open the one that is there to go on with it.

    A new study keeps `space` (`Space.to_json`), so that its points can be made again without the space file.
    Raises AccelsimError when the file is something else, or belongs to another space or another program version.
    """
    program = program or program_version()
    connection = _connect(path, "rwc")
    try:
        with _explained(path):
            connection.execute("BEGIN IMMEDIATE")
            if not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                _create(connection, space_id, program, space)
            connection.execute("COMMIT")
        _accept(path, _checked_meta(path, connection), space_id, program)
    except BaseException:
        connection.close()
        raise
    return Study(path, connection, program)


def read_study(path: str | Path) -> Study:
    """Open an existing study to read it, whatever program wrote it.  Raises AccelsimError when it is not a study."""
    if not Path(path).is_file():
        raise AccelsimError(Problem(str(path), "no such study", "a file written by `accelsim sweep … -o FILE`"))
    # Not read-only: the first to open a file after a kill has to roll the journal back.
    connection = _connect(path, "rw")
    try:
        meta = _checked_meta(path, connection)
    except BaseException:
        connection.close()
        raise
    return Study(path, connection, meta["program"])


def _connect(path: str | Path, mode: str) -> sqlite3.Connection:
    if mode == "rwc" and not Path(path).absolute().parent.is_dir():
        folder = Path(path).parent
        raise AccelsimError(Problem(str(path), "folder does not exist", "an existing folder", (f"mkdir -p {folder}",)))
    with _explained(path):
        uri = f"{Path(path).absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)
        try:
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
        return connection


def _create(connection: sqlite3.Connection, space_id: str, program: str, space: Mapping[str, Any] | None) -> None:
    types = {"key": "TEXT PRIMARY KEY", "point": "INTEGER NOT NULL", "resolution": "INTEGER"}
    types |= {name: kind for name, _, kind in METRICS} | {"shortage": "REAL"}
    columns = ", ".join(f"{name} {types.get(name, 'TEXT')}" for name in COLUMNS_ALL)
    connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    connection.execute(f"CREATE TABLE design ({columns})")
    connection.execute(
        "CREATE TABLE search_history (search TEXT, generation INTEGER, evaluations INTEGER, elapsed_s REAL, "
        "hypervolume REAL, front_size INTEGER, least REAL, PRIMARY KEY (search, generation))"
    )
    created = datetime.now(UTC).isoformat(timespec="seconds")
    values = {"format": FORMAT, "program": program, "space": space_id, "created_utc": created}
    values |= {} if space is None else {"space_data": json.dumps(space)}
    connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())


def _meta(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, value FROM meta"))


def _checked_meta(path: str | Path, connection: sqlite3.Connection) -> dict[str, str]:
    with _explained(path):
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        meta = _meta(connection) if {"meta", "design"} <= tables else {}
    if meta.get("format") != FORMAT:
        found = f"has format {meta['format']!r}" if "format" in meta else "is a database, but not a study"
        raise AccelsimError(Problem(str(path), found, FORMAT, ("another file name", "the program that wrote it")))
    return meta


def _accept(path: str | Path, meta: Mapping[str, str], space_id: str, program: str) -> None:
    levers = ("another file name for the new study", f"delete {path}")
    problems = []
    if meta["program"] != program:
        what = f"was written by program version {meta['program']}, this is {program}; their numbers must not mix"
        problems.append(Problem(str(path), what, "a study of this version", levers))
    if meta["space"] != space_id:
        what = f"holds another design space (fingerprint {meta['space']}, not {space_id})"
        problems.append(Problem(str(path), what, "the space it was started with", levers))
    if problems:
        raise AccelsimError(problems)


@contextlib.contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        locked = "locked" in str(error)
        levers = ("wait for the other program that writes it",) if locked else ("check the folder's rights and space",)
        raise AccelsimError(Problem(str(path), f"cannot be used: {error}", "a writable study", levers)) from error
    except sqlite3.DatabaseError as error:
        raise AccelsimError(Problem(str(path), f"is not a study: {error}", "a file of `accelsim sweep`")) from error


def _cells(row: Row, program: str, now: str) -> tuple[Any, ...]:
    cells = {name: getattr(row, name) for name in ("key", "point", *TEXTS, "resolution", "problem", "shortage")}
    cells |= {name: row.metrics.get(name) for name, _, _ in METRICS}
    cells |= {name: json.dumps(row.metrics[name], sort_keys=True) if name in row.metrics else None for name in DETAILS}
    cells |= {"axis_values": json.dumps(dict(row.values)), "program": program, "created_utc": now}
    return tuple(cells[name] for name in COLUMNS_ALL)


def _table_row(cells: dict[str, Any]) -> dict[str, Any]:
    values = json.loads(cells.pop("axis_values"))
    return {**_with_details(cells), **{field: value for field, value in values.items() if field not in cells}}


def _with_details(cells: dict[str, Any]) -> dict[str, Any]:
    """Cells of a row with its JSON read."""
    return {**cells, **{name: None if cells[name] is None else json.loads(cells[name]) for name in DETAILS}}
