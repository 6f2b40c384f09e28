"""A set of images with labels, and the preprocessing that turns them into a model's input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accelsim.problems import AccelsimError, Problem

Uint8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Preprocess:
    """What a checkpoint was trained to see: one input is [channels, resolution, resolution], (x/255 − mean) / std.

    Image files are resized so that their shorter side is `resize_px` (None: the resolution; `interpolation`: "bilinear"
    or "bicubic", antialiased), then the middle resolution × resolution is cut out.
    """

    resolution: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    resize_px: int | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.channels not in (1, 3):
            faults.append(Problem("preprocess", f"{self.channels} channels", "1 (grey) or 3 (red, green, blue)"))
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            faults.append(Problem("preprocess", "mean and std need one number per channel", f"{self.channels} each"))
        if self.interpolation not in ("bilinear", "bicubic"):
            faults.append(Problem("preprocess", f"interpolation {self.interpolation!r}", "bilinear or bicubic"))
        if self.resolution < 1 or any(value <= 0 for value in self.std):
            faults.append(Problem("preprocess", "resolution and standard deviations are positive"))
        if self.resize_px is not None and self.resize_px < self.resolution:
            what = f"images of {self.resize_px} pixels hold no crop of {self.resolution}"
            faults.append(Problem("preprocess", what, f"resize_px ≥ {self.resolution}"))
        if faults:
            raise AccelsimError(faults)

    def tensor(self, images: Uint8) -> Tensor:
        """Normalized float32 [n, channels, h, w] of uint8 images of that shape."""
        mean = torch.tensor(self.mean, dtype=torch.float32).view(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float32).view(1, -1, 1, 1)
        return (torch.from_numpy(np.array(images)).to(torch.float32) / 255 - mean) / std


class Images(Protocol):
    """A sequence of images: an array, or files that are read when they are asked for."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def __getitem__(self, part: slice, /) -> Uint8:
        """The images of a slice, uint8 [n, channels, h, w]."""
        ...


@dataclass(frozen=True)
class DataSet:
    """Images with labels (None: unlabelled), class names, and the preprocessing of the model that will see them."""

    name: str
    split: str
    images: Images
    labels: Int64 | None
    classes: tuple[str, ...]
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Normalized float32 images [≤ size, channels, h, w] and int64 labels, in order.  AccelsimError: size < 1."""
        if size < 1:
            raise AccelsimError(Problem("batches", f"a batch of {size} images", "at least 1"))
        for start in range(0, len(self), size):
            labels = None if self.labels is None else torch.from_numpy(self.labels[start : start + size])
            yield self.preprocess.tensor(self.images[start : start + size]), labels

    def first(self, count: int) -> DataSet:
        """The first `count` images (all when there are fewer): a calibration set."""
        return self._part(range(len(self))[: max(count, 0)])

    def every(self, start: int, step: int) -> DataSet:
        """The images at start, start + step, start + 2 · step, …"""
        return self._part(range(len(self))[start::step])

    def _part(self, places: range) -> DataSet:
        labels = None if self.labels is None else self.labels[places.start : places.stop : places.step]
        return DataSet(self.name, self.split, _Part(self.images, places), labels, self.classes, self.preprocess)


class _Part:
    """Some of a sequence of images, read when they are asked for; `places` rise."""

    def __init__(self, images: Images, places: range) -> None:
        self._images, self._places = images, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, part: slice) -> Uint8:
        chosen = self._places[part]
        return self._images[chosen.start : chosen.stop : chosen.step]
