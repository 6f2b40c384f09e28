"""A network with its GELUs as ops of their own computes the same."""

from __future__ import annotations

import torch

from quant.capture import capture
from quant.models.registry import build_torch
from quant.network import forward
from quant.separate import separate


def test_separated_network_gives_the_same_bytes() -> None:
    network = capture(build_torch("glyph_vit"), (1, 32, 32))
    apart = separate(network)
    assert [node.name for node in apart.nodes if node.name.endswith(".gelu")] == [f"b{k}.fc1.gelu" for k in range(4)]
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(forward(network, images), forward(apart, images))


def test_a_network_without_gelu_stays_the_same() -> None:
    network = capture(build_torch("digits_hybrid"), (1, 32, 32))
    assert separate(network) is network
