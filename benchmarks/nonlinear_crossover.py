"""Which integer softmax, GELU and LayerNorm is better at which input: tables and picture of docs/nonlinear.md.

    python benchmarks/nonlinear_crossover.py -o docs/images/nonlinear_crossover.png

Prints Markdown tables (about a minute); seeded data, so the numbers repeat.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from timing import table
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from quant.levels import sqnr_db
from quant.nonlinear import (
    coarse_n,
    i_gelu,
    i_gelu_coarse,
    i_layernorm_ibert,
    i_layernorm_ivit,
    i_layernorm_ivit_converged,
    i_softmax,
    log_int_softmax,
    ptf_factors,
    ptf_layernorm,
    shift_gelu,
    shiftmax,
)

Curves = dict[str, list[float]]  # SQNR in dB per band of scales, or per input width
Bands = dict[str, list[list[float]]]  # the same of every scale of the band
# A band is an octave of scales: x0 = ⌊−ln2/S⌋ and ⌊−1/S⌋ jump, and one scale alone may be lucky.
BAND = tuple(2.0 ** (k / 24) for k in range(-12, 13))
SCALES = tuple(0.4 * 2.0**-k for k in range(10))
TUNED = range(8, 31)
INPUT_BITS = tuple(range(6, 17))
CHANNELS, OUTLIER = 192, 20.0
I_SOFTMAX, SHIFTMAX, LOG_SOFTMAX = "i-softmax (I-BERT)", "Shiftmax (I-ViT)", "Log-Int-Softmax (FQ-ViT)"
WINS = "scales where Shiftmax ≥ i-softmax"
MOST_BYTES = 120_000


def normal(rows: int, columns: int) -> Tensor:
    """Draws of N(0, 2²)."""
    return 2 * torch.from_numpy(np.random.default_rng(7).normal(size=(rows, columns)))


def value(result: tuple[Tensor, Any]) -> Tensor:
    integers, scale = result
    return integers.double() * scale


def shares(codes: Tensor, scale: float) -> Tensor:
    """Values of Log-Int-Softmax: 2^−code, the last code is zero."""
    code = log_int_softmax(codes, scale)[0]
    return torch.where(code == 16, 0.0, 2.0 ** -code.double())


def db(exact: Tensor, found: Tensor) -> float:
    return sqnr_db(exact.numpy(), found.numpy())


def in_bands(of_scale: Callable[[float], dict[str, float]], scales: Sequence[float] = SCALES) -> Bands:
    """Every scale of each band, per method."""
    bands: Bands = {}
    for scale in scales:
        found = [of_scale(scale * factor) for factor in BAND]
        for name in found[0]:
            bands.setdefault(name, []).append([one[name] for one in found])
    return bands


def medians(bands: Bands) -> Curves:
    return {name: [median(band) for band in of] for name, of in bands.items()}


def wins(bands: Bands) -> list[float]:
    """Share of the scales of each band at which Shiftmax is at least as good as i-softmax."""
    pairs = zip(bands[SHIFTMAX], bands[I_SOFTMAX], strict=True)
    return [sum(a >= b for a, b in zip(*pair, strict=True)) / len(pair[0]) for pair in pairs]


def softmaxes(scale: float, rows: int = 48) -> dict[str, float]:
    """SQNR of every softmax at one input scale, against the float softmax of the same integers."""
    codes = torch.round(normal(rows, 197) / scale).long()
    exact = torch.softmax(codes * scale, -1)
    found = {I_SOFTMAX: value(i_softmax(codes, scale)), SHIFTMAX: value(shiftmax(codes, scale)),
             LOG_SOFTMAX: shares(codes, scale)}  # fmt: skip
    return {name: db(exact, one) for name, one in found.items()}


def gelus(scale: float, rows: int = 16) -> dict[str, float]:
    """SQNR of every GELU at one input scale, against the float GELU of the same integers; rows of 768."""
    codes = torch.round(normal(rows, 768) / scale).long()
    exact = gelu(codes * scale)
    tuned = {n: db(exact, value(shift_gelu(codes, scale, n))) for n in TUNED}
    return {
        "i-GELU, n = 14": db(exact, value(i_gelu(codes, scale))),
        "i-GELU, n tuned": db(exact, value(i_gelu_coarse(codes, scale))),
        "ShiftGELU, n = 23": tuned[23],
        "ShiftGELU, n tuned": max(tuned.values()),
        "n of i-GELU": float(coarse_n(scale)),
        "n of ShiftGELU": float(max(tuned, key=lambda n: tuned[n])),
    }


def layernorms(bits: int, outlier: float) -> dict[str, float]:
    """SQNR of every LayerNorm against the float one of unrounded numbers; one channel `outlier` times as wide."""
    x, rng = normal(256, CHANNELS) / 2, np.random.default_rng(11)
    x[:, 7] *= outlier
    gamma, beta = (torch.from_numpy(row) for row in (rng.uniform(0.5, 1.5, CHANNELS), rng.normal(0, 0.3, CHANNELS)))

    def norm(values: Tensor) -> Tensor:
        return layer_norm(values, (CHANNELS,), eps=0.0) * gamma + beta

    exact, scale = norm(x), float(x.abs().max()) / (2 ** (bits - 1) - 1)
    codes = torch.round(x / scale).long()
    s1, zero, alpha = ptf_factors(x, bits)
    factored = torch.clamp(torch.round(x / (s1 * 2.0**alpha)) + zero, 0, 2**bits - 1).long() - zero
    out_scale = float(exact.abs().max()) / (2**15 - 1)
    found = {
        "I-BERT": value(i_layernorm_ibert(codes, scale, gamma, beta)),
        "I-ViT as released": value(i_layernorm_ivit(codes, scale, gamma, beta)),
        "I-ViT converged": value(i_layernorm_ivit_converged(codes, scale, gamma, beta)),
        "FQ-ViT, factors": value(ptf_layernorm(factored, s1, 2**alpha, gamma, beta, out_scale)),
        "float LayerNorm of the same input": norm(codes * scale),
    }
    return {name: db(exact, one) for name, one in found.items()}


def layernorm_curves(outlier: float) -> Curves:
    rows = [layernorms(bits, outlier) for bits in INPUT_BITS]
    return {name: [row[name] for row in rows] for name in rows[0]}


def cell(name: str, number: float) -> str:
    if name == WINS:
        return f"{100 * number:.0f} %"
    return f"{number:.0f}" if name.startswith("n of") else f"{number:.1f}"


def print_curves(head: str, labels: Sequence[str], curves: Curves) -> None:
    """A table with a line per label."""
    cells = [[cell(name, number) for number in curve] for name, curve in curves.items()]
    table([head, *curves], [[label, *(column[k] for column in cells)] for k, label in enumerate(labels)])


LABELS = {"I-BERT": "I-BERT, I-ViT converged"}
STYLES = (("#1b6ca8", "-", "o"), ("#b5532a", "-", "s"), ("#2e8b57", "-", "^"))
GELU_STYLES = (("#1b6ca8", "--", "o"), ("#1b6ca8", "-", "o"), ("#b5532a", "--", "s"), ("#b5532a", "-", "s"))
NORM_STYLES = (("#1b6ca8", "-", "o"), ("#b5532a", "-", "s"), ("#2e8b57", "-", "^"), ("0.5", "--", ""))


def draw(path: str, softmax: Bands, gelu_curves: Curves, norms: Curves) -> int:
    """Write the picture with few colours; returns its bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    scale = "input scale S (coarse on the left)"
    for bands, style in zip(softmax.values(), STYLES, strict=True):
        axes[0].fill_between(SCALES, *np.quantile(bands, [0.25, 0.75], axis=1), color=style[0], alpha=0.15, linewidth=0)
    _panel(axes[0], SCALES, medians(softmax), "softmax, rows of 197 logits N(0, 2²)", scale, STYLES)
    shown = {name: curve for name, curve in gelu_curves.items() if not name.startswith("n of")}
    _panel(axes[1], SCALES, shown, "GELU, rows of 768 inputs N(0, 2²)", scale, GELU_STYLES)
    apart = {name: curve for name, curve in norms.items() if name != "I-ViT converged"}  # lies on I-BERT
    _panel(axes[2], INPUT_BITS, apart, f"LayerNorm, {CHANNELS} channels, one {OUTLIER:.0f} times as wide",
           "input, bits", NORM_STYLES)  # fmt: skip
    axes[0].set_ylabel("SQNR, dB")
    for axis in axes[:2]:
        axis.set_xscale("log")
        axis.invert_xaxis()
    axes[1].set_ylim(-10, 50)
    for axis, where in zip(axes, ("upper left", "lower right", "lower right"), strict=True):
        axis.legend(loc=where, fontsize=8, framealpha=0.9)
    raw = io.BytesIO()
    figure.savefig(raw, dpi=100)
    plt.close(figure)
    with Image.open(raw) as image:
        image.convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, "PNG")
    return Path(path).stat().st_size


