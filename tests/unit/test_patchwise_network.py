"""Ranked networks in real numbers and in fake quantization: the same function, the right rows, the right refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from accelsim.ir import OpKind
from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError
from accelsim.token_groups import token_layers
from accelsim.token_rules import sliced_ops
from quant.capture import capture
from quant.checkpoint import Model, load, save
from quant.collect import Statistics
from quant.costs import bit_operations
from quant.fake import FakeQuantized
from quant.functional import quantize
from quant.groups import spread_values
from quant.methods.uniform import Uniform
from quant.models.registry import build_torch
from quant.network import forward, run
from quant.onnx_export import export_onnx
from quant.patchwise.measure import (
    importance_statistics,
    matching_threshold,
    mean_bit_operations,
    measured_counts,
)
from quant.patchwise.network import ranked
from quant.patchwise.order import Fixed, Threshold, flags, places
from quant.patchwise.plans import with_groups
from quant.quantize import check_plan, make_plan, quantize_plan
from quant.reconstruct import Reconstruction
from quant.structure import readers, without_zero_point
from tests.support.patchwise import LAYERS, TOKENS, patchwise, seen, trained, without_groups

SLICED = ("norm1", "qkv", "softmax", "values", "norm2", "fc1")


@pytest.mark.parametrize(
    ("importance", "rule", "order"),
    [
        ("class", Fixed(), "important"),
        ("received", Fixed(), "important"),
        ("class", Threshold(100), "important"),
        ("received", Threshold(100), "random"),
        ("class", Fixed(), "inverse"),
    ],
)
def test_ranking_does_not_change_the_float_network(importance: str, rule: Fixed | Threshold, order: str) -> None:
    """Attention and MLP do not depend on the order of tokens."""
    images = seen(4, 1)
    made = ranked(trained(), LAYERS, importance, rule, order)
    with torch.no_grad():
        assert torch.allclose(forward(made, images), forward(trained(), images), atol=1e-5 * 4)
        words = run(made, images, keep=["b1.rank", "b2.rank"])
    for one in words.values():
        assert not torch.equal(places(one)[0], torch.arange(TOKENS))


def test_a_gather_puts_the_most_attended_tokens_first() -> None:
    """Rows of the residual stream, in the order of the class token's attention of the layer before."""
    made = ranked(trained(), LAYERS)
    with torch.no_grad():
        found = run(made, seen(3, 2), keep=["b0.softmax", "b0.mlp_add", "b1.gather"])
    for image in range(3):
        shares = found["b0.softmax"][image, :, 0].double().sum(0).tolist()
        order = [0, *sorted(range(1, TOKENS), key=lambda k: -shares[k])]
        assert torch.equal(found["b1.gather"][image], found["b0.mlp_add"][image, order])


def test_the_graph_knows_what_a_gather_passes_on() -> None:
    """Codes and zero points of the stream, not those of the rank words; shares have no zero point."""
    made = ranked(trained(), LAYERS)
    read = readers(made)
    assert "b1.gather" not in read
    assert [(node.name, k) for node, k in read["b1.rank"]] == [("b1.gather", 1)]
    flagged = readers(ranked(trained(), LAYERS, rule=Threshold(128)))["b1.rank"]
    assert [(node.name, k) for node, k in flagged] == [("b1.gather", 1)]  # flags are not read as codes
    assert ("b1.norm1", 0) in [(node.name, k) for node, k in read["b0.mlp_add"]]
    assert "b1.rank_softmax" in without_zero_point(made)
    assert "b0.mlp_add" not in without_zero_point(made)
    given = {name: torch.tensor(float(k)) for k, name in enumerate([made.workload.input, *read])}
    values = spread_values(made, given, 0.0)
    assert torch.equal(values["b1.gather"], values["b0.mlp_add"])
    assert sliced_ops(made.workload, "b1") == tuple(f"b1.{name}" for name in SLICED)
    assert sliced_ops(made.workload, "b0") == ()


def test_shares_that_a_ranking_reads_stay_full() -> None:
    """Received attention is summed by the vector unit, which reads full codes only; the last layer's is not."""
    made = ranked(trained(), LAYERS, "received")
    assert "b1.softmax" not in sliced_ops(made.workload, "b1")
    assert "b3.softmax" in sliced_ops(made.workload, "b3")


