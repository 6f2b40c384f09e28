"""Trained checkpoints of the glyphs, their test images, and the figures of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from cells import packed

from codesign.models import load_model
from quant.capture import capture
from quant.data import load_data
from quant.data.dataset import DataSet
from quant.data.small import GREY_32
from quant.evaluate import Evaluation, evaluate
from quant.models.controls import CONTROLS
from quant.models.registry import load_reference
from quant.models.vit import VisionTransformer
from quant.network import Network

NATURAL, OUTLIER, HYBRID = "glyph_vit", "glyph_vit_outlier", "glyph_hybrid_narrow"
CALIBRATION_IMAGES = 256
TEST_IMAGES, CONTROL_IMAGES = 1250, 625  # of the natural models, of the controls made of them
BATCH = 64


def glyph_images(count: int) -> DataSet:
    """`count` test images of the glyphs, evenly spread."""
    chosen = load_data("glyphs", "test", GREY_32)
    return chosen.every(0, len(chosen) // count).first(count)


def networks(models: list[str], seeds: list[int]) -> Iterator[tuple[str, int, Network]]:
    """Every vision transformer of every training seed, captured; the outliers of seed 0 only."""
    for model in models:
        for seed in seeds if model != OUTLIER else [0]:
            name = model if model == OUTLIER else NATURAL
            module = load_reference(name, seed)
            if model in CONTROLS:
                assert isinstance(module, VisionTransformer)
                module = CONTROLS[model](module, seed=seed).eval()
            yield model, seed, capture(module, (1, 32, 32))


def float_network(model: str, seed: int) -> Network:
    """A reference model; the vision transformer of any training seed."""
    if model == NATURAL:
        return capture(load_reference(NATURAL, seed), (1, 32, 32))
    return load_model(model, None)[0]


def evaluated(model: Callable[[torch.Tensor], torch.Tensor], images: DataSet) -> Evaluation:
    """Outputs of a model on labelled images."""
    return evaluate(model, ((batch, labels) for batch, labels in images.batches(BATCH) if labels is not None))


def figures_of(found: Evaluation) -> dict[str, Any]:
    """Plain figures of a row; `correct` says which images were right (`cells.correct`)."""
    return {
        "images": len(found.labels),
        "top1": round(found.top1, 5),
        "cross_entropy": round(found.cross_entropy, 5),
        "correct": packed(found.correct),
    }
