"""Passes of every metric against the runs, gradients and Hessian products that really happen."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from quant import network as interpreter
from quant.sensitivity import batch, gradients, hessian
from quant.sensitivity.measure import Settings, sensitivity
from quant.sensitivity.table import MetricInfo, Passes, load_table
from tests.support.networks import labelled_images, tiny_hybrid, tiny_vit

FAST = {"observer": "minmax", "power": 2.0}
IMAGES = 12


def data(network):
    images, labels = labelled_images(network, IMAGES)
    return list(zip(images.split(8), ((labels + 1) % 10).split(8), strict=True))


@pytest.fixture
def counted(monkeypatch):
    """Image-weighted passes as they happen: MACs of every executed op, calls of autograd by what they are."""
    seen = {field.name: 0.0 for field in fields(Passes)}
    now = {"images": 0}
    plain_run, plain_grad = interpreter.run, torch.autograd.grad

    def run(network, images, numerics=None, **rest):
        nodes = rest.get("nodes") or network.nodes
        now["images"] = len(images)
        seen["runs"] += len(images)
        seen["forward"] += len(images) * sum(node.op.macs for node in nodes) / network.workload.macs
        return plain_run(network, images, numerics, **rest)

    def grad(outputs, inputs, grad_outputs=None, **rest):
        seen["backward" if grad_outputs is None else "hessian"] += now["images"]
        return plain_grad(outputs, inputs, grad_outputs, **rest)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    monkeypatch.setattr(batch, "run", run)
    for module in (batch, gradients, hessian):
        monkeypatch.setattr(module, "forward", lambda network, images, rules=None: _logits(run, network, images, rules))
    return seen


def _logits(run, network, images, rules):
    return run(network, images, rules)[network.workload.output].reshape(len(images), -1)


@pytest.mark.parametrize("make", [tiny_vit, tiny_hybrid], ids=["vit", "hybrid"])
@pytest.mark.parametrize("name", ["logit_l2", "kl", "fisher", "gradient", "mse", "hessian_trace"])
def test_passes_are_those_that_happen(counted, make, name):
    network = make()
    batches = data(network)
    for key in counted:
        counted[key] = 0.0
    settings = Settings((3, 2), kinds=("product",), metrics=(name,), probes=3, **FAST)
    (info,) = sensitivity(network, batches, (), settings).metrics
    assert vars(info.passes) == pytest.approx({kind: number / IMAGES for kind, number in counted.items()})
    assert (info.passes.backward > 0) == (name in ("fisher", "gradient", "hessian_trace"))
    assert info.passes.hessian == (6 if name == "hessian_trace" else 0)


def test_cached_prefixes_save_part_of_every_run():
    network = tiny_vit()
    settings = Settings((3,), kinds=("product",), metrics=("logit_l2",), **FAST)
    table = sensitivity(network, data(network), (), settings)
    passes = table.metrics[0].passes
    assert passes.runs > len(table.rows)  # one each, and the float network
    assert passes.backward == 0
    assert 0.4 * len(table.rows) < passes.forward < 0.8 * len(table.rows)


def test_labels_change_nothing_of_the_output_metric():
    network = tiny_vit(depth=1)
    settings = Settings((3,), kinds=("product",), metrics=("logit_l2", "kl"), **FAST)
    unlabelled = [(images, None) for images, _ in data(network)]
    one, other = (sensitivity(network, batches, (), settings) for batches in (unlabelled, data(network)))
    assert [row.values for row in one.rows] == [row.values for row in other.rows]


def test_passes_are_in_the_file_and_not_in_the_fingerprint(tmp_path):
    network = tiny_vit(depth=1)
    settings = Settings((3,), kinds=("product",), metrics=("logit_l2",), **FAST)
    table = sensitivity(network, data(network), (), settings, tmp_path / "cache")
    table.save(tmp_path / "table.json")
    again = load_table(tmp_path / "table.json")
    assert again.metrics[0].passes.forward == pytest.approx(table.metrics[0].passes.forward, rel=1e-6)
    assert again.fingerprint() == table.fingerprint()
    resumed = sensitivity(network, data(network), (), settings, tmp_path / "cache")
    assert resumed.metrics[0].passes == table.metrics[0].passes  # nothing was run again
    bare = MetricInfo.from_json({"name": "kl", "split": "calibration", "rising": True, "seconds": 1.0})
    assert bare.passes is None
    assert "passes" not in bare.to_json()


def test_a_table_of_an_earlier_version_keeps_its_fingerprint():
    table = load_table(Path(__file__).parents[2] / "benchmarks/quality/sensitivity_glyph_hybrid_narrow.json")
    assert table.fingerprint() == "915158772f278dc2"
