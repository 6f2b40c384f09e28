"""The tables and the picture of docs/two_region.md: errors of the formats after GELU and softmax of a trained ViT.

    python benchmarks/regions.py [--picture docs/images/released_softmax.png]      (about two minutes)

Formats are chosen on calibration images and measured on test images.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor

from accelsim.formats import two_region
from codesign.quantize_command import calibration_images
from quant.capture import capture
from quant.collect import Statistics, collect
from quant.data import load_data
from quant.data.small import GREY_32
from quant.functional import fake_quantize
from quant.groups import scale_groups
from quant.models.registry import load_reference
from quant.observers import mse
from quant.regions.choose import SHIFTS, Choice, choose, sample_of
from quant.regions.codes import region_values
from quant.regions.slopes import slopes
from quant.regions.untied import SPLITS, UntiedSteps, released_softmax, untied_steps

MODEL, IMAGES, BATCH = "glyph_vit", 256, 64
BITS = (4, 5, 6)
FIXED = 4  # a shift set by hand for every tensor
KINDS = {True: "GELU", False: "softmax"}
Rounding = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A tensor: what formats are chosen on, and what they are measured on; weights None: plain squares."""

    low_negative: bool
    seen: tuple[Tensor, Tensor | None]
    unseen: tuple[Tensor, Tensor | None]


def main() -> None:
    """Print the tables, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", help="where to draw what the released softmax quantizer returns")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = capture(load_reference(MODEL, 0), (1, 32, 32))
    names = {
        node.op.output: node.function != "softmax"
        for node in network.nodes
        if node.function == "softmax" or node.op.activation == "gelu"
    }
    calibration = calibration_images("glyphs", GREY_32, IMAGES, 0)
    test = load_data("glyphs", "test", GREY_32)
    batches = [batch[0] for batch in test.every(0, len(test) // IMAGES).first(IMAGES).batches(BATCH)]
    labels = scale_groups(network)
    plain = [collect(network, images, labels) for images in (calibration, batches)]
    weighted = [Statistics(slopes=slopes(network, images, names)) for images in (calibration, batches)]
    for title, (seen, unseen) in (("Plain", plain), ("Weighted", weighted)):
        cases = {x: Case(kind, sample_of(seen, x), sample_of(unseen, x)) for x, kind in names.items()}
        print(table(title, cases), shifts(title, cases), sep="\n\n", end="\n\n")
        print(costs(title, cases), end="\n\n")
    if arguments.picture:
        draw(arguments.picture)


def table(title: str, cases: Mapping[str, Case]) -> str:
    """Mean SQNR over the tensors of a kind, in dB, on test images."""
    rows: list[str] = []
    for low_negative, kind in KINDS.items():
        mine = [case for case in cases.values() if case.low_negative is low_negative]
        for bits in BITS:
            found = [arms(case, bits, hindsight(mine, bits)) for case in mine]
            if not rows:
                rows = [f"| {title}, bits | {' | '.join(found[0])} |", "|---|" + "---|" * len(found[0])]
            decibels = (
                f"{sum(sqnr(case, one[arm]) for case, one in zip(mine, found, strict=True)) / len(mine):.2f}"
                if found[0][arm] is not None
                else "–"
                for arm in found[0]
            )
            rows.append(f"| {kind}, {bits} | {' | '.join(decibels)} |")
    return "\n".join(rows)


def arms(case: Case, bits: int, best: int) -> dict[str, Rounding | None]:
    """How every arm rounds, chosen on calibration images; `best` is the shift that suits all tensors best."""
    values, weights = case.seen
    uniform, affine = (mse(values, bits, symmetric=symmetric) for symmetric in (True, False))
    untied = untied_steps(values, bits, case.low_negative, weights)
    chosen = {
        f"m = {FIXED}": choose(values, bits, case.low_negative, weights, fixed=FIXED),
        "best one m": choose(values, bits, case.low_negative, weights, fixed=best),
        "OPT-m closed form": choose(values, bits, case.low_negative, weights, "closed_form"),
        "OPT-m exact": choose(values, bits, case.low_negative, weights),
    }
    found: dict[str, Rounding | None] = {
        "uniform": lambda x: fake_quantize(x, uniform),
        "with zero point": lambda x: fake_quantize(x, affine),
    }
    found |= {name: _rounding(one, bits, case.low_negative) for name, one in chosen.items()}
    found["PTQ4ViT"] = untied.values
    found["as released"] = None if case.low_negative else _released(values, weights, bits)
    return found


def _released(values: Tensor, weights: Tensor | None, bits: int) -> Rounding:
    """The released softmax quantizer with the split that suits it best."""
    last = (1 << (bits - 1)) - 1
    w = torch.ones(()) if weights is None else weights
    tried = [UntiedSteps(split / last, 1 / last, split, bits, False) for split in SPLITS]
    best = min(tried, key=lambda one: float((w * (released_softmax(values, one) - values) ** 2).sum()))
    return lambda x: released_softmax(x, best)


def _rounding(choice: Choice, bits: int, low_negative: bool) -> Rounding:
    step, fmt = torch.tensor(choice.step), two_region(bits, choice.region_shift, low_negative)
    return lambda x: region_values(x, step, fmt)


def sqnr(case: Case, rounding: Rounding | None) -> float:
    """10·log10(Σ w x² / Σ w (x − x̂)²) on test images."""
    assert rounding is not None
    x, weights = case.unseen
    w = 1.0 if weights is None else weights.double()
    noise = (w * (rounding(x).double() - x.double()) ** 2).sum()
    return 10 * math.log10(float((w * x.double() ** 2).sum() / noise))


def hindsight(cases: list[Case], bits: int) -> int:
    """The one shift with the least sum of errors, each in units of the tensor's least error."""

    def regret(shift: int) -> float:
        total = 0.0
        for case in cases:
            values, weights = case.seen
            one = choose(values, bits, case.low_negative, weights, fixed=shift)
            total += one.error / choose(values, bits, case.low_negative, weights).error
        return total

    return min(SHIFTS, key=regret)


