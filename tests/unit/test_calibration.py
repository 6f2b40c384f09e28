"""Calibration: statistics, quantizers of stored tensors, filters, divisors, and what a method decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError
from quant.calibrate import Calibration, mean_output
from quant.evaluate import Evaluation, evaluate
from quant.fake import FakeQuantized, log2_divisor
from quant.levels import levels, sqnr_db
from quant.methods import method_class, method_names
from quant.methods.m2q import M2Q, penalties
from quant.methods.power_of_two import PowerOfTwo
from quant.methods.uniform import Uniform
from quant.network import forward, run
from quant.quantize import gather, make_plan, quantize
from quant.reconstruct import Reconstruction
from quant.structure import depthwise_inputs, pointwise_inputs_after_depthwise, without_zero_point
from tests.support.networks import images_of, tiny_hybrid, tiny_vit

METHODS = (
    Uniform(),
    Uniform(weight_bits=4),
    Uniform(activation_bits=5),
    PowerOfTwo(terms=1),
    PowerOfTwo(terms=3),
    M2Q(),
)


def batches(network, count=48, seed=1):
    return list(images_of(network, count, seed).split(16))


def fake(checkpoint, images):
    with torch.no_grad():
        return forward(checkpoint.network, images, FakeQuantized(checkpoint))


def sqnr(network, checkpoint, images):
    with torch.no_grad():
        exact = forward(network, images)
    return sqnr_db(exact.double().numpy(), fake(checkpoint, images).double().numpy())


@pytest.mark.parametrize("make", [tiny_hybrid, tiny_vit])
@pytest.mark.parametrize("method", METHODS, ids=lambda one: f"{type(one).__name__}{one.activation_bits}")
def test_every_weight_and_stored_value_is_what_the_plan_says(make, method):
    network = make()
    plan, checkpoint = quantize(network, batches(network), method)
    quantized = apply_plan(network.workload, plan)
    for item in quantized.ops:
        if not item.weights:
            continue
        filters = checkpoint.filters[item.op.name]
        rows = filters.integers.reshape(len(filters.scale), -1)
        covered = torch.zeros(len(rows), dtype=torch.long)
        for part in item.weights:
            index = torch.arange(len(rows)) if part.channels is None else torch.from_numpy(part.channels.indices.copy())
            allowed = torch.from_numpy(levels(part.format).copy())
            assert bool(torch.isin(rows[index].long(), allowed).all())
            covered[index] += 1
        assert bool((covered == 1).all())
    free = without_zero_point(network)
    for name, affine in checkpoint.stored.items():
        bits = quantized.activation_bits[name]
        assert affine.high - affine.low <= (1 << bits) - 1
        if name in free:
            assert bool((affine.zero_point == 0).all())
    keep = [node.op.output for node in network.nodes]
    values = run(network, images_of(network, 4, 9), FakeQuantized(checkpoint), keep=keep)
    for name, affine in checkpoint.stored.items():
        if name in values and name not in checkpoint.divisors:
            codes = values[name] / affine.scale + affine.zero_point
            assert float((codes - codes.round()).abs().max()) < 1e-2
            assert float(codes.min()) > affine.low - 0.1
            assert float(codes.max()) < affine.high + 0.1


@pytest.mark.parametrize("make", [tiny_hybrid, tiny_vit])
def test_more_bits_come_closer(make):
    network = make()
    images = images_of(network, 32, 5)
    found = [
        sqnr(network, quantize(network, batches(network), Uniform(weight_bits=bits, activation_bits=bits))[1], images)
        for bits in (3, 5, 8)
    ]
    assert found[0] < found[1] < found[2]
    wide = Uniform(weight_bits=16, activation_bits=16)
    assert sqnr(network, quantize(network, batches(network), wide)[1], images) > found[2]


def test_migration_and_shift_give_channels_scales_and_offsets():
    network = tiny_hybrid()
    _, checkpoint = quantize(network, batches(network), M2Q())
    for name in depthwise_inputs(network):
        assert checkpoint.stored[name].scale.numel() == network.workload.tensor_by_name[name].channels
    for name in pointwise_inputs_after_depthwise(network):
        affine = checkpoint.stored[name]
        assert affine.scale.unique().numel() == 1
        assert affine.zero_point.unique().numel() > 1
        assert torch.equal(affine.zero_point, affine.zero_point.round())
    plain = quantize(network, batches(network), M2Q(migration=False, shift=False))[1]
    assert all(plain.stored[name].scale.numel() == 1 for name in depthwise_inputs(network))


@pytest.mark.parametrize("recipe", [None, Reconstruction(steps=20)], ids=["nearest", "reconstructed"])
def test_bias_correction_removes_what_rounding_adds_to_the_mean(recipe):
    network = tiny_hybrid()
    images = batches(network)
    method = Uniform(weight_bits=3)
    statistics = gather(network, images, method)
    on, off = (
        quantize(network, images, method, Calibration(bias_correction=one), recipe)[1].filters for one in (True, False)
    )
    for node in network.nodes:
        if not node.has_filters:
            continue
        mean = statistics.inputs[node.name].mean
        bias = torch.zeros(len(on[node.name].scale)) if node.bias is None else node.bias
        target = mean_output(node, mean, node.weight) + bias
        made = mean_output(node, mean, on[node.name].values()) + on[node.name].bias
        assert torch.allclose(made, target, atol=1e-5)
        assert off[node.name].bias is node.bias
        assert torch.equal(on[node.name].integers, off[node.name].integers)


def test_log2_divisors_are_powers_of_two_steps():
    network = tiny_hybrid()
    _, checkpoint = quantize(network, batches(network), Uniform(log2_divisor=True))
    ((name, divisor),) = checkpoint.divisors.items()
    assert divisor.bits == 4
    value = run(network, images_of(network, 4), FakeQuantized(checkpoint), keep=[name])[name]
    rows = divisor.rows.expand(value.shape)
    steps = (value / divisor.unit.expand(value.shape))[rows]
    exponents = torch.log2(steps[steps > 0])
    assert torch.allclose(exponents, exponents.round(), atol=1e-4)
    assert rows.sum() * 5 == value.numel()  # one divisor beside four numerators per head
    # The example of the hardware rule: 0110 0011 has its leading one at 6 and a one below it.
    plain = replace(divisor, unit=torch.ones(()), lowest=torch.zeros(()), rows=torch.ones(1, dtype=torch.bool))
    assert log2_divisor(torch.tensor([0.0, 1.0, 2.0, 3.0, 99.0]), plain).tolist() == [0.0, 1.0, 2.0, 4.0, 128.0]


def test_the_ratio_decides_how_many_filters_shift():
    network = tiny_hybrid()
    images = batches(network)
    statistics = gather(network, images, M2Q())
    node = next(one for one in network.nodes if one.op.op_class == "pw")
    filters = len(node.weight)
    last = set()
    for ratio in (0.0, 0.25, 0.5, 1.0):
        shares = M2Q(ratio=ratio).shares(node, statistics.inputs[node.name])
        power = [one for one in shares if one.format.is_shift]
        chosen = (
            set()
            if not power
            else set(range(filters))
            if power[0].channels is None
            else set(power[0].channels.indices.tolist())
        )
        assert len(chosen) == round(ratio * filters)
        assert last <= chosen
        last = chosen
    shares = M2Q(counts={node.name: 3}).shares(node, statistics.inputs[node.name])
    assert [one.channels.count for one in shares if one.format.is_shift] == [3]


def test_the_filters_with_the_least_penalty_shift():
    network = tiny_hybrid()
    statistics = gather(network, batches(network), M2Q())
    node = next(one for one in network.nodes if one.op.op_class == "pw")
    moments = statistics.inputs[node.name]
    fmt = next(one.format for one in M2Q(ratio=1.0).shares(node, moments))
    penalty = penalties(node, fmt, moments)
    chosen = next(one for one in M2Q(ratio=0.25).shares(node, moments) if one.format.is_shift).channels.indices
    rest = [k for k in range(len(penalty)) if k not in set(chosen.tolist())]
    assert float(penalty[chosen.copy()].max()) <= float(penalty[rest].min())
    assert not torch.allclose(penalty, penalties(node, fmt, None))


def test_argmin_sends_no_filter_to_two_terms():
    """The finding of the reference's section 6.2: a uniform 8-bit filter always has the lower weight error."""
    network = tiny_hybrid()
    plan = make_plan(network, M2Q(rule="argmin"), gather(network, batches(network), M2Q()))
    assert not any(part.format.is_shift for rule in plan.rules for part in rule.weights)


