"""LayerNorm outputs with an offset for every channel: fake-quantized, in integers, on the vector unit; beside SQ-b."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from accelsim.arch import VectorUnit
from accelsim.formats import Format
from accelsim.nonlinear.methods import function_of
from accelsim.nonlinear.program import run_program
from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError
from quant.calibrate import Calibration
from quant.collect import Statistics
from quant.fake import FakeQuantized
from quant.functional import Affine
from quant.integer import compile_integer, run_integer
from quant.integer.graph import Compiler
from quant.integer.steps import Nonlinear
from quant.methods.uniform import Uniform
from quant.network import Network, Node, forward, run
from quant.nonlinear.hardware import unit_program
from quant.nonlinear.norm_constants import ptf_output
from quant.nonlinear.ops import Codes, integer_function
from quant.quantize import quantize
from quant.smooth import Smooth, layernorm_outputs, smooth
from tests.support.integer_twin import Twin
from tests.support.networks import images_of, tiny_vit

UNIT = VectorUnit(64, 64, 64, 64, 16, 8, leading_one_per_cycle=8)


@dataclass(frozen=True)
class Offsets(Uniform):
    """Uniform formats; LayerNorm outputs with an offset per channel or bits of their own, LayerNorms by a method."""

    norms: str = ""
    offsets: bool = True
    norm_bits: int = 0

    def channel_offsets(self, network: Network) -> tuple[str, ...]:
        return layernorm_outputs(network) if self.offsets else ()

    def outputs(self, network: Network, statistics: Statistics) -> dict[str, Format]:
        return dict.fromkeys(layernorm_outputs(network), Format.parse(f"u{self.norm_bits}")) if self.norm_bits else {}

    def nonlinear(self, node: Node) -> str:
        return self.norms if node.function == "layernorm" else ""


def moved(size: float = 8.0) -> Network:
    """A small transformer whose LayerNorm outputs have offsets of either sign; the layers behind take them back."""
    network, random = tiny_vit(), torch.Generator().manual_seed(0)
    nodes = {node.name: node for node in network.nodes}
    for node in network.nodes:
        if node.function == "layernorm":
            (reader,) = (one for one in network.nodes if one.operands[0].source == node.op.output)
            offset = size * torch.where(torch.rand(len(node.bias), generator=random) < 0.5, -1.0, 1.0)
            nodes[node.name] = replace(node, bias=node.bias + offset)
            nodes[reader.name] = replace(reader, bias=reader.bias - reader.weight @ offset)
    return replace(network, nodes=tuple(nodes[node.name] for node in network.nodes))


def made(network: Network, method: Uniform):
    return quantize(network, list(images_of(network, 64).split(16)), method, Calibration("minmax"))


@pytest.mark.parametrize("zero_points", [False, True])
def test_every_channel_is_centred_under_one_scale(zero_points):
    network = moved()
    plan, checkpoint = made(network, Offsets(activation_bits=8, zero_points=zero_points))
    images = torch.cat(list(images_of(network, 64).split(16)))
    found = run(network, images, keep=layernorm_outputs(network))
    quantized = apply_plan(network.workload, plan)
    for name in layernorm_outputs(network):
        one = checkpoint.stored[name]
        assert plan.rule_for(network.node(name).op).granularity == "channel_offset"
        assert (one.scale == one.scale.flatten()[0]).all()
        assert one.zero_point.numel() == 12
        rows = found[name].flatten(0, -2)
        half = (rows.amax(0) - rows.amin(0)) / 2
        assert float(one.scale.max()) == pytest.approx(float(half.max()) / 127, rel=1e-5)
        middle = (rows.amax(0) + rows.amin(0)) / 2
        assert float((one.zero_point.flatten() + middle / one.scale.flatten()).abs().max()) <= 0.501
    assert {item.op.name for item in quantized.ops if item.granularity == "channel_offset"} == set(
        layernorm_outputs(network)
    )


def test_integers_equal_the_twin():
    network = moved()
    checkpoint = made(network, Offsets(activation_bits=6))[1]
    compiled, names = compile_integer(checkpoint), [node.op.output for node in network.nodes]
    images = images_of(network, 2, seed=7)
    found, expected = run_integer(compiled, images, keep=names), Twin(checkpoint).run(images)
    for name in names:
        assert np.array_equal(found[name].numpy(), expected[name]), name
    assert set(layernorm_outputs(network)) < set(compiled.float_islands)


@pytest.mark.parametrize("offsets", [True, False], ids=["channel", "tensor"])
@pytest.mark.parametrize("norms", ["ibert", "ivit", "fqvit"])
def test_integer_layernorms_give_offset_codes(norms, offsets):
    """The stepped vector unit agrees with the integer network: the codes without offsets, moved, to one code."""
    network = moved()
    if not offsets:  # all of one sign, so that the tensor's zero point is not 0
        nodes = (replace(n, bias=n.bias.abs()) if n.function == "layernorm" else n for n in network.nodes)
        network = replace(network, nodes=tuple(nodes))
    checkpoint = made(network, Offsets(norms=norms, offsets=offsets))[1]
    compiled, compiler = compile_integer(checkpoint), Compiler(checkpoint)
    steps = [step for step in compiled.steps if isinstance(step, Nonlinear)]
    assert len(steps) == 5
    images = images_of(network, 4, seed=7)
    outputs = [step.node.op.output for step in steps]
    codes = run_integer(compiled, images, keep={*outputs, *(step.node.operands[0].source for step in steps)})
    for step in steps:
        node = step.node
        scale, zero = compiler.single(node, 0)
        source, output = Codes(float(scale), int(zero), *compiler.range(node, 0)), compiler.output(node)
        assert len(output.zero_point.unique()) == 1 or offsets
        assert output.zero_point.any()
        factors = checkpoint.factors.get(node.name)
        built = unit_program(function_of(node.op.recipe), norms, node, source, output, factors)
        x = codes[node.operands[0].source]
        rows = x.reshape(-1, x.shape[-1]).numpy()
        passes = [0] * len(built.program.passes)
        stepped = run_program(UNIT, built.program, {"x": rows, **built.constants}, passes)[1]["code"]
        assert np.array_equal(stepped, codes[node.op.output].reshape(rows.shape).numpy()), node.name
        centred = replace(output, zero_point=torch.zeros(()), low=-(1 << 14), high=1 << 14)
        function = integer_function(function_of(node.op.recipe), norms, node, source, centred, factors)
        wanted = (function(x) + output.zero_point).clamp(output.low, output.high)
        assert float((codes[node.op.output] - wanted).abs().max()) <= 1
        assert len(codes[node.op.output].unique()) > 20


def test_fqvits_layernorm_takes_several_offsets_and_one_scale():
    network = tiny_vit()
    node = network.node("norm")
    scale, zero = torch.full((1, 1, 12), 0.25, dtype=torch.float64), torch.arange(12.0).reshape(1, 1, 12).double()
    gain, offset, step, point = ptf_output(node, Affine(scale, zero, -127, 127))
    assert (step, point) == (0.25, 0)
    assert torch.equal(gain, node.weight.double())
    assert torch.allclose(offset, node.bias.double() + 0.25 * torch.arange(12))
    gain, offset, step, point = ptf_output(node, Affine(scale, torch.full_like(zero, 3), -127, 127))
    assert (step, point) == (0.25, 3)
    assert torch.equal(offset, node.bias.double())
    with pytest.raises(AccelsimError, match="op norm: its output has several scales"):
        ptf_output(node, Affine(scale + zero, zero, -127, 127))


def error(network: Network, method: Offsets) -> float:
    """Relative error of the logits when LayerNorm outputs have 4 bits and everything else 16."""
    checkpoint = made(network, replace(method, norm_bits=4, activation_bits=16))[1]
    images = images_of(network, 64, seed=9)
    with torch.no_grad():
        exact = forward(network, images)
        found = forward(network, images, FakeQuantized(checkpoint))
    return float((found - exact).norm() / exact.norm())


def test_only_offsets_per_channel_replace_the_shift():
    """Offsets of mixed sign: a zero point for the tensor does not remove them, one for every channel does."""
    network = moved()
    batches = list(images_of(network, 64).split(16))
    shifted, scaled = (smooth(network, batches, Smooth(method)) for method in ("sq_b", "smoothquant"))
    symmetric, tensor, channel = Offsets(offsets=False, zero_points=False), Offsets(offsets=False), Offsets()
    best = error(shifted, symmetric)
    for other, method in ((network, symmetric), (scaled, symmetric), (network, tensor), (scaled, tensor)):
        assert best < error(other, method) / 2
    assert error(network, channel) == pytest.approx(best, rel=0.2)
    assert error(shifted, channel) == pytest.approx(best, rel=0.05)
