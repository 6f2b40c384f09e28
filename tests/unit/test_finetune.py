"""Fine-tuning: forward values are the hardware's, gradients pass roundings, and the result is what was trained."""

from __future__ import annotations

import pytest
import torch

from accelsim.nonlinear.methods import function_of
from quant.checkpoint import load, save
from quant.data import load_data
from quant.fake import FakeQuantized
from quant.finetune import FineTune, fine_tune
from quant.finetune.numerics import Trainable
from quant.finetune.straight import on_levels, shown_as
from quant.integer import agreement, compile_integer
from quant.levels import levels
from quant.methods.m2q import M2Q
from quant.methods.mnq import MNQ
from quant.methods.power_of_two import PowerOfTwo
from quant.methods.uniform import Uniform
from quant.network import run
from quant.reconstruct import Reconstruction
from quant.separate import separate
from tests.support.finetuning import COARSE, coarse_digits, logits, loss_of, made
from tests.support.networks import images_of, tiny_hybrid, tiny_vit

METHODS = [COARSE, PowerOfTwo(terms=1), M2Q()]


# Values and gradients


def test_weights_inside_get_the_gradient_and_weights_outside_none():
    rows = torch.tensor([[0.2, -3.0, 3.2, -0.9], [1.0, 0.4, -1.5, 7.0]], requires_grad=True)
    scale = torch.tensor([0.5, 1.0], requires_grad=True)
    integers = torch.tensor([[0, -3, 3, -2], [1, 0, -2, 3]])
    value = on_levels(rows, scale, integers, torch.full((2, 1), -3.0), torch.full((2, 1), 3.0), 0.5)
    assert torch.equal(value, torch.tensor([[0.0, -1.5, 1.5, -1.0], [1.0, 0.0, -2.0, 3.0]]))
    upstream = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    value.backward(upstream)
    assert torch.equal(rows.grad, torch.tensor([[1.0, 0.0, 0.0, 4.0], [5.0, 6.0, 7.0, 0.0]]))
    # LSQ: rounding minus position inside, the end level outside, times the multiplier.
    first = 0.5 * (1 * (0 - 0.4) + 2 * -3 + 3 * 3 + 4 * (-2 + 1.8))
    second = 0.5 * (0 + 6 * (0 - 0.4) + 7 * (-2 + 1.5) + 8 * 3)
    torch.testing.assert_close(scale.grad, torch.tensor([first, second]))


def test_a_shown_value_is_exact_and_passes_the_gradient():
    value = torch.tensor([1e8, 1.0], requires_grad=True)
    found = shown_as(2 * value, torch.tensor([0.1, 3.0]))
    assert torch.equal(found, torch.tensor([0.1, 3.0]))
    found.sum().backward()
    assert torch.equal(value.grad, torch.tensor([2.0, 2.0]))


@pytest.mark.parametrize("make", [tiny_hybrid, tiny_vit])
@pytest.mark.parametrize("method", METHODS, ids=["u3", "pot", "m2q"])
def test_training_starts_at_the_checkpoint(make, method):
    network = make()
    for recipe in (None, Reconstruction(steps=30)):
        checkpoint = made(network, method, recipe)
        images = images_of(network, 8)
        for start in (network, checkpoint.network):
            assert torch.equal(Trainable(checkpoint, start).logits(images).detach(), logits(checkpoint, images))


def test_weights_that_reconstruction_moved_start_inside_their_cells():
    network = tiny_vit()
    checkpoint = made(network, recipe=Reconstruction(steps=60))
    moved = 0
    for name, one in Trainable(checkpoint, network).latent.items():
        start, integers = network.node(name).weight, checkpoint.filters[name].integers
        assert torch.equal(one.integers().reshape(integers.shape), integers.long())
        changed = one.weight.detach() != start
        moved += int(changed.sum())
        distance = one.weight.detach() / one.scale().reshape(-1, *[1] * (start.dim() - 1)) - integers
        assert bool((distance[changed].abs() > 0.49).all())
        assert bool((distance[changed].abs() < 0.5).all())
    assert moved > 0


def test_every_parameter_gets_a_gradient():
    for network in (tiny_hybrid(), tiny_vit()):
        model = Trainable(made(network), network, learn_scales=True)
        values = model.parameters_by_name()
        found = torch.autograd.grad(model.logits(images_of(network, 4)).square().sum(), list(values.values()))
        silent = {name for name, slope in zip(values, found, strict=True) if not bool(slope.any())}
        assert not silent
        kinds = {name.split("/")[0] for name in values}
        assert kinds >= {"filters", "stored", "preactivation"}
        assert ("node" in kinds) == (network.workload.name == "tiny_vit")


def test_an_op_in_integers_has_the_gradient_of_the_float_function(monkeypatch):
    network = tiny_vit(depth=1)
    checkpoint = made(network)

    def hook(self, node, operands):
        assert not operands[0].requires_grad
        return torch.round(torch.softmax(operands[0], -1) * 16) / 16 if node.function == "softmax" else None

    monkeypatch.setattr(FakeQuantized, "nonlinear", hook)
    model = Trainable(checkpoint, network)
    node = network.node("b0.softmax")
    scores = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = model.nonlinear(node, [scores])
    assert torch.equal(found.detach(), torch.round(torch.softmax(scores.detach(), -1) * 16) / 16)
    upstream = torch.arange(50.0).reshape(1, 2, 5, 5)
    expected = torch.autograd.grad(torch.softmax(scores, -1), scores, upstream)[0]
    assert torch.equal(torch.autograd.grad(found, scores, upstream)[0], expected)
    assert model.nonlinear(network.node("b0.norm1"), [torch.randn(1, 5, 12)]) is None
    images = images_of(network, 8)
    assert torch.equal(model.logits(images).detach(), logits(checkpoint, images))


