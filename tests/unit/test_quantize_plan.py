"""Quantizing under a given plan: the same numbers as a method's, mixed formats everywhere, plans that do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from accelsim.channels import Channels
from accelsim.formats import Format
from accelsim.plan import Rule, WeightShare
from accelsim.problems import AccelsimError
from quant.fake import FakeQuantized
from quant.functional import quantize as fake_codes
from quant.groups import spread_values
from quant.integer import compile_integer, run_integer
from quant.levels import levels
from quant.methods.m2q import M2Q
from quant.methods.uniform import Uniform
from quant.network import run
from quant.penalties.activation_groups import activation_groups
from quant.quantize import quantize, quantize_plan
from quant.reconstruct import Reconstruction
from tests.support.networks import images_of, tiny_hybrid, tiny_vit

FORMATS = tuple(Format.parse(name) for name in ("u8", "u6", "u4", "apot8", "pot4"))


def batches(network):
    return list(images_of(network, 32).split(16))


@pytest.mark.parametrize("make", [tiny_hybrid, tiny_vit])
@pytest.mark.parametrize("method", [Uniform(), M2Q(), Uniform(weight_bits=4, activation_bits=6)])
def test_a_methods_plan_gives_the_methods_checkpoint(make, method):
    network = make()
    recipe = Reconstruction(steps=3)
    plan, expected = quantize(network, batches(network), method, reconstruction=recipe)
    again, found = quantize_plan(network, batches(network), plan, reconstruction=recipe, about={"note": "x"})
    assert again == plan
    ours, theirs = found.tensors(), expected.tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert found.about["method"] == "plan"
    assert found.about["note"] == "x"


def mixed_plan(network, seed=0):
    """Every layer in two formats (whole groups in one), every activation group in u8, u6 or u4."""
    random = np.random.default_rng(seed)
    base = quantize(network, batches(network), Uniform())[0]
    groups = {op: FORMATS[k % 3] for k, one in enumerate(activation_groups(network.workload)) for op in one.ops}
    rules = []
    for k, rule in enumerate(base.rules):
        if rule.match in groups:
            rule = replace(rule, output=groups[rule.match], right=groups[rule.match])
        if rule.match != "*" and network.node(rule.match).has_filters:
            loop = network.node(rule.match).op.loop
            first, second = FORMATS[k % 5], FORMATS[(k + 1 + k // 5 % 4) % 5]
            order = random.permutation(loop.groups * loop.cols)
            parts = (
                WeightShare(first, 0.5, Channels.of(order[::2])),
                WeightShare(second, 0.5, Channels.of(order[1::2])),
            )
            rule = replace(rule, weights=parts if loop.groups == 1 or loop.cols == 1 else (WeightShare(second),))
        rules.append(rule)
    return replace(base, name="mixed", rules=tuple(rules))


@pytest.mark.parametrize("division", ["divide", "log2_shift"])
def test_mixed_formats_everywhere(division):
    network = tiny_hybrid()
    plan = replace(mixed_plan(network), division=division)
    checkpoint = quantize_plan(network, batches(network), plan)[1]
    for rule in plan.rules:
        if rule.match in checkpoint.filters:
            integers = checkpoint.filters[rule.match].integers
            for part in rule.weights:
                rows = integers if part.channels is None else integers[part.channels.indices.copy()]
                assert set(rows.unique().tolist()) <= set(levels(part.format).tolist())
    for name, one in checkpoint.stored.items():
        if name != "image":
            assert one.high - one.low < 1 << plan.rule_for(network.node(name).op).output.bits
    off = codes_off(checkpoint, images_of(network, 16, seed=5))
    assert max(off.values()) < 0.02, off


def codes_off(checkpoint, images):
    """Share of each op's integer codes that are more than one off the fake-quantized op on the same operands.

    Op by op: through a whole network of few bits one moved code moves others.  Divisors are stored as exponents.
    """
    network, compiled = checkpoint.network, compile_integer(checkpoint)
    names = [network.workload.input, *(node.op.output for node in network.nodes)]
    codes = run_integer(compiled, images, keep=names)
    scales = spread_values(network, {name: one.scale for name, one in checkpoint.stored.items()}, 1.0)
    zeros = spread_values(network, {name: one.zero_point for name, one in checkpoint.stored.items()}, 0.0)
    values = {name: ((codes[name] - zeros[name]) * scales[name]).float() for name in names}
    off = {}
    for node in network.nodes:
        name = node.op.output
        if name in checkpoint.stored and name not in checkpoint.divisors:
            if {operand.source for operand in node.operands} & checkpoint.divisors.keys() and node.function == "divide":
                continue
            given = {operand.source: values[operand.source] for operand in node.operands}
            with torch.no_grad():
                found = run(network, images, FakeQuantized(checkpoint), given=given, nodes=(node,), keep=[name])[name]
            apart = (fake_codes(found, checkpoint.stored[name]) - codes[name]).abs()
            off[node.name] = float((apart > 1).double().mean())
    assert len(off) > 15
    return off


def test_plans_that_do_not_fit_are_refused():
    network = tiny_hybrid()
    base = mixed_plan(network)

    def refused(match, **fields):
        rules = tuple(replace(r, **fields) if r.match == match else r for r in base.rules)
        with pytest.raises(AccelsimError) as caught:
            quantize_plan(network, batches(network), replace(base, rules=rules))
        return str(caught.value)

    halves = (WeightShare(FORMATS[0], 0.5), WeightShare(FORMATS[1], 0.5))
    assert "several formats share the filters" in refused("head.fc", weights=halves)
    assert "one scale, but the network has" in refused("s1.b0.KtV", granularity="tensor")
    assert "has a zero point" in refused("s1.b0.relu", zero_point=True)
    assert "joins" in refused("s1.b0.qkv", output=FORMATS[0] if base.rules[4].output != FORMATS[0] else FORMATS[1])
    with pytest.raises(AccelsimError, match="gives no images"):
        quantize_plan(network, [], base)
    with pytest.raises(AccelsimError, match="granularity: group"):
        quantize_plan(network, batches(network), replace(base, rules=(Rule("*"),)))
