"""Parts in the arithmetic: codes keep to their widths, equal widths change nothing, what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.head_widths import HeadWidths
from accelsim.problems import AccelsimError
from quant.checkpoint import load, save
from quant.finetune.numerics import Trainable
from quant.functional import Affine, code_range, fake_quantize, fake_quantize_ste, quantize
from quant.groups import scale_groups
from quant.head_parts import check_parts, column_parts, parts_with, whole_shifts
from quant.integer import compile_integer, run_integer
from quant.integer.tiles import sample_tiles
from quant.methods.uniform import Uniform
from quant.quantize import quantize as quantize_network
from quant.quantize import quantize_plan
from tests.support.finetuning import logits, same
from tests.support.networks import images_of, tiny_vit

KINDS = [(False, True), (True, True), (False, False)]  # symmetric, signed


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 8), min_size=3, max_size=3), st.sampled_from(KINDS), st.integers(0, 1 << 20))
def test_codes_of_a_part_are_those_of_a_quantizer_of_its_width(bits, kind, seed):
    """Values, codes and gradients, of channels in runs and of heads."""
    network = tiny_vit(0, depth=1, heads=3)
    random = torch.Generator().manual_seed(seed)
    for name, channels, shape in (("b0.qkv", 36, (2, 5, 36)), ("b0.softmax", 15, (2, 3, 5, 5))):
        value = 6 * torch.randn(shape, generator=random)
        affine = Affine(torch.tensor(0.1), torch.tensor(0.0), *code_range(max(bits), *kind))
        whole = parts_with(network.node(name), channels, HeadWidths(tuple(bits)), affine).within(affine)
        given_value = value.clone().requires_grad_()
        slope = torch.autograd.grad(fake_quantize_ste(given_value, whole).sum(), given_value)[0]
        axis = -1 if value.dim() == 3 else 1
        for k, width in enumerate(bits):
            part, own = (one.chunk(3, axis)[k] for one in (value, quantize(value, whole)))
            alone = replace(affine, low=code_range(width, *kind)[0], high=code_range(width, *kind)[1])
            assert torch.equal(own, quantize(part, alone))
            assert torch.equal(fake_quantize(value, whole).chunk(3, axis)[k], fake_quantize(part, alone))
            inside = (part / 0.1 >= alone.low) & (part / 0.1 <= alone.high)
            assert torch.equal(slope.chunk(3, axis)[k], inside.float())


def with_heads(plan, network, bits, shifts=0):
    """The plan with parts of that width in everything of an attention that can have parts."""
    rules = []
    for rule in plan.rules:
        tied = HeadWidths((bits,) * 2, (0, shifts))
        if rule.match.endswith(".qkv"):
            rule = replace(rule, heads=HeadWidths((bits,) * 6))
        elif rule.match.endswith(".softmax"):
            rule = replace(rule, heads=HeadWidths((bits,) * 2))
        elif rule.match.endswith(".values"):
            rule = replace(rule, heads=tied)
        elif rule.match.endswith(".proj"):
            rule = replace(rule, weight_heads=tied)
        rules.append(rule)
    return replace(plan, rules=tuple(rules))


@pytest.fixture(scope="module")
def plain():
    network = tiny_vit(2, depth=1)
    method = Uniform(weight_bits=5, activation_bits=5, zero_points=False)
    return network, quantize_network(network, [images_of(network, 32)], method)[1]


def test_equal_widths_everywhere_are_plain_rules(plain):
    """The same logits, codes, and steps of training, to the last bit."""
    network, checkpoint = plain
    parted = replace(checkpoint, plan=with_heads(checkpoint.plan, network, 5))
    images = images_of(network, 8, 4)
    assert torch.equal(logits(parted, images), logits(checkpoint, images))
    names = [node.op.output for node in network.nodes]
    ours, theirs = (run_integer(compile_integer(one), images, keep=names) for one in (parted, checkpoint))
    assert all(torch.equal(ours[name], theirs[name]) for name in names)
    slopes = []
    for one in (parted, checkpoint):
        model = Trainable(one, network)
        values = model.parameters_by_name()
        found = torch.autograd.grad(model.logits(images).square().sum(), list(values.values()))
        slopes.append(dict(zip(values, found, strict=True)))
        assert same(model.trained(), one)
    assert all(torch.equal(slopes[0][name], slopes[1][name]) for name in slopes[1])


def test_narrower_parts_are_another_function(plain):
    """The widths of the plan are those of the arithmetic: narrower heads clip."""
    network, checkpoint = plain
    rules = [
        replace(rule, heads=HeadWidths((5, 2, 5, 5, 5, 5))) if rule.match == "b0.qkv" else rule
        for rule in checkpoint.plan.rules
    ]
    narrow = replace(checkpoint, plan=replace(checkpoint.plan, rules=tuple(rules)))
    images = images_of(network, 8, 4)
    codes = run_integer(compile_integer(narrow), images, keep=["b0.qkv"])["b0.qkv"]
    assert codes[..., 6:12].abs().max() == 1
    assert codes[..., :6].abs().max() > 2
    assert not torch.equal(logits(narrow, images), logits(checkpoint, images))


def test_sums_take_parts_with_shifts_only():
    network = tiny_vit(0, depth=1)
    plan = with_heads(quantize_network(network, [images_of(network, 8)], Uniform())[0], network, 8, shifts=2)
    heads = {rule.match: rule.heads for rule in plan.rules if rule.heads is not None}
    groups = scale_groups(network, (), heads)
    assert [groups[name].count for name in ("b0.qkv", "b0.softmax", "b0.values", "b0.scores")] == [6, 2, 2, 1]
    assert groups["b0.qkv"].labels[0, 0].tolist() == torch.arange(6).repeat_interleave(6).tolist()
    with pytest.raises(AccelsimError, match=r"op b0\.proj: a convolution or linear layer would add"):
        scale_groups(network, (), {**heads, "b0.values": HeadWidths((8, 8))})


def test_columns_and_shifts():
    assert column_parts(HeadWidths((4, 2), (0, 3)), 8) == ((slice(0, 4), 4, 0), (slice(4, 8), 2, 3))
    assert whole_shifts(torch.tensor([0.3, 0.3 * 16, 0.3 * 2])).tolist() == [0, 4, 1]
    assert whole_shifts(torch.tensor([0.3, 0.5])) is None


def changed(checkpoint, **parts):
    return replace(checkpoint, **{kind: {**getattr(checkpoint, kind), **new} for kind, new in parts.items()})


def test_what_does_not_fit_is_one_clear_error(plain, tmp_path):
    """Numbers of other widths, steps that are not tied as the plan says, filters beside their levels."""
    network, checkpoint = plain
    right = replace(checkpoint, plan=with_heads(checkpoint.plan, network, 5))
    check_parts(right)
    save(right, tmp_path)
    load(tmp_path)
    values, qkv, proj = checkpoint.stored["b0.values"], checkpoint.stored["b0.qkv"], checkpoint.filters["b0.proj"]
    apart = replace(values, scale=values.scale * torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1))
    faults = {
        r"op b0\.qkv: heads: codes -7 … 7 are not those of 5 bits": {
            "stored": {"b0.qkv": replace(qkv, low=-7, high=7)}
        },
        r"op b0\.values: heads: scales are not 2\^0 : 2\^0": {"stored": {"b0.values": apart}},
        r"op b0\.qkv: heads: part 0 has several scales": {
            "stored": {"b0.qkv": replace(qkv, scale=qkv.scale * torch.arange(1.0, 37.0))}
        },
        r"op b0\.proj: weight_heads: weights of the inputs 0 … 5 are no 5-bit codes": {
            "filters": {"b0.proj": replace(proj, integers=proj.integers + 40)}
        },
    }
    for match, parts in faults.items():
        wrong = changed(right, **parts)
        save(wrong, tmp_path)
        with pytest.raises(AccelsimError, match=match) as caught:
            load(tmp_path)
        assert len(caught.value.problems) == 1


def test_what_has_no_parts_refuses_them(plain, tmp_path):
    """Calibration without training where scales are tied, ONNX, and tiles of the engines."""
    network, checkpoint = plain
    right = replace(checkpoint, plan=with_heads(checkpoint.plan, network, 5))
    with pytest.raises(
        AccelsimError,
        match=r"calibration: no way to find tied scales for the head widths of b0\.values, b0\.proj.*qvit",
    ):
        quantize_plan(network, [images_of(network, 8)], right.plan)
    with pytest.raises(AccelsimError, match=r"tiles of an engine: no form for the head widths"):
        sample_tiles(compile_integer(right), images_of(network, 1), 1, 0)
    pytest.importorskip("onnx")
    from quant.onnx_export import export_onnx

    with pytest.raises(AccelsimError, match=r"onnx: no form for the head widths"):
        export_onnx(right, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
