"""The folder of a co-design study: what lies where, and whether a command may go on in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.files import write_text_atomic
from accelsim.problems import AccelsimError, Problem
from codesign.loop.designs import loop_version
from codesign.loop.spec import CodesignSpec
from codesign.loop.variants import PLAIN
from codesign.store import program_version

FORMAT = "codesign.study/1"
STUDY, RESULT, LEARNED = "study.json", "result.json", "learned.json"


@dataclass(frozen=True)
class StudyFolder:
    """Paths of a study."""

    path: Path

    def penalties(self, variant: str = PLAIN) -> Path:
        """The penalty table of a form of the network."""
        return self.path / ("penalties.json" if variant == PLAIN else f"penalties_{variant}.json")

    @property
    def learned(self) -> Path:
        """Losses of the networks with learned widths."""
        return self.path / LEARNED

    @property
    def result(self) -> Path:
        """What the co-design found; written last, again by every run."""
        return self.path / RESULT

    def search(self, name: str) -> Path:
        """The designs that a search looked at."""
        return self.path / f"search_{name}.sqlite"

    def design(self, name: str) -> Path:
        """The folder of a verified design."""
        return self.path / "designs" / name

    def read(self, path: Path) -> Any:
        """Plain data of a JSON file of the study, None when it is not there."""
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise AccelsimError(Problem(str(path), f"cannot be read ({error})", "a file of this study")) from error

    def write(self, path: Path, data: Any) -> None:
        """Plain data as a JSON file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(data, indent=1) + "\n")


def open_folder(path: str | Path, spec: CodesignSpec, learned: Mapping[str, str]) -> StudyFolder:
    """Make the folder of a study, or go on in the one that is there; `learned` are hashes of the learned networks.

    Raises AccelsimError when the folder is something else, or was made with another file, other learned networks or
    another program version.
    """
    folder = StudyFolder(Path(path))
    about = {
        "format": FORMAT, "spec": spec.fingerprint(), "program": program_version(), "loop": loop_version(),
        "learned": dict(learned), "spec_data": spec.to_json(),
    }  # fmt: skip
    if not folder.path.parent.is_dir():
        levers = (f"mkdir -p {folder.path.parent}",)
        raise AccelsimError(Problem(str(path), "its folder does not exist", "an existing folder", levers))
    if folder.path.is_file() or (folder.path.is_dir() and any(folder.path.iterdir()) and not _is_study(folder)):
        raise AccelsimError(Problem(str(path), "is something else", "a new folder, or one of `accelsim codesign`"))
    found = folder.read(folder.path / STUDY)
    if found is None:
        folder.path.mkdir(exist_ok=True)
        folder.write(folder.path / STUDY, about)
        return folder
    names = {"spec": "another specification", "program": "another program version", "loop": "another loop version"}
    names["learned"] = "other learned networks"
    problems = [
        Problem(str(path), f"was made with {what} ({found.get(key)}, not {about[key]})", "what it was started with",
                ("another folder",))
        for key, what in names.items() if found.get(key) != about[key]
    ]  # fmt: skip
    if problems:
        raise AccelsimError(problems)
    return folder


def _is_study(folder: StudyFolder) -> bool:
    return (folder.path / STUDY).is_file()
