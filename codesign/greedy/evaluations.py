"""Losses of states in a file, a line each, so that a killed search goes on without measuring anything again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from accelsim.problems import AccelsimError, Problem
from codesign.greedy.trajectory import State

FORMAT = "codesign.greedy.evaluations/1"
NAME = "evaluations.jsonl"


class Evaluations:
    """Losses by state; `path` None keeps them in memory only.

    The first line of the file names what was measured (`fingerprint`, of network, images and settings) and the
    components.  A last line that a kill tore is dropped.  Raises AccelsimError for a file of something else, a damaged
    one, and one that cannot be written.
    """

    def __init__(self, path: str | Path | None, fingerprint: str, components: tuple[str, ...]) -> None:
        self._path = None if path is None else Path(path)
        self._losses: dict[State, float] = {}
        self._header = {"format": FORMAT, "fingerprint": fingerprint, "components": list(components)}
        if self._path is None:
            return
        try:
            data = self._path.read_bytes() if self._path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if whole:
                self._read(whole.decode("utf-8").splitlines())
            with self._path.open("r+b" if data else "wb") as stream:
                stream.truncate(len(whole))
                stream.seek(0, 2)
                if not whole:
                    stream.write(_line(self._header))
        except (OSError, UnicodeDecodeError) as error:
            raise self._fault(f"cannot be used ({error})") from error

    def __len__(self) -> int:
        return len(self._losses)

    def get(self, state: State) -> float | None:
        """The loss of a state, None where it was not measured."""
        return self._losses.get(state)

    def put(self, state: State, loss: float) -> None:
        """Keep the loss of a state."""
        self._losses[state] = loss
        if self._path is None:
            return
        try:
            with self._path.open("ab") as stream:
                stream.write(_line({"state": list(state), "loss": loss}))
        except OSError as error:
            raise self._fault(f"cannot be written ({error})") from error

    def _read(self, lines: list[str]) -> None:
        try:
            header, *rest = [json.loads(line) for line in lines]
            if header != self._header:
                raise self._fault("holds losses of another network, other images or settings")
            for row in rest:
                self._losses[tuple(int(bits) for bits in row["state"])] = float(row["loss"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._fault(f"is damaged ({error})") from error

    def _fault(self, what: str) -> AccelsimError:
        return AccelsimError(Problem(str(self._path), what, f"a file of this search ({FORMAT})", ("another folder",)))


def _line(data: dict[str, Any]) -> bytes:
    return (json.dumps(data) + "\n").encode()
