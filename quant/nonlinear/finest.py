"""The finest input scale that the program of a method takes: below it a constant leaves its width."""

from __future__ import annotations

from accelsim.problems import AccelsimError, Problem
from quant.nonlinear.ivit import GELU_SLOPE, WORD, ShiftGelu, Shiftmax, shift_exp_limits

# i-exp and i-GELU: b in 15 bits and a sign; Log-Int-Softmax: exp(0) below 2^48.
FINEST_INPUTS = {("gelu", "ibert"): 7.7e-5, ("softmax", "ibert"): 8.3e-5, ("softmax", "fqvit"): 3.3e-3}
MARGIN = 1.001  # float32 scales stay inside
EXP_BITS = {"softmax": 15, "gelu": 23}  # n of Shiftmax and ShiftGELU


def finest_input(function: str, name: str, width: int) -> float:
    """Least scale of the input of a method for rows of `width` elements; 0 where any scale does.

    Shiftmax and ShiftGELU: the sum of exponentials of a row of equal numbers, terms · ⌈1/S⌉ · 2^n, stays below 2^31
    (`shift_exp_limits`; terms: the row for Shiftmax, 2 for ShiftGELU).
    """
    if name != "ivit" or function not in EXP_BITS:
        return FINEST_INPUTS.get((function, name), 0.0)
    terms, slope = (width, 1.0) if function == "softmax" else (2, GELU_SLOPE)
    return MARGIN / slope / max((WORD // terms) >> EXP_BITS[function], 1)


def require_unclamped(of: Shiftmax | ShiftGelu, scale: float, width: int, where: str) -> None:
    """Raise AccelsimError where a row's sum of exponentials may pass 2^31 − 1, at which it is clamped.

    `width` is the length of a row; what lies beyond the clamp is no share.
    """
    softmax = isinstance(of, Shiftmax)
    slope, terms = (1.0, width) if softmax else (GELU_SLOPE, 2)
    if of.exp.n > shift_exp_limits(slope * scale, 0.0, terms)[1]:
        what = f"input scale {scale:g}: the sum of exponentials passes 2^31 at n = {of.exp.n}"
        least = finest_input("softmax" if softmax else "gelu", "ivit", width)
        levers = ("fewer bits or a wider range of the input", "another method")
        raise AccelsimError(Problem(where, what, f"a scale of at least {least:.3g}", levers))
