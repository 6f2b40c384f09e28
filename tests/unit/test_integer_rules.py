"""Constants of integer execution, what it refuses, its accumulators, and its agreement with fake quantization."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from accelsim.engines import requantize
from accelsim.formats import Format, accumulator_bits_needed
from accelsim.problems import AccelsimError
from quant.calibrate import Calibration
from quant.functional import Affine
from quant.integer import IntegerModel, accumulator_ranges, agreement, compile_integer, run_integer
from quant.integer.exact import convolve, patches
from quant.integer.requantize import OutputStage, dyadic, vector_stage
from quant.integer.steps import Leading, Quotient, Relu
from quant.methods.m2q import M2Q
from quant.methods.uniform import Uniform
from quant.quantize import quantize
from tests.support.networks import images_of, labelled_images, tiny_hybrid, tiny_vit


def quantized(method, options=None, make=tiny_hybrid):
    network = make()
    return quantize(network, list(images_of(network, 32).split(16)), method, options)[1]


@pytest.fixture(scope="module")
def m2q():
    return quantized(M2Q())


@given(st.floats(2.0**-31, 2.0**13), st.booleans())
def test_a_ratio_is_kept_to_one_part_in_two_to_the_fifteen(ratio, negative):
    value = -ratio if negative else ratio
    multiplier, shift = (int(x) for x in dyadic(torch.tensor(value, dtype=torch.float64), "here"))
    assert 2**14 <= abs(multiplier) < 2**15
    assert 1 <= shift <= 46
    assert abs(Fraction(multiplier, 2**shift) - Fraction(value)) <= Fraction(abs(value)) / 2**15


def test_a_multiplier_that_would_round_up_to_two_to_the_fifteen_loses_a_place():
    ratio = torch.tensor([1 - 2.0**-17, 1 - 2.0**-14, 0.0, 2.0**-60], dtype=torch.float64)
    multiplier, shift = dyadic(ratio, "here")
    assert multiplier.tolist() == [2**14, 2**15 - 2, 0, 0]
    assert shift.tolist() == [14, 15, 1, 46]


@pytest.mark.parametrize("ratio", [2.0**14, float("inf"), float("nan")])
def test_a_ratio_without_a_multiplier_is_refused(ratio):
    with pytest.raises(AccelsimError, match="op x"):
        dyadic(torch.tensor(ratio, dtype=torch.float64), "op x")


@given(st.integers(0, 2**31))
def test_the_output_stage_is_that_of_the_engines(seed):
    rng = np.random.default_rng(seed)
    accumulators = rng.integers(-(2**29), 2**29, (4, 6))
    bias, multiplier = rng.integers(-(2**29), 2**29, 6), rng.integers(0, 2**15, 6)
    shift = rng.integers(1, 47, 6)
    stage = OutputStage(*(torch.tensor(x) for x in (bias, multiplier, shift)), -128, 127)
    expected = requantize(accumulators, bias, multiplier, shift, -128, 127)
    assert np.array_equal(stage(torch.tensor(accumulators)).numpy(), expected)


def test_a_vector_stage_removes_and_adds_zero_points_exactly():
    stage = vector_stage(torch.tensor(0.75, dtype=torch.float64), "x", torch.tensor(5.0), torch.tensor(-7.0))
    assert stage(torch.tensor([5, 6, 7, 3])).tolist() == [-7, -6, -5, -8]  # 0, ¾, 1½ (up), −1½ (up)


def test_a_relu_of_its_own_stops_at_the_zero_point(m2q):
    relu = Relu(m2q.network.node("s1.b0.relu"), torch.tensor([3]))
    assert relu.run([torch.tensor([-5, 0, 3, 9])]).tolist() == [3, 3, 3, 9]


def test_log2_codes_of_divisors():
    leading = Leading(torch.tensor([True, True, True, True, True, False]), torch.tensor(3), 4)
    accumulators = torch.tensor([0b01100011, 0b01011111, 0, 1, 1 << 30, 99])
    assert leading(accumulators, torch.full((6,), 5)).tolist() == [4, 3, -1, 0, 15, 5]


def test_products_are_exact_where_float32_is_not():
    codes, weights = torch.full((1, 3, 2, 2), 32767), torch.full((2, 3, 1, 1), 32767)
    weights[1] -= 1
    found = convolve(codes, weights, (1, 1), 1)
    assert found[0, :, 0, 0].tolist() == [3 * 32767 * 32767, 3 * 32767 * 32766]


@pytest.mark.parametrize(
    ("groups", "depth", "outputs", "kernel"), [(1, 4, 3, 3), (2, 2, 6, 3), (4, 1, 4, 3), (1, 4, 5, 1)]
)
def test_convolutions_are_sums_over_patches(groups, depth, outputs, kernel):
    random = torch.Generator().manual_seed(outputs)
    codes = torch.randint(-128, 128, (2, groups * depth, 7, 7), generator=random)
    weights = torch.randint(-128, 128, (outputs, depth, kernel, kernel), generator=random)
    found = convolve(codes, weights, (2, 2), groups).flatten(2)
    read = patches(codes, (kernel, kernel), (2, 2)).flatten(3)
    for o in range(outputs):
        first = o // (outputs // groups) * depth
        taps = weights[o].flatten(1)[None, :, :, None]
        assert torch.equal(found[:, o], (read[:, first : first + depth] * taps).sum((1, 2)))


def test_a_zero_point_on_an_operand_of_a_product_is_refused(m2q):
    name = next(node for node in m2q.network.nodes if node.name.endswith("QKV")).operands[1].source
    one = m2q.stored[name]
    wrong = Affine(one.scale, one.zero_point + 1, one.low, one.high)
    with pytest.raises(AccelsimError, match=r"QKV: its operand .*KtV has a zero point"):
        compile_integer(replace(m2q, stored={**m2q.stored, name: wrong}))


def test_scales_that_differ_within_a_sum_are_refused(m2q):
    name = next(node for node in m2q.network.nodes if node.name == "head.conv").operands[0].source
    one = m2q.stored[name]
    channels = m2q.network.workload.tensor_by_name[name].channels
    scale = one.scale * torch.arange(1, channels + 1).reshape(1, -1, 1, 1)
    with pytest.raises(AccelsimError, match=r"op head.conv: would add values of different scales"):
        compile_integer(replace(m2q, stored={**m2q.stored, name: Affine(scale, one.zero_point, one.low, one.high)}))


def test_padding_with_a_zero_point_that_is_no_code_is_refused(m2q):
    name = next(node for node in m2q.network.nodes if node.name == "stem.ds0.dw").operands[0].source
    one = m2q.stored[name]
    wrong = Affine(one.scale, torch.full_like(one.zero_point, 999.0), one.low, one.high)
    with pytest.raises(AccelsimError, match="pads with zero points 999"):
        compile_integer(replace(m2q, stored={**m2q.stored, name: wrong}))


def test_damaged_scales_are_named_all_at_once(m2q):
    wrong = {name: Affine(one.scale * 0, one.zero_point, one.low, one.high) for name, one in m2q.stored.items()}
    with pytest.raises(AccelsimError) as error:
        compile_integer(replace(m2q, stored=wrong))
    assert len(error.value.problems) == len(wrong)


def test_a_bias_that_32_bits_cannot_hold_makes_a_filter_constant_or_is_refused(m2q):
    filters = m2q.filters["head.conv"]
    scale, bias = filters.scale.clone(), filters.bias.clone()
    scale[3], bias[3] = scale[3] * 1e-9, 1.0
    tiny = compile_integer(replace(m2q, filters={**m2q.filters, "head.conv": replace(filters, scale=scale, bias=bias)}))
    assert tiny.constant_filters == {"head.conv": (3,)}
    bias[5] = 1e9
    wrong = replace(filters, scale=filters.scale, bias=bias)
    with pytest.raises(AccelsimError, match="a bias leaves 32 bits"):
        compile_integer(replace(m2q, filters={**m2q.filters, "head.conv": wrong}))


@pytest.mark.parametrize("tied", [False, True])
def test_accumulators_hold_what_the_formats_say(tied):
    checkpoint = quantized(M2Q(), Calibration(tied_branches=tied))
    network = compile_integer(checkpoint)
    ranges = accumulator_ranges(network, images_of(checkpoint.network, 32, seed=3))
    eight = Format.parse("u8")
    used = 0
    for name, (low, high) in ranges.items():
        op = checkpoint.network.workload.op_by_name[name]
        weights = [part.format for part in checkpoint.plan.rule_for(op).weights] if op.weights else [eight]
        widest = max(weights, key=lambda one: one.value_bits)
        bits = accumulator_bits_needed(widest, eight, op.loop.reduction)
        assert -(1 << (bits - 1)) <= low <= high < 1 << (bits - 1)
        step = network.step(name)
        assert step.low <= low <= high <= step.high
        used = max(used, max(-low, high).bit_length())
    assert used > 12


def test_branches_tied_by_powers_of_two_have_multipliers_that_are_shifts_of_each_other():
    for tied, count in ((True, 1), (False, 2)):
        checkpoint = quantized(Uniform(), Calibration(tied_branches=tied))
        scales = [
            float(checkpoint.stored[operand.source].scale)
            for node in checkpoint.network.nodes if node.function == "concat" for operand in node.operands
        ]  # fmt: skip
        multipliers = {int(dyadic(torch.tensor([one], dtype=torch.float64), "x")[0]) for one in scales}
        assert len(multipliers) == count
        compile_integer(checkpoint)


def test_agreement_with_fake_quantization(m2q):
    network = compile_integer(m2q)
    images, labels = labelled_images(m2q.network, 96, seed=5)
    found = agreement(network, [(images[:50], labels[:50]), (images[50:], labels[50:])])
    assert found.images == 96
    assert found.same_choice > 0.6  # a random network decides by a hair
    assert abs(found.top1_integer - found.top1_fake) < 0.2
    assert found.mean_difference < 8
    assert found.max_difference >= found.mean_difference
    assert 0 < found.equal_codes < 1
    model = IntegerModel(network)
    logits = model(images)
    assert logits.dtype == images.dtype
    assert torch.equal(logits.argmax(1) == labels, model.codes(images).argmax(1) == labels)
    assert found.top1_integer == pytest.approx(float((logits.argmax(1) == labels).double().mean()))


def test_float_islands_are_listed_and_the_rest_is_integer():
    network = compile_integer(quantized(Uniform(), make=tiny_vit))
    kinds = {network.step(name).node.function for name in network.float_islands}
    assert kinds == {"softmax", "layernorm"}
    images = images_of(network.checkpoint.network, 2)
    assert run_integer(network, images)["head"].dtype == torch.int64


def test_a_true_division_rounds_to_nearest_and_gives_zero_for_zero():
    checkpoint = quantized(Uniform(log2_divisor=False))
    step = compile_integer(checkpoint).step("s1.b0.division")
    assert isinstance(step, Quotient)
    one = vector_stage(torch.tensor(2.0**-15, dtype=torch.float64), "x")
    plain = replace(step, stage=one, zero_point=torch.tensor(0))
    columns = torch.tensor([[7, -7, 100, 5], [2, 2, 3, 0]])
    assert plain.value([columns]).tolist() == [[4, -3, 33, 0]]


def test_an_op_that_is_not_there_is_refused(m2q):
    with pytest.raises(AccelsimError, match="has no op 'nothing'"):
        compile_integer(m2q).step("nothing")
