"""Fine-tuning: forward values are the hardware's, gradients pass roundings, the loss falls, kills change nothing."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from accelsim.nonlinear.methods import function_of
from accelsim.problems import AccelsimError
from quant.capture import capture
from quant.checkpoint import load, save
from quant.data import load_data
from quant.data.dataset import DataSet, Preprocess
from quant.fake import FakeQuantized
from quant.finetune import FineTune, fine_tune
from quant.finetune import loop as loop_module
from quant.finetune.batches import Batches
from quant.finetune.numerics import Trainable
from quant.finetune.straight import on_levels, shown_as
from quant.integer import agreement, compile_integer
from quant.levels import levels
from quant.methods.m2q import M2Q
from quant.methods.mnq import MNQ
from quant.methods.power_of_two import PowerOfTwo
from quant.methods.uniform import Uniform
from quant.models.registry import load_reference
from quant.network import forward, run
from quant.quantize import quantize
from quant.reconstruct import Reconstruction
from tests.support.networks import CLASSES, images_of, tiny_hybrid, tiny_vit

ROOT = Path(__file__).parents[2]
METHODS = [Uniform(weight_bits=3), PowerOfTwo(terms=1), M2Q()]


def data_for(network, count=96, seed=3):
    """Random grey images with labels that the float network gives them."""
    size = network.image_shape[-1]
    random = np.random.Generator(np.random.PCG64(seed))
    coarse = random.integers(0, 256, (count, 1, size // 2, size // 2))
    images = coarse.repeat(2, 2).repeat(2, 3).astype(np.uint8)
    preprocess = Preprocess(size, 1, (0.5,), (0.25,), "bilinear")
    with torch.no_grad():
        labels = forward(network, preprocess.tensor(images)).argmax(1).numpy()
    return DataSet("noise", "train", images, labels, tuple("abcdefghij"), preprocess)


def made(network, method=METHODS[0], recipe=None):
    return quantize(network, list(images_of(network, 64).split(16)), method, reconstruction=recipe)[1]


def logits(checkpoint, images):
    with torch.no_grad():
        return forward(checkpoint.network, images, FakeQuantized(checkpoint))


def same(one, other):
    ours, theirs = one.tensors(), other.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def loss_of(checkpoint, data):
    images, labels = data.preprocess.tensor(data.images), torch.from_numpy(data.labels)
    return float(torch.nn.functional.cross_entropy(logits(checkpoint, images), labels))


@pytest.fixture(scope="module")
def digits():
    """The trained hybrid of the digits, and a 3-bit checkpoint of it."""
    pytest.importorskip("sklearn")
    network = capture(load_reference("digits_hybrid"), (1, 32, 32), "digits_hybrid")
    images = load_data("digits", "train").first(64).batches(64)
    return network, quantize(network, images, Uniform(weight_bits=3))[1]


# Values and gradients


def test_weights_inside_get_the_gradient_and_weights_outside_none():
    rows = torch.tensor([[0.2, -3.0, 3.2, -0.9], [1.0, 0.4, -1.5, 7.0]], requires_grad=True)
    scale = torch.tensor([0.5, 1.0], requires_grad=True)
    integers = torch.tensor([[0, -3, 3, -2], [1, 0, -2, 3]])
    value = on_levels(rows, scale, integers, torch.tensor([-3.0, -3.0]), torch.tensor([3.0, 3.0]), 0.5)
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
    ops = {node.name: function_of(node.op.recipe) for node in MNQ().prepare(network).nodes}
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


def test_the_loss_falls_on_digits_and_integers_agree(digits):
    network, checkpoint = digits
    training, validation = load_data("digits", "train"), load_data("digits", "val")
    result = fine_tune(checkpoint, network, training, FineTune(steps=12, rate=1e-3))
    assert loss_of(result, validation) < 0.65 * loss_of(checkpoint, validation)
    assert result.plan.fingerprint() == checkpoint.plan.fingerprint()
    found = agreement(compile_integer(result), validation.batches(64))
    assert found.top1_integer > 0.95
    assert found.same_choice > 0.97


def test_what_was_done_is_noted():
    network = tiny_hybrid()
    checkpoint, data = made(network), data_for(network)
    result = fine_tune(checkpoint, network, data, FineTune(epochs=2, batch=16))
    again = fine_tune(result, network, data, FineTune(steps=1, batch=16))
    first, second = again.about["fine_tuning"]
    assert (first["epochs"], first["steps"], second["steps"]) == (2, 12, 1)
    assert second["loss_first"] == second["loss_last"]
    assert again.about["method"] == checkpoint.about["method"]


def test_the_float_network_teaches_without_labels():
    network = tiny_vit()
    checkpoint, data = made(network), data_for(network)
    unlabelled = replace(data, labels=None)
    result = fine_tune(checkpoint, network, unlabelled, FineTune(epochs=6, rate=3e-3, batch=16, distill=1.0))
    images = data.preprocess.tensor(data.images)
    with torch.no_grad():
        exact = forward(network, images)
    assert (logits(result, images) - exact).square().mean() < 0.8 * (logits(checkpoint, images) - exact).square().mean()
    with pytest.raises(AccelsimError, match="needs labels"):
        fine_tune(checkpoint, network, unlabelled, FineTune(distill=0.5))


def test_the_rate_falls_along_a_cosine_to_a_fifteenth():
    rates = [FineTune(rate=0.3).rate_at(step, 5) for step in range(5)]
    torch.testing.assert_close(
        torch.tensor(rates), torch.tensor([0.3, 0.25899, 0.16, 0.06101, 0.02]), atol=1e-5, rtol=0
    )


def test_every_image_is_seen_once_an_epoch():
    network = tiny_hybrid()
    data = data_for(network, count=32)
    batches = Batches(data, FineTune(batch=8))
    for epoch in range(2):
        seen = torch.cat([batches.at(4 * epoch + k)[0] for k in range(4)])
        rows = {tuple(one.reshape(-1).tolist()) for one in seen}
        assert rows == {tuple(one.reshape(-1).tolist()) for one in data.preprocess.tensor(data.images)}
    assert not torch.equal(batches.at(0)[0], batches.at(4)[0])
    assert torch.equal(batches.at(1)[0], Batches(data, FineTune(batch=8)).at(1)[0])
    assert not torch.equal(Batches(data, FineTune(batch=8, seed=1)).at(1)[0], batches.at(1)[0])
    changed = [Batches(data, FineTune(batch=8, augment=True)).at(1)[0] for _ in range(2)]
    assert torch.equal(*changed)
    signs = [(a.sign() == b.sign()).float().mean() for a, b in zip(changed[0], batches.at(1)[0], strict=True)]
    assert min(signs) < 0.5 < max(signs)


def test_the_loss_weighs_labels_and_the_float_network():
    network = tiny_vit()
    checkpoint, data = made(network), data_for(network, count=16)
    images, labels = data.preprocess.tensor(data.images), torch.from_numpy(data.labels)
    with torch.no_grad():
        target = forward(network, images).softmax(-1)
    answer = logits(checkpoint, images).log_softmax(-1)
    hard = 0.8 * torch.eye(CLASSES)[labels] + 0.2 / CLASSES
    expected = -(0.75 * hard + 0.25 * target).mul(answer).sum(1).mean()
    settings = FineTune(batch=16, smoothing=0.2, distill=0.25)
    found = loop_module._Run(checkpoint, network, data, settings, torch.device("cpu")).step(0, 1)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_gradients_are_bounded_and_only_filters_decay():
    network = tiny_vit()
    checkpoint, data = made(network), data_for(network, count=16)
    runs = [
        loop_module._Run(
            checkpoint, network, data, FineTune(batch=16, weight_decay=decay, clip=0.01), torch.device("cpu")
        )
        for decay in (0.0, 0.5)
    ]
    for one in runs:
        one.step(0, 1)
        norm = torch.stack([value.grad.square().sum() for value in one.values.values()]).sum().sqrt()
        assert float(norm) == pytest.approx(0.01, rel=1e-3)
    plain, decayed = (one.values for one in runs)
    for name, value in plain.items():
        filters = name.startswith("filters/") and name.endswith("/weight")
        assert torch.equal(value, decayed[name]) is not filters, name


# Limited time, resumption


def test_a_time_limit_becomes_a_number_of_steps_that_a_resume_keeps(tmp_path, monkeypatch):
    network = tiny_hybrid()
    checkpoint, data = made(network), data_for(network)
    settings = FineTune(seconds=1.0, batch=16)
    monkeypatch.setattr(loop_module._Run, "seconds_of_a_step", lambda self: 0.1)
    place = tmp_path / "state.pt"

    def stop(what, done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(checkpoint, network, data, settings, place, stop)
    monkeypatch.setattr(loop_module._Run, "seconds_of_a_step", lambda self: pytest.fail("measured again"))
    steps = []
    result = fine_tune(checkpoint, network, data, settings, place, lambda *step: steps.append(step))
    assert result.about["fine_tuning"][0]["steps"] == 6  # ten fit, four were measured
    assert steps == [("fine-tuning", k, 6) for k in range(1, 7)]


def test_measured_steps_leave_no_trace():
    network = tiny_hybrid()
    checkpoint, data = made(network), data_for(network)
    run = loop_module._Run(checkpoint, network, data, FineTune(batch=16), torch.device("cpu"))
    times = iter([10.0, 16.0])
    assert run.seconds_of_a_step(lambda: next(times)) == 2.0
    run.step(0, 1)
    result = fine_tune(checkpoint, network, data, FineTune(steps=1, batch=16))
    assert same(run.model.trained(), result)


def test_another_run_s_state_is_refused(tmp_path):
    network = tiny_hybrid()
    checkpoint, data = made(network), data_for(network)
    place = tmp_path / "state.pt"
    settings = FineTune(steps=2, batch=16)
    first = fine_tune(checkpoint, network, data, settings, place)
    assert same(fine_tune(checkpoint, network, data, settings, place), first)
    before = place.read_bytes()
    for given, word in [
        ((checkpoint, network, data, replace(settings, rate=1e-2)), "rate"),
        ((made(network, Uniform(weight_bits=4)), network, data, settings), "checkpoint"),
        ((checkpoint, tiny_hybrid(1), data, settings), "float weights"),
        ((checkpoint, network, replace(data, labels=data.labels[::-1].copy()), settings), "data"),
    ]:
        with pytest.raises(AccelsimError, match=f"was started with {word}"):
            fine_tune(*given, place)
    assert place.read_bytes() == before
    place.write_bytes(before[: len(before) // 2])
    with pytest.raises(AccelsimError, match="cannot be read"):
        fine_tune(checkpoint, network, data, settings, place)


DRIVER = """\
import sys
from pathlib import Path

