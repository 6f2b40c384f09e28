"""MPTQ: the formats that it gives to tensors, and that greedy widths become the plan that was searched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from accelsim.formats import Format, Scheme
from accelsim.problems import AccelsimError
from accelsim.workloads.vit import Variant
from codesign.greedy.mixed import ACTIVATION, WEIGHT, MixedNetwork, WidthSettings
from quant.capture import capture
from quant.integer import compile_integer
from quant.methods.mptq import MPTQ, region_kind
from quant.models.vit import VisionTransformer
from quant.network import Network
from quant.quantize import gather, make_plan, quantize
from quant.regions.choose import choose, sample_of
from quant.structure import readers


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return capture(VisionTransformer(Variant(16, 2, 2, patch=8, classes=10, in_channels=1), 32).eval(), (1, 32, 32))


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    return [torch.randn(6, 1, 32, 32, generator=torch.Generator().manual_seed(k)) for k in range(2)]


def formats(network: Network, method: MPTQ, batches: list[Tensor]) -> dict[str, Format]:
    plan = make_plan(network, method, gather(network, batches, method))
    return {rule.match: rule.output for rule in plan.rules if rule.match != "*"}


def test_what_products_read_is_narrow_and_the_rest_has_eight_bits(network: Network, batches: list[Tensor]) -> None:
    found = formats(network, MPTQ(activation_bits=4, regions="fixed", fixed_shift=3), batches)
    names = {name: fmt.name for name, fmt in found.items()}
    assert {names[f"b{k}.{op}"] for k in (0, 1) for op in ("norm1", "qkv", "values", "norm2")} == {"u4"}
    assert {names[f"b{k}.softmax"] for k in (0, 1)} == {"r4p3"}
    assert {names[f"b{k}.fc1"] for k in (0, 1)} == {"r4n3"}
    wide = ("embed", "b0.scores", "b0.proj", "b0.attn_add", "b0.fc2", "b1.mlp_add", "head")
    assert {names[name] for name in wide} == {"u8"}
    full = formats(network, MPTQ(activation_bits=4, other_bits=4, regions="none"), batches)
    assert {fmt.name for name, fmt in full.items() if name != "head"} == {"u4"}


@pytest.mark.parametrize("bits", [4, 6])
def test_ratios_are_those_of_least_error(network: Network, batches: list[Tensor], bits: int) -> None:
    method = MPTQ(activation_bits=bits, smooth="none")
    statistics = gather(network, batches, method)
    found = formats(network, method, batches)
    for name in ("b0.softmax", "b1.fc1"):
        values, _ = sample_of(statistics, name)
        errors = {m: choose(values, bits, name.endswith("fc1"), fixed=m).error for m in range(9)}
        assert errors[found[name].region_shift] == min(errors.values())
        assert min(errors.values()) < max(errors.values())


def test_weighted_ratios_use_slopes(network: Network, batches: list[Tensor]) -> None:
    method = MPTQ(activation_bits=4, weighted_regions=True)
    assert set(method.weighted(network)) == {f"b{k}.{op}" for k in (0, 1) for op in ("softmax", "fc1")}
    statistics = gather(network, batches, method)
    assert set(statistics.slopes) == set(method.weighted(network))
    assert gather(network, batches, MPTQ()).slopes == {}


def test_only_softmax_and_gelu_that_products_read_have_regions(network: Network) -> None:
    kinds = {name: region_kind(network, name) for name in readers(network)}
    assert {name for name, kind in kinds.items() if kind == "p"} == {"b0.softmax", "b1.softmax"}
    assert {name for name, kind in kinds.items() if kind == "n"} == {"b0.fc1", "b1.fc1"}
    layers = nn.Conv2d(1, 4, 3), nn.Hardswish(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    hybrid = capture(nn.Sequential(*layers).eval(), (1, 8, 8))
    assert not any(region_kind(hybrid, name) for name in readers(hybrid))


def test_smoothing_changes_the_network_and_nothing_is_done_without_layernorm(
    network: Network, batches: list[Tensor]
) -> None:
    smoothed = MPTQ().prepare(network, batches)
    assert not torch.equal(smoothed.node("b0.norm1").weight, network.node("b0.norm1").weight)  # type: ignore[arg-type]
    assert MPTQ(smooth="none").prepare(network, batches) is network
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    plain = capture(nn.Sequential(*layers).eval(), (1, 8, 8))
    assert MPTQ().prepare(plain, [torch.randn(2, 1, 8, 8)]) is plain


def test_zero_points_are_where_they_are_asked_for(network: Network, batches: list[Tensor]) -> None:
    def pointed(method: MPTQ) -> set[str]:
        plan = make_plan(network, method, gather(network, batches, method))
        return {rule.match for rule in plan.rules if rule.zero_point}

    assert pointed(MPTQ()) == set()
    assert pointed(MPTQ(regions="none", region_points=True)) == {"b0.fc1", "b1.fc1"}
    everywhere = pointed(MPTQ(zero_points=True))
    assert {"b0.norm1", "b0.attn_add"} <= everywhere
    assert not everywhere & {"b0.fc1", "b0.softmax", "b0.qkv"}  # two regions, or codes that are multiplied
    offsets = MPTQ(offsets=True)
    plan = make_plan(network, offsets, gather(network, batches, offsets))
    shifted = {rule.match for rule in plan.rules if rule.granularity == "channel_offset"}
    assert shifted == {"b0.norm1", "b0.norm2", "b1.norm1", "b1.norm2", "norm"}


def test_untied_steps_replace_the_tied_ones_and_have_no_integers(network: Network, batches: list[Tensor]) -> None:
    plan, checkpoint = quantize(network, batches, MPTQ(regions="ptq4vit"))
    assert set(checkpoint.untied) == {f"b{k}.{op}" for k in (0, 1) for op in ("softmax", "fc1")}
    assert {rule.output.scheme for rule in plan.rules if rule.match in checkpoint.untied} == {Scheme.TWO_REGION}
    with pytest.raises(AccelsimError, match="not executable in integers"):
        compile_integer(checkpoint)


def test_widths_of_a_search_give_its_plan_and_its_checkpoint(network: Network, batches: list[Tensor]) -> None:
    method = MPTQ(weight_bits=8, activation_bits=8)
    labelled = [(batches[0], torch.arange(6))]
    prepared = method.prepare(network, batches)
    mixed = MixedNetwork(prepared, batches, labelled, method, WidthSettings(full=True), format_of=method.format_of)
    random = torch.Generator().manual_seed(1)
    state = tuple(
        one.widths[int(torch.randint(len(one.widths), (), generator=random))] for one in mixed.components
    )  # fmt: skip
    widths = replace(method, weight_widths=mixed.widths(state, WEIGHT), widths=mixed.widths(state, ACTIVATION))
    plan, checkpoint = quantize(network, batches, widths)
    assert plan.fingerprint() == mixed.plan(state).fingerprint()
    tensors, others = checkpoint.tensors(), mixed.checkpoint(state).tensors()
    assert tensors.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in tensors.items())


def test_unknown_ways_to_choose_regions_are_refused(network: Network, batches: list[Tensor]) -> None:
    with pytest.raises(AccelsimError, match="regions: found 'best'"):
        quantize(network, batches, MPTQ(regions="best"))
