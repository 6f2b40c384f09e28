"""The program of the vector unit for a non-linear op: the immediates and channel constants of `quant.nonlinear.ops`.

Running it on the stepped vector unit gives the op's stored codes (tests); building it raises where a constant of the op
leaves the widths that its method is priced for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from accelsim.formats import Format
from accelsim.nonlinear.program import Program, Requantize
from accelsim.nonlinear.programs_gelu import IBertGelu, IVitGelu, ibert_gelu, ivit_gelu
from accelsim.nonlinear.programs_layernorm import Norm, ibert_layernorm, ivit_layernorm
from accelsim.nonlinear.programs_ptf import FqvitNorm, fqvit_layernorm
from accelsim.nonlinear.programs_softmax import (
    FqvitSoftmax,
    IBertSoftmax,
    IExp,
    IVitSoftmax,
    fqvit_softmax,
    ibert_softmax,
    ivit_softmax,
)
from accelsim.nonlinear.shift_exp import ShiftExp
from accelsim.problems import AccelsimError, Problem
from quant.calibrated import PtfFactors
from quant.functional import Affine
from quant.integer.requantize import vector_stage
from quant.network import Node
from quant.nonlinear import fqvit, ibert, ivit
from quant.nonlinear.finest import require_unclamped
from quant.nonlinear.norm_constants import norm_constants, ptf_entry, ptf_output
from quant.nonlinear.ops import SOFTMAX_BITS, Codes


@dataclass(frozen=True, eq=False)
class UnitProgram:
    """A program and the constants of its channels, by operand; "x", the codes of a row, is what is missing.

    Its codes are those of the integer network, except those of a log2 or two-region format: they are the words that are
    stored, and the network has the integers behind them.
    """

    program: Program
    constants: dict[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class _Op:
    """What an op's program is made of: see `unit_program`."""

    node: Node
    source: Codes
    output: Affine
    factors: PtfFactors | None
    regions: Format | None

    @property
    def where(self) -> str:
        return f"op {self.node.name}"

    @property
    def width(self) -> int:
        """Elements of a row."""
        assert self.node.op.recipe is not None
        return self.node.op.recipe.width

    def store(self, scale: float) -> Requantize:
        """Requantization of integers of this scale to the stored codes."""
        ratio = torch.as_tensor(scale, dtype=torch.float64) / self.output.scale.double()
        stage = vector_stage(ratio, self.where, None, self.output.zero_point)
        numbers = (int(stage.multiplier), int(stage.constant), int(stage.shift))
        return Requantize(*numbers, self.output.low, self.output.high, self.regions)

    def centred(self) -> None:
        """Raise AccelsimError unless code 0 of the input is the number 0: the program of a GELU multiplies codes."""
        if self.source.zero_point:
            what = f"its input has the zero point {self.source.zero_point}"
            raise AccelsimError(Problem(self.where, what, "0", ("zero_point: false of its producer",)))


def _exponential(of: ibert.IExp) -> IExp:
    return IExp(of.n, of.x0, of.b, of.c)


def _shifted(of: ivit.ShiftExp) -> ShiftExp:
    return ShiftExp(of.n, of.x0)


def _softmax_ibert(op: _Op) -> UnitProgram:
    of = ibert.ISoftmax.of(op.source.scale, out_bits=SOFTMAX_BITS)
    made = IBertSoftmax(_exponential(of.exp), of.to16.mantissa, of.to16.shift, op.store(2.0**-SOFTMAX_BITS))
    return UnitProgram(ibert_softmax(made), {})


def _softmax_ivit(op: _Op) -> UnitProgram:
    of = ivit.Shiftmax.of(op.source.scale, out_bits=SOFTMAX_BITS)
    require_unclamped(of, op.source.scale, op.width, op.where)
    return UnitProgram(ivit_softmax(IVitSoftmax(_shifted(of.exp), op.store(2.0 ** (1 - SOFTMAX_BITS)))), {})


def _softmax_fqvit(op: _Op) -> UnitProgram:
    """The code is −log2 of the share; `quant.nonlinear.ops` gives 2^−code on as an integer."""
    last = op.output.high.bit_length()
    return UnitProgram(fqvit_softmax(FqvitSoftmax(_exponential(ibert.IExp.of(op.source.scale)), last)), {})


