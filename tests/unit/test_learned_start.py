"""Where scales and offsets start: a fixed point of the squared error, for every width and table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quant.learned.initial import MOST_VALUES, fixed_point, starts
from quant.learned.sites import sites_of
from quant.network import Numerics, run
from tests.support.networks import images_of, tiny_vit

SAMPLES = hnp.arrays(np.float64, st.integers(2, 80), elements=st.floats(-50, 50, allow_subnormal=False))


def ends(bits, signed):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def error(x, step, shift, bits, signed):
    low, high = ends(bits, signed)
    return float((((x - shift) / step).clamp(low, high).round() * step + shift - x).square().sum())


@settings(deadline=None, max_examples=80)
@given(SAMPLES, st.integers(2, 8), st.sampled_from([(True, False), (False, False), (False, True)]))
def test_the_start_is_no_worse_than_min_max(sample, bits, form):
    signed, offset = form
    x = torch.from_numpy(sample)
    step, shift = fixed_point(x, bits, signed, offset)
    first = float(x.min()) if offset else 0.0
    range_step = max(float((x - first).abs().max()) / ends(bits, signed)[1], 1e-4)
    assert step >= 1e-4
    assert error(x, step, shift, bits, signed) <= error(x, range_step, first, bits, signed) * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("signed", "offset"), [(True, False), (False, False), (False, True)])
def test_the_start_is_a_fixed_point(bits, signed, offset):
    """The best step of the codes is the step itself, and the offset the mean of what the codes leave."""
    x = torch.randn(4000, generator=torch.Generator().manual_seed(bits), dtype=torch.float64)
    x = x if signed else torch.nn.functional.gelu(2 * x)
    step, shift = fixed_point(x, bits, signed, offset)
    codes = ((x - shift) / step).clamp(*ends(bits, signed)).round()
    best = float(((x - shift) * codes).sum() / codes.square().sum())
    assert best == pytest.approx(step, rel=1e-3)
    if offset:
        assert shift == pytest.approx(float((x - step * codes).mean()), abs=2e-2 * step)
        assert shift < (0 if bits > 2 else 0.01)
    else:
        assert shift == 0.0


def test_an_offset_fits_values_after_gelu():
    x = torch.nn.functional.gelu(torch.randn(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    for bits in (2, 3, 4):
        found = [
            error(x, *fixed_point(x, bits, s, o), bits, s) for s, o in ((False, True), (False, False), (True, False))
        ]
        assert found[0] < min(found[1:])


def test_values_on_a_grid_are_found_exactly():
    codes = torch.arange(-8, 8, dtype=torch.float64)
    step, _ = fixed_point(codes * 0.37, 4, True, False)
    assert error(codes * 0.37, step, 0.0, 4, True) < error(codes * 0.37, 8 * 0.37 / 7, 0.0, 4, True) + 1e-12
    step, shift = fixed_point(torch.arange(16, dtype=torch.float64) * 0.5 - 1.5, 4, False, True)
    assert (step, shift) == (pytest.approx(0.5), pytest.approx(-1.5))


def test_zeros_have_the_smallest_step():
    assert fixed_point(torch.zeros(9), 4, True, False) == (1e-4, 0.0)
    assert fixed_point(torch.full((9,), -0.5), 4, False, True) == (1e-4, -0.5)


def test_every_site_starts_from_its_own_values():
    network = tiny_vit(depth=1)
    sites, images = sites_of(network.workload), images_of(network, 4)
    found = starts(network, sites, images)
    names = ["b0.qkv", "b0.softmax", "b0.fc1", "norm"]
    with torch.no_grad():
        seen = run(network, images, Numerics(), keep=names)
    assert found.keys() == sites.keys()
    weight = network.node("b0.qkv").weight.detach()
    for k, (q, w) in enumerate(zip(seen["b0.qkv"].chunk(3, -1), weight.chunk(3), strict=True)):
        for bits in (2, 5, 8):
            for name, value in (("stored/b0.qkv", q), ("weights/b0.qkv", w)):
                expected, _ = fixed_point(value, bits, True, False)
                assert float(found[name].steps[k, bits - 2]) == pytest.approx(expected, rel=1e-6)
    step, shift = fixed_point(seen["b0.fc1"], 3, False, True)
    assert float(found["stored/b0.fc1"].steps[0, 1]) == pytest.approx(step, rel=1e-6)
    assert float(found["stored/b0.fc1"].offsets[0, 1]) == pytest.approx(shift, rel=1e-6)
    assert [name for name, one in found.items() if one.offsets is not None] == ["stored/b0.fc1"]
    step, _ = fixed_point(seen["b0.softmax"], 4, False, False)
    assert float(found["stored/b0.softmax"].steps[0, 2]) == pytest.approx(step, rel=1e-6)


def test_a_sample_of_a_large_tensor_has_values_of_all_channels():
    """One of 64 channels is large: evenly spaced values would miss it or have nothing else."""
    network = tiny_vit(depth=1, dim=64, heads=2)
    node = network.node("b0.norm1")
    with torch.no_grad():
        node.weight[torch.arange(64) != 1] *= 1e-3
        node.bias[torch.arange(64) != 1] *= 1e-3
    sites, images = sites_of(network.workload), images_of(network, 400)
    site = {"stored/b0.norm1": sites["stored/b0.norm1"]}
    with torch.no_grad():
        value = run(network, images, Numerics(), keep=["b0.norm1"])["b0.norm1"]
    assert value.numel() > 2 * MOST_VALUES
    step = float(starts(network, site, images)["stored/b0.norm1"].steps[0, 2])
    assert step == pytest.approx(fixed_point(value, 4, True, False)[0], rel=0.1)
