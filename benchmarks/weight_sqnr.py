"""The SQNR table of docs/quantizers.md: `python benchmarks/weight_sqnr.py` (about ten seconds)."""

from __future__ import annotations

import numpy as np
import torch

from accelsim.formats import Format
from quant.levels import sqnr_db
from quant.observers import weight_scale

FORMATS = ("u8", "u6", "u4", "pot4", "apot8", "apot12")


def weights(distribution: str, per_filter: int) -> torch.Tensor:
    rng, shape = np.random.default_rng(7), (max(64, 30_000 // per_filter), per_filter)
    draw = {"Gaussian": rng.normal, "Laplace": rng.laplace, "uniform": lambda size: rng.uniform(-1, 1, size)}
    return torch.from_numpy(draw[distribution](size=shape))


def main() -> None:
    print("| weights per filter, distribution |", " | ".join(FORMATS), "| apot8 beats u6 | apot12 beats u8 |")
    for per_filter in (64, 512):
        for distribution in ("Gaussian", "Laplace", "uniform"):
            values = weights(distribution, per_filter)
            errors, cells = {}, []
            for name in FORMATS:
                scale, integers = weight_scale(values, Format.parse(name))
                rounded = scale[:, None] * integers
                errors[name] = ((rounded - values) ** 2).sum(1)
                cells.append(f"{sqnr_db(values.numpy(), rounded.numpy()):.1f}")
            for better, worse in (("apot8", "u6"), ("apot12", "u8")):
                cells.append(f"{float((errors[better] < errors[worse]).double().mean()):.0%}")
            print(f"| {per_filter}, {distribution} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