from quant.capture import capture
from quant.checkpoint import load, save
from quant.data import load_data
from quant.data import load_data
from quant.finetune import FineTune, fine_tune

model = load(sys.argv[1]).checkpoint
settings = FineTune(steps=12, batch=8, rate=1e-3, augment=True, learn_scales=True)


def told(what, done, total):
    print(done, flush=True)


training, state = load_data("digits", "train"), sys.argv[2] + ".pt"
result = fine_tune(model, model.network, training, settings, state, told, keep_every=3)
save(result, sys.argv[2])
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, digits, monkeypatch):
    save(digits[1], tmp_path / "start")
    (tmp_path / "driver.py").write_text(DRIVER)
    monkeypatch.chdir(tmp_path)

    def started():
        words = [sys.executable, "driver.py", "start", "killed"]
        return subprocess.Popen(words, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)

    killed = started()
    while killed.stdout.readline() != "5\n":
        pass
    killed.kill()
    killed.stdout.close()
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    again = started()
    # At most the steps since the last state are done again.
    assert again.stdout.read().split()[0] in ("4", "7")
    assert again.wait() == 0
    monkeypatch.setattr(sys, "argv", ["driver.py", "start", "whole"])
    runpy.run_path("driver.py")
    for path in sorted((tmp_path / "whole").iterdir()):
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes(), path.name


