"""Integer networks that store softmax and GELU in two-region codes: the stepped unit and arrays give the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from accelsim.arch import VectorUnit
from accelsim.config import load_accelerator
from accelsim.engines import select_mode, walk_tile
from accelsim.formats import Format
from accelsim.nonlinear.methods import function_of
from accelsim.nonlinear.program import run_program
from accelsim.workloads.vit import Variant
from quant.calibrated import Checkpoint
from quant.capture import capture
from quant.functional import Affine
from quant.integer import compile_integer
from quant.integer.graph import Compiler, IntegerNetwork
from quant.integer.run import run_integer
from quant.integer.steps import Nonlinear
from quant.integer.tiles import sample_tiles
from quant.models.vit import VisionTransformer
from quant.network import Network
from quant.nonlinear.assign import single
from quant.nonlinear.hardware import unit_program
from quant.nonlinear.mixed import Mixed
from quant.nonlinear.ops import Codes
from quant.regions.codes import pack, region_range
from quant.separate import separate
from quant.views import rearrange

UNIT = VectorUnit(64, 64, 64, 64, 16, 8, leading_one_per_cycle=8)
MOST_ROWS = 24
SHARES, GELUS = Format.parse("r6p5"), Format.parse("r6n4")


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = VisionTransformer(Variant(32, 2, 2, patch=8, classes=10, in_channels=1), 32).eval()
        with torch.no_grad():
            for name, value in model.named_parameters():
                if "qkv" in name:
                    value.mul_(3)
    return separate(capture(model, (1, 32, 32)))


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def two_regions(network: Network, method: str) -> Checkpoint:
    """A checkpoint of one method whose shares and values after GELU get two regions up to the same largest value."""
    mixed = Mixed(network, [images(8, 0)], 8)
    base = mixed.checkpoint(single(mixed.slots, method))
    formats = {"softmax": SHARES, "gelu": GELUS}
    functions = {node.name: function_of(node.op.recipe) for node in network.nodes}
    rules, stored = [], dict(base.stored)
    for rule in base.plan.rules:
        fmt = formats.get(functions.get(rule.match, ""))
        rules.append(rule if fmt is None else replace(rule, output=fmt))
        if fmt is not None:
            name = network.workload.op_by_name[rule.match].output
            old, (low, high) = stored[name], region_range(fmt)
            stored[name] = Affine(old.scale * old.high / high, old.zero_point, low, high)
    return replace(base, plan=replace(base.plan, rules=tuple(rules)), stored=stored)


@pytest.fixture(scope="module", params=["ibert", "ivit"])
def compiled(network: Network, request: pytest.FixtureRequest) -> IntegerNetwork:
    return compile_integer(two_regions(network, request.param))


def coded(network: IntegerNetwork) -> list[tuple[Nonlinear, Format]]:
    """Steps that store two-region codes, with their formats."""
    formats = {step.node.name: network.checkpoint.plan.rule_for(step.node.op).output for step in network.steps}
    steps = [step for step in network.steps if isinstance(step, Nonlinear)]
    return [(step, formats[step.node.name]) for step in steps if formats[step.node.name] in (SHARES, GELUS)]


def test_the_stepped_unit_stores_the_codes_of_the_integer_network(compiled: IntegerNetwork) -> None:
    compiler, steps = Compiler(compiled.checkpoint), coded(compiled)
    codes = run_integer(compiled, images(2, 1), keep={step.node.operands[0].source for step, _ in steps})
    for step, fmt in steps:
        node = step.node
        (operand,) = node.operands
        x = rearrange(codes[operand.source], operand.views, 2)
        scale, zero = compiler.single(node, 0)
        source = Codes(float(scale), int(zero), *compiler.range(node, 0))
        asked = (function_of(node.op.recipe), compiler.method(node), node, source, compiler.output(node), None)
        built, plain = unit_program(*asked, fmt), unit_program(*asked)
        rows = x.reshape(-1, x.shape[-1])[:MOST_ROWS]
        operands, passes = {"x": rows.numpy(), **built.constants}, [0] * len(built.program.passes)
        found = run_program(UNIT, built.program, operands, passes)[1]["code"]
        levels = step.run([x]).reshape(-1, x.shape[-1])[:MOST_ROWS]
        assert (found == pack(levels, fmt).numpy()).all(), node.name
        steps_only = run_program(UNIT, plain.program, operands, passes)[1]["code"]
        assert (steps_only != levels.numpy()).any()  # fine steps that no code of two regions has
        assert len(np.unique(found)) > 6
    assert {fmt for _, fmt in steps} == {SHARES, GELUS}


def test_the_stepped_array_multiplies_the_stored_codes(compiled: IntegerNetwork) -> None:
    """Aligned and decoded, the sums of a network's own tiles are those of its integers."""
    aligned = load_accelerator("m2vit_regions").engines[0]
    engines = (aligned, replace(aligned, region_shift=0))
    columns = set()
    found = [one for one in sample_tiles(compiled, images(2, 1), 40, 0) if one.activation in (SHARES, GELUS)]
    for one in found:
        for engine in engines:
            columns.add(select_mode(engine, one.weight, one.activation))
            operands = (one.activations, one.codes, one.requant, one.clamp)
            outputs = walk_tile(engine, one.tile, one.weight, one.activation, *operands)[1]
            assert np.array_equal(outputs, one.outputs), one.op
    assert {one.activation for one in found} == {SHARES, GELUS}
    assert columns == {2, 4}
