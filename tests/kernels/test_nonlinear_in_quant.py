"""Programs of the vector unit against `quant.nonlinear`, from real scales to stored codes; cycles and slots too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.arch import VectorUnit
from accelsim.engines.vector_unit import recipe_cost
from accelsim.ir import Recipe
from accelsim.nonlinear.methods import method_of
from accelsim.nonlinear.program import Program, Requantize, run_program
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
from quant.integer.requantize import vector_stage
from quant.nonlinear import fqvit as fqvit_of
from quant.nonlinear import (
    i_gelu,
    i_gelu_coarse,
    i_layernorm_ibert_wide,
    i_layernorm_ivit,
    i_softmax,
    log_int_softmax,
    log_int_softmax_stored,
    ptf_layernorm_integer,
    shift_gelu,
    shiftmax,
)
from quant.nonlinear import ibert as ibert_of
from quant.nonlinear import ivit as ivit_of

UNIT = VectorUnit(40, 48, 33, 32, 16, 8, port_bits_per_cycle=256, leading_one_per_cycle=8)
OUT_SCALES = st.floats(0.004, 0.06)
EXAMPLES = settings(max_examples=40, deadline=None)


@st.composite
def rows(draw: st.DrawFn, bits: int) -> np.ndarray:
    """Rows of codes: whole range or a part of it, moved below zero or all equal now and then."""
    shape = draw(st.integers(1, 3)), draw(st.integers(2, 40))
    rng, half = np.random.default_rng(draw(st.integers(0, 2**31))), 1 << (bits - 1)
    x = rng.integers(-half, half, shape) >> draw(st.integers(0, bits - 2))
    kind = draw(st.sampled_from(["plain", "plain", "negative", "equal"]))
    if kind == "equal":
        x[:, :] = x[:, :1]
    return np.asarray(np.maximum(x - x.max() - 1, -half) if kind == "negative" else x)


def scales(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(math.log(low), math.log(high)).map(math.exp)


def store_of(scale: float, out_scale: float) -> Requantize:
    """The immediates of the requantization that `quant.integer` derives."""
    stage = vector_stage(torch.tensor(scale / out_scale, dtype=torch.float64), "test", None, torch.tensor(-3))
    return Requantize(int(stage.multiplier), int(stage.constant), int(stage.shift))


def check(function: str, name: str, program: Program, operands: dict[str, Any], values: Any, codes: Any) -> None:
    """Values, stored codes, and cycles and slots of the method's recipe."""
    method = method_of(function, name)
    shape = operands["x"].shape
    bits = [operands["x"].size * method.input_bits] * len(method.passes)
    cost, results = run_program(UNIT, program, operands, bits)
    assert (results["value"] == np.asarray(values)).all()
    assert (results["code"] == np.asarray(codes)).all()
    assert cost == recipe_cost(UNIT, Recipe(name, method.passes, 1, shape[0], 1, shape[1]), bits)


def stored(values: Any, scale: Any, out_scale: float) -> Any:
    """Stored codes by `quant.integer`, with zero point −3."""
    ratio = torch.as_tensor(scale, dtype=torch.float64) / out_scale
    stage = vector_stage(ratio, "test", None, torch.tensor(-3))
    return stage(torch.as_tensor(values)).clamp(-128, 127).numpy()


def exp_of(found: ibert_of.IExp) -> IExp:
    return IExp(found.n, found.x0, found.b, found.c)


def shift_of(found: ivit_of.ShiftExp) -> ShiftExp:
    return ShiftExp(found.n, found.x0)


@given(rows(8), scales(0.002, 1.2), OUT_SCALES)
@EXAMPLES
def test_i_softmax(x: np.ndarray, scale: float, out_scale: float) -> None:
    of = ibert_of.ISoftmax.of(scale)
    values, unit = i_softmax(x, scale)
    store = store_of(unit, out_scale)
    program = ibert_softmax(IBertSoftmax(exp_of(of.exp), of.to16.mantissa, of.to16.shift, store))
    check("softmax", "ibert", program, {"x": x}, values, stored(values, unit, out_scale))


@given(rows(8), scales(1e-4, 1.2), OUT_SCALES)
@EXAMPLES
def test_shiftmax(x: np.ndarray, scale: float, out_scale: float) -> None:
    values, unit = shiftmax(x, scale)
    program = ivit_softmax(IVitSoftmax(shift_of(ivit_of.Shiftmax.of(scale).exp), store_of(unit, out_scale)))
    check("softmax", "ivit", program, {"x": x}, values, stored(values, unit, out_scale))