def shifts(title: str, cases: Mapping[str, Case]) -> str:
    """The shifts that OPT-m chooses, exact / closed form."""
    rows = [f"| {title} | {' | '.join(f'{bits} bits' for bits in BITS)} |", "|---|" + "---|" * len(BITS)]
    for low_negative, kind in KINDS.items():
        cells = []
        for bits in BITS:
            found = [
                [choose(case.seen[0], bits, low_negative, case.seen[1], search).region_shift for case in cases.values()
                 if case.low_negative is low_negative]
                for search in ("exact", "closed_form")
            ]  # fmt: skip
            cells.append(" / ".join(" ".join(map(str, one)) for one in found))
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(rows)


def costs(title: str, cases: Mapping[str, Case]) -> str:
    """What the closed form's choice adds to the error on calibration images, and the seconds of both searches."""
    extra: dict[bool, list[float]] = {True: [], False: []}
    seconds = dict.fromkeys(("exact", "closed_form"), 0.0)
    for case in cases.values():
        for bits in BITS:
            errors = {}
            for search in seconds:
                start = time.perf_counter()
                errors[search] = choose(case.seen[0], bits, case.low_negative, case.seen[1], search).error
                seconds[search] += time.perf_counter() - start
            extra[case.low_negative].append(errors["closed_form"] / errors["exact"] - 1)
    count = len(cases) * len(BITS)
    of = ", ".join(f"{KINDS[k]} {sum(x) / len(x):.1%} (at most {max(x):.1%})" for k, x in extra.items())
    spent = ", ".join(f"{name} {1e3 * value / count:.1f} ms" for name, value in seconds.items())
    return f"{title}: the closed form's choice has more error: {of}.  Per tensor and width: {spent}."


def draw(path: str) -> None:
    """What the released softmax quantizer returns at 4 bits beside what is meant, where split is small and large."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    x, bits = torch.linspace(0, 1, 2001), 4
    last = (1 << (bits - 1)) - 1
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.8), sharey=True)
    for axis, split in zip(axes, (2.0**-5, 2.0**-2), strict=True):
        steps = UntiedSteps(split / last, 1 / last, split, bits, False)
        axis.plot(x, x, color="0.75", linewidth=1, label="exact")
        axis.plot(x, steps.values(x), color="#1b6ca8", linewidth=1.2, label="x < split ? low : high")
        axis.plot(x, released_softmax(x, steps), color="#b5532a", linewidth=1.2, label="released: low + high")
        axis.set_title(f"split = 1/{round(1 / split)}, split·(q − 1) = {split * last:.2f}", fontsize=9)
        axis.set_xlabel("attention share")
    axes[0].set_ylabel("quantized")
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
