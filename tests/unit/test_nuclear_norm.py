"""The nuclear-norm metric against its definition, on matrices of heads, of tokens and of the logits."""

from __future__ import annotations

import pytest
import torch

from quant.calibrate import Calibration
from quant.network import run
from quant.sensitivity.components import components
from quant.sensitivity.measure import Settings, sensitivity
from quant.sensitivity.metrics import metric_names
from quant.sensitivity.rounding import Rounding
from tests.support.networks import images_of, tiny_vit


@pytest.mark.parametrize("op", ["patch_embed", "b0.scores", "b0.fc1", "head"])
def test_nuclear_norm_times_squared_error_of_the_output(op):
    network = tiny_vit(depth=1)
    images = images_of(network, 6)
    settings = Settings((3,), kinds=("product",), metrics=("nuclear_norm",), observer="minmax", power=2.0)
    table = sensitivity(network, [(images, None)], (), settings)
    component = next(one for one in components(network, ("product",)) if one.name == op)
    rounding = Rounding(network, [component], [images], Calibration("minmax", 2.0))
    output = network.node(op).op.output
    with torch.no_grad():
        exact = run(network, images, keep=[output])[output].double()
        rounded = run(network, images, rounding.numerics(component, 3), keep=[output])[output].double()
    expected = []
    for one, other in zip(exact, rounded, strict=True):
        matrices = one.reshape(-1, *one.shape[-2:]) if one.dim() > 1 else one[None, None]
        norm = sum(float(torch.linalg.matrix_norm(matrix, "nuc")) for matrix in matrices)
        expected.append(norm * float(((other - one) ** 2).sum()))
    assert table.value(component, 3, "nuclear_norm") == pytest.approx(sum(expected) / 6, rel=1e-4)
    assert "nuclear_norm" not in metric_names()
