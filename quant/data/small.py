"""The two sets of 32 × 32 grey images as `DataSet`: `glyphs`, and scikit-learn's `digits`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.problems import AccelsimError, Problem
from quant.data.dataset import DataSet, Preprocess
from quant.data.glyphs import glyphs
from quant.data.outlines import CLASSES

GREY_32 = Preprocess(resolution=32, channels=1, mean=(0.5,), std=(0.25,), interpolation="bilinear")
# Of the 1,797 digits, in an order fixed by the seed: the test images first, then validation, the rest is training.
DIGIT_TESTS, DIGIT_VALIDATIONS, DIGIT_SEED = 450, 250, 0

Uint8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]


def small_data(name: str, split: str, preprocess: Preprocess | None) -> DataSet:
    """`glyphs` or `digits` (see `load_data`).  AccelsimError for a preprocessing of another size than 1 × 32 × 32."""
    wanted = preprocess or GREY_32
    if (wanted.resolution, wanted.channels) != (GREY_32.resolution, GREY_32.channels):
        shape = f"{wanted.channels} × {wanted.resolution} × {wanted.resolution}"
        raise AccelsimError(Problem(f"data {name}", f"the model takes images of {shape}", "1 × 32 × 32"))
    images, labels = glyphs(split) if name == "glyphs" else digits(split)
    return DataSet(name, split, images, labels, tuple(CLASSES if name == "glyphs" else CLASSES[:10]), wanted)


def digits(split: str) -> tuple[Uint8, Int64]:
    """Images [n, 1, 32, 32] and labels [n] of scikit-learn's 8 × 8 digits, every pixel drawn as 4 × 4 equal ones.

    Raises AccelsimError when scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        levers = ("pip install scikit-learn", "the data glyphs")
        raise AccelsimError(Problem("data digits", "scikit-learn is not installed", levers=levers)) from error
    table = load_digits()
    # 0 … 16 in the source; 15.9375 grey levels each.
    small = (table.images.astype(np.int64) * 255 // 16).astype(np.uint8)
    images = np.repeat(np.repeat(small, 4, axis=1), 4, axis=2)[:, None]
    order = np.random.Generator(np.random.PCG64(DIGIT_SEED)).permutation(len(images))
    ends = (DIGIT_TESTS, DIGIT_TESTS + DIGIT_VALIDATIONS)
    parts = dict(zip(("test", "val", "train"), np.split(order, ends), strict=True))
    return images[parts[split]], np.asarray(table.target[parts[split]], np.int64)