def test_plans_have_rules_for_the_new_ops() -> None:
    """Stored as what they copy; words of 7 bits and a flag are whole numbers."""
    checkpoint = patchwise()
    plan, ops = checkpoint.plan, checkpoint.network.workload.op_by_name
    assert plan.rule_for(ops["b1.gather"]).zero_point
    assert plan.rule_for(ops["b1.rank"]).output.bits == 8
    words = checkpoint.stored["b1.rank"]
    assert (float(words.scale), float(words.zero_point), words.low, words.high) == (1.0, 0.0, 0, 255)
    assert "b1.gather" not in checkpoint.stored
    assert {layer: one.high for layer, one in token_layers(plan).items()} == dict.fromkeys(LAYERS, 20)


def test_a_plan_of_the_plain_network_fits_the_ranked_one() -> None:
    """Every op has the rule that a plan made for the ranked network gives it."""
    method = Uniform(activation_bits=6)
    made, high = ranked(trained(), LAYERS), dict.fromkeys(LAYERS, 9)
    plain = make_plan(trained(), method, Statistics())
    rules = tuple(replace(one, nonlinear="ibert") if "softmax" in one.match else one for one in plain.rules)
    ours = with_groups(made, replace(plain, rules=rules), high)
    theirs = with_groups(made, make_plan(made, method, Statistics()), high)
    for node in made.nodes:
        if node.op.kind is not OpKind.VIEW:
            expected = theirs.rule_for(node.op)
            if "softmax" in node.name:
                expected = replace(expected, nonlinear="ibert")
            assert ours.rule_for(node.op) == expected, node.name
    check_plan(made, ours)


@pytest.mark.parametrize("rule", [Fixed(), Threshold(120)])
def test_narrow_rows_are_rounded_and_full_rows_are_not(rule: Fixed | Threshold) -> None:
    """Of every grouped output: rows behind the count are multiples of 2^4, within range, and differ between images."""
    checkpoint, images = patchwise(rule), seen(6, 3)
    names = [f"{layer}.{name}" for layer in LAYERS for name in SLICED]
    with torch.no_grad():
        found = run(
            checkpoint.network, images, FakeQuantized(checkpoint), keep=[*names, *(f"{one}.rank" for one in LAYERS)]
        )
    for name in names:
        codes = quantize(found[name], checkpoint.stored[name])
        counts = flags(found[f"{name[:2]}.rank"]).sum(1) if rule != Fixed() else torch.full((6,), 20)
        for image, full in enumerate(counts.tolist()):
            narrow, wide = codes[image][..., full:, :], codes[image][..., :full, :]
            assert bool((narrow % 16 == 0).all()), name
            assert bool((wide % 16 != 0).any()), name
        assert checkpoint.stored[name].low <= float(codes.min())
        assert float(checkpoint.stored[name].zero_point) % 16 == 0
    if rule != Fixed():
        assert len(set(flags(found["b2.rank"]).sum(1).tolist())) > 1


def test_a_plan_with_all_tokens_full_changes_nothing() -> None:
    """The same logits, to the last bit."""
    checkpoint, images = patchwise(high=TOKENS), seen(4, 4)
    assert torch.equal(Model(checkpoint)(images), Model(without_groups(checkpoint))(images))
    narrow = replace(checkpoint, plan=with_groups(checkpoint.network, checkpoint.plan, {"b2": 1}, 4))
    assert not torch.equal(Model(narrow)(images), Model(checkpoint)(images))


def test_gradients_pass_narrow_rows() -> None:
    """The gradient of the image is that of the network, not zero, and the values are those without gradients."""
    checkpoint, images = patchwise(), seen(2, 5).clone().requires_grad_()
    logits = forward(checkpoint.network, images, FakeQuantized(checkpoint, gradients=True))
    logits.sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    with torch.no_grad():
        plain = forward(checkpoint.network, images, FakeQuantized(checkpoint))
    assert torch.allclose(logits.detach(), plain, atol=1e-3)


@pytest.mark.parametrize("rule", [Fixed(), Threshold(120)])
def test_checkpoints_are_read_back(rule: Fixed | Threshold, tmp_path: pytest.TempPathFactory) -> None:
    """Rankings, their settings and the groups: the same logits and counts."""
    checkpoint, images = patchwise(rule), seen(4, 6)
    save(checkpoint, str(tmp_path))
    again = load(str(tmp_path))
    assert torch.equal(again(images), Model(checkpoint)(images))
    before, after = measured_counts(checkpoint, [images]), measured_counts(again.checkpoint, [images])
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[layer], after[layer]) for layer in before)


def test_controls_cost_the_same_bit_operations() -> None:
    """Same ops, same plan, and under a threshold the same number of full tokens in the first ranked layer."""
    images, counts, costs = [seen(4, 7)], [], set()
    rule = Threshold(120)
    checkpoint = patchwise(rule)
    for order in ("important", "inverse", "random"):
        network = ranked(trained(), LAYERS, rule=rule, order=order)
        costs.add(bit_operations(apply_plan(network.workload, checkpoint.plan)))
        counts.append(measured_counts(replace(checkpoint, network=network), images)["b1"].tolist())
    assert len(costs) == 1
    assert counts[0] == counts[1] == counts[2]


