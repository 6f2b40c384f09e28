"""Integer-only execution equals a slow twin in Python integers and fractions, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from quant.calibrate import Calibration
from quant.integer import compile_integer, run_integer
from quant.methods.m2q import M2Q
from quant.methods.power_of_two import PowerOfTwo
from quant.methods.uniform import Uniform
from quant.quantize import quantize
from tests.support.integer_networks import random_checkpoint, random_network
from tests.support.integer_twin import Twin
from tests.support.networks import images_of, tiny_hybrid, tiny_vit


def assert_equal_to_the_twin(checkpoint, images):
    network = compile_integer(checkpoint)
    names = [checkpoint.network.workload.input, *(node.op.output for node in checkpoint.network.nodes)]
    found = run_integer(network, images, keep=names)
    expected = Twin(checkpoint).run(images)
    for name in names:
        assert np.array_equal(found[name].numpy(), expected[name]), name
    return network


@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 2**31))
def test_random_networks_equal_the_twin(seed):
    checkpoint, images = random_checkpoint(random_network(seed), seed)
    network = assert_equal_to_the_twin(checkpoint, images)
    assert network.float_islands == ()


@pytest.mark.parametrize(
    ("make", "method", "options"),
    [
        (tiny_hybrid, M2Q(), Calibration()),
        (tiny_hybrid, Uniform(log2_divisor=True), Calibration(tied_branches=True)),
        (tiny_hybrid, Uniform(log2_divisor=False), Calibration()),
        (tiny_hybrid, PowerOfTwo(terms=1, activation_bits=6), Calibration(observer="minmax")),
        (tiny_vit, Uniform(weight_bits=4, activation_bits=5), Calibration()),
    ],
)
def test_quantized_networks_equal_the_twin(make, method, options):
    network = make()
    _, checkpoint = quantize(network, list(images_of(network, 32).split(16)), method, options)
    compiled = assert_equal_to_the_twin(checkpoint, images_of(network, 2, seed=7))
    islands = [node.name for node in network.nodes if node.function in ("softmax", "layernorm")]
    assert list(compiled.float_islands) == islands
