"""Integer methods on another device than the CPU."""

from __future__ import annotations

import pytest
import torch

from accelsim.problems import AccelsimError
from accelsim.workloads.vit import Variant
from quant.capture import capture
from quant.finetune.devices import checkpoint_on
from quant.models.vit import VisionTransformer
from quant.nonlinear.assign import single
from quant.nonlinear.mixed import Mixed
from quant.separate import separate


def test_integer_methods_are_refused_on_another_device() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VisionTransformer(Variant(16, 1, 1, patch=8, classes=4, in_channels=1), 16).eval()
    network = separate(capture(model, (1, 16, 16)))
    mixed = Mixed(network, [torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))], 8)
    checkpoint = mixed.checkpoint(single(mixed.slots, "ivit"))
    with pytest.raises(AccelsimError, match=r"device meta.*'ivit'"):
        checkpoint_on(checkpoint, torch.device("meta"))
    assert checkpoint_on(checkpoint, torch.device("cpu")).plan == checkpoint.plan
