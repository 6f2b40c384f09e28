"""What all integer functions share: arrays in and out, checks, exact rounding and bit lengths in int64."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from numbers import Integral
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from accelsim.problems import AccelsimError, Problem

INPUT_BITS = 32  # the widest input: an accumulator
WIDE = 1 << 62  # intermediate values stay below, so that a sum of two is still an int64
EXACT = 1 << 53  # float64 holds every whole number up to here

P = ParamSpec("P")
Scale = TypeVar("Scale", covariant=True)


class OnIntegers(Protocol[P, Scale]):
    """A function of integers that gives back the kind of array that it got, and a scale."""

    @overload
    def __call__(self, x_int: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> tuple[Tensor, Scale]: ...
    @overload
    def __call__(self, x_int: ArrayLike, /, *args: P.args, **kwargs: P.kwargs) -> tuple[NDArray[np.int64], Scale]: ...


def on_integers(function: Callable[Concatenate[Tensor, P], tuple[Tensor, Scale]]) -> OnIntegers[P, Scale]:
    """Decorator: `function` of an int64 tensor also takes numpy arrays and lists, and then gives back numpy.

    Raises AccelsimError for what is no integer, or needs more than 32 bits.
    """

    @wraps(function)
    def both(x_int: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        integers, scale = function(as_int64(x_int, function.__name__), *args, **kwargs)
        if isinstance(x_int, Tensor):
            return integers, scale
        return integers.numpy(), scale.numpy() if isinstance(scale, Tensor) else scale

    return both


def as_int64(x: Any, where: str, bits: int = INPUT_BITS) -> Tensor:
    """`x` as an int64 tensor.  Raises AccelsimError for what is no integer or leaves `bits` bits, two's complement."""
    if isinstance(x, Tensor):
        whole = not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
        kind = str(x.dtype)
    else:
        x = np.asarray(x)
        whole, kind = x.dtype.kind in "iu", str(x.dtype)
    if not whole:
        raise AccelsimError(Problem(where, f"input of type {kind}", "integers (int64)"))
    if x.size == 0 if isinstance(x, np.ndarray) else x.numel() == 0:
        raise AccelsimError(Problem(where, "input without elements", "at least one element"))
    half = 1 << (bits - 1)
    if int(x.min()) < -half or int(x.max()) >= half:
        what = f"input reaches {int(x.min()):,} … {int(x.max()):,}"
        raise AccelsimError(Problem(where, what, f"{bits} bits: {-half:,} … {half - 1:,}"))
    return x.long() if isinstance(x, Tensor) else torch.from_numpy(np.array(x, np.int64, order="C"))


def as_row(x: Any, channels: int, where: str) -> Tensor:
    """One float64 number per channel, on the host.  Raises AccelsimError for another count, or what is not finite."""
    row = torch.as_tensor(x, dtype=torch.float64).detach().cpu()
    if row.shape != (channels,):
        raise AccelsimError(Problem(where, f"shape {tuple(row.shape)}", f"({channels},), one number per channel"))
    if not bool(torch.isfinite(row).all()):
        raise AccelsimError(Problem(where, "a number that is not finite", "finite numbers"))
    return row


def require_scale(scale: float, where: str, name: str = "scale") -> float:
    """`scale` as a float.  Raises AccelsimError unless it is one number, finite and above 0."""
    try:
        value = float(scale)
    except (TypeError, ValueError, RuntimeError):
        raise AccelsimError(Problem(where, f"{name} is not one number", "a finite number above 0")) from None
    if not (math.isfinite(value) and value > 0):
        raise AccelsimError(Problem(where, f"{name} {value:g}", "a finite number above 0"))
    return value


def require_between(value: int, low: int, high: int, where: str, name: str) -> None:
    """Raise AccelsimError unless `value` is a whole number with low ≤ value ≤ high."""
    if not isinstance(value, Integral) or not low <= value <= high:
        raise AccelsimError(Problem(where, f"{name} = {value}", f"{low} … {high}"))


def require_wide(value: int, where: str, what: str, levers: tuple[str, ...] = (), limit: int = WIDE) -> None:
    """Raise AccelsimError when a magnitude reaches `limit` (2^62: int64 would soon overflow)."""
    if value >= limit:
        text = f"{what} reaches 2^{value.bit_length() - 1}"
        raise AccelsimError(Problem(where, text, f"below 2^{limit.bit_length() - 1}", levers))


def require_rows(x: Tensor, where: str) -> None:
    """Raise AccelsimError when there is no last axis."""
    if x.dim() == 0:
        raise AccelsimError(Problem(where, "a single number", "rows along the last axis"))


def floor_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """⌊numerator / denominator⌋, exact in int64."""
    return torch.div(numerator, denominator, rounding_mode="floor")


def divide_half_even(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotients rounded to nearest, ties to even, for denominators > 0; exact in int64."""
    quotient = floor_divide(numerator, denominator)
    rest = numerator - quotient * denominator
    # rest > denominator − rest instead of 2 · rest > denominator: no overflow.
    above, other = rest, denominator - rest
    return quotient + ((above > other) | ((above == other) & (quotient & 1 == 1))).long()


def shift_half_even(value: Tensor, shift: Tensor | int) -> Tensor:
    """Numbers / 2^shift rounded to nearest, ties to even; 0 ≤ shift ≤ 62; exact in int64."""
    places = torch.as_tensor(shift, dtype=torch.int64, device=value.device)
    return divide_half_even(value, torch.ones_like(places) << places)


def bit_length(value: Tensor) -> Tensor:
    """Bits of numbers ≥ 0: 0 → 0, 1 → 1, 2 → 2, 255 → 8; exact for every int64."""
    bits, rest = torch.zeros_like(value), value
    for step in (32, 16, 8, 4, 2, 1):
        long = rest >> step > 0
        bits, rest = torch.where(long, bits + step, bits), torch.where(long, rest >> step, rest)
    return bits + rest
