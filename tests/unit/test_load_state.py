"""Released weights in our models: equal outputs with timm, names of mit-han-lab, strict checks, preprocessing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from accelsim.problems import AccelsimError
from quant.models.load_state import load_model, load_state, preprocess_for, read_state, sources
from quant.models.registry import build_torch
from tests.support.timm_models import random_model, timm_or_skip

TOLERANCE = 1e-9
# SHA-256 of the lines "name shape" of all floating-point entries, sorted, of the classifiers that
# mit-han-lab/efficientvit@de7d773 builds (efficientvit_cls_b1, efficientvit_cls_l1).
MIT_ENTRIES = {
    "efficientvit_b1": (237, "95eb29a9595363b68c16033e71ab8aceb36c1600f875ee7ee7581e2a435647da"),
    "efficientvit_l1": (239, "e9fb33221d4c30373b40ab65b9fc347b56c594942eb3a46156db70a5ebf1e52d"),
}


@pytest.mark.parametrize(
    ("name", "theirs"), [("efficientvit_b1", "efficientvit_b1"), ("deit_tiny", "deit_tiny_patch16_224")]
)
def test_timm_weights_give_timms_outputs(name: str, theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = timm_or_skip()
    # EfficientViT's attention casts to float32, which would hide differences below 1e-7.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    reference = random_model(timm, theirs, seed=1)
    model = build_torch(name).double()
    assert load_state(model, name, reference.state_dict()) == "timm"
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        expected, found = reference(images), model(images)
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("name", MIT_ENTRIES)
def test_names_of_mit_han_lab_are_those_of_its_models(name: str) -> None:
    with torch.device("meta"):
        state = build_torch(name).state_dict()
    rename = sources(name)["mit-han-lab"]
    lines = sorted(f"{rename(key)} {tuple(value.shape)}" for key, value in state.items() if "num_batches" not in key)
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()) == MIT_ENTRIES[name]


def _mit_state(seed: int) -> dict[str, torch.Tensor]:
    rename = sources("efficientvit_b0")["mit-han-lab"]
    return {rename(key): value for key, value in build_torch("efficientvit_b0", seed).state_dict().items()}


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_files_of_both_kinds_load(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"weights.{kind}"
    state = _mit_state(seed=3)
    if kind == "pt":
        torch.save({"state_dict": state}, file)
    else:
        save_file(state, file)
    model, preprocess = load_model("efficientvit_b0", file)
    expected = build_torch("efficientvit_b0", 3).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert (preprocess.resolution, preprocess.resize_px) == (224, 236)


def test_every_fault_of_a_state_is_reported() -> None:
    state = _mit_state(seed=0)
    del state["head.op_list.3.linear.bias"]
    state["head.op_list.3.linear.weight"] = torch.zeros(10, 1280)
    state["extra"] = torch.zeros(1)
    model = build_torch("efficientvit_b0", 1)
    before = model.state_dict()["stem.conv.conv.weight"].clone()
    with pytest.raises(AccelsimError) as caught:
        load_state(model, "efficientvit_b0", state)
    assert [problem.what for problem in caught.value.problems] == [
        "head.op_list.3.linear.bias is missing",
        "extra is not used",
        "head.op_list.3.linear.weight has the shape (10, 1280)",
    ]
    assert torch.equal(model.state_dict()["stem.conv.conv.weight"], before)


def test_a_file_that_is_no_state_dict(tmp_path: Path) -> None:
    text, numbers = tmp_path / "text.pt", tmp_path / "numbers.pt"
    text.write_text("nothing")
    torch.save({"epoch": 3}, numbers)
    for file, message in ((text, "cannot be read"), (numbers, "something else than tensors")):
        with pytest.raises(AccelsimError, match=message):
            read_state(file)


def test_resolution_of_a_vision_transformer_is_that_of_its_positions(tmp_path: Path) -> None:
    file = tmp_path / "deit.safetensors"
    rename = sources("deit_tiny")["timm"]
    save_file({rename(key): value for key, value in build_torch("deit_tiny", resolution=64).state_dict().items()}, file)
    model, preprocess = load_model("deit_tiny", file)
    assert preprocess.resolution == 64
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_unknown_networks_have_no_names_of_weights(tmp_path: Path) -> None:
    with pytest.raises(AccelsimError, match="no names of weights"):
        load_model("swin_tiny", tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("name", "source", "resolution", "resize_px", "mean"),
    [
        # timm 1.0.31, pretrained configurations of the r224, r288 and patch16_224 checkpoints.
        ("efficientvit_b1", "timm", 224, 235, 0.485),
        ("efficientvit_b1", "timm", 288, 288, 0.485),
        ("efficientvit_l1", "timm", 224, 224, 0.485),
        ("deit_tiny", "timm", 224, 248, 0.485),
        ("deit_base", "timm", 384, 384, 0.485),
        ("vit_base", "timm", 224, 248, 0.5),
        # mit-han-lab/efficientvit@de7d773, assets/eval_efficientvit_cls_model.sh.
        ("efficientvit_b1", "mit-han-lab", 224, 236, 0.485),
        ("efficientvit_b3", "mit-han-lab", 224, 224, 0.485),
    ],
)
def test_preprocessing_of_the_released_checkpoints(
    name: str, source: str, resolution: int, resize_px: int, mean: float
) -> None:
    found = preprocess_for(name, source, resolution)
    assert (found.resize_px or found.resolution, found.mean[0]) == (resize_px, mean)
    assert (found.resolution, found.interpolation) == (resolution, "bicubic")
