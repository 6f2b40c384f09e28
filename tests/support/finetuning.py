"""Networks, data and checkpoints that the tests of fine-tuning share."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from quant.capture import capture
from quant.data import load_data
from quant.data.dataset import DataSet, Preprocess
from quant.fake import FakeQuantized
from quant.methods.uniform import Uniform
from quant.models.registry import load_reference
from quant.network import forward
from quant.quantize import quantize
from tests.support.networks import images_of

COARSE = Uniform(weight_bits=3)


def data_for(network, count=96, seed=3):
    """Random grey images with labels that the float network gives them."""
    size = network.image_shape[-1]
    random = np.random.Generator(np.random.PCG64(seed))
    coarse = random.integers(0, 256, (count, 1, size // 2, size // 2))
    images = coarse.repeat(2, 2).repeat(2, 3).astype(np.uint8)
    preprocess = Preprocess(size, 1, (0.5,), (0.25,), "bilinear")
    with torch.no_grad():
        labels = forward(network, preprocess.tensor(images)).argmax(1).numpy()
    return DataSet("noise", "train", images, labels, tuple("abcdefghij"), preprocess)


def made(network, method=COARSE, recipe=None):
    return quantize(network, list(images_of(network, 64).split(16)), method, reconstruction=recipe)[1]


def logits(checkpoint, images):
    with torch.no_grad():
        return forward(checkpoint.network, images, FakeQuantized(checkpoint))


def same(one, other):
    ours, theirs = one.tensors(), other.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def loss_of(checkpoint, data):
    images, labels = data.preprocess.tensor(data.images), torch.from_numpy(data.labels)
    return float(torch.nn.functional.cross_entropy(logits(checkpoint, images), labels))


@cache
def coarse_digits():
    """The trained hybrid of the digits, and a 3-bit checkpoint of it; the digits come with scikit-learn."""
    network = capture(load_reference("digits_hybrid"), (1, 32, 32), "digits_hybrid")
    images = load_data("digits", "train").first(64).batches(64)
    return network, quantize(network, images, COARSE)[1]
