"""Constants at the edge of their widths: small gains, fine scales, rows of feature maps; and what the unit refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from accelsim.arch import VectorUnit
from accelsim.engines.vector_unit import MicroOp, OpCode, Operand, walk_program
from accelsim.ir import Recipe
from accelsim.nonlinear.methods import function_of
from accelsim.nonlinear.program import run_program
from accelsim.problems import AccelsimError
from quant.capture import capture
from quant.functional import Affine
from quant.integer import compile_integer
from quant.integer.graph import Compiler
from quant.integer.run import run_integer
from quant.integer.steps import Nonlinear
from quant.network import Network, Node
from quant.nonlinear.assign import single
from quant.nonlinear.finest import finest_input
from quant.nonlinear.hardware import unit_program
from quant.nonlinear.mixed import Mixed
from quant.nonlinear.norm_constants import norm_constants
from quant.nonlinear.ops import Codes, integer_function
from quant.separate import separate

UNIT = VectorUnit(64, 64, 64, 64, 16, 8, leading_one_per_cycle=8)
CHANNELS = 64


def affine(scale: float, low: int = -128, high: int = 127) -> Affine:
    return Affine(torch.tensor(scale, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64), low, high)


@pytest.fixture(scope="module")
def convolutions() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return separate(capture(nn.Sequential(*layers).eval(), (3, 8, 8)))


def node_of(network: Network, function: str) -> Node:
    return next(node for node in network.nodes if function_of(node.op.recipe) == function)


def norm_node(network: Network, gain: torch.Tensor, offset: torch.Tensor) -> Node:
    gelu = node_of(network, "gelu")
    assert gelu.op.recipe is not None
    recipe: Recipe = replace(gelu.op.recipe, name="layernorm", width=CHANNELS)
    return replace(gelu, op=replace(gelu.op, recipe=recipe), weight=gain, bias=offset)


@pytest.mark.parametrize("gain", [1.0, 0.13, 1e-2, 1e-4, 1e-8, 0.0])
@pytest.mark.parametrize("name", ["ibert", "ivit"])
def test_small_gains_keep_the_offset(convolutions: Network, name: str, gain: float) -> None:
    weight, offset = torch.ones(CHANNELS), torch.zeros(CHANNELS)
    weight[3], weight[5], weight[7], offset[3], offset[5] = gain, -gain, gain, 1.0, -2.0
    node = norm_node(convolutions, weight, offset)
    codes = torch.randint(-300, 300, (6, CHANNELS), generator=torch.Generator().manual_seed(0))
    codes[0, 3], codes[1, 5] = 30_000, -30_000  # a normalized number of nearly √C
    real = nn.functional.layer_norm(codes * 0.01, (CHANNELS,), weight, offset).double()
    source, output = Codes(0.01, 0, -32768, 32767), affine(float(real.abs().max()) / 127)
    stored = integer_function("layernorm", name, node, source, output)(codes)
    assert float((stored * output.scale - real).abs().max()) < float(output.scale)
    built = unit_program("layernorm", name, node, source, output)
    passes = [0] * len(built.program.passes)
    found = run_program(UNIT, built.program, {"x": codes.numpy(), **built.constants}, passes)[1]["code"]
    assert (found == stored.numpy()).all()


def test_an_offset_beyond_the_addend_is_named(convolutions: Network) -> None:
    offset = torch.zeros(CHANNELS)
    offset[9] = 7000.0
    node = norm_node(convolutions, torch.full((CHANNELS,), 1e-3), offset)
    with pytest.raises(AccelsimError, match=f"op {node.name}.*in channel 9"):
        norm_constants(node, affine(0.1))
    norm_constants(node, affine(0.2))
    with pytest.raises(AccelsimError, match="not finite"):
        norm_constants(replace(node, bias=offset * torch.inf), affine(0.2))


def test_rows_of_a_gelu_behind_a_convolution_are_channels(convolutions: Network) -> None:
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 3
    for name in ("ivit", "ibert"):
        mixed = Mixed(convolutions, [images], 8)
        compiled = compile_integer(checkpoint := mixed.checkpoint(single(mixed.slots, name)))
        (step,) = (one for one in compiled.steps if isinstance(one, Nonlinear))
        source = step.node.operands[0].source
        x = run_integer(compiled, images[:2], keep={source})[source]
        assert step.node.op.recipe is not None
        assert x.shape == (2, 8, 8, 8)
        assert step.node.op.recipe.width == 8
        compiler = Compiler(checkpoint)
        scale, zero = compiler.single(step.node, 0)
        codes = Codes(float(scale), int(zero), *compiler.range(step.node, 0))
        built = unit_program("gelu", name, step.node, codes, compiler.output(step.node))
        rows, passes = x.movedim(1, -1).reshape(-1, 8), [0] * len(built.program.passes)
        found = run_program(UNIT, built.program, {"x": rows.numpy(), **built.constants}, passes)[1]["code"]
        stored = step.run([x]).movedim(1, -1).reshape(-1, 8).numpy()
        assert (found == stored).all()
        assert len(np.unique(stored)) > 3


def test_rows_that_are_not_known_are_refused(convolutions: Network) -> None:
    node = replace(node_of(convolutions, "gelu"), settings={"activation": "gelu"})
    apply = integer_function("gelu", "ivit", node, Codes(0.05, 0, -128, 127), affine(0.05))
    with pytest.raises(AccelsimError, match=f"op {node.name}.*setting axis"):
        apply(torch.zeros(1, 8, 8, 8, dtype=torch.int64))
    assert apply(torch.zeros(1, 8, 8, dtype=torch.int64)).shape == (1, 8, 8)


def test_coarse_codes_of_i_gelu_keep_their_signal(convolutions: Network) -> None:
    for scale in (0.03, 0.05, 0.1):
        source = Codes(scale, 0, -128, 127)
        real = nn.functional.gelu(source.every() * scale).double()
        output = affine(float(real.abs().max()) / 127)
        node = node_of(convolutions, "gelu")
        stored = integer_function("gelu", "ibert", node, source, output)(source.every())
        built = unit_program("gelu", "ibert", node, source, output)
        rows, passes = source.every().numpy()[None], [0] * len(built.program.passes)
        assert (run_program(UNIT, built.program, {"x": rows}, passes)[1]["code"][0] == stored.numpy()).all()
        assert 20 * torch.log10(real.norm() / (real - stored * output.scale).norm()) > 35


@pytest.mark.parametrize("width", [17, 65, 197])
@pytest.mark.parametrize(
    ("function", "name"),
    [("gelu", "ibert"), ("gelu", "ivit"), ("softmax", "ibert"), ("softmax", "ivit"), ("softmax", "fqvit")],
)
def test_the_finest_scale_is_inside_and_a_finer_one_is_not(
    convolutions: Network, function: str, name: str, width: int
) -> None:
    node = node_of(convolutions, "gelu")
    assert node.op.recipe is not None
    node = replace(node, op=replace(node.op, recipe=replace(node.op.recipe, name=function, width=width)))
    bits = 16 if (function, name) == ("gelu", "ibert") else 8
    finest, codes = finest_input(function, name, width), (-(1 << bits - 1), (1 << bits - 1) - 1)
    output = affine(2.0**-14, 0, 1 << 14) if name == "fqvit" else affine(0.02 if function == "gelu" else 1 / 127)
    # Float32 is what a scale is stored in.
    source = Codes(float(torch.tensor(finest, dtype=torch.float32)), 0, *codes)
    built = unit_program(function, name, node, source, output)
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(codes[0], codes[1] + 1, width), np.full(width, codes[1]), np.full(width, codes[0])])
    passes = [0] * len(built.program.passes)
    found = run_program(UNIT, built.program, {"x": rows, **built.constants}, passes)[1]["code"]
    expected = integer_function(function, name, node, source, output)(torch.from_numpy(rows)).numpy()
    if name == "fqvit":
        found = np.where(found == 15, 0, np.left_shift(1, np.maximum(14 - found, 0)))
    assert (found == expected).all()
    with pytest.raises(AccelsimError, match=f"op {node.name}"):
        unit_program(function, name, node, replace(source, scale=0.97 * finest), output)


@pytest.mark.parametrize(
    ("code", "left", "right", "bits", "right_bits", "fits"),
    [
        (OpCode.SHIFT_LEFT, 1 << 32, 40, 33, 0, False),  # 2^72: int64 keeps 0
        (OpCode.SHIFT_LEFT, 1 << 20, 12, 33, 0, True),
        (OpCode.DIVIDE, -100_000, 3, 8, 31, False),
        (OpCode.DIVIDE, -300, 3, 8, 31, True),
        (OpCode.DIVIDE, 100_000, 3, 8, 4, False),  # a numerator of 17 bits, of 12
        (OpCode.DIVIDE, 4000, 3, 8, 4, True),  # saturates
        (OpCode.DIVIDE_INTO, 3, -100_000, 8, 31, False),
        (OpCode.DIVIDE_INTO_EVEN, 3, -100_000, 8, 31, False),
        (OpCode.DIVIDE_INTO_EVEN, 3, 100_000, 8, 4, False),
        (OpCode.DIVIDE_INTO, 3, 700, 8, 4, True),
    ],
)
def test_operands_are_checked_before_they_are_shifted_or_divided(
    code: OpCode, left: int, right: int, bits: int, right_bits: int, fits: bool
) -> None:
    program = [MicroOp(0, code, 1, 0, right, False, Operand.IMMEDIATE, bits, right_bits)]
    registers = np.zeros((1, 2, 2), np.int64)
    registers[0, 0, 0] = left
    if fits:
        walk_program(UNIT, program, [0], registers)
        return
    with pytest.raises(AccelsimError, match="do not fit"):
        walk_program(UNIT, program, [0], registers)
