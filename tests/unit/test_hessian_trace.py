"""Hutchinson's traces against Hessians written out, and `hessian_trace` against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from accelsim.problems import AccelsimError
from quant.calibrate import Calibration
from quant.network import Numerics, forward
from quant.sensitivity.hessian import curvatures, hutchinson
from quant.sensitivity.measure import Settings, sensitivity
from quant.sensitivity.metrics import metric_names
from quant.sensitivity.rounding import Rounding
from quant.sensitivity.table import Component
from tests.support.networks import in_float64, labelled_images, tiny_hybrid, tiny_vit

FAST = {"observer": "minmax", "power": 2.0}


def signs(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("probes", [1, 5])
def test_a_diagonal_quadratic_is_exact_with_any_probe(probes):
    leaves = [torch.randn(4, 3, requires_grad=True), torch.randn(5, requires_grad=True)]
    factors = [torch.arange(12.0).reshape(4, 3), -torch.arange(5.0)]
    loss = sum(0.5 * (factor * leaf**2).sum() for factor, leaf in zip(factors, leaves, strict=True))
    slopes = torch.autograd.grad(loss, leaves, create_graph=True)
    for found, factor in zip(hutchinson(slopes, leaves, probes, signs(3)), factors, strict=True):
        torch.testing.assert_close(found, factor.double(), rtol=0, atol=0)


def test_a_full_quadratic_is_met_within_its_known_spread():
    """The variance of one probe is 2·Σ_{i≠j} H_ij² for a symmetric H (Hutchinson 1990)."""
    root = torch.randn(6, 6, dtype=torch.float64, generator=signs(1))
    matrix = root @ root.T
    leaf = torch.randn(6, dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.grad(0.5 * leaf @ matrix @ leaf, [leaf], create_graph=True)
    spread = math.sqrt(2 * float((matrix**2).sum() - (matrix.diagonal() ** 2).sum()))
    single = torch.stack([hutchinson(slopes, [leaf], 1, signs(k))[0].sum() for k in range(400)])
    assert float(single.std()) == pytest.approx(spread, rel=0.15)
    many = float(hutchinson(slopes, [leaf], 2500, signs(0))[0].sum())
    assert abs(many - float(matrix.trace())) < 4 * spread / 50
    assert abs(many - float(matrix.trace())) > 0


def test_a_slope_that_nothing_changes_has_zeros():
    leaves = [torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)]
    slopes = torch.autograd.grad(2 * leaves[0].sum() + (leaves[1] ** 3).sum(), leaves, create_graph=True)
    flat, curved = hutchinson(slopes, leaves, 2, signs(0))
    assert flat.tolist() == [0, 0]
    assert curved.tolist() == [6, 6, 6]


class Moved(Numerics):
    """The filters of one op, or a step added to a stored output, are what the Hessian is taken by."""

    def __init__(self, op, weight=None, step=None):
        self.op, self.weight, self.step = op, weight, step

    def parameters(self, node):
        moved = node.name == self.op and self.weight is not None
        return (self.weight if moved else node.weight), node.bias

    def stored(self, node, value):
        return value + self.step if node.name == self.op and self.step is not None else value


def small_vit():
    return tiny_vit(depth=1, dim=4)


def exact_traces(network, images, labels, op):
    """Trace of the mean loss by an op's filters, and of each image's loss by its output, from full Hessians."""
    weight = network.node(op).weight

    def by_weight(value):
        return F.cross_entropy(forward(network, images, Moved(op, weight=value)), labels)

    size = weight.numel()
    of_weight = torch.autograd.functional.hessian(by_weight, weight).reshape(size, size).trace()
    per_image = []
    for k in range(len(images)):
        kept = {}

        class Look(Numerics):
            def stored(self, node, value, kept=kept):
                kept[node.name] = value
                return value

        forward(network, images[k : k + 1], Look())

        def by_step(step, k=k):
            return F.cross_entropy(forward(network, images[k : k + 1], Moved(op, step=step)), labels[k : k + 1])

        found = torch.autograd.functional.hessian(by_step, torch.zeros_like(kept[op]))
        per_image.append(found.reshape(kept[op].numel(), -1).trace())
    return float(of_weight), torch.stack(per_image)


@pytest.mark.parametrize(
    ("make", "op"),
    [(small_vit, "head"), (small_vit, "b0.fc2"), (tiny_hybrid, "head.fc")],
    ids=["vit-head", "vit-fc2", "hybrid-head"],
)
def test_traces_equal_those_of_the_full_hessian_within_sampling_error(make, op):
    network = in_float64(make())
    images = labelled_images(make(), 3)[0].double()
    labels = torch.tensor([1, 4, 7])
    of_weight, of_images = exact_traces(network, images, labels, op)
    draws = [curvatures(network, images, labels, [op], 8, seed) for seed in range(40)]
    weights = torch.stack([one.weights[op].sum() for one in draws])
    assert abs(float(weights.mean()) - of_weight) < 4 * float(weights.std()) / math.sqrt(40)
    assert float(weights.std()) / math.sqrt(40) < 0.2 * abs(of_weight)  # the bound above says something
    stored = torch.stack([one.stored[op].flatten(1).sum(1) for one in draws])
    error = stored.std(0) / math.sqrt(40)
    assert ((stored.mean(0) - of_images).abs() < 4 * error + 1e-9).all()
    assert float(error.mean()) < 0.2 * float(of_images.abs().mean())


def test_the_metric_is_mean_trace_times_squared_error():
    network = tiny_vit(depth=1)
    images, labels = labelled_images(network, 8)
    labels = (labels + 3) % 10
    weight, stored = Component("weight", (("b0.fc2", ()),)), Component("activation", (("b0.softmax", ()),))
    settings = Settings((2,), (3,), ("weight", "activation"), ("hessian_trace",), probes=4, **FAST)
    table = sensitivity(network, [(images, labels)], (), settings)
    rounding = Rounding(network, [weight, stored], [images], Calibration("minmax", 2.0))
    outputs = [op for one in table.components("activation") for op, _ in one.parts]
    found = curvatures(network, images, labels, outputs, 4, 0)
    filters = network.node("b0.fc2").weight
    change = (rounding.numerics(weight, 2).weights["b0.fc2"] - filters).double()
    expected = float(found.weights["b0.fc2"].sum()) / filters.numel() * float((change**2).sum())
    assert table.value(weight, 2, "hessian_trace") == pytest.approx(expected, rel=1e-6)
    kept = {}

    class Look(Numerics):
        def stored(self, node, value):
            kept[node.name] = value
            return value

    with torch.no_grad():
        forward(network, images, Look())
    value = kept["b0.softmax"]
    change = (rounding.numerics(stored, 3).stored(network.node("b0.softmax"), value) - value).double()
    traces = found.stored["b0.softmax"].flatten(1).sum(1) / (value.numel() / len(images))
    expected = float((traces * (change**2).flatten(1).sum(1)).mean())
    assert table.value(stored, 3, "hessian_trace") == pytest.approx(expected, rel=1e-6)


def test_heads_have_the_trace_of_their_channels():
    network = tiny_vit(depth=1)
    images, labels = labelled_images(network, 8)
    settings = Settings((2,), kinds=("head_weight",), metrics=("hessian_trace",), probes=3, **FAST)
    table = sensitivity(network, [(images, (labels + 3) % 10)], (), settings)
    diagonal = curvatures(network, images, (labels + 3) % 10, (), 3, 0).weights["b0.qkv"][0]
    weight = network.node("b0.qkv").weight
    for component in table.components("head_weight"):
        chosen = torch.cat([torch.arange(first, stop) for first, stop in component.parts[0][1]])
        rounded = Rounding(network, [component], [images], Calibration("minmax", 2.0)).numerics(component, 2)
        change = (rounded.weights["b0.qkv"] - weight).double()
        expected = float(diagonal[chosen].mean() * (change**2).sum())
        assert table.value(component, 2, "hessian_trace") == pytest.approx(expected, rel=1e-6)


def test_it_is_slow_needs_labels_and_gives_the_same_numbers_again(tmp_path):
    assert "hessian_trace" not in metric_names()
    network = tiny_vit(depth=1)
    images, labels = labelled_images(network, 16)
    data = list(zip(images.split(8), ((labels + 1) % 10).split(8), strict=True))
    settings = Settings((2,), kinds=("product",), metrics=("hessian_trace",), probes=2, **FAST)
    one, other = (sensitivity(network, data, (), settings) for _ in range(2))
    assert one.fingerprint() == other.fingerprint()
    assert one.settings["probes"] == 2
    cache = tmp_path / "cache"
    more = sensitivity(network, data, (), Settings((2,), kinds=("product",), metrics=("hessian_trace",), **FAST), cache)
    again = sensitivity(network, data, (), settings, cache)  # other probes do not use what is there
    assert again.fingerprint() == one.fingerprint() != more.fingerprint()
    with pytest.raises(AccelsimError, match="hessian_trace: needs labels of the calibration images"):
        sensitivity(network, [(images, None)], (), settings)
    with pytest.raises(AccelsimError, match="probes: is 0"):
        sensitivity(network, data, (), Settings(metrics=("hessian_trace",), probes=0))
