"""Plans with head widths calibrate without training: scales, fake and integer twins, what may go together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from accelsim.channels import Channels
from accelsim.formats import Format
from accelsim.head_widths import HeadWidths
from accelsim.plan import WeightShare
from accelsim.problems import AccelsimError
from quant.calibrate import Calibration
from quant.checkpoint import load, save
from quant.fake import FakeQuantized
from quant.integer import compile_integer, run_integer
from quant.methods.uniform import Uniform
from quant.network import forward, run
from quant.observers import Observed
from quant.patchwise.network import ranked
from quant.patchwise.plans import with_groups
from quant.penalties.choices import StoredChoice
from quant.quantize import gather, make_plan, quantize_plan
from tests.support.finetuning import logits
from tests.support.learned_checkpoints import HeadTwin
from tests.support.networks import images_of, tiny_vit

QUICK = settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
U8 = Format.parse("u8")


def batches(network):
    return [images_of(network, 16)]


def base_plan(network):
    method = Uniform()
    return make_plan(network, method, gather(network, batches(network), method))


def chosen(plan, choices):
    rules = (choices[rule.match].applied(rule) if rule.match in choices else rule for rule in plan.rules)
    return replace(plan, rules=tuple(rules))


def parts(*bits):
    return StoredChoice(Format.parse(f"u{max(bits)}"), heads=HeadWidths(bits))


def mixed(plan, op, channels):
    even, odd = Channels.of(range(0, channels, 2)), Channels.of(range(1, channels, 2))
    shares = (WeightShare(Format.parse("apot8"), 0.5, even), WeightShare(Format.parse("u4"), 0.5, odd))
    return replace(plan, rules=tuple(replace(r, weights=shares) if r.match == op else r for r in plan.rules))


WIDTHS = st.lists(st.integers(2, 8), min_size=6, max_size=6)


@QUICK
@given(WIDTHS, st.integers(0, 2**31))
def test_every_part_has_the_scale_that_it_would_have_alone(bits, seed):
    """Observed in its own width; the stored values are those of a quantizer of each part, one after another."""
    network = tiny_vit(seed % 97, depth=1)
    plan = chosen(base_plan(network), {"b0.qkv": parts(*bits)})
    _, checkpoint = quantize_plan(network, batches(network), plan)
    values = torch.cat([run(network, one, keep=["b0.qkv"])["b0.qkv"] for one in batches(network)])
    images = images_of(network, 4, 9)
    with torch.no_grad():
        found = run(network, images, FakeQuantized(checkpoint), keep=["b0.norm1", "b0.qkv"])
    before, fake = found["b0.norm1"], found["b0.qkv"]
    filters = checkpoint.filters["b0.qkv"]
    product = torch.nn.functional.linear(before, filters.values(), filters.bias)
    scale = checkpoint.stored["b0.qkv"].scale.expand(1, 1, 36)
    for k, width in enumerate(bits):
        own, last = slice(6 * k, 6 * k + 6), 2 ** (width - 1) - 1
        seen = Observed(capacity=1 << 15, seed=k)
        seen.update(values[..., own].reshape(len(values), -1))
        expected = Calibration().observe(seen, width, symmetric=True)
        assert torch.equal(scale[0, 0, own].unique(), expected.scale.reshape(1))
        codes = np.clip(np.round(product[..., own].numpy() / expected.scale.numpy()), -last, last)
        assert np.array_equal(fake[..., own].numpy(), codes.astype(np.float32) * expected.scale.numpy())


@QUICK
@given(WIDTHS, st.integers(0, 2**31))
def test_integers_equal_the_twin(bits, seed):
    """Every code of every tensor, as for learned widths."""
    network = tiny_vit(seed % 89, depth=1)
    plan = chosen(base_plan(network), {"b0.qkv": parts(*bits)})
    _, checkpoint = quantize_plan(network, batches(network), plan)
    images = images_of(network, 1, 7)
    names = [node.op.output for node in network.nodes]
    found = run_integer(compile_integer(checkpoint), images, keep=names)
    expected = HeadTwin(checkpoint).run(images)
    for name in names:
        assert np.array_equal(found[name].numpy(), expected[name]), name


def test_equal_parts_of_eight_bits_are_finer_than_one_scale(tmp_path):
    network = tiny_vit(3, depth=1)
    plan = chosen(base_plan(network), {"b0.qkv": parts(*[8] * 6)})
    _, checkpoint = quantize_plan(network, batches(network), plan)
    whole = quantize_plan(network, batches(network), base_plan(network))[1]
    assert len(checkpoint.stored["b0.qkv"].scale.unique()) == 6
    assert checkpoint.stored["b0.qkv"].scale.mean() < whole.stored["b0.qkv"].scale.mean()
    save(checkpoint, tmp_path)
    images = images_of(network, 4, 5)
    assert torch.equal(load(tmp_path)(images), logits(checkpoint, images))


def follows(checkpoint, images):
    """Logits of integers against those of fake quantization, as a share of what quantization loses."""
    affine = checkpoint.stored["head"]
    codes = run_integer(compile_integer(checkpoint), images)["head"]
    ours, theirs = affine.scale * (codes - affine.zero_point), logits(checkpoint, images)
    with torch.no_grad():
        lost = (forward(checkpoint.network, images) - theirs).square().mean().sqrt()
    return float((ours.reshape(theirs.shape) - theirs).square().mean().sqrt() / lost)


METHODS = {
    "b0.norm1": StoredChoice.parse("u8+ibert"), "b0.softmax": StoredChoice.parse("r6p3+ibert"),
    "b0.fc1": StoredChoice.parse("r6n3"), "b1.norm1": StoredChoice.parse("u8+ivit"),
    "b1.softmax": StoredChoice.parse("log4+fqvit"), "b1.norm2": StoredChoice.parse("u8+fqvit"),
}  # fmt: skip


def test_heads_go_with_methods_regions_and_mixed_channels():
    network = tiny_vit(4)
    plan = chosen(base_plan(network), {**METHODS, "b0.qkv": parts(8, 4, 8, 6, 4, 8), "b1.qkv": parts(4, 8, 8, 8, 8, 8)})
    plan = mixed(mixed(plan, "b0.qkv", 36), "b1.fc2", 12)
    _, checkpoint = quantize_plan(network, batches(network), plan)
    assert follows(checkpoint, images_of(network, 32, 9)) < 1
    assert set(compile_integer(checkpoint).float_islands) == {"b0.norm2", "norm"}
    codes = run_integer(compile_integer(checkpoint), images_of(network, 8, 3), keep=["b0.qkv"])["b0.qkv"]
    assert codes[..., 6:12].abs().max() <= 7 < codes[..., :6].abs().max()


def test_tokens_go_with_methods_regions_and_mixed_channels():
    network = ranked(tiny_vit(4), ["b1"])
    of_all = {
        **METHODS,
        "b0.softmax": StoredChoice.parse("u8+ibert"),
        "b1.rank_softmax": StoredChoice.parse("u8+ibert"),
    }
    plan = mixed(mixed(chosen(base_plan(network), of_all), "b0.qkv", 36), "b1.fc2", 12)
    plan = with_groups(network, plan, {"b1": 2}, 4)
    assert sum(rule.tokens is not None for rule in plan.rules) >= 4
    _, checkpoint = quantize_plan(network, batches(network), plan)
    images = images_of(network, 32, 9)
    assert follows(checkpoint, images) < 1
    names = ["b1.qkv", "b1.norm1"]
    codes = run_integer(compile_integer(checkpoint), images, keep=names)
    with torch.no_grad():
        fake = run(network, images, FakeQuantized(checkpoint), keep=names)
    for name in names:
        affine = checkpoint.stored[name]
        for one in (codes[name], (fake[name] / affine.scale + affine.zero_point).round()):
            assert not bool((one[:, 2:] % 16).any())
            assert bool((one[:, :2] % 16).any())


def test_tied_parts_are_refused():
    network = tiny_vit(0, depth=1)
    plan = base_plan(network)
    tied = StoredChoice(U8, heads=HeadWidths((8, 4), (0, 4)))
    with pytest.raises(AccelsimError, match=r"tied scales for the head widths of b0\.values"):
        quantize_plan(network, batches(network), chosen(plan, {"b0.values": tied}))
    rules = (replace(r, weight_heads=HeadWidths((8, 8))) if r.match == "b0.proj" else r for r in plan.rules)
    with pytest.raises(AccelsimError, match=r"tied scales for the head widths of b0\.proj.*qvit"):
        quantize_plan(network, batches(network), replace(plan, rules=tuple(rules)))
