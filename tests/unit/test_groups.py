"""Scale groups: branches and row sums keep scales of their own, and no sum may mix scales."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from accelsim.problems import AccelsimError
from quant.groups import narrow, scale_groups, spread_values
from quant.network import Network
from quant.structure import (
    depthwise_inputs,
    pointwise_inputs_after_depthwise,
    readers,
    segments,
    without_zero_point,
)
from tests.support.networks import tiny_hybrid, tiny_vit


def test_plain_tensors_have_one_group():
    groups = scale_groups(tiny_vit())
    assert {one.count for one in groups.values()} == {1}


def test_branches_and_row_sums_have_groups_of_their_own():
    network = tiny_hybrid()
    groups = scale_groups(network)
    products = [node.op.output for node in network.nodes if node.name.endswith(("KtV", "QKV"))]
    assert products
    for name in products:
        heads = network.node(name).op.loop.groups
        assert groups[name].count == 2 * heads  # products and sums
    division = next(node for node in network.nodes if node.function == "divide")
    assert groups[division.op.output].count == 1


def test_a_scale_per_channel_only_where_a_depthwise_convolution_reads():
    network = tiny_hybrid()
    able = depthwise_inputs(network)
    groups = scale_groups(network, able)
    for name in able:
        assert groups[name].count == network.workload.tensor_by_name[name].channels
    dense = pointwise_inputs_after_depthwise(network)[0]
    with pytest.raises(AccelsimError, match="add values of different scales"):
        scale_groups(network, [dense])


def test_groups_spread_over_the_elements_they_label():
    network = tiny_hybrid()
    groups = scale_groups(network, depthwise_inputs(network))
    for one in groups.values():
        values = torch.arange(one.count, dtype=torch.float64)
        assert torch.equal(one.spread(values).expand(one.labels.shape), values[one.labels])


def test_narrow_keeps_only_axes_that_matter():
    labels = torch.zeros(1, 3, 4, 5, dtype=torch.long)
    labels[:, 1] = 1
    assert narrow(labels).shape == (1, 3, 1, 1)


def test_spread_values_go_through_views():
    network = tiny_hybrid()
    stored = {name: torch.ones(()) for name in readers(network)}
    concat = next(node for node in network.nodes if node.function == "concat")
    first, second = (operand.source for operand in concat.operands)
    stored[second] = torch.full((), 2.0)
    joined = spread_values(network, stored, ones=1.0)[concat.op.output]
    half = joined.shape[1] // 2
    assert bool((joined[:, :half] == 1).all())
    assert bool((joined[:, half:] == 2).all())
    assert first != second


def test_what_is_multiplied_has_no_zero_point():
    network = tiny_hybrid()
    names = without_zero_point(network)
    for node in network.nodes:
        if node.function in ("matmul", "divide"):
            for operand in node.operands:
                assert set(network.workload.storage_of(operand.source)) <= names
    assert network.workload.output not in names


@pytest.mark.parametrize("make", [tiny_hybrid, tiny_vit])
def test_segments_meet_in_one_tensor(make):
    network = make()
    parts = segments(network)
    assert [node.name for part in parts for node in part] == [node.name for node in network.nodes]
    outputs = [network.workload.input, *(part[-1].op.output for part in parts)]
    for part, source in zip(parts, outputs, strict=False):
        inside = {node.op.output for node in part}
        read = {operand.source for node in part for operand in node.operands} - inside
        assert read == {source}
        assert any(node.has_filters for node in part)


def test_a_network_is_its_workload():
    network = tiny_vit()
    with pytest.raises(AccelsimError, match="are not the ops"):
        Network(network.workload, network.nodes[:-1], network.image_shape)
    with pytest.raises(AccelsimError, match="has no op"):
        replace(network).node("nobody")