def _gelu_ibert(op: _Op) -> UnitProgram:
    op.centred()
    of = ibert.IGelu.of(op.source.scale, ibert.coarse_n(op.source.scale))
    return UnitProgram(ibert_gelu(IBertGelu(of.n, of.b, of.c, of.one, op.store(of.out_scale))), {})


def _gelu_ivit(op: _Op) -> UnitProgram:
    op.centred()
    of = ivit.ShiftGelu.of(op.source.scale)
    require_unclamped(of, op.source.scale, op.width, op.where)
    return UnitProgram(ivit_gelu(IVitGelu(_shifted(of.exp), op.store(of.out_scale))), {})


def _normalized(op: _Op, make: Callable[[Norm], Program]) -> UnitProgram:
    made = norm_constants(op.node, op.output)
    channels, stage = len(made.gain), made.stage
    of = ibert.IntegerNorm.of(made.gain, made.offset, channels, op.where)
    numbers = {"multiplier": stage.multiplier, "addend": stage.constant, "shift": stage.shift}
    constants = {"bias": np.array(of.bias, np.int64), **{name: row.numpy() for name, row in numbers.items()}}
    return UnitProgram(make(Norm(channels, op.output.low, op.output.high)), constants)


def _layernorm_fqvit(op: _Op) -> UnitProgram:
    factors, entry = ptf_entry(op.node, op.source.scale, op.source.zero_point, op.factors)
    gain, offset, scale, zero = ptf_output(op.node, op.output)
    of = fqvit.PtfNorm.of(gain, offset, scale, len(gain))
    alpha = [int(power).bit_length() - 1 for power in factors.alpha_pow2.tolist()]
    rows = {"alpha": alpha, "gain": of.gain, "places": of.places, "offset": of.offset}
    constants = {"entry_addend": entry.constant.numpy(), "entry_shift": entry.shift.numpy()}
    # Factors are powers of two: their channels differ in the shift only.
    multiplier = int(entry.multiplier.max())
    made = FqvitNorm(len(gain), multiplier, factors.bits, factors.zero_point, zero, op.output.low, op.output.high)
    return UnitProgram(fqvit_layernorm(made), {**constants, **{k: np.array(row, np.int64) for k, row in rows.items()}})


_MAKERS: dict[tuple[str, str], Callable[[_Op], UnitProgram]] = {
    ("softmax", "ibert"): _softmax_ibert,
    ("softmax", "ivit"): _softmax_ivit,
    ("softmax", "fqvit"): _softmax_fqvit,
    ("gelu", "ibert"): _gelu_ibert,
    ("gelu", "ivit"): _gelu_ivit,
    ("layernorm", "ibert"): lambda op: _normalized(op, ibert_layernorm),
    ("layernorm", "ivit"): lambda op: _normalized(op, ivit_layernorm),
    ("layernorm", "fqvit"): _layernorm_fqvit,
}


def unit_program(
    function: str,
    name: str,
    node: Node,
    source: Codes,
    output: Affine,
    factors: PtfFactors | None = None,
    regions: Format | None = None,
) -> UnitProgram:
    """The program that the vector unit runs for an op, arguments as of `quant.nonlinear.ops.integer_function`.

    `regions` is the two-region format in which the result is stored, `output` then holds its fine steps.

    Raises AccelsimError, naming the op, when a constant does not fit the widths of the method (a scale that is too
    fine or too coarse), and for a method without a program of its own (a table is data of the unit).
    """
    if (function, name) not in _MAKERS:
        names = ", ".join(one for of, one in _MAKERS if of == function)
        raise AccelsimError(Problem(f"op {node.name}", f"no program for {name!r} of {function}", f"one of {names}"))
    try:
        return _MAKERS[function, name](_Op(node, source, output, factors, regions))
    except AccelsimError as error:
        own = f"op {node.name}"
        raise AccelsimError(
            [
                Problem(own if p.where.startswith(own) else f"{own}: {p.where}", p.what, p.expected, p.levers)
                for p in error.problems
            ]
        ) from None
