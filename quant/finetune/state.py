"""The file of an unfinished fine-tuning: what was asked for, and where it stands."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accelsim.files import replacing
from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Checkpoint
from quant.data.dataset import DataSet
from quant.finetune.settings import FineTune
from quant.network import Network
from quant.network_files import structure_of

FORMAT = "quant.finetune/1"


@dataclass
class State:
    """`asked` is what the run was started with; `steps` its length, `step` how many are done, `losses` theirs.

    `log` has what the task noted, in plain data.
    """

    asked: dict[str, Any]
    steps: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the file in one step, so that a kill leaves the old or the new one."""
        with replacing(path) as temporary, temporary.open("wb") as stream:
            torch.save({"format": FORMAT, **vars(self)}, stream)
            stream.flush()
            os.fsync(stream.fileno())


def load_state(path: Path, asked: Mapping[str, Any]) -> State | None:
    """The state of a file, None when there is none.

    Raises AccelsimError when it cannot be read or belongs to a run that was started with something else.
    """
    if not path.is_file():
        return None
    levers = ("delete it to start again", "the arguments it was started with")
    try:
        data = torch.load(path, weights_only=True)
        if data.pop("format", None) != FORMAT:
            raise ValueError("another format")
        state = State(**data)
    except (OSError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        what = f"cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        raise AccelsimError(Problem(str(path), what, "the state of an unfinished training", levers[:1])) from error
    names = [name for name in {**asked, **state.asked} if asked.get(name) != state.asked.get(name)]
    if names:
        problems = [
            Problem(str(path), f"was started with {name} {state.asked.get(name)}", str(asked.get(name)), levers)
            for name in names
        ]
        raise AccelsimError(problems)
    return state


def forget(path: Path) -> None:
    """Delete a state file, and what a kill in the middle of writing it left."""
    for one in (path, *path.parent.glob(f".{path.stem}.*{path.suffix}")):
        one.unlink(missing_ok=True)


def asked_for(
    checkpoint: Checkpoint, network: Network, training: DataSet, settings: FineTune, device: str
) -> dict[str, Any]:
    """Everything that the result of fine-tuning a checkpoint depends on, in plain data."""
    structure = json.dumps(structure_of(checkpoint.network), sort_keys=True)
    ranges = {
        f"{kind}/{name}": torch.tensor([one.low, one.high])
        for kind in ("stored", "preactivation")
        for name, one in getattr(checkpoint, kind).items()
    }
    made = _digest(structure + checkpoint.plan.fingerprint(), {**checkpoint.tensors(), **ranges})
    return {**asked_of(network, training, settings, device), "checkpoint": made}


def asked_of(network: Network, training: DataSet, settings: FineTune, device: str) -> dict[str, Any]:
    """What the result of training a network depends on; of the images only their number, labels and treatment."""
    weights = {
        f"{node.name}/{part}": value
        for node in network.nodes
        for part, value in (("weight", node.weight), ("bias", node.bias))
        if value is not None
    }
    labels = {} if training.labels is None else {"labels": torch.from_numpy(training.labels)}
    treatment = json.dumps(asdict(training.preprocess), sort_keys=True)
    return {
        **asdict(settings),
        "device": device,
        "float weights": _digest("", weights),
        "data": f"{training.name} ({training.split}, {len(training)} images, {_digest(treatment, labels)})",
    }


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()[:16]
