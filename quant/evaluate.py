"""Accuracy of a network on labelled images, and how close its outputs come to the float network's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from accelsim.problems import AccelsimError, Problem
from quant.levels import sqnr_db

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Outputs of a model on a data set: logits [images, classes] and labels [images]."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """True where the first choice is the label."""
        return np.asarray(self.logits.argmax(axis=1) == self.labels)

    @property
    def top1(self) -> float:
        """Share of images whose first choice is right."""
        return float(self.correct.mean())

    @property
    def cross_entropy(self) -> float:
        """Mean negative log likelihood of the labels, in nats."""
        return float(F.cross_entropy(torch.from_numpy(self.logits), torch.from_numpy(self.labels)))

    def agreement(self, other: Evaluation) -> float:
        """Share of images on which both choose the same class."""
        return float((self.logits.argmax(axis=1) == other.logits.argmax(axis=1)).mean())

    def logit_sqnr_db(self, reference: Evaluation) -> float:
        """Signal to noise ratio of the logits against another model's."""
        return sqnr_db(reference.logits.astype(np.float64), self.logits.astype(np.float64))


def evaluate(model: Model, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
    """Outputs of `model` on batches of images [n, channels, h, w] and labels [n].

    Raises AccelsimError when a label is none of the model's classes.
    """
    logits, labels = [], []
    with torch.no_grad():
        for images, truth in batches:
            logits.append(model(images).float().numpy())
            labels.append(truth.numpy())
    found = Evaluation(np.concatenate(logits), np.concatenate(labels).astype(np.int64))
    classes, largest = found.logits.shape[1], int(found.labels.max())
    if largest >= classes:
        what = f"labels reach {largest}, the model has {classes} classes"
        raise AccelsimError(Problem("evaluation", what, "data with the model's classes", ("--data",)))
    return found
