"""Images of every step: a function of the seed and the step alone, so that a resumed run sees the same."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.data.dataset import DataSet
from quant.finetune.settings import FineTune
from quant.models.train import augment

ORDER, CHANGES = 0, 1  # streams of random numbers
SHIFT_PX = 1


class Batches:
    """Batches of a training set, epoch by epoch in new order; the rest that fills no batch is left out.

    Raises AccelsimError for a set without images.
    """

    def __init__(self, training: DataSet, settings: FineTune) -> None:
        if not len(training):
            raise AccelsimError(Problem(f"data {training.name}", "has no images", "at least one"))
        self.training, self.settings = training, settings
        self.batch = min(settings.batch, len(training))
        self.per_epoch = len(training) // self.batch
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Images [batch, channels, h, w] and labels [batch] (None: unlabelled) of a step."""
        epoch, place = divmod(step, self.per_epoch)
        chosen = self._of_epoch(epoch)[place * self.batch : (place + 1) * self.batch]
        data = self.training
        images = data.preprocess.tensor(np.concatenate([data.images[k : k + 1] for k in chosen.tolist()]))
        if self.settings.augment:
            images = augment(images, SHIFT_PX, torch.Generator().manual_seed(self._seed(CHANGES, step)))
        return images, None if data.labels is None else torch.from_numpy(data.labels[chosen])

    def _of_epoch(self, epoch: int) -> NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            random = np.random.Generator(np.random.PCG64(self._seed(ORDER, epoch)))
            self._order = epoch, random.permutation(len(self.training))
        return self._order[1]

    def _seed(self, stream: int, index: int) -> int:
        return int(np.random.SeedSequence([self.settings.seed, stream, index]).generate_state(1)[0])
