"""What the non-linear functions refuse, and rows that the published code divides by zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from accelsim.problems import AccelsimError
from quant.nonlinear import (
    Dyadic,
    IntegerNorm,
    PtfNorm,
    dyadic_requantize,
    hardswish_table,
    i_exp,
    i_gelu,
    i_gelu_coarse,
    i_layernorm_ibert,
    i_layernorm_ivit,
    i_layernorm_ivit_converged,
    i_softmax,
    i_sqrt,
    log2_quotient,
    log_int_softmax,
    log_int_softmax_stored,
    ptf_factors,
    ptf_layernorm,
    ptf_layernorm_integer,
    shift_exp,
    shift_exp_limits,
    shift_gelu,
    shiftmax,
)

ROW = [1, 2, 3]
ONES, ZEROS = [1.0] * 3, [0.0] * 3
WIDE = 1 << 31


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: i_gelu([0.5], 0.1), "integers"),
        (lambda: i_gelu(torch.tensor([True]), 0.1), "integers"),
        (lambda: i_gelu(torch.tensor([1.0]), 0.1), "integers"),
        (lambda: i_gelu(np.zeros(0, np.int64), 0.1), "at least one element"),
        (lambda: i_gelu([WIDE], 0.1), "32 bits"),
        (lambda: i_gelu([-WIDE - 1], 0.1), "32 bits"),
        (lambda: i_gelu(ROW, 0.0), "above 0"),
        (lambda: i_gelu(ROW, float("nan")), "above 0"),
        (lambda: i_gelu(ROW, torch.tensor([0.1, 0.2])), "scale is not one number"),
        (lambda: i_gelu(ROW, 0.1, 31), "n = 31"),
        (lambda: i_gelu(ROW, 0.1, 2.5), "n = 2.5"),
        (lambda: i_gelu(ROW, 1e-10), "b needs more"),
        (lambda: i_gelu([WIDE - 1], 1e-7), "the result reaches"),
        (lambda: i_gelu_coarse(ROW, -1.0), "above 0"),
        (lambda: i_exp([1], 0.1), "subtract the row maximum"),
        (lambda: i_exp([-1], 2e-5), "a smaller n"),
        (lambda: i_exp([-1], 1.7), "exp(0) is 0"),
        (lambda: i_softmax(ROW, 0.1, 30, 40), "out_bits = 40"),
        (lambda: i_softmax(ROW, 0.1, 2), "a larger n"),
        (lambda: i_softmax(np.array(3), 0.1), "last axis"),
        (lambda: i_softmax(np.zeros((1, (1 << 17) + 1), np.int64), 0.1), "row length"),
        (lambda: i_sqrt([-1]), "v ≥ 0"),
        (lambda: shift_exp([1], 0.1, 15), "subtract the row maximum"),
        (lambda: shift_exp([-1], 1e-9, 15), "1/scale"),
        (lambda: shift_exp([-1], 1e-6, 45), "a smaller n"),
        (lambda: shift_exp_limits(0.1, 8, 0), "terms"),
        (lambda: shiftmax(ROW, 0.1, out_bits=1), "out_bits = 1"),
        (lambda: shiftmax(np.zeros((1, 64), np.int64), 1e-6, 39), "the row sum"),
        (lambda: shift_gelu(ROW, 0.1, out_bits=32), "out_bits = 32"),
        (lambda: shift_gelu([WIDE - 1], 1e-6, 39, 31), "the result"),
        (lambda: log_int_softmax(np.zeros((1, 64), np.int64), 3e-5), "the row sum"),
        (lambda: log_int_softmax(ROW, 0.1, bits=7), "bits = 7"),
        (lambda: log_int_softmax_stored(ROW, 0.1, bits=0), "bits = 0"),
        (lambda: i_layernorm_ibert(ROW, 0.1, [1.0, 0.0, 1.0], ZEROS), "gamma is 0 in channel 1"),
        (lambda: i_layernorm_ibert(ROW, 0.1, [1e-20] * 3, [1e9] * 3), "a larger |γ|"),
        (lambda: i_layernorm_ibert(ROW, 0.1, ONES, [1.0]), "one number per channel"),
        (lambda: i_layernorm_ibert(ROW, 0.1, ONES, [1.0, np.inf, 1.0]), "finite"),
        (lambda: i_layernorm_ibert([1 << 20, 0, 0], 0.1, ONES, ZEROS, shift=2), "shift=4"),
        (lambda: i_layernorm_ibert(ROW, 0.1, ONES, ZEROS, shift=40), "shift = 40"),
        (lambda: i_layernorm_ivit([WIDE - 1, -WIDE, 0], 0.1, ONES, ZEROS), "the sum of squares"),
        (lambda: i_layernorm_ivit(ROW, 0.0, ONES, ZEROS), "above 0"),
        (lambda: i_layernorm_ivit_converged(ROW, -0.1, ONES, ZEROS), "above 0"),
        (lambda: ptf_layernorm(ROW, 0.1, [1, 2, 3], ONES, ZEROS, 0.1), "powers of two"),
        (lambda: ptf_layernorm(ROW, 0.1, [1, 2], ONES, ZEROS, 0.1), "powers of two"),
        (lambda: ptf_layernorm([1 << 26, 0, 0], 0.1, [1, 2, 4], ONES, ZEROS, 0.1), "below 2^53"),
        (lambda: ptf_layernorm([1, 2, 30], 0.1, [1, 2, 4], ONES, [1e9] * 3, 1e-9), "β/s_out"),
        (lambda: ptf_layernorm(ROW, 0.1, [1, 2, 4], ONES, ZEROS, 0.0), "out_scale"),
        (lambda: ptf_layernorm_integer(ROW, 0.1, [1, 2, 4], ONES, [1e9] * 3, 1e-9), "too large"),
        (lambda: ptf_factors(np.array([[np.nan]])), "finite samples"),
        (lambda: hardswish_table(0.1, 200, 0.1, 0), "zero_in = 200"),
        (lambda: hardswish_table(0.1, 0, 0.0, 0), "scale_out"),
        (lambda: log2_quotient(ROW, [1, -1, 1]), "≥ 0"),
        (lambda: log2_quotient([1 << 30], [1], 0, 5), "a quotient"),
        (lambda: log2_quotient(ROW, [1, 2]), "shapes that broadcast"),
        (lambda: dyadic_requantize(ROW, 0.1, 8, clamp="none"), "repaired, published"),
        (lambda: dyadic_requantize(ROW, 0.1, 1), "bits = 1"),
        (lambda: dyadic_requantize(ROW, 2.0**31, 8), "2^-31"),
        (lambda: dyadic_requantize(ROW, 2.0**-40, 8), "2^-31"),
        (lambda: Dyadic.of(0.0), "above 0"),
    ],
)  # fmt: skip
def test_refused_with_what_was_expected(call, message):
    with pytest.raises(AccelsimError) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize("function", [i_layernorm_ibert, i_layernorm_ivit, i_layernorm_ivit_converged])
def test_rows_of_equal_numbers_give_the_bias(function):
    beta = [0.5, -1.0, 0.25]
    integers, scale = function([[7, 7, 7]], 0.1, [1.0, 2.0, -1.0], beta)
    np.testing.assert_allclose(integers[0] * scale, beta, atol=1e-8)


@pytest.mark.parametrize("function", [ptf_layernorm, ptf_layernorm_integer])
def test_factored_rows_of_equal_numbers_give_beta(function):
    assert function([[5, 5, 5]], 0.1, [1, 1, 1], ONES, [0.5, -1.0, 0.24], 0.1)[0].tolist() == [[5, -10, 2]]


def test_a_gain_of_zero_gives_beta():
    arguments = ([[5, -5, 7]], 0.1, [1, 2, 1], [0.0, 1.0, 1.0], [0.5, 0.0, 0.0], 0.1)
    assert ptf_layernorm(*arguments)[0][0, 0] == ptf_layernorm_integer(*arguments)[0][0, 0] == 5


def test_constants_fit_their_widths():
    of = PtfNorm.of([0.3, -2.0, 0.0], [0.1, 0.2, -0.3], 0.02, 3)
    assert max(map(abs, of.gain)) <= 1 << 15
    assert min(abs(gain) for gain in of.gain if gain) >= 1 << 14
    assert of.offset == (327680, 655360, -983040)
    norm = IntegerNorm.of([2.0, -1.0], [1.0, 1.0], 2)
    assert norm.bias == tuple(int(np.floor(b / (np.sqrt(2) / 2**30))) for b in (0.5, -1.0))
    assert 1 << 30 <= Dyadic.of(1 - 2**-40).mantissa < 1 << 31
