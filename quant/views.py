"""Steps that only re-arrange a tensor: what stands between a stored tensor and the op that reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem


@dataclass(frozen=True)
class Batch:
    """A size that is a multiple of the number of images (windows of all images side by side: times = windows)."""

    times: int = 1


@dataclass(frozen=True)
class View:
    """One step: the name of a function of this file and its arguments (whole numbers, `Batch` sizes, tuples)."""

    name: str
    args: tuple[Any, ...] = ()

    def to_json(self) -> list[Any]:
        """Plain data: [name, arguments]; a `Batch` size is {"batch": times}."""
        return [self.name, [_plain(arg) for arg in self.args]]


def view_from_json(data: list[Any]) -> View:
    """The inverse of `View.to_json`."""
    name, args = data
    return View(name, tuple(_read(arg) for arg in args))


def rearrange(value: Tensor, views: Iterable[View], images: int) -> Tensor:
    """Apply view steps to a tensor of `images` images.  Raises AccelsimError for an unknown step."""
    for view in views:
        if view.name not in _FUNCTIONS:
            raise AccelsimError(Problem("view", f"unknown step {view.name!r}", f"one of {', '.join(_FUNCTIONS)}"))
        value = _FUNCTIONS[view.name](value, *(_size(arg, images) for arg in view.args))
    return value


def _ones_row(value: Tensor, dim: int) -> Tensor:
    """One more row of ones along `dim`: the row sum of a product comes out beside the product."""
    shape = list(value.shape)
    shape[dim] = 1
    return torch.cat([value, value.new_ones(shape)], dim=dim)


def _slice(value: Tensor, dim: int, start: int, stop: int, step: int) -> Tensor:
    index: list[slice] = [slice(None)] * value.dim()
    index[dim] = slice(start, stop, step)
    return value[tuple(index)]


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "reshape": lambda value, shape: value.reshape(shape),
    "permute": lambda value, dims: value.permute(dims),
    "slice": _slice,
    "select": lambda value, dim, index: value.select(dim, index),
    "unsqueeze": lambda value, dim: value.unsqueeze(dim),
    "squeeze": lambda value, dim: value.squeeze(dim),
    "expand": lambda value, shape: value.expand(shape),
    "roll": lambda value, shifts, dims: value.roll(shifts, dims),
    "ones_row": _ones_row,
}


def _size(arg: Any, images: int) -> Any:
    if isinstance(arg, Batch):
        return arg.times * images
    return tuple(_size(part, images) for part in arg) if isinstance(arg, tuple) else arg


def _plain(arg: Any) -> Any:
    if isinstance(arg, Batch):
        return {"batch": arg.times}
    return [_plain(part) for part in arg] if isinstance(arg, tuple) else arg


def _read(arg: Any) -> Any:
    if isinstance(arg, dict):
        return Batch(int(arg["batch"]))
    return tuple(_read(part) for part in arg) if isinstance(arg, list) else arg