def test_same_seed_same_checkpoint():
    network = tiny_hybrid()
    one, two = (quantize(network, batches(network), M2Q())[1].tensors() for _ in range(2))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_tied_branches_differ_by_powers_of_two():
    network = tiny_hybrid()
    concat = next(node for node in network.nodes if node.function == "concat")
    first, second = (operand.source for operand in concat.operands)
    tied = quantize(network, batches(network), Uniform(), Calibration(tied_branches=True))[1]
    exponent = torch.log2(tied.stored[second].scale / tied.stored[first].scale)
    assert float((exponent - exponent.round()).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: method_class("m2p"), "unknown method 'm2p'.*try: m2q"),
        (lambda: Calibration(observer="max"), "unknown observer 'max'"),
        (lambda: M2Q(ratio=1.5).shares(tiny_hybrid().nodes[0], None), "found 1.5"),
        (lambda: M2Q(rule="best").shares(tiny_hybrid().nodes[0], None), "found 'best'"),
        (lambda: PowerOfTwo(terms=4).shares(tiny_hybrid().nodes[0], None), "1, 2 or 3"),
        (lambda: Uniform(weight_bits=1).shares(tiny_hybrid().nodes[0], None), "unknown number format"),
    ],
)
def test_faults(make, words):
    with pytest.raises(AccelsimError, match=words):
        make()


def test_every_method_is_registered():
    assert set(method_names()) == {"uniform", "power_of_two", "m2q", "mnq", "mptq", "pmq", "qvit"}


def test_evaluation():
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]])
    found = evaluate(lambda images: images, [(logits[:2], torch.tensor([0, 1])), (logits[2:], torch.tensor([1]))])
    assert found.correct.tolist() == [True, True, False]
    assert found.top1 == pytest.approx(2 / 3)
    other = Evaluation(-found.logits, found.labels)
    assert found.agreement(other) == 0.0
    assert found.agreement(found) == 1.0
    assert other.logit_sqnr_db(found) == pytest.approx(10 * torch.log10(torch.tensor(0.25)).item(), abs=1e-6)
    nll = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1]))
    assert found.cross_entropy == pytest.approx(float(nll), rel=1e-6)
