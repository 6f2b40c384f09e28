"""Capture of torch modules: equal to the torch-free builders, equal outputs, every rule on a module of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from accelsim.ir import OpKind
from accelsim.problems import AccelsimError
from accelsim.workloads import build_workload
from quant.capture import capture
from quant.models.families import FAMILIES
from quant.models.registry import TORCH_NAMES, build_torch
from quant.network import Network, forward
from tests.support.timm_models import random_model, randomize, timm_or_skip

TOLERANCE = 1e-9
# Small enough to compute in float64; the others are captured without values.
COMPUTED = ("glyph_hybrid_narrow", "glyph_vit", "efficientvit_b0", "deit_tiny", *FAMILIES)


def assert_equal_outputs(model: nn.Module, network: Network, images: int = 2) -> None:
    values = torch.randn(images, *network.image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model(values), forward(network, values)
    expected = expected.reshape(images, -1)
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


def captured(model: nn.Module, shape: tuple[int, int, int] = (3, 16, 16)) -> Network:
    """The network of a small module with random parameters, checked against the module."""
    torch.manual_seed(0)
    model = model.double().eval()
    randomize(model)
    network = capture(model, shape)
    assert_equal_outputs(model, network)
    return network


@pytest.mark.parametrize("name", COMPUTED)
def test_twin_is_the_builders_workload_and_computes_the_same(name: str) -> None:
    workload = build_workload(name)
    image = workload.tensor_by_name[workload.input]
    torch.manual_seed(0)
    model = build_torch(name).double()
    randomize(model)
    network = capture(model, (image.channels, image.h, image.w), workload=workload)
    assert network.workload == workload
    assert network.workload.lifetimes() == workload.lifetimes()
    assert_equal_outputs(model, network, images=1)


@pytest.mark.parametrize("name", [name for name in TORCH_NAMES if name not in COMPUTED])
def test_large_twin_is_the_builders_workload(name: str) -> None:
    workload = build_workload(name)
    image = workload.tensor_by_name[workload.input]
    with torch.device("meta"):
        model = build_torch(name)
    assert capture(model, (image.channels, image.h, image.w), name).workload.ops == workload.ops


def test_few_positions_take_the_quadratic_form() -> None:
    network = capture(build_torch("efficientvit_b0").double(), (3, 64, 64), "efficientvit_b0")
    assert network.workload.ops == build_workload("efficientvit_b0", 64).ops
    assert "s4.b0.normalize" in network.workload.op_by_name


def test_a_wrong_builder_is_reported_with_the_ops_that_differ() -> None:
    model = build_torch("glyph_hybrid_narrow")
    with pytest.raises(AccelsimError, match=r"stem\.conv"):
        capture(model, (1, 32, 32), workload=build_workload("glyph_hybrid_wide"))


def test_capture_leaves_the_module_as_it_is() -> None:
    model = build_torch("glyph_hybrid_narrow").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    capture(model, (1, 32, 32))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class FusedAttention(nn.Module):
    """q·√scale before the product, a learned mask, fused attention, after a patch convolution."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.qkv = nn.Linear(8, 24)
        self.mask = nn.Parameter(torch.zeros(2, 16, 16))
        self.proj = nn.Linear(8, 8)
        self.fused = fused

    def forward(self, image: Tensor) -> Tensor:
        rows = self.patch(image).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(rows).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        else:
            scores = (q / 2) @ k.transpose(-2, -1) + self.mask
            mixed = scores.softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2)) + rows


def test_fused_and_plain_attention_are_the_same_ops() -> None:
    networks = [captured(FusedAttention(fused)) for fused in (True, False)]
    classes = [[op.op_class for op in network.workload.ops] for network in networks]
    assert classes[0] == classes[1]
    assert classes[0] == [
        "patch_embed", "qkv", "attn_scores", "bias_add", "softmax", "attn_values", "proj", "add",
    ]  # fmt: skip
    assert [network.nodes[2].settings["scale"] for network in networks] == [0.5, 0.5]
    assert networks[0].workload.ops[3].params_extra == 2 * 16 * 16


