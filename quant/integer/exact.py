"""Exact integer products through float64: every partial sum is a whole number below 2^53, so no rounding happens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from accelsim.problems import AccelsimError, Problem

EXACT = 1 << 53  # float64 holds every whole number up to here


def require_exact(where: str, largest: int) -> None:
    """Raise AccelsimError when a sum of magnitudes could reach 2^53."""
    if largest >= EXACT:
        raise AccelsimError(Problem(where, f"sums reach {largest:,}", f"below {EXACT:,}, exact in float64"))


def product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product of int64 tensors [.., n, k] · [.., k, m], exact while Σ|l·r| < 2^53."""
    return (left.double() @ right.double()).long()


def patches(codes: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """What every kernel position reads, [n, channels, taps, h', w'], of padded codes [n, channels, h, w]."""
    windows = codes.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
    return windows.permute(0, 1, 4, 5, 2, 3).flatten(2, 3)


def pad(codes: Tensor, padding: tuple[int, int], zero_point: Tensor) -> Tensor:
    """Codes [n, channels, h, w] with a border that stands for zero: `zero_point` [channels]."""
    if padding == (0, 0):
        return codes
    h, w = padding
    moved = codes - zero_point[:, None, None]
    return F.pad(moved, (w, w, h, h)) + zero_point[:, None, None]


def convolve(codes: Tensor, weights: Tensor, stride: tuple[int, int], groups: int) -> Tensor:
    """Convolution of padded codes [n, channels, h, w] with weights [outputs, channels / groups, kh, kw]; int64.

    Not torch's convolution: its algorithm is not ours to choose, and one that transforms its operands would round.
    """
    outputs, depth, *kernel = weights.shape
    if depth == 1 and outputs == groups:
        return _depthwise(codes, weights[:, 0], stride)
    if kernel == [1, 1] and groups == 1:
        read = codes[:, :, :: stride[0], :: stride[1]]
        return product(weights[:, :, 0, 0], read.flatten(2)).reshape(codes.shape[0], outputs, *read.shape[2:])
    found = patches(codes, (kernel[0], kernel[1]), stride)
    n, _, taps, h, w = found.shape
    columns = found.reshape(n, groups, depth * taps, h * w)
    rows = weights.reshape(groups, outputs // groups, depth * taps)
    return product(rows, columns).reshape(n, outputs, h, w)


def _depthwise(codes: Tensor, weights: Tensor, stride: tuple[int, int]) -> Tensor:
    """One filter [channels, kh, kw] per channel: shifted copies times a weight each, in integers."""
    _, kh, kw = weights.shape
    h = (codes.shape[2] - kh) // stride[0] + 1
    w = (codes.shape[3] - kw) // stride[1] + 1
    total = torch.zeros(*codes.shape[:2], h, w, dtype=torch.int64)
    for y in range(kh):
        for x in range(kw):
            part = codes[:, :, y : y + stride[0] * (h - 1) + 1 : stride[0], x : x + stride[1] * (w - 1) + 1 : stride[1]]
            total.addcmul_(part, weights[:, y, x, None, None])
    return total