def test_log2_divisors_pass_gradients():
    network = tiny_hybrid()
    checkpoint = made(network, Uniform(log2_divisor=True))
    (name,) = checkpoint.divisors
    node, rows = network.node(name), checkpoint.divisors[name].rows
    value = run(network, images_of(network, 2), FakeQuantized(checkpoint), keep=[name])[name].requires_grad_()
    found = Trainable(checkpoint, network).stored(node, value)
    assert torch.equal(found.detach(), FakeQuantized(checkpoint).stored(node, value.detach()))
    slope = torch.autograd.grad(found.sum(), value)[0]
    assert bool((slope[rows.expand_as(slope)] == 1).all())


def test_scales_that_must_be_equal_stay_equal_and_units_of_divisors_stay():
    network = tiny_hybrid()
    checkpoint = made(network, Uniform(log2_divisor=True))
    model, _ = trained_a_little(checkpoint, network, images_of(network, 16), learn_scales=True)
    result = model.trained()
    kept = {name for name, one in checkpoint.stored.items() if torch.equal(one.scale, result.stored[name].scale)}
    # Queries, keys and values, directly and through the aggregation, make the divisors; the host writes the image.
    assert kept == {"image", "s1.b0.qkv", "s1.b0.aggr.pwg", "s1.b0.KtV"}
    for name, one in result.stored.items():
        assert len(one.scale.unique()) == len(checkpoint.stored[name].scale.unique())


# The result


def trained_a_little(checkpoint, network, images, learn_scales):
    """A model after four steps, and its logits then."""
    model = Trainable(checkpoint, network, learn_scales)
    optimizer = torch.optim.AdamW(model.parameters_by_name().values(), lr=3e-3)
    for _ in range(4):
        optimizer.zero_grad()
        model.logits(images).square().sum().backward()
        optimizer.step()
    return model, model.logits(images).detach()


def check_result(checkpoint, network, images, learn_scales, folder):
    """What was trained is exactly what is saved and loaded, has levels of its formats, and runs in integers."""
    model, last = trained_a_little(checkpoint, network, images, learn_scales)
    result = model.trained()
    assert torch.equal(logits(result, images), last)
    save(result, folder)
    assert torch.equal(load(folder)(images), last)
    assert not torch.equal(last, logits(checkpoint, images))
    for name, filters in result.filters.items():
        assert torch.equal(filters.scale, checkpoint.filters[name].scale) is not learn_scales
        for share in result.plan.rule_for(checkpoint.network.node(name).op).weights:
            index = slice(None) if share.channels is None else torch.from_numpy(share.channels.indices.copy())
            assert set(filters.integers[index].unique().tolist()) <= set(levels(share.format).tolist())
    before, after = (
        agreement(compile_integer(one), [(images, last.argmax(1))]) for one in (checkpoint, load(folder).checkpoint)
    )
    assert after.top1_fake == 1.0
    # Random weights and many roundings: codes differ by a few, as they do before training.
    assert after.mean_difference < 1.2 * before.mean_difference
    assert after.float_islands == before.float_islands
    return after


@pytest.mark.parametrize("learn_scales", [False, True])
@pytest.mark.parametrize("make", [tiny_hybrid, tiny_vit])
@pytest.mark.parametrize("method", [Uniform(weight_bits=3, log2_divisor=True), *METHODS[1:]], ids=["u3", "pot", "m2q"])
def test_the_result_computes_the_last_forward_and_runs_in_integers(make, method, learn_scales, tmp_path):
    network = make()
    check_result(made(network, method), network, images_of(network, 16), learn_scales, tmp_path)


@pytest.mark.parametrize("learn_scales", [False, True])
@pytest.mark.parametrize("name", ["ibert", "ivit", "fqvit"])
def test_non_linear_ops_in_integers_are_trained_through(name, learn_scales, tmp_path):
    network = tiny_vit()
    ops = {node.name: function_of(node.op.recipe) for node in separate(network).nodes}
    methods = {op: "ivit" if (kind, name) == ("gelu", "fqvit") else name for op, kind in ops.items() if kind}
    checkpoint = made(network, MNQ(weight_bits=4, methods=methods))
    found = check_result(checkpoint, network, images_of(network, 16), learn_scales, tmp_path)
    assert found.float_islands == ()
    # What a method gives is whole steps: their size has no gradient (and is a power of two for codes of a logarithm).
    stored = load(tmp_path).checkpoint.stored
    kept = {op for op, one in checkpoint.stored.items() if torch.equal(one.scale, stored[op].scale)}
    assert kept == ({"image", *methods} if learn_scales else set(stored))
    # Gains and offsets of every LayerNorm were trained, whose integers follow from them.
    trained = load(tmp_path).checkpoint.network
    norms = [op for op, kind in ops.items() if kind == "layernorm"]
    assert len(norms) == 5
    assert not any(torch.equal(trained.node(op).weight, network.node(op).weight) for op in norms)


def test_the_loss_falls_on_digits_and_integers_agree():
    pytest.importorskip("sklearn")
    network, checkpoint = coarse_digits()
    training, validation = load_data("digits", "train"), load_data("digits", "val")
    result = fine_tune(checkpoint, network, training, FineTune(steps=12, rate=1e-3))
    assert loss_of(result, validation) < 0.65 * loss_of(checkpoint, validation)
    assert result.plan.fingerprint() == checkpoint.plan.fingerprint()
    found = agreement(compile_integer(result), validation.batches(64))
    assert found.top1_integer > 0.95
    assert found.same_choice > 0.97