class Folded(nn.Module):
    """BatchNorm after a convolution and before a linear layer, a factor per channel, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.gamma = nn.Parameter(torch.ones(6, 1, 1))
        self.point = nn.Conv2d(6, 6, 1)
        self.before = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, image: Tensor) -> Tensor:
        value = F.silu(self.norm(self.conv(image)))
        value = self.gamma * self.point(value) + value
        return self.head(self.before(value.mean((2, 3))))


def test_norms_factors_and_activations_are_folded() -> None:
    network = captured(Folded())
    ops = network.workload.op_by_name
    assert list(ops) == ["conv", "point", "add", "mean", "head"]
    assert (ops["conv"].activation, ops["conv"].bn_channels, ops["conv"].bias) == ("silu", 6, 0)
    assert (ops["head"].bn_channels, ops["head"].bias) == (6, 5)
    assert ops["add"].params_extra == 6
    assert network.workload.params == sum(parameter.numel() for parameter in Folded().parameters())


class Odd(nn.Module):
    """Ops without a meaning here, one of them twice, and one that follows another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.pool = nn.MaxPool2d(2)

    def forward(self, image: Tensor) -> Tensor:
        return torch.sin(self.pool(self.pool(self.conv(image)))) + torch.cumsum(self.conv(image)[:, :, :3, :3], 1)


def test_all_unknown_ops_are_one_error_with_place_and_count() -> None:
    with pytest.raises(AccelsimError) as caught:
        capture(Odd(), (3, 16, 16), "odd")
    text = str(caught.value)
    assert len(caught.value.problems) == 2
    assert "aten.max_pool2d.default is not supported (1 times, in pool)" in text
    assert "aten.cumsum.default is not supported (1 times, in (top))" in text


class Branching(nn.Module):
    """Its path depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor) -> Tensor:
        value: Tensor = self.conv(image)
        return value if value.sum() > 0 else -value


def test_control_flow_on_values_is_the_exporters_error() -> None:
    with pytest.raises(AccelsimError, match=r"torch\.export cannot follow the model") as caught:
        capture(Branching(), (3, 16, 16))
    assert len(caught.value.problems) == 1


class Leftover(nn.Module):
    """A BatchNorm that follows no product."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(self.norm(image))


def test_what_no_op_holds_is_an_error() -> None:
    with pytest.raises(AccelsimError, match="norm: batch_norm stands where no op"):
        capture(Leftover(), (3, 16, 16))


def test_only_square_images() -> None:
    with pytest.raises(AccelsimError, match="h = w"):
        capture(Odd(), (3, 16, 24))


class InPlace(nn.Module):
    """Activations in place, zeros around the image, a strided slice, a concatenation, a permuted result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.other = nn.Conv2d(4, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        value = self.conv(F.pad(image, (1, 1, 1, 1)))
        F.relu(value, inplace=True)
        value = torch.cat([value, self.other(value)], dim=1)[:, :, ::2, ::2]
        return F.hardswish(value, inplace=True).permute(0, 2, 3, 1)


def test_views_and_in_place_ops() -> None:
    network = captured(InPlace())
    kinds = [op.kind for op in network.workload.ops]
    assert kinds == [OpKind.CONV, OpKind.CONV, OpKind.VIEW, OpKind.VECTOR, OpKind.VIEW]
    assert network.workload.ops[0].activation == "relu"
    assert network.workload.ops[0].loop is not None
    assert network.workload.ops[0].loop.padding == 1


FOREIGN = {
    "deit_tiny_patch16_224": "deit_tiny",
    "efficientvit_b1": "efficientvit_b1",
    "levit_128": "levit_128",
    "mobilevit_s": "mobilevit_s",
    "swin_tiny_patch4_window7_224": "swin_tiny",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_models_cost_what_the_builders_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = timm_or_skip()
    model = random_model(timm, name, seed=0)
    # EfficientViT's attention casts to float32; the network computes in the type of its weights.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    workload = build_workload(FOREIGN[name])
    network = capture(model, (3, workload.resolution, workload.resolution), name)
    assert network.workload.params == sum(parameter.numel() for parameter in model.parameters()) == workload.params
    assert_equal_outputs(model, network, images=1)
    assert network.workload.macs == workload.macs
    assert network.workload.macs_by_class() == workload.macs_by_class()