def test_mean_bit_operations_are_those_of_the_images() -> None:
    """The mean over images, each with its own counts, one after the other."""
    checkpoint = patchwise(Threshold(120))
    workload, plan = checkpoint.network.workload, checkpoint.plan
    counts = measured_counts(checkpoint, [seen(3, 8), seen(2, 9)])
    assert {layer: len(one) for layer, one in counts.items()} == dict.fromkeys(LAYERS, 5)
    each = []
    for image in range(5):
        own = with_groups(checkpoint.network, plan, {layer: int(one[image]) for layer, one in counts.items()}, 4)
        each.append(bit_operations(apply_plan(workload, own)))
    assert mean_bit_operations(workload, plan, counts) == pytest.approx(np.mean(each), rel=1e-12)
    assert len(set(each)) > 1
    fixed = patchwise()
    assert measured_counts(fixed, [seen(3, 8)])["b2"].tolist() == [20, 20, 20]


def test_statistics_of_the_attention() -> None:
    """Entropy against a plain sum; a threshold that makes the variable rule as wide as wanted."""
    batches = [seen(3, 10), (seen(2, 11), torch.zeros(2))]
    found = importance_statistics(trained(), batches)
    assert list(found) == list(LAYERS)
    with torch.no_grad():
        shares = run(trained(), torch.cat([seen(3, 10), seen(2, 11)]), keep=["b1.softmax"])["b1.softmax"].double()
    for ours, rows in zip(found["b2"], (shares[:, :, 0].sum(1), shares.sum((1, 2))), strict=True):
        p = (rows / rows.sum(1, keepdim=True)).numpy()
        assert ours.entropy == pytest.approx(float(-(p * np.log2(p)).sum(1).mean() / np.log2(TOKENS)), rel=1e-6)
        assert ours.quarter == pytest.approx(float(np.sort(p, 1)[:, -16:].sum(1).mean()), rel=1e-6)
        assert ours.first == pytest.approx(float(p[:, 0].mean()), rel=1e-6)
    share = matching_threshold(trained(), batches, 20.0)

    def mean_full(one: int) -> float:
        rules = ranked(trained(), LAYERS, rule=Threshold(one))
        with torch.no_grad():
            words = [run(rules, x if isinstance(x, torch.Tensor) else x[0], keep=["b1.rank", "b2.rank", "b3.rank"])
                     for x in batches]  # fmt: skip
        return float(torch.cat([flags(one).sum(1) for part in words for one in part.values()]).double().mean())

    assert mean_full(share) >= 20 > mean_full(share - 1)


def test_what_has_no_patchwise_form_is_refused(tmp_path: pytest.TempPathFactory) -> None:
    """Each with its reason."""
    checkpoint = patchwise()
    with pytest.raises(AccelsimError, match="has no ONNX form"):
        export_onnx(checkpoint, f"{tmp_path}/x.onnx")
    with pytest.raises(AccelsimError, match="in different orders"):
        quantize_plan(checkpoint.network, [seen(2, 0)], checkpoint.plan, reconstruction=Reconstruction(steps=1))
    with pytest.raises(AccelsimError, match="b0: not ranked"):
        with_groups(checkpoint.network, checkpoint.plan, {"b0": 3})
    with pytest.raises(AccelsimError, match="0 bits fewer"):
        with_groups(checkpoint.network, checkpoint.plan, {"b1": 3}, 0)
    with pytest.raises(AccelsimError, match="u8 less 7 bits"):
        with_groups(checkpoint.network, checkpoint.plan, {"b1": 3}, 7)
    with pytest.raises(AccelsimError, match="unknown 'all'"):
        ranked(trained(), LAYERS, "all")
    hybrid = capture(build_torch("digits_hybrid"), (1, 32, 32))
    with pytest.raises(AccelsimError, match="has no class token"):
        ranked(hybrid, ["b1"])
    with pytest.raises(AccelsimError, match="cannot rank its tokens"):
        ranked(hybrid, ["b1"], "received")
    old = replace(checkpoint, stored={**checkpoint.stored, "b1.fc1": replace(
        checkpoint.stored["b1.fc1"], zero_point=checkpoint.stored["b1.fc1"].zero_point + 1)})  # fmt: skip
    with pytest.raises(AccelsimError, match="no multiple of 16"):
        Model(old)(seen(1, 0))
