"""The probe of heads: what one narrow head costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from accelsim.problems import AccelsimError
from quant.learned.probe import head_drops
from quant.learned.sites import SiteOptions
from tests.support.finetuning import data_for
from tests.support.networks import images_of, tiny_vit


def test_the_head_that_the_network_uses_costs_accuracy():
    """The projection of a block reads only its second head, so the first one can have any width."""
    network = tiny_vit(depth=2, dim=12, heads=3)
    with torch.no_grad():
        network.node("b1.proj").weight[:] = 0
        network.node("b1.proj").weight[:, 4:8] = 4 * torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
    data, samples = data_for(network, 400), images_of(network, 64)
    found = head_drops(network, data, samples, "b1")
    assert found.layer == "b1"
    assert found.accuracy > 0.9
    assert (found.drops[0], found.drops[2]) == (0.0, 0.0)
    assert found.drops[1] > 0.03
    assert head_drops(network, data, samples, "b1", bits=8).drops == (0.0, 0.0, 0.0)
    assert head_drops(network, data, samples).layer == "b0"


def test_a_probe_that_cannot_be_is_refused():
    network = tiny_vit(depth=1)
    data, samples = data_for(network, 16), images_of(network, 4)
    with pytest.raises(AccelsimError, match="one of b0"):
        head_drops(network, data, samples, "b7")
    with pytest.raises(AccelsimError, match="9 bits"):
        head_drops(network, data, samples, bits=9)
    with pytest.raises(AccelsimError, match="granularity head"):
        head_drops(network, data, samples, options=SiteOptions(granularity="layer"))
    with pytest.raises(AccelsimError, match="granularity head"):
        head_drops(network, data, samples, options=SiteOptions(floating=("msa",)))
    with pytest.raises(AccelsimError, match="images with labels"):
        head_drops(network, replace(data, labels=None), samples)
