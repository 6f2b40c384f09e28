"""Products as components: which tensors each owns, and that rounding one is rounding its parts."""

from __future__ import annotations

import json

import pytest
import torch

from quant.calibrate import Calibration
from quant.network import Numerics, forward
from quant.patchwise.network import ranked
from quant.patchwise.order import Fixed, Threshold
from quant.sensitivity.batch import Cell, Work, rows_of_batch
from quant.sensitivity.components import components
from quant.sensitivity.measure import Settings, sensitivity
from quant.sensitivity.metrics import metrics_named
from quant.sensitivity.rounding import Rounding
from quant.sensitivity.table import ALL_LAYERS, ALL_PRODUCTS, PRODUCT, Component, agreements, load_table
from quant.structure import MULTIPLYING, readers
from tests.support.networks import labelled_images, tiny_hybrid, tiny_vit

NETWORKS = {"hybrid": tiny_hybrid, "vit": tiny_vit}
MINMAX = Calibration("minmax", 2.0)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


def products(network):
    return components(network, (PRODUCT,))


def test_products_of_a_vision_transformer():
    assert {one.name: one.reads for one in products(tiny_vit(depth=1))} == {
        "patch_embed": (),
        "b0.qkv": ("b0.norm1",),
        "b0.scores": ("b0.qkv",),
        "b0.values": ("b0.softmax",),
        "b0.proj": ("b0.values",),
        "b0.fc1": ("b0.norm2",),
        "b0.fc2": ("b0.fc1",),
        "head": ("norm",),
    }


@pytest.mark.parametrize("rule", [Fixed(), Threshold(128)])
def test_rank_words_are_no_component(rule):
    """Under a threshold products read the words' flags: rounding them would put tokens into other places."""
    ranking = ranked(tiny_vit(), ["b1"], rule=rule)
    found = {one.name for one in components(ranking, ("activation",))}
    assert {"b1.rank_scores", "b1.rank_softmax", "b1.qkv"} <= found
    assert not {"b1.rank", "b1.gather"} & found
    assert products(ranking) == products(tiny_vit())


def test_of_several_readers_the_first_owns_the_tensor():
    found = {one.name: one.reads for one in products(tiny_hybrid())}
    assert found["s1.b0.aggr.dw5"] == ("s1.b0.qkv",)  # keys and values come from it, too
    assert found["s1.b0.KtV"] == ("s1.b0.aggr.pwg",)
    assert found["s1.b0.QKV"] == ("s1.b0.KtV",)


def test_every_operand_of_an_array_engine_is_owned_once(network):
    owned = [op for one in products(network) for op in one.reads]
    users = readers(network).items()
    read = {name for name, nodes in users if any(node.function in MULTIPLYING for node, _ in nodes)}
    assert sorted(owned) == sorted(node.name for node in network.nodes if node.op.output in read)
    assert network.nodes[-1].name not in owned
    filters = [one.name for one in products(network) if network.node(one.name).has_filters]
    assert filters == [node.name for node in network.nodes if node.has_filters]


class Both(Numerics):
    """Rounds what any of several others rounds."""

    def __init__(self, rules):
        self.rules = rules

    def parameters(self, node):
        changed = [one.parameters(node) for one in self.rules if node.name in one.weights]
        return changed[0] if changed else (node.weight, node.bias)

    def stored(self, node, value):
        for one in self.rules:
            value = one.stored(node, value)
        return value


def test_rounding_a_product_is_rounding_its_parts(network):
    images, labels = labelled_images(network, 12)
    kinds = (PRODUCT, "weight", "activation")
    found = components(network, kinds)
    rounding = Rounding(network, found, [images], MINMAX)
    parts = {(one.kind, one.name): one for one in found}
    logit_l2 = list(metrics_named(["logit_l2"]))
    work = Work(network, rounding, images, labels)
    cells = [(Cell(one, 3), logit_l2) for one in found if one.kind == PRODUCT]
    with torch.no_grad():
        exact = forward(network, images)
    rows = {cell.component.name: rows for cell, metric, rows in rows_of_batch(work, cells) if metric is not None}
    for one in products(network):
        wanted = [parts["activation", op] for op in one.reads]
        if network.node(one.name).has_filters:
            wanted.append(parts["weight", one.name])
        with torch.no_grad():
            logits = forward(network, images, Both([rounding.numerics(part, 3) for part in wanted]))
        expected = ((logits - exact).double() ** 2).sum(1)
        assert expected.max() > 0
        torch.testing.assert_close(rows[one.name][:, 0], expected, rtol=1e-4, atol=1e-9)


def test_metrics_of_errors_add_up_over_the_parts(network):
    images, labels = labelled_images(network, 12)
    labels = (labels + 1) % 10
    kinds = (PRODUCT, "weight", "activation")
    settings = Settings((3,), (3,), kinds, ("fisher", "hessian_trace"), probes=2, observer="minmax", power=2.0)
    table = sensitivity(network, [(images, labels)], (), settings)
    for one in table.components(PRODUCT):
        wanted = [Component("activation", ((op, ()),)) for op in one.reads]
        if network.node(one.name).has_filters:
            wanted.append(Component("weight", ((one.name, ()),)))
        for name in settings.metrics:
            expected = sum(table.value(part, 3, name) for part in wanted)
            assert table.value(one, 3, name) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_a_table_of_products_comes_back_from_its_file_and_ranks_them_apart(tmp_path):
    network = tiny_vit()
    images, labels = labelled_images(network, 16)
    data = list(zip(images.split(8), ((labels + 1) % 10).split(8), strict=True))
    settings = Settings((2, 4), kinds=("weight", PRODUCT), metrics=("logit_l2", "cross_entropy"), observer="minmax")
    table = sensitivity(network, data, data, settings)
    table.save(tmp_path / "table.json")
    again = load_table(tmp_path / "table.json")
    assert again.fingerprint() == table.fingerprint()
    assert again.components(PRODUCT) == products(network)
    assert "reads" not in json.dumps(again.components("weight")[0].to_json())
    counts = {one.group: one.components for one in agreements(table) if one.bits is None}
    assert counts == {ALL_LAYERS: 2 * 10, ALL_PRODUCTS: 2 * 14}
