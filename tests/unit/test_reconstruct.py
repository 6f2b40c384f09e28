"""Block reconstruction: neighbouring levels only, closer outputs, repeatable, the same in files as in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from accelsim.problems import AccelsimError
from quant import reconstruct
from quant.fake import FakeQuantized
from quant.levels import levels
from quant.methods.m2q import M2Q
from quant.methods.power_of_two import PowerOfTwo
from quant.methods.uniform import Uniform
from quant.network import forward
from quant.quantize import quantize
from quant.reconstruct import Reconstruction
from quant.rounding import rectified_sigmoid
from tests.support.networks import images_of, tiny_hybrid, tiny_vit

FEW = Reconstruction(steps=150)


def made(network, method, recipe=None):
    return quantize(network, list(images_of(network, 64).split(16)), method, reconstruction=recipe)[1]


def error(network, checkpoint):
    images = images_of(network, 64)
    with torch.no_grad():
        return float((forward(network, images) - forward(network, images, FakeQuantized(checkpoint))).pow(2).mean())


@pytest.mark.parametrize("make", [tiny_hybrid, tiny_vit])
@pytest.mark.parametrize("method", [Uniform(weight_bits=3), PowerOfTwo(terms=1), M2Q()], ids=["u3", "pot", "m2q"])
def test_only_neighbouring_levels_change(make, method):
    network = make()
    nearest, chosen = made(network, method), made(network, method, FEW)
    moved = 0
    for name, filters in chosen.filters.items():
        before = nearest.filters[name]
        assert torch.equal(filters.scale, before.scale)
        for part in nearest.plan.rule_for(network.node(name).op).weights:
            index = slice(None) if part.channels is None else torch.from_numpy(part.channels.indices.copy())
            places = torch.from_numpy(levels(part.format).copy())
            steps = torch.searchsorted(places, filters.integers[index].long()) - torch.searchsorted(
                places, before.integers[index].long()
            )
            assert int(steps.abs().max()) <= 1
            moved += int((steps != 0).sum())
    assert moved > 0


@pytest.mark.parametrize("make", [tiny_hybrid, tiny_vit])
def test_coarse_weights_come_closer(make):
    network = make()
    method = Uniform(weight_bits=3)
    assert error(network, made(network, method, FEW)) < error(network, made(network, method))


def test_the_default_rate_decides_weights_in_few_steps(monkeypatch):
    def undecided(rate):
        kept = []

        def watched(node, checkpoint):
            parts = original(node, checkpoint)
            kept.extend(rounding for _, rounding in parts)
            return parts

        monkeypatch.setattr(reconstruct, "_roundings", watched)
        made(tiny_vit(depth=1), Uniform(weight_bits=3), Reconstruction(steps=300, rate=rate))
        soft = torch.cat([rectified_sigmoid(one.v).reshape(-1) for one in kept])
        return float(((soft > 0.01) & (soft < 0.99)).float().mean())

    original = reconstruct._roundings
    # A rate made for 20,000 steps leaves most weights between two levels.
    assert undecided(Reconstruction().rate) < undecided(1e-3) - 0.2


def test_same_seed_same_weights_and_files_give_what_memory_gives():
    network = tiny_hybrid()
    method = Uniform(weight_bits=3)
    recipe = replace(FEW, steps=20)
    one, two, in_files = (
        made(network, method, options).tensors() for options in (recipe, recipe, replace(recipe, max_memory_bytes=1))
    )
    for name in one:
        assert torch.equal(one[name], two[name])
        assert torch.equal(one[name], in_files[name])
    other = made(network, method, replace(recipe, seed=1, steps=60)).tensors()
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_progress_counts_blocks():
    network = tiny_vit()
    seen = []
    quantize(
        network, [images_of(network, 16)], Uniform(), reconstruction=replace(FEW, steps=1),
        progress=lambda what, done, total: seen.append((what, done, total)),
    )  # fmt: skip
    assert seen[0][1] == 0
    assert seen[-1][1] == seen[-1][2] == len(seen) - 1


@pytest.mark.parametrize("name", ["steps", "batch", "max_memory_bytes"])
def test_options_are_checked(name):
    with pytest.raises(AccelsimError, match=f"{name}.*found 0"):
        Reconstruction(**{name: 0})