@given(rows(8), scales(0.0035, 1.2), st.integers(2, 4))
@EXAMPLES
def test_log_int_softmax(x: np.ndarray, scale: float, bits: int) -> None:
    exp = exp_of(ibert_of.IExp.of(scale))
    for last, function in (((1 << bits) - 1, log_int_softmax_stored), (1 << bits, log_int_softmax)):
        codes, _ = function(x, scale, bits=bits)
        check("softmax", "fqvit", fqvit_softmax(FqvitSoftmax(exp, last)), {"x": x}, codes, codes)


@given(rows(16), scales(7.7e-5, 3e-3), OUT_SCALES)
@EXAMPLES
def test_i_gelu(x: np.ndarray, scale: float, out_scale: float) -> None:
    for function, n in ((i_gelu, 14), (i_gelu_coarse, ibert_of.coarse_n(scale))):
        of = ibert_of.IGelu.of(scale, n)
        values, unit = function(x, scale)
        program = ibert_gelu(IBertGelu(of.n, of.b, of.c, of.one, store_of(unit, out_scale)))
        check("gelu", "ibert", program, {"x": x}, values, stored(values, unit, out_scale))


@given(rows(8), scales(0.01, 0.6), st.integers(8, 23), OUT_SCALES)
@EXAMPLES
def test_shift_gelu(x: np.ndarray, scale: float, n: int, out_scale: float) -> None:
    values, unit = shift_gelu(x, scale, n)
    exp = shift_of(ivit_of.ShiftGelu.of(scale, n).exp)
    program = ivit_gelu(IVitGelu(exp, store_of(unit, out_scale)))
    check("gelu", "ivit", program, {"x": x}, values, stored(values, unit, out_scale))


def learned(x: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 2.0, x.shape[1]) * rng.choice([-1, 1], x.shape[1]), rng.normal(0, 0.1, x.shape[1])


@pytest.mark.parametrize(
    ("name", "function", "make"),
    [("ibert", i_layernorm_ibert_wide, ibert_layernorm), ("ivit", i_layernorm_ivit, ivit_layernorm)],
)
@given(rows(16), OUT_SCALES, st.integers(0, 2**31))
@EXAMPLES
def test_layernorms(name: str, function: Any, make: Any, x: np.ndarray, out_scale: float, seed: int) -> None:
    gamma, beta = learned(x, seed)
    values, unit = function(x, 0.01, gamma, beta)
    stage = vector_stage(torch.as_tensor(unit) / out_scale, "test", None, torch.tensor(-3))
    operands = {
        "x": x, "bias": np.array(ibert_of.IntegerNorm.of(gamma, beta, x.shape[1]).bias),
        "multiplier": stage.multiplier.numpy(), "addend": stage.constant.numpy(), "shift": stage.shift.numpy(),
    }  # fmt: skip
    check("layernorm", name, make(Norm(x.shape[1])), operands, values, stored(values, unit, out_scale))


@given(rows(16), scales(1e-4, 1e-3), OUT_SCALES, st.integers(0, 255), st.integers(0, 2**31))
@EXAMPLES
def test_fqvit_layernorm(x: np.ndarray, scale: float, out_scale: float, zero: int, seed: int) -> None:
    """With the requantization of the input to codes with factors, as `quant.integer` derives it."""
    gamma, beta = learned(x, seed)
    alpha = np.random.default_rng(seed).integers(0, 4, x.shape[1])
    base = scale * 65535 / 255 / 8
    ratio = torch.tensor(scale / (base * 2.0**alpha), dtype=torch.float64)
    entry = vector_stage(ratio, "test", None, torch.tensor(zero))
    codes = (entry(torch.as_tensor(x)).clamp(0, 255) - zero).numpy()
    values, _ = ptf_layernorm_integer(codes, base, 2**alpha, gamma, beta, out_scale)
    of = fqvit_of.PtfNorm.of(gamma, beta, out_scale, x.shape[1])
    multiplier, shift = entry.multiplier.numpy(), entry.shift.numpy()
    assert len(set(multiplier.tolist())) == 1  # factors are powers of two
    operands = {
        "x": x, "entry_addend": entry.constant.numpy() - np.left_shift(zero, shift), "entry_shift": shift,
        "alpha": alpha, "gain": np.array(of.gain), "places": np.array(of.places), "offset": np.array(of.offset),
    }  # fmt: skip
    norm = FqvitNorm(x.shape[1], int(multiplier[0]), 8, zero, -3)
    expected = np.clip(np.asarray(values) - 3, -128, 127)
    check("layernorm", "fqvit", fqvit_layernorm(norm), operands, values, expected)
