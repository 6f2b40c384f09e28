"""Constants of a network's LayerNorms, for the integers (`quant.nonlinear.ops`) and the unit's program alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.calibrated import PtfFactors
from quant.functional import Affine
from quant.integer.requantize import VectorStage, dyadic, vector_stage
from quant.network import Node
from quant.nonlinear.ibert import NORM_BITS, normal_unit

ADDEND_BITS = 46  # magnitude of a moved offset: with a product of 45 bits the sum stays within the priced 48
LEAST_SHIFT = NORM_BITS - 1  # a multiplier's rounding, half of 2^-shift, times 2^30 is at most half a code


@dataclass(frozen=True, eq=False)
class NormConstants:
    """What `i_layernorm_*` gets as gamma and beta [channels], float64, and the requantization of what it gives."""

    gain: Tensor
    offset: Tensor
    stage: VectorStage


def learned(node: Node) -> tuple[Tensor, Tensor]:
    """Gamma and beta of a LayerNorm [channels], float64."""
    assert node.weight is not None
    assert node.bias is not None
    return node.weight.double(), node.bias.double()


def norm_constants(node: Node, output: Affine) -> NormConstants:
    """Constants of I-BERT's or I-ViT's LayerNorm of an op, repaired where the published ones leave 32 bits.

    The published bias is ⌊(β/γ)/S_n⌋, S_n = √C/2^30; it is added to a normalized number of up to 2^30.  A channel with
    |bias| ≥ 2^30 (|β/γ| ≥ √C; γ = 0) gets no bias; β/s + zero point goes into the addend of its requantization, times
    2^shift.  Its shift is the largest that keeps the addend in 46 bits, so γ loses less than 2^-shift · 2^29 codes of
    the output: at most 2^-9 for |β/s + zero point| < 2^7.  Other channels keep the published constants.
    Raises AccelsimError, naming op and channel, where this loss would exceed half a code, and for numbers that are not
    finite.
    """
    where = f"op {node.name}"
    gain, offset = learned(node)
    if not bool((torch.isfinite(gain) & torch.isfinite(offset)).all()):
        raise AccelsimError(Problem(where, "gamma or beta is not finite", "finite numbers"))
    unit = normal_unit(len(gain))
    scale, zero = output.scale.double().reshape(-1), output.zero_point.reshape(-1)
    safe = torch.where(gain == 0, 1.0, gain)
    moved = (gain == 0) | (torch.floor(offset / safe / unit).abs() >= 1 << (NORM_BITS - 1))
    stage = vector_stage(unit * gain / scale, where, None, zero)
    if not bool(moved.any()):
        return NormConstants(gain, offset, stage)
    target = offset / scale + zero.double()
    repaired = _moved_stage(unit * gain / scale, target, moved, where)
    parts = ((getattr(repaired, part), getattr(stage, part)) for part in ("multiplier", "shift", "constant"))
    joined = VectorStage(*(torch.where(moved, new, old) for new, old in parts))
    return NormConstants(torch.where(moved, 1.0, gain), torch.where(moved, 0.0, offset), joined)


def _moved_stage(ratio: Tensor, target: Tensor, moved: Tensor, where: str) -> VectorStage:
    """(normal · multiplier + constant) >> shift ≈ normal · ratio + target; checked where `moved`."""
    _, exponent = torch.frexp(target.abs() + 1)  # |target| + 1 < 2^exponent
    room = ADDEND_BITS - exponent.long()
    bad = moved & (room < LEAST_SHIFT)
    if bool(bad.any()):
        channel = int(bad.nonzero()[0])
        what = f"beta is {float(target[channel]):g} codes of the output in channel {channel}, beside a small gamma"
        limit = 1 << (ADDEND_BITS - LEAST_SHIFT)
        raise AccelsimError(Problem(where, what, f"below {limit:,} codes", ("a coarser output scale",)))
    multiplier, shift = dyadic(ratio, where)
    shift = torch.where(ratio == 0, LEAST_SHIFT, shift)
    kept = torch.minimum(shift, room.clamp(min=1))
    multiplier = torch.where(kept < shift, torch.round(torch.ldexp(ratio, kept)).long(), multiplier)
    constant = torch.round(torch.ldexp(torch.where(moved, target, 0.0), kept)).long() + (
        torch.ones_like(kept) << (kept - 1)
    )
    return VectorStage(multiplier, kept, constant)


def ptf_output(node: Node, output: Affine) -> tuple[Tensor, Tensor, float, int]:
    """Gamma, beta [channels], output scale and zero point of FQ-ViT's LayerNorm, which has one of each.

    Zero points that differ between channels are moved into beta.  Raises AccelsimError when the scales differ.
    """
    gain, offset = learned(node)
    scale, zero = output.scale.double().reshape(-1), output.zero_point.double().reshape(-1)
    if bool((scale != scale[0]).any()):
        raise AccelsimError(Problem(f"op {node.name}", "its output has several scales", "one scale for the tensor"))
    if bool((zero == zero[0]).all()):
        return gain, offset, float(scale[0]), int(zero[0])
    return gain, offset + zero * scale, float(scale[0]), 0


def ptf_entry(node: Node, scale: float, zero_point: int, factors: PtfFactors | None) -> tuple[PtfFactors, VectorStage]:
    """The factors of FQ-ViT's LayerNorm and the requantization of its input's codes to them, without a zero point.

    The input is scale · (code − zero_point).  Raises AccelsimError without factors.
    """
    where = f"op {node.name}"
    if factors is None:
        raise AccelsimError(Problem(where, "has no power-of-two factors", "a checkpoint with factors"))
    steps = torch.tensor(scale, dtype=torch.float64) / (factors.scale * factors.alpha_pow2.double())
    return factors, vector_stage(steps, where, torch.tensor(zero_point))
