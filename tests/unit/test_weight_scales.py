"""One weight scale for a whole tensor, beside one for every filter."""

from __future__ import annotations

import pytest
import torch

from accelsim.formats import Format
from accelsim.problems import AccelsimError
from quant.calibrate import Calibration
from quant.integer import compile_integer, run_integer
from quant.methods.m2q import M2Q
from quant.methods.power_of_two import PowerOfTwo
from quant.methods.uniform import Uniform
from quant.observers import weight_scale
from quant.quantize import quantize
from tests.support.integer_twin import Twin
from tests.support.networks import images_of, tiny_vit


def made(method, options):
    network = tiny_vit()
    return network, quantize(network, list(images_of(network, 32).split(16)), method, options)[1]


def test_a_tensor_has_one_scale_chosen_over_all_its_weights():
    network, checkpoint = made(Uniform(weight_bits=4), Calibration(weights="tensor"))
    for node in network.nodes:
        if not node.has_filters:
            continue
        one, count = checkpoint.filters[node.name], len(node.weight)
        assert one.scale.shape == (count,)
        assert (one.scale == one.scale[0]).all()
        scale, integers = weight_scale(node.weight.reshape(1, -1), Format.parse("u4"), 2.4)
        assert one.scale[0] == scale[0]
        assert torch.equal(one.integers.flatten().long(), integers[0])
        assert one.integers.shape == node.weight.shape


def test_a_scale_for_every_filter_is_the_default_and_closer():
    network, default = made(Uniform(weight_bits=4), None)
    by_filter, by_tensor = (made(Uniform(weight_bits=4), Calibration(weights=one))[1] for one in ("filter", "tensor"))
    ours, theirs = default.tensors(), by_filter.tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for node in network.nodes:
        if node.has_filters:
            errors = [(one.filters[node.name].values() - node.weight).norm() for one in (by_filter, by_tensor)]
            assert errors[0] < errors[1]
            assert len(by_filter.filters[node.name].scale.unique()) > 1


def test_integers_equal_the_twin():
    _, checkpoint = made(Uniform(), Calibration(weights="tensor"))
    images = images_of(checkpoint.network, 2, seed=7)
    name = checkpoint.network.workload.output
    assert (run_integer(compile_integer(checkpoint), images)[name].numpy() == Twin(checkpoint).run(images)[name]).all()


@pytest.mark.parametrize("method", [M2Q(), PowerOfTwo()])
def test_only_one_uniform_format_can_share_a_scale(method):
    with pytest.raises(AccelsimError, match=r"one weight scale for filters of .*apot8.*expected one uniform format"):
        made(method, Calibration(weights="tensor"))


def test_an_unknown_granularity_is_refused():
    with pytest.raises(AccelsimError, match=r"unknown weights 'row'.*filter, tensor"):
        Calibration(weights="row")