def _panel(axis: Any, x: Sequence[float], curves: Curves, title: str, x_label: str, styles: Any) -> None:
    for (name, curve), (colour, line, marker) in zip(curves.items(), styles, strict=True):
        axis.plot(x, curve, line, marker=marker, color=colour, label=LABELS.get(name, name), markersize=4, lw=1.4)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x_label)
    axis.grid(alpha=0.25)


def main() -> int:
    parser = argparse.ArgumentParser(description="integer softmax, GELU and LayerNorm against the input's scale")
    parser.add_argument("-o", "--output", help="a picture (.png)")
    arguments = parser.parse_args()
    softmax, gelu_curves = in_bands(softmaxes), medians(in_bands(gelus))
    norms, plain = layernorm_curves(OUTLIER), layernorm_curves(1.0)
    labels = [f"{scale:.2g}" for scale in SCALES]
    print("### Softmax: SQNR in dB, median over the octave around S\n")
    print_curves("scale S", labels, medians(softmax) | {WINS: wins(softmax)})
    print("### GELU: SQNR in dB, median over the octave around S; the n that tuning chose\n")
    print_curves("scale S", labels, gelu_curves)
    for title, curves in ((f"one channel {OUTLIER:.0f} times as wide", norms), ("channels alike", plain)):
        print(f"### LayerNorm, {title}: SQNR in dB\n")
        print_curves("input bits", [str(bits) for bits in INPUT_BITS], curves)
    if arguments.output:
        size = draw(arguments.output, softmax, gelu_curves, norms)
        print(f"wrote {arguments.output} ({size / 1e3:.0f} kB)")
        if size > MOST_BYTES:
            sys.exit(f"larger than {MOST_BYTES:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
