"""Fine-tuning of a checkpoint under its plan, to a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Checkpoint
from quant.data.dataset import DataSet
from quant.finetune.devices import check_device, checkpoint_on, network_on
from quant.finetune.numerics import Trainable
from quant.finetune.settings import FineTune
from quant.finetune.state import State, asked_for
from quant.finetune.steps import Progress, Steps, Task, check_labels, one_thread
from quant.network import Network


def fine_tune(
    checkpoint: Checkpoint,
    network: Network,
    training: DataSet,
    settings: FineTune,
    state: str | Path | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
    keep_every: int = 20,
) -> Checkpoint:
    """Train a checkpoint under its plan; the result computes exactly what the last forward pass would.

    `network` has the real weights that filters start from, and is the teacher of `settings.distill`; with a loaded
    checkpoint's own network the filters start from their integers.  Filters, biases, LayerNorm parameters and position
    embeddings are trained, other constants and zero points are not.  Every `keep_every` steps and at the end the
    file `state` is written; the same call goes on from it and ends with the same bytes, because everything random
    comes from (seed, step).  The file stays until `state.forget`.  One thread; `device` names a torch device
    ("cuda" is untested).

    Raises AccelsimError when network, data or an existing state do not fit, and when the loss stops being finite.
    """
    _check(checkpoint, network, training, settings)
    place = check_device(device)
    asked = asked_for(checkpoint, network, training, settings, device)
    with one_thread():
        start, teacher = checkpoint_on(checkpoint, place), network_on(network, place)
        steps = Steps(lambda: CheckpointTask(start, teacher, settings.learn_scales), teacher, training, settings, place)
        path = None if state is None else Path(state)
        found = steps.carry_out(asked, path, keep_every, progress, "fine-tuning")
        return _noted(checkpoint_on(steps.task.model.trained(), torch.device("cpu")), found, settings)


class CheckpointTask(Task):
    """A checkpoint whose parameters are trained, starting from the real weights of a network."""

    def __init__(self, checkpoint: Checkpoint, network: Network, learn_scales: bool) -> None:
        self.model = Trainable(checkpoint, network, learn_scales)

    def parameters_by_name(self) -> dict[str, Tensor]:
        """Everything that is trained, by a unique name."""
        return self.model.parameters_by_name()

    def logits(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, channels, h, w] under the parameters as they are now."""
        return self.model.logits(images)


def _noted(checkpoint: Checkpoint, state: State, settings: FineTune) -> Checkpoint:
    tenth = max(1, state.steps // 10)
    first, last = (sum(part) / len(part) for part in (state.losses[:tenth], state.losses[-tenth:]))
    entry = {**asdict(settings), "steps": state.steps, "data": state.asked["data"], "loss_first": first,
             "loss_last": last}  # fmt: skip
    return replace(
        checkpoint, about={**checkpoint.about, "fine_tuning": [*checkpoint.about.get("fine_tuning", []), entry]}
    )


def _check(checkpoint: Checkpoint, network: Network, training: DataSet, settings: FineTune) -> None:
    """Raise AccelsimError where network and checkpoint are not the same layers, or labels do not fit."""
    problems = []
    shapes = {node.name: tuple(node.weight.shape) for node in network.nodes if node.weight is not None}
    for name, filters in checkpoint.filters.items():
        if shapes.get(name) != tuple(filters.integers.shape):
            what = f"weights {shapes.get(name)} in network {network.workload.name}"
            problems.append(Problem(f"op {name}", what, f"{tuple(filters.integers.shape)}, as in the checkpoint"))
    if problems:
        raise AccelsimError(problems)
    check_labels(network, training, settings)
