"""A non-linear op of a network in integers: a method of `quant.nonlinear` from codes that it reads to stored codes.

Every function ends in one requantization of the vector unit, (y·M + C) >> s, and a clamp, except Log-Int-Softmax,
whose codes are stored as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.calibrated import PtfFactors
from quant.functional import Affine
from quant.integer.requantize import VectorStage, vector_stage
from quant.network import Node
from quant.nonlinear.fqvit import log_int_softmax_stored, ptf_layernorm_integer
from quant.nonlinear.ibert import i_gelu_coarse, i_layernorm_ibert_wide, i_softmax
from quant.nonlinear.ivit import i_layernorm_ivit, shift_gelu, shiftmax
from quant.nonlinear.norm_constants import norm_constants, ptf_entry, ptf_output

Function = Callable[[Tensor], Tensor]
SOFTMAX_BITS = 16  # of a softmax output before it is requantized


@dataclass(frozen=True, eq=False)
class Codes:
    """What an op reads: value = scale · (code − zero_point), codes low … high, one scale and zero point for all."""

    scale: float
    zero_point: int
    low: int
    high: int

    def every(self) -> Tensor:
        """All codes, rising."""
        return torch.arange(self.low, self.high + 1)


Maker = Callable[[Node, Codes, Affine, PtfFactors | None], Function]
MAKERS: dict[tuple[str, str], Maker] = {}


def makes(function: str, name: str) -> Callable[[Maker], Maker]:
    """Decorator: makes the integer function of a method."""

    def add(one: Maker) -> Maker:
        MAKERS[function, name] = one
        return one

    return add


def integer_function(
    function: str, name: str, node: Node, source: Codes, output: Affine, factors: PtfFactors | None = None
) -> Function:
    """Codes → stored codes (int64) of a method for an op.

    `factors` are those of FQ-ViT's LayerNorm.  Raises AccelsimError for a method without an integer form and where
    the constants of the op leave their widths.
    """
    if (function, name) not in MAKERS:
        names = ", ".join(one for of, one in MAKERS if of == function)
        what = f"the method {name!r} of {function} has no integer form"
        raise AccelsimError(Problem(f"op {node.name}", what, f"one of {names}"))
    return MAKERS[function, name](node, source, output, factors)


def _finish(y: Tensor, stage: VectorStage, output: Affine) -> Tensor:
    return stage(y).clamp(output.low, output.high)


def _stage(node: Node, scale: Tensor | float, output: Affine) -> VectorStage:
    ratio = torch.as_tensor(scale, dtype=torch.float64) / output.scale
    return vector_stage(ratio, f"op {node.name}", None, output.zero_point)


@makes("softmax", "ibert")
def _softmax_ibert(node: Node, source: Codes, output: Affine, factors: PtfFactors | None) -> Function:
    return _shares(i_softmax, 2.0**-SOFTMAX_BITS, node, source, output)


@makes("softmax", "ivit")
def _softmax_ivit(node: Node, source: Codes, output: Affine, factors: PtfFactors | None) -> Function:
    return _shares(shiftmax, 2.0 ** (1 - SOFTMAX_BITS), node, source, output)


def _shares(
    softmax: Callable[..., tuple[Tensor, float]], scale: float, node: Node, source: Codes, output: Affine
) -> Function:
    """A softmax whose 16-bit results have this scale, requantized."""
    stage = _stage(node, scale, output)

    def apply(codes: Tensor) -> Tensor:
        return _finish(softmax(codes, source.scale, out_bits=SOFTMAX_BITS)[0], stage, output)

    return apply


@makes("softmax", "fqvit")
def _softmax_fqvit(node: Node, source: Codes, output: Affine, factors: PtfFactors | None) -> Function:
    """Log2 codes, given on as the integers that they stand for: 2^(last − 1 − q) in steps of 2^−(last − 1)."""
    last = output.high.bit_length()
    bits = last.bit_length()

    def apply(codes: Tensor) -> Tensor:
        stored = log_int_softmax_stored(codes, source.scale, bits=bits)[0]
        return torch.where(stored == last, 0, torch.ones_like(stored) << (last - 1 - stored).clamp(min=0))

    return apply


def log2_values(bits: int) -> Affine:
    """Attention shares stored as log2 codes of `bits` bits, as the integers they are: 0 and 2^0 … 2^(2^bits − 2)."""
    places = (1 << bits) - 2
    return Affine(torch.tensor(2.0**-places), torch.tensor(0.0), 0, 1 << places)


@makes("gelu", "ibert")
def _gelu_ibert(node: Node, source: Codes, output: Affine, factors: PtfFactors | None) -> Function:
    """Every code's result, looked up: the same integers, computed once."""
    results, scale = i_gelu_coarse(source.every() - source.zero_point, source.scale)
    stored = _finish(results, _stage(node, scale, output), output).reshape(-1)

    def apply(codes: Tensor) -> Tensor:
        return stored[codes - source.low]

    return apply


@makes("gelu", "ivit")
def _gelu_ivit(node: Node, source: Codes, output: Affine, factors: PtfFactors | None) -> Function:
    """Every result for a code and the maximum of its row (the channels of a position), looked up, computed once.

    The channels lie along `settings["axis"]`, which `quant.separate` writes.  Without it they are the last axis, and
    feature maps [n, c, h, w] are refused: their last axis is the image's width.
    """
    axis = node.settings.get("axis")
    codes = source.every()
    rows = torch.minimum(codes, codes[:, None])  # row k has the maximum codes[k]
    results, scale = shift_gelu(rows - source.zero_point, source.scale)
    stored, count = _finish(results, _stage(node, scale, output), output).reshape(-1), len(codes)

    def apply(codes: Tensor) -> Tensor:
        if axis is None and codes.dim() > 3:
            what = f"rows of an input of {codes.dim()} axes are not known"
            levers = ("quant.separate.separate writes the axis", "another method")
            raise AccelsimError(Problem(f"op {node.name}", what, "a node with the setting axis", levers))
        top = codes.amax(-1 if axis is None else int(axis), keepdim=True)
        return stored[(top - source.low) * count + codes - source.low]

    return apply


@makes("layernorm", "ibert")
def _layernorm_ibert(node: Node, source: Codes, output: Affine, factors: PtfFactors | None) -> Function:
    return _normalized(i_layernorm_ibert_wide, node, source, output)


@makes("layernorm", "ivit")
def _layernorm_ivit(node: Node, source: Codes, output: Affine, factors: PtfFactors | None) -> Function:
    return _normalized(i_layernorm_ivit, node, source, output)


def _normalized(normalize: Callable[..., tuple[Tensor, Tensor]], node: Node, source: Codes, output: Affine) -> Function:
    of = norm_constants(node, output)

    def apply(codes: Tensor) -> Tensor:
        return _finish(normalize(codes, source.scale, of.gain, of.offset)[0], of.stage, output)

    return apply


@makes("layernorm", "fqvit")
def _layernorm_fqvit(node: Node, source: Codes, output: Affine, factors: PtfFactors | None) -> Function:
    """The input is requantized to `factors` (a shift per channel) first."""
    ptf, entry = ptf_entry(node, source.scale, source.zero_point, factors)
    gain, offset, scale, zero = ptf_output(node, output)

    def apply(codes: Tensor) -> Tensor:
        inner = entry(codes).clamp(-ptf.zero_point, (1 << ptf.bits) - 1 - ptf.zero_point)
        y = ptf_layernorm_integer(inner, ptf.scale, ptf.alpha_pow2, gain, offset, scale)[0]
        return (y + zero).clamp(output.low, output.high)

    return apply
