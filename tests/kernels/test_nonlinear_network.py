"""The stepped vector unit computes every softmax, GELU and LayerNorm of a quantized network, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from accelsim.arch import VectorUnit
from accelsim.nonlinear.methods import function_of
from accelsim.nonlinear.program import run_program
from accelsim.problems import AccelsimError
from accelsim.workloads.vit import Variant
from quant.capture import capture
from quant.functional import Affine
from quant.integer import compile_integer
from quant.integer.graph import Compiler
from quant.integer.run import run_integer
from quant.integer.steps import Nonlinear
from quant.models.vit import VisionTransformer
from quant.network import Network, Node
from quant.nonlinear.assign import single
from quant.nonlinear.hardware import UnitProgram, unit_program
from quant.nonlinear.mixed import Mixed
from quant.nonlinear.ops import Codes
from quant.separate import separate
from quant.views import rearrange

UNIT = VectorUnit(64, 64, 64, 64, 16, 8, leading_one_per_cycle=8)
MOST_ROWS = 24


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = VisionTransformer(Variant(32, 2, 2, patch=8, classes=10, in_channels=1), 32).eval()
        with torch.no_grad():  # gains, offsets and scores as training leaves them: not all alike
            for name, value in model.named_parameters():
                if ".norm." in name or name.startswith("norm."):
                    value.add_(0.2 * torch.randn(value.shape))
                elif "qkv" in name:
                    value.mul_(3)
    return separate(capture(model, (1, 32, 32)))


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def made(compiler: Compiler, node: Node) -> tuple[UnitProgram, Codes, Affine]:
    scale, zero = compiler.single(node, 0)
    source, output = Codes(float(scale), int(zero), *compiler.range(node, 0)), compiler.output(node)
    factors = compiler.checkpoint.factors.get(node.name)
    name = compiler.method(node)
    return unit_program(function_of(node.op.recipe), name, node, source, output, factors), source, output


@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize("name", ["ibert", "ivit", "fqvit"])
def test_stepped_unit_gives_the_codes_of_the_integer_network(network: Network, name: str, bits: int) -> None:
    mixed = Mixed(network, [images(8, 0)], bits)
    checkpoint = mixed.checkpoint(single(mixed.slots, name))
    compiled, compiler = compile_integer(checkpoint), Compiler(checkpoint)
    steps = [step for step in compiled.steps if isinstance(step, Nonlinear)]
    codes = run_integer(compiled, images(2, 1), keep={operand.source for s in steps for operand in s.node.operands})
    for step in steps:
        (operand,) = step.node.operands
        x = rearrange(codes[operand.source], operand.views, 2)
        built, _, output = made(compiler, step.node)
        rows = x.reshape(-1, x.shape[-1])[:MOST_ROWS]
        passes = [0] * len(built.program.passes)
        found = run_program(UNIT, built.program, {"x": rows.numpy(), **built.constants}, passes)[1]["code"]
        if compiler.method(step.node) == "fqvit" and function_of(step.node.op.recipe) == "softmax":
            last = output.high.bit_length()  # the network gives 2^−code on as an integer
            found = np.where(found == last, 0, np.left_shift(1, np.maximum(last - 1 - found, 0)))
        expected = step.run([x]).reshape(-1, x.shape[-1])[:MOST_ROWS].numpy()
        assert (found == expected).all(), step.node.name
        assert len(np.unique(expected)) > 3
    assert len(steps) == len(mixed.slots) - (2 if name == "fqvit" else 0)  # its GELUs are tables


def test_an_op_whose_constants_leave_the_widths_is_named(network: Network) -> None:
    mixed = Mixed(network, [images(8, 0)], 8)
    compiler = Compiler(mixed.checkpoint(single(mixed.slots, "ibert")))
    for node in network.nodes:
        if function_of(node.op.recipe) in ("softmax", "gelu"):
            name, (_, source, output) = function_of(node.op.recipe), made(compiler, node)
            with pytest.raises(AccelsimError, match=f"op {node.name}"):
                unit_program(name, "ibert", node, replace(source, scale=1e-6), output)
            with pytest.raises(AccelsimError, match=f"op {node.name}: no program"):
                unit_program(name, "table", node, source, output)
            if name == "gelu":
                with pytest.raises(AccelsimError, match="zero point 3"):
                    unit_program(name, "ibert", node, replace(source, zero_point=3), output)
