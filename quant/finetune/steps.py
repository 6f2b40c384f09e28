"""Steps of AdamW on any task, with a state file that any kill leaves whole."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from accelsim.problems import AccelsimError, Problem
from quant.data.dataset import DataSet
from quant.finetune.batches import Batches
from quant.finetune.settings import FineTune
from quant.finetune.state import State, load_state
from quant.network import Network, forward

Progress = Callable[[str, int, int], None]
MEASURED_STEPS = 4  # of which the first is not counted


class Task:
    """What is trained: parameters and logits, and what a method adds to plain training."""

    def parameters_by_name(self) -> dict[str, Tensor]:
        """Everything that is trained or kept in the state, by a unique name; the same tensors whenever it is asked."""
        raise NotImplementedError

    def logits(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, channels, h, w] under the parameters as they are now."""
        raise NotImplementedError

    def decays(self, name: str) -> bool:
        """True for a parameter with weight decay."""
        return name.startswith("filters/") and name.endswith("/weight")

    def rate_share(self, name: str) -> float:
        """Learning rate of a parameter, as a share of the settings' one."""
        return 1.0

    def penalty(self) -> Tensor | None:
        """What is added to the loss."""
        return None

    def begins(self, step: int, steps: int) -> None:
        """Called before every step of `steps`."""

    def ends(self, step: int, steps: int) -> dict[str, Any] | None:
        """Called after every step; an entry of the log, or None."""
        return None


T = TypeVar("T", bound=Task)


class Steps(Generic[T]):
    """A task in training with its optimizer and data; `make` gives the task as it is at the start."""

    def __init__(
        self, make: Callable[[], T], teacher: Network, training: DataSet, settings: FineTune, device: torch.device
    ) -> None:
        self.settings, self.device, self.teacher = settings, device, teacher
        self.batches = Batches(training, settings)
        self._make = make
        self._begin()

    def _begin(self) -> None:
        self.task = self._make()
        self.values = self.task.parameters_by_name()
        groups: dict[tuple[bool, float], list[Tensor]] = {}
        for name, value in self.values.items():
            if value.requires_grad:
                groups.setdefault((self.task.decays(name), self.task.rate_share(name)), []).append(value)
        decay, rate = self.settings.weight_decay, self.settings.rate
        parts = [
            {"params": values, "weight_decay": decay * decayed, "rate_share": share}
            for (decayed, share), values in groups.items()
        ]
        self.optimizer = torch.optim.AdamW(parts, lr=rate)

    def step(self, step: int, steps: int) -> float:
        """One step of `steps`; returns the loss before it, without the task's penalty."""
        self.task.begins(step, steps)
        images, labels = self.batches.at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate_at(step, steps) * group["rate_share"]
        loss = self._loss(images.to(self.device), None if labels is None else labels.to(self.device))
        value, penalty = float(loss.detach()), self.task.penalty()
        if penalty is not None:
            loss = loss + penalty
        if not math.isfinite(float(loss.detach())):
            what = f"the loss of step {step} is {float(loss.detach())}"
            raise AccelsimError(Problem("fine-tuning", what, "a finite loss", ("a lower rate",)))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(list(self.values.values()), self.settings.clip)
        self.optimizer.step()
        return value

    def _loss(self, images: Tensor, labels: Tensor | None) -> Tensor:
        logits, share = self.task.logits(images), self.settings.distill
        loss = logits.new_zeros(())
        if share < 1:
            assert labels is not None
            loss = (1 - share) * F.cross_entropy(logits, labels, label_smoothing=self.settings.smoothing)
        if share > 0:
            with torch.no_grad():
                target = forward(self.teacher, images).softmax(-1)
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

    def carry_out(
        self, asked: Mapping[str, Any], path: Path | None, keep_every: int, progress: Progress | None, stage: str
    ) -> State:
        """All steps, from the file `path` if it has some; the file is written every `keep_every` steps and at the end.

        `asked` is everything that the result depends on.  Raises AccelsimError for a file that belongs to another run.
        """
        found = None if path is None else load_state(path, asked)
        if found is None:
            found = State(dict(asked), self._length())
            if path is not None:
                self.keep(found, path)
        else:
            self.restore(found)
        for step in range(found.step, found.steps):
            found.losses.append(self.step(step, found.steps))
            entry = self.task.ends(step, found.steps)
            if entry is not None:
                found.log.append(entry)
            found.step = step + 1
            if path is not None and (found.step % keep_every == 0 or found.step == found.steps):
                self.keep(found, path)
            if progress is not None:
                progress(stage, found.step, found.steps)
        return found

    def _length(self) -> int:
        """Steps to do; for the limited-time setting as many as fit, the measured ones included, and at least one."""
        settings = self.settings
        if settings.seconds is not None:
            fitting = settings.seconds / max(self.seconds_of_a_step(), 1e-9)
            return max(1, int(fitting) - MEASURED_STEPS)
        if settings.steps is not None:
            return settings.steps
        return (1 if settings.epochs is None else settings.epochs) * self.batches.per_epoch


def check_labels(network: Network, training: DataSet, settings: FineTune) -> None:
    """Raise AccelsimError for labels that training needs and are missing, or that a network has no class for."""
    where = f"data {training.name}"
    if training.labels is None:
        if settings.distill < 1:
            expected = "labels, or distill 1: only the float network's answers"
            raise AccelsimError(Problem(where, "fine-tuning needs labels", expected))
        return
    if not len(training.labels):
        return
    with torch.no_grad():
        classes = forward(network, torch.zeros(1, *network.image_shape)).shape[1]
    if int(training.labels.max()) >= classes:
        what = f"labels reach {int(training.labels.max())}, the model has {classes} classes"
        raise AccelsimError(Problem(where, what, "data with the model's classes"))


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums of several threads have an order of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
