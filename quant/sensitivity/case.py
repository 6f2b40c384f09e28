"""What a metric sees: one component at one width on one batch of images, everything costly computed when asked for."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


class Stopwatch:
    """CPU seconds and passes by stage; a stage inside another one does not count for the outer one."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.passes: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._stage, self._since = "", time.process_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside as `name`."""
        before = self._stage
        self._switch(name)
        try:
            yield
        finally:
            self._switch(before)

    def count(self, kind: str, images: float) -> None:
        """Count passes of single images in the stage of now; `kind` is a field of `table.Passes`."""
        self.passes[self._stage, kind] += images

    def drain(self) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
        """Seconds by stage and passes by (stage, kind) since the last call, and start anew."""
        spent = {name: seconds for name, seconds in self.seconds.items() if name}, dict(self.passes)
        self.seconds.clear()
        self.passes.clear()
        return spent

    def _switch(self, name: str) -> None:
        now = time.process_time()
        self.seconds[self._stage] += now - self._since
        self._stage, self._since = name, now


@dataclass(frozen=True, eq=False)
class Part:
    """An op's share of a component: `change` = Q(t) − t, [1, ..] for weights, with images in front for stored values.

    It is zero outside the component; `members` counts what is inside (of one image).  `slopes` gives the gradient of
    one image's cross-entropy and its square in the shape of `change`: for weights the means over the images.
    `diagonal` gives an estimate of the diagonal of its Hessian in that shape, zero outside the component.
    """

    change: Tensor
    members: int
    slopes: Callable[[], tuple[Tensor, Tensor]]
    diagonal: Callable[[], Tensor]

    @property
    def gradient(self) -> Tensor:
        """∂ cross-entropy / ∂t, float64."""
        return self.slopes()[0].double()

    @property
    def gradient_square(self) -> Tensor:
        """Its square, float64."""
        return self.slopes()[1].double()

    @property
    def mean_curvature(self) -> Tensor:
        """Trace of the Hessian's block / its size, float64: 1, or one per image, in a shape that broadcasts."""
        diagonal = self.diagonal()
        return diagonal.sum(dim=tuple(range(1, diagonal.dim())), keepdim=True) / self.members


@dataclass(frozen=True, eq=False)
class Case:
    """A component at one width on a batch of `images` images with `labels` [images].

    `exact_logits` are the float network's; `run` gives the logits and the ops' outputs with the component rounded.
    With `by_channel` sums are per output channel of the filters instead of per image.
    """

    images: int
    labels: Tensor
    exact_logits: Tensor
    exact_outputs: tuple[Tensor, ...]
    parts: tuple[Part, ...]
    run: Callable[[], tuple[Tensor, tuple[Tensor, ...]]]
    by_channel: bool = False

    @cached_property
    def _results(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.run()

    @property
    def logits(self) -> Tensor:
        """Logits with the component rounded, [images, classes]."""
        return self._results[0]

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Stored outputs of the component's ops with the component rounded."""
        return self._results[1]

    def total(self, values: Callable[[Part], Tensor]) -> Tensor:
        """Sum of `values` (float64, shape of the part's change) over the component: per image, or per channel."""
        result = torch.zeros((), dtype=torch.float64)
        for part in self.parts:
            value = values(part)
            # Weights come as [1, channels, ..]: one row for all images, or one row per channel.
            rows = value.shape[1] if self.by_channel else 1 if value.shape[0] == 1 else self.images
            result = result + value.reshape(rows, -1).sum(1)
        return result.expand(len(result) if self.by_channel else self.images)

    @property
    def elements(self) -> int:
        """Numbers of the component, per image or per channel."""
        members = sum(part.members for part in self.parts)
        return members // self.parts[0].change.shape[1] if self.by_channel else members
