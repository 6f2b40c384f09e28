"""Torch models: op names and sizes of the builders, weights as committed, resumable training, controls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F  # noqa: N812

from accelsim.ir import OpKind
from accelsim.problems import AccelsimError
from accelsim.workloads import build_workload
from quant.data.dataset import DataSet
from quant.data.glyphs import HASH_FILE
from quant.data.small import GREY_32, small_data
from quant.models import controls, train
from quant.models.blocks import Add, Conv, Linear, OpModule
from quant.models.registry import REFERENCE_NAMES, build_torch, load_reference, preprocess_of, weights_file
from quant.models.statistics import attention_statistics, channel_statistics

BUILT = (*REFERENCE_NAMES, "efficientvit_b0", "efficientvit_b1", "efficientvit_l1", "deit_tiny", "vit_small")
# The control `glyph_vit_outlier` is trained by command.
COMMITTED = REFERENCE_NAMES
MAX_BYTES = 8 * 1024 * 1024


def executed_ops(model: nn.Module, image: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Names of the op modules in order of execution, with the shapes of their outputs."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name, output):
        shapes[name] = tuple(output.shape)

    for name, module in model.named_modules():
        if isinstance(module, OpModule):
            module.register_forward_hook(lambda _, inputs, output, name=name: note(name, output))
    with torch.inference_mode():
        model(image)
    return shapes


@pytest.mark.parametrize("name", BUILT)
def test_ops_of_the_torch_model_are_those_of_the_builder(name):
    model, workload = build_torch(name), build_workload(name)
    channels = workload.tensor_by_name[workload.input].channels
    shapes = executed_ops(model, torch.zeros(1, channels, workload.resolution, workload.resolution))
    assert list(shapes) == [op.name for op in workload.ops]
    for op in workload.ops:
        assert int(np.prod(shapes[op.name])) == workload.tensor_by_name[op.output].elements, op.name
    assert sum(value.numel() for value in model.parameters()) == workload.params


@pytest.mark.parametrize("name", BUILT)
def test_weights_biases_and_norms_are_those_of_the_builder(name):
    model, ops = build_torch(name), build_workload(name).op_by_name
    for path, module in model.named_modules():
        if isinstance(module, Conv | Linear):
            layer = module.conv if isinstance(module, Conv) else module.linear
            norm = module.norm if isinstance(module, Conv) else None
            op = ops[path]
            assert op.kind is OpKind.CONV
            assert layer.weight.numel() == op.weights
            assert (0 if layer.bias is None else layer.bias.numel()) == op.bias
            assert (0 if norm is None else norm.num_features) == op.bn_channels
            assert module.activation.replace("gelu_tanh", "gelu") == op.activation


def test_the_hybrids_attend_linearly_at_eight_by_eight():
    for name in ("glyph_hybrid_wide", "glyph_hybrid_narrow"):
        workload = build_workload(name)
        loop = workload.op_by_name["s3.b0.KtV"].loop
        assert (loop.depth, loop.rows_h, loop.cols) == (64, 8, 9)
        assert {op.op_class for op in workload.ops} >= {"stem", "dw", "pw", "gconv", "ktv", "q_ktv", "division"}
    widths = [
        build_workload("glyph_hybrid_wide").tensor_by_name[n].channels
        for n in ("stem.conv", "s1.mb0.proj", "s2.mb0.proj", "s4.mb1.add")
    ]
    assert widths == [16, 24, 48, 96]


def test_linear_and_quadratic_attention_are_the_same_function():
    """At 4 × 4 positions with 16 channels per head EfficientViT takes the quadratic form; the linear one agrees."""
    block = build_torch("efficientvit_b0").double().get_submodule("s3.b0")
    value = torch.randn(2, 64, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        quadratic = block(value)
        joined = torch.cat([block.qkv(value), block.aggr(block.qkv(value))], dim=1).reshape(2, 8, 48, 16)
        queries, keys, values = joined[:, :, :16].relu(), joined[:, :, 16:32].relu(), joined[:, :, 32:]
        sums = torch.einsum("bhdn,bhen->bhde", keys, values)
        top = torch.einsum("bhdn,bhde->bhen", queries, sums)
        bottom = torch.einsum("bhdn,bhd->bhn", queries, keys.sum(-1))
        linear = block.attn_proj((top / (bottom[:, :, None] + 1e-15)).reshape(2, 128, 4, 4)) + value
        assert torch.allclose(quadratic, block.mb(linear), rtol=1e-9, atol=1e-12)


def test_a_block_of_the_transformer_is_torchs_own_attention():
    block = build_torch("glyph_vit").double().get_submodule("b0")
    rows = torch.randn(2, 65, 192, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        q, k, v = block.qkv(block.norm1(rows)).chunk(3, dim=-1)
        heads = [part.reshape(2, 65, 6, 32).transpose(1, 2) for part in (q, k, v)]
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(2, 65, 192)
        middle = rows + block.proj(mixed)
        expected = middle + block.fc2(
            F.gelu(F.linear(block.norm2(middle), block.fc1.linear.weight, block.fc1.linear.bias))
        )
        assert torch.allclose(block(rows), expected, rtol=1e-9, atol=1e-12)


def test_seeds_decide_random_weights_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (build_torch("glyph_vit", seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["b0.qkv.linear.weight"], other["b0.qkv.linear.weight"])


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_weights_have_the_accuracy_that_is_written_beside_them(name):
    file = weights_file(name, 0)
    facts = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    assert file.stat().st_size <= MAX_BYTES
    if train.data_of(name) == "glyphs":
        assert facts["data_sha256"] == json.loads(HASH_FILE.read_text(encoding="utf-8"))["sha256"]
    part = small_data(train.data_of(name), "val", None).first(1000)
    found = train.accuracy(load_reference(name), part)
    # Five deviations of a mean of 1,000 around the accuracy on all of validation.
    assert abs(found - facts["val_accuracy"]) <= 5 * (0.25 * 0.25 / len(part)) ** 0.5
    assert facts["val_accuracy"] > 0.85


@pytest.mark.parametrize("name", ["glyph_vit"])
def test_fp16_values_are_the_model(name):
    stored = load_file(weights_file(name, 0))
    loaded = load_reference(name).state_dict()
    assert all(value.dtype == torch.float16 for value in stored.values())
    assert all(torch.equal(loaded[key], stored[key].float()) and loaded[key].dtype == torch.float32 for key in stored)


def tiny(count: int) -> DataSet:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (count, 1, 32, 32)).astype(np.uint8)
    return DataSet("tiny", "train", images, rng.integers(0, 62, count), (), GREY_32)


class StoppedError(Exception):
    """Ends a training run after its first epoch."""


@pytest.mark.parametrize("name", ["glyph_hybrid_narrow", "glyph_vit_outlier"])
def test_an_interrupted_training_ends_with_the_same_weights(name, tmp_path, monkeypatch):
    settings = replace(train.SETTINGS[name], epochs=3, batch=8, start="")
    data = tiny(24)
    whole = train.train(name, 4, settings, data, data, tmp_path / "whole.pt")
    save = train.Run.save

    def save_and_stop(run, path):
        save(run, path)
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "save", save_and_stop)
        with pytest.raises(StoppedError):
            train.train(name, 4, settings, data, data, tmp_path / "cut.pt")
    rest = train.train(name, 4, settings, data, data, tmp_path / "cut.pt")
    assert [entry["loss"] for entry in rest.log] == [entry["loss"] for entry in whole.log]
    ends = [run.model.state_dict() for run in (whole, rest)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    start = build_torch(name, 4).state_dict()
    assert not all(torch.equal(ends[0][key], start[key]) for key in start)


def test_a_checkpoint_of_other_settings_is_an_error(tmp_path):
    settings = replace(train.SETTINGS["glyph_hybrid_narrow"], epochs=1, batch=8)
    train.train("glyph_hybrid_narrow", 4, settings, tiny(16), tiny(8), tmp_path / "c.pt")
    with pytest.raises(AccelsimError, match="other settings"):
        train.train("glyph_hybrid_narrow", 4, replace(settings, rate=1.0), tiny(16), tiny(8), tmp_path / "c.pt")


def test_the_rate_warms_up_and_falls_to_zero():
    rates = [train.rate_at(step, 100, 2.0) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(1.0)
    assert rates[-1] < 0.002


def test_augmentation_moves_and_inverts_whole_images():
    image = torch.arange(36.0).reshape(1, 1, 6, 6)
    changed = train.augment(image.expand(200, 1, 6, 6), 1, torch.Generator().manual_seed(0))
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")[0, 0]
    allowed = {(s, r, c): s * padded[r : r + 6, c : c + 6] for s in (1, -1) for r in range(3) for c in range(3)}
    seen = {key for row in changed for key, value in allowed.items() if torch.equal(row[0], value)}
    assert all(any(torch.equal(row[0], value) for value in allowed.values()) for row in changed)
    assert seen == set(allowed)


def test_held_biases_stay_while_the_others_learn(tmp_path):
    settings = replace(train.SETTINGS["glyph_vit_outlier"], epochs=1, batch=8, half=False, start="")
    model = train.train("glyph_vit_outlier", 4, settings, tiny(24), tiny(8), tmp_path / "c.pt").model
    bias, start = model.patch_embed.conv.bias, build_torch("glyph_vit_outlier", 4).patch_embed.conv.bias
    held = bias.abs() >= controls.HELD_RANGE[0]
    assert int(held.sum()) == controls.HELD_CHANNELS
    assert bias[held].sign().sum() == 0
    fresh = build_torch("glyph_vit_outlier", 4)
    controls.hold_outlier_biases(fresh, 4)
    assert torch.equal(bias[held], fresh.patch_embed.conv.bias[held])
    assert not torch.equal(bias[~held], start[~held])


@pytest.mark.parametrize(
    "change",
    [lambda m: controls.with_output_scales(m, 10.0, 3), lambda m: controls.with_output_scales(m, 40.0, 3),
     lambda m: controls.with_output_offsets(m, 8.0, 3)],
    ids=["scale10", "scale40", "offset"],
)  # fmt: skip
def test_controls_keep_the_function(change):
    model = load_reference("glyph_vit").double()
    images = next(small_data("glyphs", "val", None).batches(16))[0].double()
    with torch.inference_mode():
        expected, found = model(images), change(model)(images)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-9
    other = change(model).state_dict()
    assert not all(torch.equal(value, other[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "low", "high"), [("glyph_vit_scale10", 5, 25), ("glyph_vit_scale40", 20, 100)])
def test_scaled_controls_have_the_outliers_that_they_claim(name, low, high):
    data = small_data("glyphs", "val", None)
    rows = {row.tensor: row for row in channel_statistics(controls.load_control(name), data, 50)}
    plain = {row.tensor: row for row in channel_statistics(load_reference("glyph_vit"), data, 50)}
    for norm in ("b0.norm1", "b1.norm2", "b3.norm1"):
        assert low < rows[norm].range_ratio < high
        assert rows[norm].range_ratio > 2 * plain[norm].range_ratio
        assert rows[f"{norm}.input"].range_ratio == pytest.approx(plain[f"{norm}.input"].range_ratio, rel=1e-3)


def test_the_offset_control_has_the_offsets_that_it_claims():
    data = small_data("glyphs", "val", None)
    plain = {row.tensor: row for row in channel_statistics(load_reference("glyph_vit"), data, 50)}
    moved = {row.tensor: row for row in channel_statistics(controls.load_control("glyph_vit_offset"), data, 50)}
    assert moved["b1.norm1"].offset > plain["b1.norm1"].offset + 0.3
    assert moved["b1.norm1"].range_ratio == pytest.approx(plain["b1.norm1"].range_ratio, rel=1e-2)


class Fixed(nn.Module):
    """A model whose only op is an activation of known values."""

    def __init__(self) -> None:
        super().__init__()
        self.op = Conv(1, 2, activation="relu")
        self.add = Add()
        with torch.no_grad():
            self.op.conv.weight.copy_(torch.tensor([1.0, 4.0]).reshape(2, 1, 1, 1))

    def forward(self, image):
        return self.op(image).sum(dim=(2, 3))


def test_statistics_are_those_of_the_formulas():
    data = tiny(40)
    (row,) = channel_statistics(Fixed().eval(), data, 30)
    values = GREY_32.tensor(data.images[:30]).double().numpy().ravel().clip(0)
    both = np.concatenate([values, 4 * values])
    # The median of two channels is the lower one, as torch.median has it.
    assert row.range_ratio == pytest.approx(4.0, rel=1e-6)
    assert row.offset == pytest.approx(2.0, rel=1e-6)
    assert row.middle_over_range == pytest.approx(0.5, rel=1e-6)
    assert row.skew == pytest.approx(float(((both - both.mean()) ** 3).mean() / both.std() ** 3), rel=1e-5)


def test_class_attention_is_measured_per_block():
    rows = attention_statistics(load_reference("glyph_vit"), small_data("glyphs", "val", None), 20)
    assert [row.block for row in rows] == ["b0", "b1", "b2", "b3"]
    assert all(0 < row.self_share < 1 and 0.25 <= row.top_quarter <= 1 for row in rows)
    assert attention_statistics(load_reference("glyph_hybrid_narrow"), small_data("glyphs", "val", None), 20) == ()


def test_released_checkpoints_have_their_own_preprocessing():
    assert preprocess_of("efficientvit_b1").resize_px == 236
    assert preprocess_of("efficientvit_b1", 288).resize_px == 304
    assert preprocess_of("efficientvit_b2", 288).resize_px is None
    assert (preprocess_of("deit_tiny").resize_px, preprocess_of("deit_tiny").mean[0]) == (248, 0.485)
    assert preprocess_of("vit_base").mean == (0.5, 0.5, 0.5)
    assert preprocess_of("glyph_vit") == GREY_32


def test_unknown_names_and_missing_seeds_say_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HYBRID_VIT_CACHE", str(tmp_path))
    for call in (build_torch, preprocess_of):
        with pytest.raises(AccelsimError, match="no torch model"):
            call("resnet18")
    with pytest.raises(AccelsimError, match="no reference model"):
        load_reference("deit_tiny")
    with pytest.raises(AccelsimError, match=r"python -m quant\.models\.train glyph_vit --seed 7"):
        load_reference("glyph_vit", 7)
    with pytest.raises(AccelsimError, match="no control"):
        controls.load_control("glyph_vit")


TINY_RUN = """
import sys
from dataclasses import replace
from quant.models import train
import quant.data
from tests.unit.test_reference_models import tiny
train.SETTINGS["glyph_hybrid_narrow"] = replace(train.SETTINGS["glyph_hybrid_narrow"], epochs=4, batch=8)
train.load_data = lambda name, split: tiny(200)
raise SystemExit(train.main(["glyph_hybrid_narrow", "--seed", "1", "-o", sys.argv[1]]))
"""


def test_the_command_survives_a_kill(tmp_path):
    """kill -9 after the first epoch; the same command goes on and stores the weights of an undisturbed run."""
    root = Path(__file__).parents[2]

    def start(cache: Path) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(root), "HYBRID_VIT_CACHE": str(cache)}
        command = [sys.executable, "-c", TINY_RUN, str(cache / "w.safetensors")]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)

    for cache in ("whole", "cut"):
        (tmp_path / cache).mkdir()
    assert start(tmp_path / "whole").wait(600) == 0
    killed, checkpoint = start(tmp_path / "cut"), tmp_path / "cut" / "training" / "glyph_hybrid_narrow_seed1.pt"
    while not checkpoint.is_file():
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "cut" / "w.safetensors").exists()
    assert start(tmp_path / "cut").wait(600) == 0
    files = [load_file(tmp_path / cache / "w.safetensors") for cache in ("whole", "cut")]
    assert all(torch.equal(files[0][key], files[1][key]) for key in files[0])
    assert not checkpoint.exists()
    facts = json.loads((tmp_path / "cut" / "w.json").read_text(encoding="utf-8"))
    assert [entry["epoch"] for entry in facts["epochs"]] == [1, 2, 3, 4]
