"""Integer-only non-linear functions of I-BERT, I-ViT, FQ-ViT and the hybrids: integers and a scale in and out."""

from quant.nonlinear.dyadic import Dyadic, dyadic_requantize
from quant.nonlinear.fqvit import (
    PtfNorm,
    log_int_softmax,
    log_int_softmax_stored,
    ptf_factors,
    ptf_layernorm,
    ptf_layernorm_integer,
)
from quant.nonlinear.hybrid import hardswish_table, log2_quotient
from quant.nonlinear.ibert import (
    IExp,
    IGelu,
    IntegerNorm,
    ISoftmax,
    coarse_n,
    i_exp,
    i_gelu,
    i_gelu_coarse,
    i_layernorm_ibert,
    i_softmax,
    i_sqrt,
)
from quant.nonlinear.ivit import (
    ShiftExp,
    ShiftGelu,
    Shiftmax,
    i_layernorm_ivit,
    i_layernorm_ivit_converged,
    shift_exp,
    shift_exp_limits,
    shift_gelu,
    shiftmax,
)

__all__ = [
    "Dyadic",
    "IExp",
    "IGelu",
    "ISoftmax",
    "IntegerNorm",
    "PtfNorm",
    "ShiftExp",
    "ShiftGelu",
    "Shiftmax",
    "coarse_n",
    "dyadic_requantize",
    "hardswish_table",
    "i_exp",
    "i_gelu",
    "i_gelu_coarse",
    "i_layernorm_ibert",
    "i_layernorm_ivit",
    "i_layernorm_ivit_converged",
    "i_softmax",
    "i_sqrt",
    "log2_quotient",
    "log_int_softmax",
    "log_int_softmax_stored",
    "ptf_factors",
    "ptf_layernorm",
    "ptf_layernorm_integer",
    "shift_exp",
    "shift_exp_limits",
    "shift_gelu",
    "shiftmax",
]
