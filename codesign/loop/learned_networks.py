"""Networks with learned widths as designs of a study: their folders are read, checked and measured once."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.config import load_plan
from accelsim.ir import Workload
from accelsim.problems import AccelsimError, Problem
from accelsim.workloads.from_json import load_workload
from codesign.loop.designs import LearnedNetwork
from codesign.loop.folder import StudyFolder
from codesign.loop.spec import CodesignSpec

if TYPE_CHECKING:
    from codesign.loop.bench import Bench

FILES = ("plan.yaml", "workload.json", "checkpoint.json", "checkpoint.safetensors")


def learned_networks(spec: CodesignSpec, folder: StudyFolder, bench: Bench | None) -> dict[str, LearnedNetwork]:
    """The networks of `learned` by the names of their folders, each with its loss on the images of the penalties.

    Their losses are kept in the study.  Raises AccelsimError for a checkpoint that cannot be read.
    """
    if bench is None:
        return {}
    kept = folder.read(folder.learned) or {}
    found = {}
    for text in spec.learned:
        place = Path(text)
        if place.name not in kept:
            kept[place.name] = bench.loss(place)
            folder.write(folder.learned, kept)
        found[place.name] = LearnedNetwork(place, load_plan(place / FILES[0]), kept[place.name])
    return found


def check_learned(spec: CodesignSpec, workload: Workload) -> None:
    """Raise AccelsimError unless every folder of `learned` holds a plan and learned widths of this network."""
    problems = []
    for text in spec.learned:
        place, expected = Path(text), f"a folder of `accelsim quantize {spec.model} --method qvit`"
        missing = [name for name in FILES if not (place / name).is_file()]
        if missing:
            problems.append(Problem(f"learned: {text}", f"has no {missing[0]}", expected))
        elif load_workload(place / FILES[1]).ops != workload.ops:  # a captured network has another source
            problems.append(Problem(f"learned: {text}", "is another network", expected))
        else:
            from quant.checkpoint import load, read_about

            load(place)  # says what is damaged
            method = read_about(place).get("method")
            if method != "qvit":
                problems.append(Problem(f"learned: {text}", f"was made by the method {method}", expected))
    if problems:
        raise AccelsimError(problems)


def digests(spec: CodesignSpec) -> dict[str, str]:
    """A hash of every file set of `learned`, by name: a study must not go on with others."""
    found = {}
    for text in spec.learned:
        state = hashlib.sha256()
        for name in FILES:
            state.update((Path(text) / name).read_bytes())
        found[Path(text).name] = state.hexdigest()[:16]
    return found


def copy_checkpoint(source: Path, place: Path) -> None:
    """Copy the files of a checkpoint into a design's folder."""
    for name in FILES:
        shutil.copyfile(source / name, place / name)
