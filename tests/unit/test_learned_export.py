"""Learned widths as plan and checkpoint: the function that was trained, the same codes in integers, files that last."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError
from quant.checkpoint import load, save
from quant.fake import FakeQuantized
from quant.finetune.numerics import Trainable
from quant.functional import quantize as codes_of
from quant.integer import compile_integer, run_integer
from quant.learned.export import export
from quant.learned.sites import BY_CODE, GELU, LAYER, MSA, OFFSET, SIGNED, UNSIGNED, SiteOptions
from quant.methods.qvit import QVit
from quant.network import forward, run
from quant.quantize import quantize
from quant.views import rearrange
from tests.support.finetuning import logits, same
from tests.support.learned_checkpoints import HeadTwin, finely, learned
from tests.support.networks import images_of, in_float64, tiny_vit

QUICK = settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


def assert_the_trained_function(one, network):
    images = images_of(network, 8, 5).double()
    plan, checkpoint = export(one, [images_of(network, 16).double()])
    apply_plan(network.workload, plan)
    fine = finely(checkpoint, one)
    with torch.no_grad():
        expected = one.model.logits(images)
        found = forward(fine.network, images, FakeQuantized(fine))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    return plan, checkpoint


@QUICK
@given(st.integers(0, 2**31), st.sampled_from([(12, 2), (12, 3)]))
def test_the_checkpoint_computes_what_was_trained(seed, shape):
    """Random widths of every head: with all other tensors exact the logits are those of training."""
    network = in_float64(tiny_vit(seed % 97, depth=1, dim=shape[0], heads=shape[1]))
    one = learned(network, seed)
    plan, checkpoint = assert_the_trained_function(one, network)
    rules = {rule.match: rule for rule in plan.rules}
    widths = one.widths()
    found = rules["b0.qkv"].heads
    assert found.bits == tuple(widths["stored/b0.qkv"].int().flatten().tolist())
    for name, bits in (("b0.softmax", "stored/b0.softmax"), ("b0.values", "stored/b0.values")):
        heads = rules[name].heads
        expected = widths[bits].int().flatten().tolist()
        assert list(heads.bits) == expected if heads else len(set(expected)) == 1
    assert rules["b0.norm1"].output.bits == int(widths["stored/b0.norm1"])
    assert {rules[name].output.bits for name in ("embed", "b0.scores", "b0.proj", "b0.attn_add", "head")} == {8}
    assert checkpoint.stored["b0.softmax"].low == 0
    assert not bool(checkpoint.stored["b0.softmax"].zero_point.any())


@pytest.mark.parametrize("gelu", [OFFSET, UNSIGNED, SIGNED])
@pytest.mark.parametrize("granularity", ["head", LAYER])
def test_every_kind_of_site_computes_what_was_trained(gelu, granularity):
    """Widths of layers, ends that learn theirs, and values after GELU in three ranges."""
    network = in_float64(tiny_vit(3, depth=1))
    one = learned(network, 3, SiteOptions(granularity, gelu=gelu, ends_learned=True), low=4)
    plan, checkpoint = assert_the_trained_function(one, network)
    rule = plan.rule_for(network.workload.op_by_name["b0.fc1"])
    assert rule.zero_point == (gelu != SIGNED)
    affine, bits = checkpoint.stored["b0.fc1"], rule.output.bits
    assert (affine.low, affine.high) == (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    first = plan.rule_for(network.workload.ops[0])
    assert first.activation.bits == int(one.widths()["stored/image"])
    assert (plan.rule_for(network.workload.op_by_name["b0.values"]).heads is None) == (granularity == LAYER)


def test_what_stayed_in_floating_point_has_eight_bits():
    network = tiny_vit(1, depth=1)
    one = learned(network, 1, SiteOptions(floating=(MSA, GELU)), low=4)
    plan, checkpoint = export(one, [images_of(network, 16)])
    for name in ("b0.qkv", "b0.softmax", "b0.values", "b0.fc1"):
        rule = plan.rule_for(network.workload.op_by_name[name])
        assert rule.output.bits == 8
        assert rule.heads is None
    assert checkpoint.filters.keys() == {node.name for node in network.nodes if node.has_filters}


@QUICK
@given(st.integers(0, 2**31))
def test_integers_equal_the_twin(seed):
    """Every code of every tensor, with parts by slices and plain Python integers."""
    network = tiny_vit(seed % 89, depth=1)
    _, checkpoint = export(learned(network, seed), [images_of(network, 16)])
    images = images_of(network, 1, 7)
    names = [node.op.output for node in network.nodes]
    found = run_integer(compile_integer(checkpoint), images, keep=names)
    expected = HeadTwin(checkpoint).run(images)
    for name in names:
        assert np.array_equal(found[name].numpy(), expected[name]), name


@pytest.mark.parametrize("gelu", [OFFSET, UNSIGNED])
def test_integers_follow_fake_quantization(gelu):
    """At widths of 6 … 8 bits logits differ by less than what 8 bits lose already."""
    network = tiny_vit(4)
    _, checkpoint = export(learned(network, 4, SiteOptions(gelu=gelu), low=6), [images_of(network, 64)])
    images = images_of(network, 32, 9)
    codes = run_integer(compile_integer(checkpoint), images)["head"]
    affine = checkpoint.stored["head"]
    ours = affine.scale * (codes - affine.zero_point)
    theirs = logits(checkpoint, images)
    with torch.no_grad():
        lost = (forward(network, images) - theirs).square().mean().sqrt()
    assert (ours.reshape(theirs.shape) - theirs).square().mean().sqrt() < lost


@pytest.mark.parametrize("seed", [6, 7])
def test_an_integer_step_differs_by_its_roundings_only(seed):
    """Each step alone on the codes of fake quantization, 2 … 8 bits: one code, and half an accumulator step of bias."""
    network = tiny_vit(seed)
    _, checkpoint = export(learned(network, seed), [images_of(network, 64)])
    names = [network.workload.input, *(node.op.output for node in network.nodes)]
    images = images_of(network, 16, 9)
    with torch.no_grad():
        fake = run(checkpoint.network, images, FakeQuantized(checkpoint), keep=names)
    codes = {name: codes_of(fake[name], affine).long() for name, affine in checkpoint.stored.items() if name in fake}
    checked = []
    for step in compile_integer(checkpoint).steps:
        output, sources = step.node.op.output, [one.source for one in step.node.operands]
        if output not in codes or not set(sources) <= set(codes) or getattr(step, "table", None) is not None:
            continue
        seen = [rearrange(codes[one.source], one.views, len(images)) for one in step.node.operands]
        stage = getattr(step, "stage", None)
        half = 0.0 if stage is None else float((stage.multiplier / 2.0 ** (stage.shift + 1)).max())
        assert (step.stored(seen) - codes[output]).abs().max() <= 1 + math.ceil(half), step.node.name
        checked.append(step.node.function)
    assert {"conv", "linear", "matmul", "softmax", "layernorm", "add"} <= set(checked)


def test_a_folder_keeps_everything(tmp_path):
    network = tiny_vit(2, depth=1)
    plan, checkpoint = export(learned(network, 2), [images_of(network, 16)], about={"seed": 2})
    images = images_of(network, 8, 3)
    save(checkpoint, tmp_path / "one")
    loaded = load(tmp_path / "one")
    assert loaded.checkpoint.plan == plan
    assert loaded.checkpoint.about["method"] == "qvit"
    assert loaded.checkpoint.about["seed"] == 2
    assert torch.equal(loaded(images), logits(checkpoint, images))
    save(loaded.checkpoint, tmp_path / "two")
    for name in ("plan.yaml", "workload.json", "checkpoint.json", "checkpoint.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_integers_of_more_than_sixteen_bits_are_kept(tmp_path):
    """Steps of heads that are 2^12 apart."""
    network = tiny_vit(3, depth=1)
    _, checkpoint = export(learned(network, 3), [images_of(network, 16)])
    one, rules = checkpoint.filters["b0.proj"], list(checkpoint.plan.rules)
    (at,) = (k for k, rule in enumerate(rules) if rule.match == "b0.proj")
    before, after = torch.tensor([rules[at].weight_heads.shifts, (12, 0)]).repeat_interleave(6, 1)
    rules[at] = replace(rules[at], weight_heads=replace(rules[at].weight_heads, shifts=(12, 0)))
    filters = {**checkpoint.filters, "b0.proj": replace(one, integers=(one.integers >> before) << after)}
    changed = replace(checkpoint, plan=replace(checkpoint.plan, rules=tuple(rules)), filters=filters)
    save(changed, tmp_path)
    loaded = load(tmp_path).checkpoint
    assert loaded.filters["b0.proj"].integers.abs().max() > 1 << 15
    assert same(loaded, changed)


@pytest.mark.parametrize("scales", [False, True])
def test_training_goes_on_from_the_checkpoint(scales):
    """It starts with the checkpoint's logits; steps of parts in one sum keep their ratios, all others move."""
    network = tiny_vit(5, depth=1)
    one = learned(network, 5)
    plan, checkpoint = export(one, [images_of(network, 16)])
    shifts = plan.rule_for(network.workload.op_by_name["b0.values"]).heads.shifts
    assert len(set(shifts)) > 1
    images = images_of(network, 8, 6)
    model = Trainable(checkpoint, one.model.network, scales)
    assert torch.equal(model.logits(images).detach(), logits(checkpoint, images))
    values = model.parameters_by_name()
    slopes = torch.autograd.grad(model.logits(images).square().sum(), list(values.values()))
    with torch.no_grad():
        for value, slope in zip(values.values(), slopes, strict=True):
            value -= 0.02 * slope.sign()
    result = model.trained()
    assert torch.equal(model.logits(images).detach(), logits(result, images))
    before, after = (x.stored["b0.values"].scale.flatten() for x in (checkpoint, result))
    assert torch.equal(after / after.min(), torch.exp2(torch.tensor(shifts).float()))
    assert torch.equal(before, after) == (not scales)
    assert len(result.stored["b0.qkv"].scale.unique()) == len(checkpoint.stored["b0.qkv"].scale.unique())
    compile_integer(result)


def test_what_no_format_can_say_is_refused():
    network = tiny_vit(0, depth=1)
    images = [images_of(network, 8)]
    by_code = learned(network, 0, SiteOptions(head_axis=BY_CODE))
    with pytest.raises(AccelsimError, match=r"(?s)weights/b0\.qkv.*axis of the released code.*weights/b0\.proj"):
        export(by_code, images)
    with pytest.raises(AccelsimError, match=r"never frozen.*frozen_share above 0"):
        export(learned(network, 0, freeze=False), images)
    with pytest.raises(AccelsimError, match=r"not powers of two times each other"):
        export(learned(network, 0, tied=False), images)
    with pytest.raises(AccelsimError, match="gives no images"):
        export(learned(network, 0), [])
    with pytest.raises(AccelsimError, match=r"method qvit: has no learned widths"):
        quantize(network, images, QVit())
