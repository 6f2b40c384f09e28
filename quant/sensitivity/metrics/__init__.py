"""The metrics of a sensitivity table, one per file; importing this package registers them."""

from __future__ import annotations

from quant.sensitivity.metrics import (
    cross_entropy,
    fisher,
    gradient,
    hessian_trace,
    kl,
    logit_l2,
    logit_sqnr,
    mse,
    nuclear_norm,
    output_sqnr,
    top1_loss,
)
from quant.sensitivity.metrics.base import Metric, metric, metric_names, metrics_named

__all__ = [
    "Metric", "cross_entropy", "fisher", "gradient", "hessian_trace", "kl", "logit_l2", "logit_sqnr", "metric",
    "metric_names", "metrics_named", "mse", "nuclear_norm", "output_sqnr", "top1_loss",
]  # fmt: skip
