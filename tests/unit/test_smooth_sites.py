"""Where smoothing is legal: readers of LayerNorms and of attention values, views in between, what is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from accelsim.ir import Loop
from accelsim.ir import Tensor as Stored
from accelsim.workloads import recipes
from quant.capture import capture
from quant.models.registry import load_reference
from quant.network import Network, Node, Numerics, Operand, forward
from quant.smooth import (
    Smooth,
    channel_skew,
    layernorm_outputs,
    not_smoothable,
    smooth,
    smoothable,
    value_products,
)
from quant.views import Batch, View
from tests.support.networks import NetBuilder, images_of, in_float64, tiny_hybrid, tiny_vit

DIM, TOKENS = 6, 16
FLAT = (View("reshape", ((Batch(), 1, TOKENS),)), View("permute", ((0, 2, 1),)))


def start() -> tuple[NetBuilder, str]:
    """Tokens [n, 16, 6] of a 4 × 4 image."""
    b = NetBuilder("net", 4, 3)
    return b, b.linear("first", "mlp", "image", DIM, views=FLAT)


def unchanged(network: Network, options: Smooth) -> Network:
    """The smoothed network, after checking that it computes the same on other images."""
    network = in_float64(network)
    found = smooth(network, [images_of(network, 8).double()], options)
    fresh = images_of(network, 4, seed=5).double()
    assert torch.allclose(forward(found, fresh), forward(network, fresh), rtol=1e-9, atol=1e-9)
    return found


def read_twice(b: NetBuilder, x: str) -> str:
    return b.add("sum", b.linear("fc", "mlp", x, DIM), x)


def through_relu(b: NetBuilder, x: str) -> str:
    b.net.vector("relu", "relu", (x,), recipes.relu(1, 4, 1, DIM), Stored("relu", 4, 1, DIM))
    return b.linear("fc", "mlp", b.node("relu", "activation", [Operand(x)], activation="relu"), DIM)


def joined(b: NetBuilder, x: str) -> str:
    both = b.net.view("both", (x, "first"), 4, 1, 2 * DIM)
    return b.linear("fc", "mlp", b.node(both, "concat", [Operand(x), Operand("first")], dim=-1), DIM)


def padded(b: NetBuilder, x: str) -> str:
    back = (View("permute", ((0, 2, 1),)), View("reshape", ((Batch(), DIM, 4, 4),)))
    return b.conv("conv", "conv", x, DIM, 3, views=back)


def over_tokens(b: NetBuilder, x: str) -> str:
    name = b.linear("fc", "mlp", x, DIM, views=(View("permute", ((0, 2, 1),)),))
    b.nodes[name]["weight"] = b.normal(DIM, TOKENS)
    return name


def activated(b: NetBuilder, x: str) -> str:
    b.nodes[x]["settings"]["activation"] = "gelu"
    return b.linear("fc", "mlp", x, DIM)


def also_given(b: NetBuilder, x: str) -> str:
    b.linear("fc", "mlp", x, DIM)
    return x


def unlearned(b: NetBuilder, x: str) -> str:
    b.nodes[x]["weight"] = b.nodes[x]["bias"] = None
    return b.linear("fc", "mlp", x, DIM)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        (read_twice, "sum, which is no layer with filters, reads it"),
        (through_relu, "a ReLU of its own"),
        (joined, "fc reads other tensors beside it"),
        (padded, "conv is no dense 1 × 1 convolution"),
        (over_tokens, "fc reads several channels as one"),
        (activated, "an activation follows it"),
        (also_given, "its output is the network's"),
        (unlearned, "no gain and offset"),
    ],
)
def test_a_layernorm_that_something_else_needs_is_left_alone(finish, reason):
    b, x = start()
    network = b.build(finish(b, b.layernorm("norm", x)))
    assert smoothable(network) == ()
    assert layernorm_outputs(network) == ()
    assert reason in not_smoothable(network)["norm"]
    assert smooth(network, [images_of(network, 2)], Smooth()) is network
    assert [one.smoothable for one in channel_skew(network, [images_of(network, 2)])] == [False]


def test_the_others_are_smoothed_beside_one_that_is_not():
    b, x = start()
    y = read_twice(b, b.layernorm("norm", x))
    network = b.build(b.linear("last", "mlp", b.layernorm("second", y), 3))
    found = unchanged(network, Smooth())
    assert smoothable(network) == (("second", ("last",)),)
    assert set(not_smoothable(network)) == {"norm"}
    original = in_float64(network)
    assert torch.equal(found.node("norm").weight, original.node("norm").weight)
    assert torch.equal(found.node("fc").weight, original.node("fc").weight)
    assert not torch.equal(found.node("second").weight, original.node("second").weight)


PERMUTED = (
    View("reshape", ((Batch(), TOKENS, 2, 3),)),
    View("permute", ((0, 1, 3, 2),)),
    View("reshape", ((Batch(), TOKENS, DIM),)),
)
GATHERED = (View("reshape", ((Batch(), TOKENS // 2, 2 * DIM),)),)
SOME = (View("slice", (2, 1, 5, 1)),)


@pytest.mark.parametrize("views", [PERMUTED, GATHERED, SOME], ids=["permuted", "gathered", "some"])
@pytest.mark.parametrize("method", ["sq_b", "smoothquant"])
def test_channels_are_followed_through_views(views, method):
    b, x = start()
    x = b.layernorm("norm", x)
    width = {GATHERED: 2 * DIM, SOME: 4}.get(views, DIM)
    tip = b.linear("fc", "mlp", x, DIM, views=views)
    b.nodes[tip]["weight"] = b.normal(DIM, width)
    network = b.build(tip)
    assert smoothable(network) == (("norm", ("fc",)),)
    found = unchanged(network, Smooth(method))
    assert not torch.equal(found.node("fc").weight, in_float64(network).node("fc").weight)


def test_a_pointwise_convolution_reads_channels():
    b, x = start()
    back = (View("permute", ((0, 2, 1),)), View("reshape", ((Batch(), DIM, 4, 4),)))
    network = b.build(b.conv("conv", "pw", b.layernorm("norm", x), 5, views=back))
    assert smoothable(network) == (("norm", ("conv",)),)
    found = unchanged(network, Smooth())
    assert found.node("conv").weight.shape == (5, DIM, 1, 1)


def attention(*, scale: float = 1.0, views: tuple[View, ...] = (), seen: str = "") -> Network:
    """Attention of one head over 16 tokens: queries and keys from one layer, values from another.

    `seen`: what else reads the values, "keys" (they are the keys) or "add"; or what is wrong with them: "ones" (beside
    them), "gelu" (behind their layer), "turned" (channels are summed).  `views`: in front of the shares.
    """
    b, x = start()
    qk = b.linear("qk", "qkv", x, 2 * DIM)
    v = b.linear("v", "qkv", x, DIM, activation="gelu" if seen == "gelu" else "")
    queries = Operand(qk, (View("slice", (2, 0, DIM, 1)),))
    turned = View("permute", ((0, 2, 1),))
    keys = Operand(v, (turned,)) if seen == "keys" else Operand(qk, (View("slice", (2, DIM, 2 * DIM, 1)), turned))
    scores = b.matmul("scores", "attn_scores", queries, keys, Loop(1, TOKENS, 1, TOKENS, DIM))
    recipe = recipes.softmax(1, TOKENS, 1, TOKENS)
    b.net.vector("softmax", "softmax", (scores,), recipe, Stored("softmax", TOKENS, 1, TOKENS))
    shares = Operand(b.node("softmax", "softmax", [Operand(scores)]), views)
    values, loop = Operand(v), Loop(1, TOKENS, 1, DIM, TOKENS)
    if seen == "ones":
        values = Operand(v, (View("ones_row", (2,)),))
        loop = Loop(1, TOKENS, 1, DIM + 1, TOKENS, right_implicit_cols=1)
    elif seen == "turned":
        shares, values = Operand(shares.source, (View("slice", (2, 0, DIM, 1)),)), Operand(v, (turned,))
        loop = Loop(1, TOKENS, 1, TOKENS, DIM)
    mixed = b.matmul("values", "attn_values", shares, values, loop, scale=scale)
    tip = b.linear("proj", "proj", mixed, DIM)
    return b.build(b.add("sum", tip, v) if seen == "add" else tip)


def test_values_are_found_in_a_transformer():
    assert value_products(tiny_vit(depth=1)) == (("b0.values", "b0.qkv", ("b0.proj",)),)
    assert value_products(tiny_hybrid()) == ()


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_values_move_by_the_offset_over_the_factor_of_the_product(scale):
    network = attention(scale=scale)
    assert value_products(network) == (("values", "v", ("proj",)),)
    found, original = unchanged(network, Smooth(values="shift")), in_float64(network)
    assert torch.equal(found.node("qk").weight, original.node("qk").weight)
    plain = unchanged(network, Smooth("smoothquant", values="shift"))
    assert torch.equal(plain.node("proj").bias, original.node("proj").bias)
    assert not torch.equal(found.node("proj").bias, original.node("proj").bias)


def test_rows_that_need_not_sum_to_one_are_scaled_only():
    network = attention(views=(View("permute", ((0, 2, 1),)),))  # columns of shares
    found = unchanged(network, Smooth(values="shift"))
    assert torch.equal(found.node("proj").bias, in_float64(network).node("proj").bias)
    assert not torch.equal(found.node("proj").weight, in_float64(network).node("proj").weight)


@pytest.mark.parametrize("seen", ["keys", "add", "ones", "gelu", "turned"])
def test_values_that_cannot_move_alone_are_left_alone(seen):
    network = attention(seen=seen)
    assert value_products(network) == ()
    assert smooth(network, [images_of(network, 2)], Smooth(values="shift")) is network


def test_the_hybrid_has_nothing_to_smooth():
    network = capture(load_reference("glyph_hybrid_narrow"), (1, 32, 32))
    assert smoothable(network) == ()
    assert value_products(network) == ()
    assert smooth(network, [torch.zeros(1, 1, 32, 32)], Smooth(values="shift")) is network


class Rounded(Numerics):
    """Rounds shares to multiples of 1 / 8: their rows do not sum to one any more."""

    def stored(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        return (8 * value).round() / 8 if node.function == "softmax" else value


def test_moved_values_lose_nothing_by_rows_that_do_not_sum_to_one():
    """Against the float network: (p̂ − p)·(v − b) instead of (p̂ − p)·v, whatever the values' offset is."""
    plain = in_float64(attention())
    v, proj, offset = plain.node("v"), plain.node("proj"), 20 * torch.tensor([1.0, -1, 1, 1, -1, 1]).double()
    changed = {
        "v": replace(v, bias=v.bias + offset),
        "proj": replace(proj, bias=proj.bias - proj.weight @ offset),
    }
    apart = replace(plain, nodes=tuple(changed.get(node.name, node) for node in plain.nodes))
    images = images_of(plain, 8).double()
    expected = forward(plain, images)

    def error(network: Network, values: str) -> float:
        found = forward(smooth(network, [images], Smooth(values=values)), images, Rounded())
        return float((found - expected).norm() / expected.norm())

    assert error(apart, "shift") == pytest.approx(error(plain, "shift"), rel=1e-6)
    assert error(apart, "scale") == pytest.approx(error(apart, "no"), rel=1e-6)
    assert error(apart, "no") > 5 * error(apart, "shift")
