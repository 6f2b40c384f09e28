"""Golden vectors: outputs of the official modules of I-BERT, I-ViT and FQ-ViT in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.nonlinear import (
    ISoftmax,
    i_exp,
    i_gelu,
    i_layernorm_ibert,
    i_layernorm_ivit,
    i_layernorm_ivit_converged,
    i_softmax,
    log_int_softmax,
    ptf_layernorm,
    ptf_layernorm_integer,
    shift_gelu,
    shiftmax,
)

CASES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "integer_nonlinear.json").read_text(encoding="utf-8")
)["cases"]


def test_every_case_of_the_file_is_compared():
    assert sorted(CASES) == sorted(
        ["ibert_igelu_S1e-3", "ivit_shiftgelu_S0.05_n23_out8_oneRow", "ivit_shiftmax_S0.1_n15_out16_oneRow",
         "ibert_isoftmax_S0.1_n30_out16_oneRow", "fqvit_LIS_S0.1_n30_oneRow", "fqvit_PTF_QIntLayerNorm",
         *NORMS]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("ibert_igelu_S1e-3", lambda x, p: i_gelu(x, p["S"], p["n"])),
        ("ivit_shiftgelu_S0.05_n23_out8_oneRow", lambda x, p: shift_gelu(x, p["S"], p["n"], p["out_bits"])),
        ("ivit_shiftmax_S0.1_n15_out16_oneRow", lambda x, p: shiftmax(x, p["S"], p["n"], p["out_bits"])),
        ("ibert_isoftmax_S0.1_n30_out16_oneRow", lambda x, p: i_softmax(x, p["S"], p["n"], p["out_bits"])),
    ],
)
def test_integers_are_the_official_ones_and_scales_too(name, function):
    case = CASES[name]
    integers, scale = function(case["x_int"], case["params"])
    assert integers.tolist() == case["f64"]["out_int"]
    assert scale == pytest.approx(case["f64"]["out_scale"], rel=1e-14)


def test_exponentials_inside_of_i_softmax():
    case = CASES["ibert_isoftmax_S0.1_n30_out16_oneRow"]
    x = np.array(case["x_int"])
    integers, _ = i_exp(x - x.max(), 0.1, 30)
    assert integers.tolist() == case["f64"]["iexp_int"]
    assert [integers.sum()] == case["f64"]["sum"]
    factor = ISoftmax.of(0.1, 30, 16).to16
    assert factor.mantissa * 2.0**-factor.shift * case["f64"]["act16_scale"] == pytest.approx(1, rel=2**-31)


def test_log_int_softmax_before_its_clamp():
    case = CASES["fqvit_LIS_S0.1_n30_oneRow"]
    unclamped = case["f64"]["qlog_unclamped"]
    assert log_int_softmax(case["x_int"], 0.1, 30, None)[0].tolist() == unclamped
    assert log_int_softmax(case["x_int"], 0.1, 30, 4)[0].tolist() == [min(code, 16) for code in unclamped]


NORMS = {
    "ivit_IntLayerNorm_S1e-3_C8": (i_layernorm_ivit, i_layernorm_ivit_converged),
    "ibert_IntLayerNorm_S1e-3_C8": (i_layernorm_ibert,),
}


@pytest.mark.parametrize("name", NORMS)
def test_layernorms_agree_to_one_millionth(name):
    case = CASES[name]
    for function in NORMS[name]:
        integers, scale = function(case["x_int"], case["params"]["S"], case["gamma"], case["beta"])
        np.testing.assert_allclose(integers, case["f64"]["out_int"], rtol=1e-6, atol=0)
        np.testing.assert_allclose(integers * scale, case["f64"]["out"], rtol=1e-5, atol=1e-6)


def test_layernorm_with_power_of_two_factors():
    case = CASES["fqvit_PTF_QIntLayerNorm"]
    params = case["params"]
    arguments = (case["x_q"], params["s1"], case["alpha_pow2"], case["gamma"], case["beta"], params["out_scale"])
    assert ptf_layernorm(*arguments)[0].tolist() == case["f64"]["out_int"]
    difference = ptf_layernorm_integer(*arguments)[0] - np.array(case["f64"]["out_int"])
    assert np.abs(difference).max() <= 1
