"""Finished rows on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accelsim.problems import AccelsimError, Problem

_SCHEMA = (
    "create table if not exists result (fingerprint text, batch integer, cell text, metric text, parts integer, "
    "data blob, primary key (fingerprint, batch, cell, metric))",
    "create table if not exists spent (fingerprint text, stage text, seconds real, primary key (fingerprint, stage))",
    "create table if not exists passes (fingerprint text, stage text, kind text, images real, "
    "primary key (fingerprint, stage, kind))",
)
_COMMIT_AFTER_S = 1.0
Key = tuple[int, str, str]  # number of the batch, cell (component and width), metric


class Cache:
    """Rows of metrics by fingerprint (of network, images and settings), batch, cell and metric; what stages took.

    Without a path they are kept in memory.  What is written is committed every second, and when the cache is closed.
    Raises AccelsimError when the file is no such cache or cannot be written.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._path = ":memory:" if path is None else str(path)
        try:
            self._db = sqlite3.connect(self._path)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        for statement in _SCHEMA:
            self._run(statement)
        self._committed = time.monotonic()

    def keys(self, fingerprint: str) -> set[Key]:
        """What is there."""
        return set(self._run("select batch, cell, metric from result where fingerprint = ?", (fingerprint,)))

    def put(self, fingerprint: str, key: Key, rows: Tensor) -> None:
        """Store the rows of one metric, [n, parts]."""
        data = rows.to(torch.float64).contiguous().numpy().tobytes()
        self._run("insert or replace into result values (?, ?, ?, ?, ?, ?)", (fingerprint, *key, rows.shape[1], data))

    def rows(self, fingerprint: str, cell: str, metric: str) -> list[NDArray[np.float64]]:
        """The rows of one metric, [n, parts] for each batch."""
        found = self._run(
            "select parts, data from result where fingerprint = ? and cell = ? and metric = ? order by batch",
            (fingerprint, cell, metric),
        )
        return [np.frombuffer(data, np.float64).reshape(-1, parts) for parts, data in found]

    def spend(self, fingerprint: str, seconds: Mapping[str, float]) -> None:
        """Add CPU seconds to stages; commits when the last commit is more than a second ago."""
        for stage, amount in seconds.items():
            self._run(
                "insert into spent values (?, ?, ?) "
                "on conflict (fingerprint, stage) do update set seconds = seconds + excluded.seconds",
                (fingerprint, stage, amount),
            )
        if time.monotonic() - self._committed > _COMMIT_AFTER_S:
            self._commit()

    def spent(self, fingerprint: str) -> dict[str, float]:
        """CPU seconds of every stage, over all runs."""
        return dict(self._run("select stage, seconds from spent where fingerprint = ?", (fingerprint,)))

    def add_passes(self, fingerprint: str, passes: Mapping[tuple[str, str], float]) -> None:
        """Add passes of single images to (stage, kind); committed with the next seconds."""
        for (stage, kind), images in passes.items():
            self._run(
                "insert into passes values (?, ?, ?, ?) "
                "on conflict (fingerprint, stage, kind) do update set images = images + excluded.images",
                (fingerprint, stage, kind, images),
            )

    def passes(self, fingerprint: str) -> dict[tuple[str, str], float]:
        """Passes of single images by (stage, kind), over all runs."""
        found = self._run("select stage, kind, images from passes where fingerprint = ?", (fingerprint,))
        return {(stage, kind): images for stage, kind, images in found}

    def close(self) -> None:
        """Commit and close."""
        self._commit()
        self._db.close()

    def _commit(self) -> None:
        try:
            self._db.commit()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        self._committed = time.monotonic()

    def _run(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        try:
            return self._db.execute(sql, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> AccelsimError:
        expected = "a cache of `accelsim sensitivity`, or a new file in a writable folder"
        return AccelsimError(Problem(self._path, f"cannot be used as cache ({error})", expected))
