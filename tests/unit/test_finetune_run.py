"""Fine-tuning as a run: schedule, batches, loss, limited time, kills that change nothing, bad input."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from accelsim.problems import AccelsimError
from quant.checkpoint import save
from quant.finetune import FineTune, fine_tune
from quant.finetune.batches import Batches
from quant.finetune.loop import CheckpointTask
from quant.finetune.steps import Steps
from quant.methods.uniform import Uniform
from quant.network import forward
from tests.support.finetuning import coarse_digits, data_for, logits, made, same
from tests.support.networks import CLASSES, tiny_hybrid, tiny_vit

ROOT = Path(__file__).parents[2]


def steps_of(checkpoint, network, data, settings):
    return Steps(lambda: CheckpointTask(checkpoint, network, False), network, data, settings, torch.device("cpu"))


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
    found = steps_of(checkpoint, network, data, settings).step(0, 1)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_gradients_are_bounded_and_only_filters_decay():
    network = tiny_vit()
    checkpoint, data = made(network), data_for(network, count=16)
    runs = [
        steps_of(checkpoint, network, data, FineTune(batch=16, weight_decay=decay, clip=0.01)) for decay in (0.0, 0.5)
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
    monkeypatch.setattr(Steps, "seconds_of_a_step", lambda self: 0.1)
    place = tmp_path / "state.pt"

    def stop(what, done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(checkpoint, network, data, settings, place, stop)
    monkeypatch.setattr(Steps, "seconds_of_a_step", lambda self: pytest.fail("measured again"))
    steps = []
    result = fine_tune(checkpoint, network, data, settings, place, lambda *step: steps.append(step))
    assert result.about["fine_tuning"][0]["steps"] == 6  # ten fit, four were measured
    assert steps == [("fine-tuning", k, 6) for k in range(1, 7)]


def test_measured_steps_leave_no_trace():
    network = tiny_hybrid()
    checkpoint, data = made(network), data_for(network)
    run = steps_of(checkpoint, network, data, FineTune(batch=16))
    times = iter([10.0, 16.0])
    assert run.seconds_of_a_step(lambda: next(times)) == 2.0
    run.step(0, 1)
    result = fine_tune(checkpoint, network, data, FineTune(steps=1, batch=16))
    assert same(run.task.model.trained(), result)


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


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    save(coarse_digits()[1], tmp_path / "start")
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
