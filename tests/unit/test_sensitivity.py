"""Sensitivity of tiny networks: metrics against closed forms, prefix caching against whole runs, heads against runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from accelsim.problems import AccelsimError
from quant.calibrate import Calibration
from quant.network import Network, Numerics, forward, run
from quant.sensitivity.batch import Cell, Work, rows_of_batch
from quant.sensitivity.components import attention_heads, components
from quant.sensitivity.measure import Settings, network_fingerprint, sensitivity
from quant.sensitivity.metrics import metric_names, metrics_named
from quant.sensitivity.rounding import Rounding
from quant.sensitivity.table import Component
from tests.support.networks import labelled_images, tiny_hybrid, tiny_vit

NETWORKS = {"hybrid": tiny_hybrid, "vit": tiny_vit}
FAST = {"observer": "minmax", "power": 2.0}  # no search of ranges
MINMAX = Calibration("minmax", 2.0)


def batches(network, count, seed, size=16):
    images, labels = labelled_images(network, count, seed)
    # Labels of the float network itself would have no gradient noise: a third of them are wrong.
    labels = torch.where(torch.arange(count) % 3 == 0, (labels + 1) % 10, labels)
    return list(zip(images.split(size), labels.split(size), strict=True))


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


@pytest.fixture(scope="module")
def table(network):
    settings = Settings(channels=True, **FAST)
    return sensitivity(network, batches(network, 32, 1), batches(network, 40, 2), settings)


def in_double(network):
    """The network with parameters in float64."""
    nodes = [
        replace(node, weight=None if node.weight is None else node.weight.double(),
                bias=None if node.bias is None else node.bias.double())
        for node in network.nodes
    ]  # fmt: skip
    return Network(network.workload, tuple(nodes), network.image_shape)


def test_components_are_layers_stored_tensors_and_heads():
    found = components(tiny_vit())
    weights = [one.name for one in found if one.kind == "weight"]
    stored = [one.name for one in found if one.kind == "activation"]
    assert weights[:4] == ["patch_embed", "b0.qkv", "b0.proj", "b0.fc1"]
    assert weights[-1] == "head"
    assert "b0.softmax" in stored
    assert "class_token" not in stored  # a view
    assert "head" not in stored  # the logits
    assert [one.name for one in found if one.kind == "head_weight"] == ["b0.qkv#0", "b0.qkv#1", "b1.qkv#0", "b1.qkv#1"]


def test_relu_and_views_are_no_components_of_the_hybrid():
    stored = [one.name for one in components(tiny_hybrid(), ("activation",))]
    assert "s1.b0.KtV" in stored
    assert not {"s1.b0.relu", "s1.b0.concat", "head.fc"} & set(stored)


def test_heads_of_linear_attention_lie_in_qkv_and_in_the_aggregation():
    assert attention_heads(tiny_hybrid()) == (
        (0, (("s1.b0.qkv", ((0, 12),)),)),
        (1, (("s1.b0.qkv", ((12, 24),)),)),
        (2, (("s1.b0.aggr.pwg", ((0, 12),)),)),
        (3, (("s1.b0.aggr.pwg", ((12, 24),)),)),
    )


@pytest.mark.parametrize("head", range(2))
def test_a_head_of_softmax_attention_changes_its_own_product_only(head):
    network = tiny_vit()
    component = [one for one in components(network) if one.kind == "head_weight"][head]
    (images, _), *_ = batches(network, 8, 1)
    rules = Rounding(network, [component], [images], MINMAX).numerics(component, 2)
    names = ["b0.scores", "b0.values"]
    exact, rounded = run(network, images, keep=names), run(network, images, rules, keep=names)
    for name in names:
        changed = (exact[name] != rounded[name]).transpose(0, 1).flatten(1).any(1)
        assert changed.tolist() == [k == head for k in range(2)]


def test_a_component_after_a_cached_prefix_equals_a_whole_run(network):
    (images, labels), *_ = batches(network, 16, 1)
    found = components(network)
    rounding = Rounding(network, found, [images], MINMAX)
    work = Work(network, rounding, images, labels)
    metrics = list(metrics_named(["cross_entropy"]))
    cells = [(Cell(one, 3), metrics) for one in found]
    for cell, metric, rows in rows_of_batch(work, cells):
        if metric is not None:
            with torch.no_grad():
                logits = forward(network, images, rounding.numerics(cell.component, 3))
                expected = F.cross_entropy(logits.double(), labels, reduction="none")
                expected -= F.cross_entropy(forward(network, images).double(), labels, reduction="none")
            torch.testing.assert_close(rows[:, 0], expected, rtol=0, atol=2e-6)


def test_fisher_of_the_last_layer_has_a_closed_form(network, table):
    last = network.nodes[-1]
    component = Component("weight", ((last.name, ()),))
    images, labels = (torch.cat(parts) for parts in zip(*batches(network, 32, 1), strict=True))
    source = last.operands[0].source
    found = run(network, images, keep=[source, network.workload.output])
    inputs, logits = found[source].flatten(1).double(), found[network.workload.output].double()
    # ∂ cross-entropy / ∂ weight = (p − y) xᵀ
    slope = (logits.softmax(1) - F.one_hot(labels, 10))[:, :, None] * inputs[:, None, :]
    rounding = Rounding(network, [component], [images], MINMAX)
    change = (rounding.numerics(component, 2).weights[last.name] - last.weight).double()
    assert table.value(component, 2, "fisher") == pytest.approx(
        float((slope**2).mean(0).mul(change**2).sum()), rel=1e-4
    )
    assert table.value(component, 2, "gradient") == pytest.approx(abs(float((slope.mean(0) * change).sum())), rel=1e-3)
    assert table.value(component, 2, "mse") == pytest.approx(float((change**2).mean()), rel=1e-5)


def test_gradient_of_a_stored_tensor_is_the_directional_derivative(network, table):
    images, labels = (torch.cat(parts) for parts in zip(*batches(network, 32, 1), strict=True))
    exact = in_double(network)
    for component in table.components("activation")[2:5]:
        rounding = Rounding(network, [component], [part for part, _ in batches(network, 32, 1)], MINMAX)
        numerics = rounding.numerics(component, 4)

        class Nudged(Numerics):
            step, rules = 0.0, numerics

            def stored(self, node, value):
                return value + self.step * (self.rules.stored(node, value.float()).double() - value.float().double())

        losses = []
        for step in (1e-4, -1e-4):
            rules = Nudged()
            rules.step = step
            losses.append(float(F.cross_entropy(forward(exact, images.double(), rules), labels)))
        slope = (losses[0] - losses[1]) / 2e-4
        assert table.value(component, 4, "gradient") == pytest.approx(abs(slope), rel=2e-2, abs=1e-5)


def test_channels_sum_up_to_their_layer(table):
    for row in table.channels:
        component = Component("weight", ((row.op, ()),))
        assert sum(row.values["fisher"]) == pytest.approx(table.value(component, row.bits, "fisher"), rel=1e-9)
        assert np.mean(row.values["mse"]) == pytest.approx(table.value(component, row.bits, "mse"), rel=1e-9)
        assert "kl" not in row.values


def test_heads_sum_up_to_their_layer_where_they_cover_it():
    network = tiny_vit()
    settings = Settings(kinds=("weight", "head_weight"), metrics=("fisher",))
    table = sensitivity(network, batches(network, 16, 1), (), settings)
    for op in ("b0.qkv", "b1.qkv"):
        whole = table.value(Component("weight", ((op, ()),)), 2, "fisher")
        heads = [one for one in table.components("head_weight") if one.parts[0][0] == op]
        assert sum(table.value(one, 2, "fisher") for one in heads) == pytest.approx(whole, rel=1e-9)


def test_more_bits_hurt_less(network):
    settings = Settings(weight_bits=(2, 4, 8), activation_bits=(3, 5, 8), metrics=("kl", "output_sqnr_db"), **FAST)
    table = sensitivity(network, batches(network, 32, 1), (), settings)
    for kind in ("weight", "activation", "head_weight", "head_activation"):
        for component in table.components(kind):
            few, some, many = settings.bits(kind)
            kl = [table.value(component, bits, "kl") for bits in (few, some, many)]
            sqnr = [table.value(component, bits, "output_sqnr_db") for bits in (few, some, many)]
            assert kl[0] > kl[1] > kl[2] > 0
            assert sqnr[0] + 6 < sqnr[1] < sqnr[2] - 6  # 6 dB a bit, about; widths differ by two or more


def test_intervals_hold_the_measured_values(table):
    for row in table.rows:
        assert set(row.intervals) == {"cross_entropy", "top1_loss"}
        for name, (low, high) in row.intervals.items():
            assert low <= row.values[name] <= high
        assert set(row.values) == set(metric_names())


def test_reference_is_the_float_network_on_the_validation_images(network, table):
    images, labels = (torch.cat(parts) for parts in zip(*batches(network, 40, 2), strict=True))
    logits = forward(network, images)
    assert table.reference["cross_entropy"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert table.reference["top1"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert table.images == {"calibration": 32, "validation": 40}


def test_every_metric_was_charged_for_what_it_uses(table):
    seconds = {one.name: one.seconds for one in table.metrics}
    assert seconds["fisher"] > seconds["mse"] > 0
    assert seconds["kl"] > seconds["mse"]


def test_batch_size_does_not_change_the_table():
    network = tiny_vit()
    settings = Settings(kinds=("weight", "activation"), weight_bits=(2,), **FAST)
    tables = [
        sensitivity(network, batches(network, 32, 1, size), batches(network, 30, 2, size), settings) for size in (8, 30)
    ]
    for one, other in zip(*(table.rows for table in tables), strict=True):
        for name in one.values:
            assert one.values[name] == pytest.approx(other.values[name], rel=1e-3, abs=1e-4)


def test_a_changed_weight_changes_the_fingerprint():
    network = tiny_hybrid()
    nodes = list(network.nodes)
    nodes[3] = replace(nodes[3], settings={**nodes[3].settings, "scale": 2.0})
    assert network_fingerprint(tiny_hybrid()) == network_fingerprint(network)
    assert network_fingerprint(tiny_hybrid(seed=1)) != network_fingerprint(network)
    changed = Network(network.workload, tuple(nodes), network.image_shape)
    assert network_fingerprint(changed) != network_fingerprint(network)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (Settings(metrics=("fischer",)), "unknown metric 'fischer'.*try: fisher"),
        (Settings(kinds=("weights",)), "unknown kind 'weights'"),
        (Settings(metrics=("cross_entropy",)), "needs validation images"),
        (Settings(weight_bits=(1,), metrics=("mse",)), "unknown number format 'u1'"),
    ],
)
def test_faults(settings, text):
    network = tiny_vit()
    with pytest.raises(AccelsimError, match=text):
        sensitivity(network, batches(network, 8, 1), (), settings)


def test_labels_are_asked_for_only_where_needed():
    network = tiny_vit()
    unlabelled = [(images, None) for images, _ in batches(network, 8, 1)]
    with pytest.raises(AccelsimError, match="fisher: needs labels of the calibration images"):
        sensitivity(network, unlabelled, (), Settings(metrics=("fisher", "kl")))
    table = sensitivity(network, unlabelled, (), Settings(metrics=("kl",), kinds=("weight",)))
    assert all(row.values["kl"] > 0 for row in table.rows)
