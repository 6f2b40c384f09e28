"""The array code of every non-linear method equals plain Python integers, in torch as in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant.functional import log2_code
from quant.nonlinear import (
    coarse_n,
    dyadic_requantize,
    hardswish_table,
    i_exp,
    i_gelu,
    i_gelu_coarse,
    i_layernorm_ibert,
    i_layernorm_ibert_wide,
    i_layernorm_ivit,
    i_layernorm_ivit_converged,
    i_softmax,
    i_sqrt,
    log2_quotient,
    log_int_softmax,
    log_int_softmax_stored,
    ptf_layernorm,
    ptf_layernorm_integer,
    shift_exp,
    shift_gelu,
    shiftmax,
)
from tests.support import integer_twins as twins


@st.composite
def rows(draw, largest=1 << 20):
    """Rows [images, tokens, elements] of integers up to a drawn magnitude."""
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 9)))
    magnitude = draw(st.sampled_from([1, 7, 127, 2000, 32767, largest]))
    count = math.prod(shape)
    values = draw(st.lists(st.integers(-magnitude - 1, magnitude), min_size=count, max_size=count))
    return np.array(values).reshape(shape)


def scales(low, high):
    return st.floats(math.log(low), math.log(high)).map(math.exp)


def by_row(function, x, *arguments):
    flat = x.reshape(-1, x.shape[-1])
    return np.array([function(row, *arguments) for row in flat.tolist()]).reshape(x.shape)


def channels(draw, count):
    numbers = st.floats(0.05, 3) | st.floats(-3, -0.05)
    gamma = draw(st.lists(numbers, min_size=count, max_size=count))
    return gamma, draw(st.lists(st.floats(-3, 3), min_size=count, max_size=count))


@given(rows(), scales(1e-5, 0.5), st.integers(0, 20))
def test_i_gelu(x, scale, n):
    assert (i_gelu(x, scale, n)[0] == by_row(twins.igelu, x, scale, n)).all()
    assert (i_gelu_coarse(x, scale)[0] == by_row(twins.igelu, x, scale, coarse_n(scale))).all()


@given(rows(), scales(1e-3, 1.5), st.integers(2, 30))
def test_i_exp(x, scale, n):
    x = -np.abs(x)
    assert (i_exp(x, scale, n)[0] == by_row(twins.iexp, x, scale, n)).all()


@given(rows(), scales(3e-4, 1.5), st.integers(17, 30), st.integers(2, 16))
def test_i_softmax(x, scale, n, out_bits):
    integers, unit = i_softmax(x, scale, n, out_bits)
    assert (integers == by_row(twins.isoftmax, x, scale, n, out_bits)).all()
    assert integers.min() >= 0
    assert integers.max() < 2**out_bits
    assert unit == 2.0**-out_bits


@given(rows(), scales(1e-4, 1.5), st.integers(2, 30))
def test_log_int_softmax(x, scale, n):
    codes = by_row(twins.log_int_softmax, x, scale, n)
    assert (log_int_softmax(x, scale, n, None)[0] == codes).all()
    assert (log_int_softmax(x, scale, n)[0] == np.minimum(codes, 16)).all()
    assert (log_int_softmax_stored(x, scale, n)[0] == np.minimum(codes, 15)).all()


@given(rows(), scales(1e-6, 2), st.integers(0, 30))
def test_shift_exp(x, scale, n):
    x = -np.abs(x)
    assert (shift_exp(x, scale, n)[0] == by_row(twins.shift_exp, x, scale, n)).all()


@given(rows(), scales(1e-6, 2), st.integers(0, 30), st.integers(2, 16))
def test_shiftmax(x, scale, n, out_bits):
    assert (shiftmax(x, scale, n, out_bits)[0] == by_row(twins.shiftmax, x, scale, n, out_bits)).all()


@given(rows(2000), scales(1e-4, 1), st.integers(0, 30), st.integers(2, 16))
def test_shift_gelu(x, scale, n, out_bits):
    assert (shift_gelu(x, scale, n, out_bits)[0] == by_row(twins.shift_gelu, x, scale, n, out_bits)).all()


def test_shift_gelu_of_rows_far_below_zero_saturates_as_unbounded_integers_do():
    x = np.array([[-60000, -59990, -60100], [-2000, -1990, -2100]])
    assert (shift_gelu(x, 0.01)[0] == by_row(twins.shift_gelu, x, 0.01, 23, 8)).all()


@given(rows(1 << 22), st.data())
def test_layernorms(x, data):
    gamma, beta = channels(data.draw, x.shape[-1])
    bias_scale = np.sqrt(x.shape[-1]) / 2**30 * np.array(gamma)
    for converged, function in ((False, i_layernorm_ivit), (True, i_layernorm_ivit_converged)):
        integers, scale = function(x, 0.01, gamma, beta)
        assert (integers == by_row(twins.layernorm_ivit, x, gamma, beta, converged)).all()
        np.testing.assert_allclose(scale, bias_scale, rtol=1e-15)
    wide = i_layernorm_ibert_wide(x, 1, gamma, beta)[0]
    assert (wide == by_row(twins.layernorm_ibert, x, gamma, beta, 0)).all()
    shift = data.draw(st.integers(8, 10))
    assert (
        i_layernorm_ibert(x, 1, gamma, beta, shift)[0] == by_row(twins.layernorm_ibert, x, gamma, beta, shift)
    ).all()


@given(rows(1 << 22))
def test_the_shift_of_i_layernorm_is_the_least(x):
    gamma, beta = [1.0] * x.shape[-1], [0.0] * x.shape[-1]
    flat = x.reshape(-1, x.shape[-1]).tolist()

    def most(shift):
        return max(sum((d >> shift) ** 2 for d in twins._deviations(row)) for row in flat)

    least = next(shift for shift in range(32) if most(shift) < 2**32)
    assert (i_layernorm_ibert(x, 1, gamma, beta)[0] == by_row(twins.layernorm_ibert, x, gamma, beta, least)).all()


def test_a_sum_of_squares_of_exactly_32_bits_and_one_is_shifted():
    x = np.array([[32768, -32768, 32768, -32768]])
    gamma, beta = [1.0] * 4, [0.0] * 4
    assert (i_layernorm_ibert(x, 1, gamma, beta)[0] == by_row(twins.layernorm_ibert, x, gamma, beta, 1)).all()


def test_ptf_layernorm_of_small_factors_has_long_shifts():
    rng = np.random.default_rng(3)
    x = rng.integers(-255, 256, size=(20, 192))
    arguments = (0.01, [8] * 192, rng.uniform(0.1, 2, 192).tolist(), rng.normal(size=192).tolist(), 0.5)
    assert (ptf_layernorm(x, *arguments)[0] == by_row(twins.ptf_layernorm, x, *arguments)).all()


@given(rows(255), scales(1e-4, 1), scales(1e-3, 1), st.data())
def test_ptf_layernorm(x, scale, out_scale, data):
    x = np.clip(x, -255, 255)
    gamma, beta = channels(data.draw, x.shape[-1])
    gamma[0] = data.draw(st.sampled_from([gamma[0], 0.0]))
    count = x.shape[-1]
    factors = data.draw(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=count, max_size=count))
    arguments = (scale, factors, gamma, beta, out_scale)
    faithful, unit = ptf_layernorm(x, *arguments)
    assert unit == out_scale
    assert (faithful == by_row(twins.ptf_layernorm, x, *arguments)).all()
    # The result in steps times 2^-14 is the integer version's relative error; then one rounding may differ.
    step = np.abs(faithful).max() + max(map(abs, [*gamma, *beta])) / out_scale * math.sqrt(count)
    assert np.abs(ptf_layernorm_integer(x, *arguments)[0] - faithful).max() <= 1 + step * 2**-7


@given(st.integers(0, 2**62 - 1) | st.integers(0, 2**32 - 1))
def test_i_sqrt_is_exact(v):
    assert i_sqrt([v]).tolist() == [math.isqrt(v)]


@pytest.mark.parametrize("roots", [range(1 << 16), range(1 << 30, (1 << 30) + 4096), range((1 << 31) - 4096, 1 << 31)])
def test_i_sqrt_beside_every_square(roots):
    k = torch.tensor(list(roots))
    for offset in (-1, 0, 1):
        v = (k * k + offset).clamp(min=0)
        root = i_sqrt(v)
        assert bool((root * root <= v).all())
        assert bool(((root + 1) ** 2 > v).all())


@given(rows((1 << 31) - 1), scales(1e-9, 1e9), st.sampled_from([2, 4, 6, 8, 16, 32]))
def test_dyadic_requantization(x, ratio, bits):
    exact = by_row(lambda row: [twins.dyadic(one, ratio) for one in row], x)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    clamped = np.clip(exact, low, high)
    assert (dyadic_requantize(x, ratio, bits)[0] == clamped).all()
    published = dyadic_requantize(x, ratio, bits, clamp="published")[0]
    assert (published == (exact if bits in (2, 6) else clamped)).all()


def test_ties_of_dyadic_requantization_go_to_even():
    assert dyadic_requantize([1, 3, -1, -3], 0.5, 8)[0].tolist() == [0, 2, 0, -2]


def test_published_six_bit_requantization_leaves_its_range():
    assert dyadic_requantize([100], 1.0, 6, clamp="published")[0].tolist() == [100]
    assert dyadic_requantize([100], 1.0, 6)[0].tolist() == [31]


@given(st.integers(-7, 7), st.integers(-128, 127), st.floats(0.01, 0.2), st.integers(-128, 127))
def test_hardswish_table(seed, zero_in, scale_out, zero_out):
    scale_in = 0.05 + seed / 1000
    entries, unit = hardswish_table(scale_in, zero_in, scale_out, zero_out)
    x = scale_in * (np.arange(-128, 128) - zero_in)
    position = x * np.clip(x + 3, 0, 6) / 6 / scale_out + zero_out
    assert unit == scale_out
    assert np.abs(entries.numpy() - np.clip(position, -128, 127)).max() <= 0.5 + 1e-9


@given(rows(1 << 20), st.data())
def test_log2_quotient(x, data):
    divisors = data.draw(st.lists(st.integers(0, 1 << 18), min_size=x.size, max_size=x.size))
    divisors = np.array(divisors).reshape(x.shape)
    integers, scale = log2_quotient(x, divisors, base_exponent=-2, bits=4)
    codes = log2_code(torch.from_numpy(divisors), -2, 4).numpy()
    expected = np.where(divisors == 0, 0.0, x / 2.0 ** (codes - 2))
    assert (integers * scale == expected).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: i_gelu(x, 1e-3), lambda x: i_gelu_coarse(x, 0.1), lambda x: i_exp(x - 9, 0.1),
        lambda x: i_softmax(x, 0.1), lambda x: shift_exp(x - 9, 0.1, 15), lambda x: shift_gelu(x, 0.1),
        lambda x: shiftmax(x, 0.1), lambda x: log_int_softmax(x, 0.1), lambda x: log_int_softmax_stored(x, 0.1),
        lambda x: i_layernorm_ibert(x, 0.1, [1, 2, 3], [0, 1, 2]),
        lambda x: i_layernorm_ibert_wide(x, 0.1, [1, 2, 3], [0, 1, 2]),
        lambda x: i_layernorm_ivit(x, 0.1, [1, 2, 3], [0, 1, 2]),
        lambda x: i_layernorm_ivit_converged(x, 0.1, [1, 2, 3], [0, 1, 2]),
        lambda x: ptf_layernorm(x, 0.1, [1, 2, 8], [1, 2, 3], [0, 1, 2], 0.1),
        lambda x: ptf_layernorm_integer(x, 0.1, [1, 2, 8], [1, 2, 3], [0, 1, 2], 0.1),
        lambda x: dyadic_requantize(x, 0.3, 8), lambda x: log2_quotient(x, [1, 2, 3]),
    ],
)  # fmt: skip
def test_numpy_and_torch_give_the_same(call):
    x = np.array([[5, -7, 9], [0, 3, 4]])
    in_numpy, in_torch = call(x), call(torch.from_numpy(x))
    assert isinstance(in_numpy[0], np.ndarray)
    assert in_numpy[0].dtype == np.int64
    assert isinstance(in_torch[0], torch.Tensor)
    assert (in_numpy[0] == in_torch[0].numpy()).all()
    assert np.array_equal(np.asarray(in_numpy[1]), np.asarray(in_torch[1]))
