"""Checkpoints: what is loaded computes what was saved; damage and a foreign plan are refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from accelsim.config import load_plan
from accelsim.problems import AccelsimError
from quant.checkpoint import DATA, PLAN, TENSORS, WORKLOAD, Model, load, save
from quant.methods.m2q import M2Q
from quant.methods.uniform import Uniform
from quant.quantize import quantize
from tests.support.networks import images_of, tiny_hybrid, tiny_vit


@pytest.fixture(params=[(tiny_hybrid, M2Q()), (tiny_vit, M2Q(ratio=0.25)), (tiny_hybrid, Uniform(weight_bits=4))])
def folder(request, tmp_path):
    make, method = request.param
    network = make()
    _, checkpoint = quantize(network, [images_of(network, 32)], method, about={"note": "a test"})
    save(checkpoint, tmp_path / "made")
    return checkpoint, tmp_path / "made"


def test_a_loaded_model_computes_the_same(folder):
    checkpoint, place = folder
    loaded = load(place)
    images = images_of(checkpoint.network, 8, 3)
    assert torch.equal(loaded(images), Model(checkpoint)(images))
    assert loaded.checkpoint.plan.fingerprint() == checkpoint.plan.fingerprint()
    assert loaded.checkpoint.network.workload == checkpoint.network.workload
    assert loaded.checkpoint.about["note"] == "a test"
    assert {path.name for path in place.iterdir()} == {DATA, PLAN, TENSORS, WORKLOAD}


def test_the_plan_of_a_checkpoint_is_the_hardware_s(folder):
    checkpoint, place = folder
    from accelsim.optable import op_table

    table = op_table(checkpoint.network.workload, load_plan(place / PLAN))
    assert table.quantized.plan.fingerprint() == json.loads((place / DATA).read_text())["plan_fingerprint"]


def test_a_changed_plan_is_refused(folder):
    _, place = folder
    text = (place / PLAN).read_text()
    (place / PLAN).write_text(text.replace("bias_bits: 32", "bias_bits: 24"))
    with pytest.raises(AccelsimError, match="is not the plan of this checkpoint"):
        load(place)


@pytest.mark.parametrize("name", [DATA, PLAN, TENSORS])
def test_a_missing_file_is_one_clear_error(folder, name):
    _, place = folder
    (place / name).unlink()
    with pytest.raises(AccelsimError) as caught:
        load(place)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("name", [DATA, TENSORS])
def test_a_damaged_file_is_one_clear_error(folder, name):
    _, place = folder
    content = (place / name).read_bytes()
    (place / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(AccelsimError) as caught:
        load(place)
    assert len(caught.value.problems) == 1


def test_another_format_is_refused(folder):
    _, place = folder
    data = json.loads((place / DATA).read_text())
    (place / DATA).write_text(json.dumps({**data, "format": "quant.checkpoint/9"}))
    with pytest.raises(AccelsimError, match=r"quant\.checkpoint/9.*expected quant\.checkpoint/1"):
        load(place)


def test_quant_offers_load_and_save_without_loading_torch():
    code = "import sys, quant; print('torch' in sys.modules); print(quant.load.__name__, quant.save.__name__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "load", "save"]


def test_a_loader_with_labels_is_a_calibration_set():
    network = tiny_hybrid()
    images = images_of(network, 32)
    plain = quantize(network, list(images.split(8)), Uniform())[1].tensors()
    paired = quantize(network, ((part, torch.zeros(8)) for part in images.split(8)), Uniform())[1].tensors()
    assert all(torch.equal(plain[name], paired[name]) for name in plain)
    with pytest.raises(AccelsimError, match="gives no images"):
        quantize(network, [], Uniform())