# Bad input


def test_bad_settings_are_named():
    for given in (
        {"epochs": 1, "steps": 2},
        {"seconds": 0.0},
        {"rate": 0.0},
        {"rate": 1.5},
        {"batch": 0},
        {"distill": 1.5},
        {"seed": -1},
    ):
        with pytest.raises(AccelsimError, match="|".join(given)):
            FineTune(**given)


def test_networks_and_data_that_do_not_fit_are_refused():
    network = tiny_hybrid()
    checkpoint, data = made(network), data_for(network)
    with pytest.raises(AccelsimError, match="as in the checkpoint"):
        fine_tune(checkpoint, tiny_vit(), data, FineTune(steps=1))
    labels = data.labels.copy()
    labels[0] = CLASSES
    with pytest.raises(AccelsimError, match="labels reach 10"):
        fine_tune(checkpoint, network, replace(data, labels=labels), FineTune(steps=1))
    with pytest.raises(AccelsimError, match="no images"):
        fine_tune(checkpoint, network, data.first(0), FineTune(steps=1))
    with pytest.raises(AccelsimError, match="device nowhere"):
        fine_tune(checkpoint, network, data, FineTune(steps=1), device="nowhere")
    head = checkpoint.filters["head.fc"]
    broken = {**checkpoint.filters, "head.fc": replace(head, bias=head.bias * torch.nan)}
    with pytest.raises(AccelsimError, match="loss of step 0 is nan"):
        fine_tune(replace(checkpoint, filters=broken), network, data, FineTune(steps=1))
