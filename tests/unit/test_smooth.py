"""SmoothQuant and SQ-b: the same function, the formulas of a plain twin, centred ranges, smaller rounding errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.problems import AccelsimError
from accelsim.workloads.vit import Variant
from quant.capture import capture
from quant.functional import fake_quantize
from quant.models.controls import with_output_offsets, with_output_scales
from quant.models.vit import VisionTransformer
from quant.network import Network, forward, run
from quant.observers import minmax
from quant.smooth import Smooth, channel_skew, layernorm_outputs, offset_and_scale, smooth
from quant.views import View
from tests.support.networks import NetBuilder, images_of, in_float64, tiny_hybrid

SMALL = Variant(dim=16, depth=2, heads=2, patch=4, classes=5, in_channels=1)
OPTIONS = [(method, values) for method in ("sq_b", "smoothquant") for values in ("no", "scale", "shift")]


def model(seed: int) -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VisionTransformer(SMALL, 8).eval()


@pytest.fixture(scope="module")
def base() -> Network:
    return in_float64(capture(model(0), (1, 8, 8)))


def wild(network: Network, seed: int) -> Network:
    """Random weights; gains and offsets of LayerNorms over four decades, of either sign, some zero."""
    random = torch.Generator().manual_seed(seed)

    def normal(like):
        return torch.randn(like.shape, generator=random, dtype=torch.float64)

    nodes = []
    for node in network.nodes:
        if node.function == "layernorm":
            gain = normal(node.weight) * 10.0 ** (2 * normal(node.weight)).clamp(-2, 2)
            gain[int(torch.randint(len(gain), (1,), generator=random))] = 0.0
            node = replace(node, weight=gain, bias=5 * normal(node.weight))
        elif node.function == "linear":
            spread = node.weight.shape[1] ** -0.5
            node = replace(node, weight=spread * normal(node.weight), bias=normal(node.bias))
        nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def images(count: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ranges(network: Network, batch: torch.Tensor, name: str):
    rows = run(network, batch, keep=[name])[name].flatten(0, -2)
    return rows.amin(0), rows.amax(0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), alpha=st.floats(0, 1), options=st.sampled_from(OPTIONS))
def test_outputs_do_not_change(base, seed, alpha, options):
    network = wild(base, seed)
    found = smooth(network, [images(6)], Smooth(options[0], alpha, options[1]))
    fresh = images(4, seed=2)  # not the calibration images
    expected, got = forward(network, fresh), forward(found, fresh)
    assert float((got - expected).norm() / expected.norm()) < 1e-9
    assert found.workload is network.workload
    changed = [a.name for a, b in zip(network.nodes, found.nodes, strict=True) if a is not b]
    assert {"b0.norm1", "b0.qkv", "b1.norm2", "b1.fc1", "norm", "head"} <= set(changed)
    assert ("b0.proj" in changed) == (options[1] != "no")
    assert not {"patch_embed", "embed", "b0.fc2"} & set(changed)


def twin(low, high, rows, alpha, centred):
    """The formulas, channel by channel, in Python numbers."""
    offsets, scales = [], []
    for j in range(len(low)):
        b = (high[j] + low[j]) / 2 if centred else 0.0
        x = max(abs(low[j] - b), abs(high[j] - b), 1e-5)
        w = max(1e-5, *(abs(row[j]) for row in rows))
        offsets.append(b)
        scales.append(max(x**alpha / w ** (1 - alpha), 1e-5))
    return np.array(offsets), np.array(scales)


@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("method", ["sq_b", "smoothquant"])
def test_parameters_equal_the_twin(base, method, alpha):
    network, batches = wild(base, 5), [images(4), images(4, seed=9)]
    found = smooth(network, batches, Smooth(method, alpha))
    for norm, reader in (("b0.norm1", "b0.qkv"), ("b1.norm2", "b1.fc1"), ("norm", "head")):
        low, high = (x.numpy() for x in ranges(network, torch.cat(batches), norm))
        weight, bias = network.node(reader).weight.numpy(), network.node(reader).bias.numpy()
        b, s = twin(low, high, weight, alpha, method == "sq_b")
        pairs = [
            (found.node(norm).weight, network.node(norm).weight.numpy() / s),
            (found.node(norm).bias, (network.node(norm).bias.numpy() - b) / s),
            (found.node(reader).weight, weight * s),
            (found.node(reader).bias, bias + weight @ b),
        ]
        for got, expected in pairs:
            np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_several_readers_share_the_weight_maximum():
    b = NetBuilder("fan", 4, 0)
    x = b.layernorm("norm", b.linear("first", "mlp", "image", 6, views=(View("permute", ((0, 2, 3, 1),)),)))
    names = [b.linear(name, "mlp", x, 6) for name in ("one", "two")]
    network = in_float64(b.build(b.add("sum", *names)))
    batch = images_of(network, 8).double()
    low, high = ranges(network, batch, "norm")
    rows = np.concatenate([network.node(name).weight.numpy() for name in names])
    s = twin(low.numpy(), high.numpy(), rows, 0.5, True)[1]
    found = smooth(network, [batch], Smooth())
    np.testing.assert_allclose(found.node("norm").weight, network.node("norm").weight / torch.tensor(s), rtol=1e-12)
    for name in names:
        np.testing.assert_allclose(found.node(name).weight, network.node(name).weight * torch.tensor(s), rtol=1e-12)


def test_floors():
    zero = torch.zeros(1, dtype=torch.float64)
    assert offset_and_scale(zero, zero, zero, 1.0, True)[1].item() == 1e-5  # activation
    assert offset_and_scale(zero, zero, zero, 0.0, True)[1].item() == pytest.approx(1e5)  # weight
    assert offset_and_scale(zero, zero + 1e-3, zero + 1e3, 0.5, False)[1].item() == pytest.approx(1e-3)
    assert offset_and_scale(zero, zero + 1e-5, zero + 1e6, 0.5, False)[1].item() == 1e-5  # the scale itself


def test_channels_are_centred_and_of_smoothed_size(base):
    network, batch = wild(base, 3), images(16)
    found = smooth(network, [batch], Smooth("sq_b", 1.0))  # everything into the weights: half ranges of one
    for name in layernorm_outputs(network):
        low, high = ranges(found, batch, name)
        assert float((low + high).abs().max()) < 1e-6
        live = ranges(network, batch, name)[1] > ranges(network, batch, name)[0]
        assert torch.allclose(high[live], torch.ones_like(high[live]), rtol=1e-6)
    before = smooth(network, [batch], Smooth("smoothquant", 1.0))
    assert max(float((high + low).abs().max()) for low, high in (ranges(before, batch, "b0.norm1"),)) > 0.5


def test_values_are_centred_in_front_of_the_projection(base):
    network, batch = wild(base, 3), images(16)
    found = smooth(network, [batch], Smooth("sq_b", 1.0, "shift"))
    mixed = run(found, batch, keep=["b0.values"])["b0.values"]  # [images, heads, tokens, width]
    low, high = mixed.amin((0, 2)), mixed.amax((0, 2))
    assert float((low + high).abs().max()) < 1e-6
    assert torch.allclose(high, torch.ones_like(high), rtol=1e-6)
    for part in range(2):  # queries and keys are as they were
        rows = slice(16 * part, 16 * part + 16)
        plain = smooth(network, [batch], Smooth("sq_b", 1.0, "no"))
        assert torch.equal(found.node("b0.qkv").bias[rows], plain.node("b0.qkv").bias[rows])
    only = smooth(network, [batch], Smooth("sq_b", 1.0, "scale"))
    mixed = run(only, batch, keep=["b0.values"])["b0.values"]
    assert torch.allclose(mixed.abs().amax((0, 2)), torch.ones_like(high), rtol=1e-6)
    assert float((mixed.amin((0, 2)) + mixed.amax((0, 2))).abs().max()) > 0.1


def relative_error(network: Network, batch: torch.Tensor, bits: int) -> float:
    """What rounding LayerNorm outputs to one symmetric scale does to the outputs of the layers behind, on average."""
    outputs = layernorm_outputs(network)
    found = run(network, batch, keep=outputs)
    errors = []
    for node in network.nodes:
        if node.operands[0].source in outputs:
            value = found[node.operands[0].source]
            rounded = fake_quantize(value, minmax(value, bits, symmetric=True))
            centre = value - value.flatten(0, -2).mean(0)
            errors.append(float(((rounded - value) @ node.weight.T).norm() / (centre @ node.weight.T).norm()))
    return sum(errors) / len(errors)


@pytest.mark.parametrize("bits", [4, 6])
def test_rounding_errors_fall_on_the_controls(bits):
    plain, batch = model(2), images(32)
    offset, scaled = with_output_offsets(plain, 8.0, 0), with_output_scales(plain, 40.0, 0)
    errors = {}
    for name, one in (("plain", plain), ("offset", offset), ("scale", scaled)):
        network = in_float64(capture(one, (1, 8, 8)))
        for method in ("none", "smoothquant", "sq_b"):
            errors[name, method] = relative_error(smooth(network, [batch], Smooth(method)), batch, bits)
    assert errors["offset", "sq_b"] < errors["offset", "smoothquant"] / 3
    assert errors["offset", "sq_b"] < errors["offset", "none"] / 3
    assert errors["offset", "sq_b"] == pytest.approx(errors["plain", "sq_b"], rel=0.05)  # nothing of it is left
    for method in ("smoothquant", "sq_b"):
        assert errors["scale", method] < errors["scale", "none"] / 3


def test_float32_stays_float32_and_computes_the_same():
    network = capture(model(4), (1, 8, 8))
    batch = images(8).float()
    found = smooth(network, [batch], Smooth())
    assert {node.weight.dtype for node in found.nodes if node.weight is not None} == {torch.float32}
    assert torch.allclose(forward(found, batch), forward(network, batch), rtol=1e-4, atol=1e-5)


def test_a_layer_without_bias_gets_one_only_when_moved(base):
    network = wild(base, 6)
    bare = replace(network, nodes=tuple(replace(n, bias=None) if n.name == "b0.fc1" else n for n in network.nodes))
    batch = images(4)
    moved, scaled = (smooth(bare, [batch], Smooth(method)) for method in ("sq_b", "smoothquant"))
    assert moved.node("b0.fc1").bias is not None
    assert scaled.node("b0.fc1").bias is None
    bare = replace(network, nodes=tuple(replace(n, bias=None) if n.name == "b0.qkv" else n for n in network.nodes))
    scaled = smooth(bare, [batch], Smooth("smoothquant", values="shift"))
    assert scaled.node("b0.qkv").bias is None
    moved = smooth(bare, [batch], Smooth("sq_b", values="shift"))
    for found in (moved, scaled):
        assert torch.allclose(forward(found, batch), forward(bare, batch), rtol=1e-9, atol=1e-9)


def test_what_is_not_smoothed_is_the_same_network(base):
    assert smooth(base, [images(2)], Smooth("none", values="shift")) is base
    hybrid = tiny_hybrid()
    assert smooth(hybrid, [images_of(hybrid, 2)], Smooth(values="shift")) is hybrid


def test_skew(base):
    gain = torch.ones(16, dtype=torch.float64)
    gain[:2] = torch.tensor([0.0, 8.0])
    offset = torch.zeros(16, dtype=torch.float64)
    offset[[0, 5]] = torch.tensor([3.0, 100.0], dtype=torch.float64)
    nodes = tuple(replace(n, weight=gain, bias=offset) if n.name == "b0.norm1" else n for n in base.nodes)
    batch = images(16)
    before = {one.norm: one for one in channel_skew(base, [batch])}
    (one,) = (one for one in channel_skew(replace(base, nodes=nodes), [batch[:8], batch[8:]]) if one.norm == "b0.norm1")
    low, high = ranges(replace(base, nodes=nodes), batch, "b0.norm1")
    half = (high - low)[1:] / 2
    assert (one.channels, one.constant, one.smoothable) == (16, 1, True)
    assert one.range_ratio == pytest.approx(float(half.max() / half.median()))
    assert one.offset_max == pytest.approx(float((high + low)[5] / (high - low)[5]))
    assert one.offset_max > 20 > 1 > one.offset_median
    assert one.centred_gain == pytest.approx(float(high[5] / half.max()))
    assert before["b0.norm1"].constant == 0
    after = channel_skew(smooth(base, [batch], Smooth()), [batch])
    assert all(one.offset_max < 1e-6 and one.centred_gain == pytest.approx(1) for one in after)
    assert channel_skew(tiny_hybrid(), [images_of(tiny_hybrid(), 2)]) == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "sqb"}, "method is 'sqb'.*sq_b, smoothquant, none"),
        ({"values": "yes"}, "values is 'yes'.*no, scale, shift"),
        ({"alpha": 1.5}, "alpha is 1.5"),
    ],
)
def test_faults(options, words):
    with pytest.raises(AccelsimError, match=words):
        Smooth(**options)
