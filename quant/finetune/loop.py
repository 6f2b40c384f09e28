"""The loop: steps of AdamW from a checkpoint to a checkpoint, with a state file that any kill leaves whole."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Checkpoint
from quant.data.dataset import DataSet
from quant.finetune.batches import Batches
from quant.finetune.devices import check_device, checkpoint_on, network_on
from quant.finetune.numerics import Trainable
from quant.finetune.settings import FineTune
from quant.finetune.state import State, asked_for, load_state
from quant.network import Network, forward

Progress = Callable[[str, int, int], None]
MEASURED_STEPS = 4  # of which the first is not counted


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
    path = None if state is None else Path(state)
    asked = asked_for(checkpoint, network, training, settings, device)
    with _one_thread():
        run = _Run(checkpoint_on(checkpoint, place), network_on(network, place), training, settings, place)
        found = None if path is None else load_state(path, asked)
        if found is None:
            found = State(asked, _length(run))
            if path is not None:
                run.keep(found, path)
        else:
            run.restore(found)
        for step in range(found.step, found.steps):
            found.losses.append(run.step(step, found.steps))
            found.step = step + 1
            if path is not None and (found.step % keep_every == 0 or found.step == found.steps):
                run.keep(found, path)
            if progress is not None:
                progress("fine-tuning", found.step, found.steps)
        return _noted(checkpoint_on(run.model.trained(), torch.device("cpu")), found, settings)


class _Run:
    """A model in training with its optimizer and data."""

    def __init__(
        self, checkpoint: Checkpoint, network: Network, training: DataSet, settings: FineTune, device: torch.device
    ) -> None:
        self.settings, self.device, self.network = settings, device, network
        self.batches = Batches(training, settings)
        self._start = checkpoint
        self._begin()

    def _begin(self) -> None:
        self.model = Trainable(self._start, self.network, self.settings.learn_scales)
        self.values = self.model.parameters_by_name()
        decays = {name: name.startswith("filters/") and name.endswith("/weight") for name in self.values}
        filters, rest = (
            [value for name, value in self.values.items() if decays[name] is kind] for kind in (True, False)
        )
        decayed = {"params": filters, "weight_decay": self.settings.weight_decay}
        self.optimizer = torch.optim.AdamW([decayed, {"params": rest, "weight_decay": 0.0}], lr=self.settings.rate)

    def step(self, step: int, steps: int) -> float:
        """One step of `steps`; returns the loss before it."""
        images, labels = self.batches.at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate_at(step, steps)
        loss = self._loss(images.to(self.device), None if labels is None else labels.to(self.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            what = f"the loss of step {step} is {value}"
            raise AccelsimError(Problem("fine-tuning", what, "a finite loss", ("a lower rate",)))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(list(self.values.values()), self.settings.clip)
        self.optimizer.step()
        return value

    def _loss(self, images: Tensor, labels: Tensor | None) -> Tensor:
        logits, share = self.model.logits(images), self.settings.distill
        loss = logits.new_zeros(())
        if share < 1:
            assert labels is not None
            loss = (1 - share) * F.cross_entropy(logits, labels, label_smoothing=self.settings.smoothing)
        if share > 0:
            with torch.no_grad():
                target = forward(self.network, images).softmax(-1)
            loss = loss + share * F.cross_entropy(logits, target)
        return loss

    def seconds_of_a_step(self, clock: Callable[[], float] = time.perf_counter) -> float:
        """Mean wall time of a step; the parameters are those of the start afterwards."""
        start = 0.0
        for step in range(MEASURED_STEPS):
            if step == 1:
                start = clock()
            self.step(step, MEASURED_STEPS)
        taken = (clock() - start) / (MEASURED_STEPS - 1)
        self._begin()
        return taken

    def keep(self, state: State, path: Path) -> None:
        """Write the state with the parameters as they are now."""
        state.values = {name: value.detach() for name, value in self.values.items()}
        state.optimizer = self.optimizer.state_dict()
        state.save(path)

    def restore(self, state: State) -> None:
        """Parameters and optimizer of a state."""
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(state.values[name])
        self.optimizer.load_state_dict(state.optimizer)


def _length(run: _Run) -> int:
    """Steps to do; for the limited-time setting as many as fit, the measured ones included, and at least one."""
    settings = run.settings
    if settings.seconds is not None:
        fitting = settings.seconds / max(run.seconds_of_a_step(), 1e-9)
        return max(1, int(fitting) - MEASURED_STEPS)
    if settings.steps is not None:
        return settings.steps
    return (1 if settings.epochs is None else settings.epochs) * run.batches.per_epoch


def _noted(checkpoint: Checkpoint, state: State, settings: FineTune) -> Checkpoint:
    tenth = max(1, state.steps // 10)
    first, last = (sum(part) / len(part) for part in (state.losses[:tenth], state.losses[-tenth:]))
    entry = {**asdict(settings), "steps": state.steps, "data": state.asked["data"], "loss_first": first,
             "loss_last": last}  # fmt: skip
    return replace(
        checkpoint, about={**checkpoint.about, "fine_tuning": [*checkpoint.about.get("fine_tuning", []), entry]}
    )


def _check(checkpoint: Checkpoint, network: Network, training: DataSet, settings: FineTune) -> None:
    """Raise AccelsimError where network and checkpoint are not the same layers, or labels are missing or too large."""
    problems = []
    shapes = {node.name: tuple(node.weight.shape) for node in network.nodes if node.weight is not None}
    for name, filters in checkpoint.filters.items():
        if shapes.get(name) != tuple(filters.integers.shape):
            what = f"weights {shapes.get(name)} in network {network.workload.name}"
            problems.append(Problem(f"op {name}", what, f"{tuple(filters.integers.shape)}, as in the checkpoint"))
    if training.labels is None and settings.distill < 1:
        expected = "labels, or distill 1: only the float network's answers"
        problems.append(Problem(f"data {training.name}", "fine-tuning needs labels", expected))
    if not problems and training.labels is not None and len(training.labels):
        with torch.no_grad():
            classes = forward(network, torch.zeros(1, *network.image_shape)).shape[1]
        if int(training.labels.max()) >= classes:
            what = f"labels reach {int(training.labels.max())}, the model has {classes} classes"
            problems.append(Problem(f"data {training.name}", what, "data with the model's classes"))
    if problems:
        raise AccelsimError(problems)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of several threads have an order of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
