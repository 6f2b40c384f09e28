"""MNQ: the SQNR difference, the assignment, the formats, and networks whose non-linear ops are integers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.workloads.vit import Variant
from codesign.budgets import Budget
from codesign.nonlinear.choose import choose_within
from codesign.nonlinear.price import MapCost
from quant.calibrate import stored_quantizer
from quant.calibrated import Checkpoint
from quant.capture import capture
from quant.checkpoint import Model, load, save
from quant.collect import Statistics
from quant.functional import dequantize
from quant.functional import quantize as quantize_codes
from quant.groups import scale_groups
from quant.integer import IntegerModel, compile_integer
from quant.methods.mnq import CANDIDATES, MNQ, WITH_TABLE
from quant.models.registry import build_torch
from quant.models.vit import VisionTransformer
from quant.network import Network, run
from quant.nonlinear.assign import by_difference, by_output, counts, of_candidates, random_maps, single
from quant.nonlinear.finest import FINEST_INPUTS, finest_input
from quant.nonlinear.mixed import Mixed
from quant.nonlinear.sqnr import Slot, SqnrTable, amplitude_ratios, decibels, measure_sqnr
from quant.observers import Observed
from quant.quantize import quantize
from quant.separate import separate

SLOTS = (Slot("n1", "layernorm"), Slot("s", "softmax"), Slot("g", "gelu"))


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = VisionTransformer(Variant(32, 2, 2, patch=8, classes=10, in_channels=1), 32).eval()
        with torch.no_grad():  # gains and offsets as training leaves them: not all alike
            for name, value in model.named_parameters():
                if ".norm." in name or name.startswith("norm."):
                    value.add_(0.2 * torch.randn(value.shape))
    return separate(capture(model, (1, 32, 32)))


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def mixed(network: Network) -> Mixed:
    return Mixed(network, [images(16, 0)], 8)


def table(differences: list[list[float]], outputs: list[list[float]] | None = None) -> SqnrTable:
    out = np.array(outputs if outputs is not None else np.zeros((3, 3)))
    return SqnrTable(SLOTS, ("ibert", "ivit", "fqvit"), out + np.array(differences), out, 1)


def test_sqnr_is_the_mean_of_amplitude_ratios_before_the_logarithm() -> None:
    exact = torch.tensor([[3.0, 4.0], [6.0, 8.0]])
    other = torch.tensor([[3.0, 3.0], [6.0, 7.9]])  # ‖x‖/‖x − y‖ = 5/1 and 10/0.1
    assert amplitude_ratios(exact, other).tolist() == pytest.approx([5.0, 100.0], rel=1e-5)
    assert decibels([amplitude_ratios(exact, other)]) == pytest.approx(20 * np.log10(52.5), rel=1e-5)


def test_a_tensor_without_error_has_300_db_and_one_of_zeros_none_to_divide_by() -> None:
    same = torch.ones(2, 3)
    assert decibels([amplitude_ratios(same, same)]) == pytest.approx(300.0)
    assert torch.isfinite(amplitude_ratios(torch.zeros(1, 3), torch.zeros(1, 3))).all()


def test_every_slot_gets_the_candidate_of_the_least_difference() -> None:
    found = table([[3, 2, 1], [5, 5, 6], [2, 1, -9]], [[1, 2, 9], [3, 9, 3], [5, 4, 99]])
    assert by_difference(found) == {"n1": "fqvit", "s": "ibert", "g": "ivit"}  # a tie goes to the first
    assert by_output(found) == {"n1": "fqvit", "s": "ivit", "g": "ibert"}
    # A table computes FQ-ViT's GELU, so it has that column, where it is a candidate.
    assert by_difference(found, WITH_TABLE)["g"] == "table"


def test_random_maps_come_from_the_seed_and_hold_candidates_only() -> None:
    maps = random_maps(SLOTS, 30, 5)
    assert maps == random_maps(SLOTS, 30, 5) != random_maps(SLOTS, 30, 6)
    for slot in SLOTS:
        assert {one[slot.op] for one in maps} == set(CANDIDATES[slot.function])
    assert counts(SLOTS, {"s": "ivit"}) == {"layernorm": {"float": 1}, "softmax": {"ivit": 1}, "gelu": {"float": 1}}


def test_residual_stream_has_16_bits_and_what_products_read_8(network: Network) -> None:
    method = MNQ(activation_bits=6, methods={"b0.fc1.gelu": "ibert", "b0.softmax": "fqvit"})
    formats = method.outputs(network, Statistics())
    names = {name: fmt.name for name, fmt in formats.items()}
    wide = ("patch_embed", "embed", "b0.proj", "b0.attn_add", "b0.fc2", "b1.mlp_add", "b0.fc1")
    assert {names[name] for name in wide} == {"u16"}
    narrow = ("b0.norm1", "b0.qkv", "b0.scores", "b0.values", "b0.fc1.gelu", "b1.fc1", "b1.softmax")
    assert {names[name] for name in narrow} == {"u6"}
    assert names["b0.softmax"] == "log4"


@pytest.mark.parametrize("name", ["ibert", "ivit", "fqvit"])
def test_integer_execution_has_no_float_island_and_agrees(mixed: Mixed, name: str) -> None:
    checkpoint = mixed.checkpoint(single(mixed.slots, name))
    compiled = compile_integer(checkpoint)
    assert compiled.float_islands == ()
    batch = images(24, 1)
    integer, fake = IntegerModel(compiled)(batch), Model(checkpoint)(batch)
    assert float((integer - fake).norm() / fake.norm()) < 0.15
    assert float((integer.argmax(1) == fake.argmax(1)).float().mean()) > 0.85


def test_methods_differ_and_lose_little(mixed: Mixed, network: Network) -> None:
    found = mixed.table([images(16, 2)])
    assert found.inputs_db.shape == found.outputs_db.shape == (len(mixed.slots), 3) == (9 + 0, 3)
    assert np.isfinite(found.difference_db).all()
    # I-BERT's LayerNorm of 16-bit codes loses little beside its 8-bit output; Log-Int-Softmax never passes 16 dB.
    for k, slot in enumerate(found.slots):
        if slot.function == "softmax":
            assert found.outputs_db[k, 2] < 16
        if slot.function == "layernorm":
            assert found.outputs_db[k, 0] > 20


def test_shared_checkpoints_are_those_of_quantize(mixed: Mixed, network: Network) -> None:
    chosen = {**single(mixed.slots, "ibert"), mixed.slots[0].op: "fqvit"}
    plan, alone = quantize(network, mixed.batches, mixed.method(chosen), mixed.options)
    shared = mixed.checkpoint(chosen)
    assert plan.fingerprint() == shared.plan.fingerprint()
    assert same_tensors(alone, shared)


def same_tensors(left: Checkpoint, right: Checkpoint) -> bool:
    a, b = left.tensors(), right.tensors()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_saved_checkpoint_gives_the_same_integers(mixed: Mixed, tmp_path: Path) -> None:
    checkpoint = mixed.checkpoint(single(mixed.slots, "fqvit"))
    save(checkpoint, tmp_path)
    again = load(tmp_path).checkpoint
    batch = images(4, 3)
    assert len(again.factors) == sum(slot.function == "layernorm" for slot in mixed.slots)
    assert torch.equal(IntegerModel(compile_integer(again))(batch), IntegerModel(compile_integer(checkpoint))(batch))


def test_a_network_without_such_layers_is_refused() -> None:
    hybrid = capture(build_torch("digits_hybrid"), (1, 32, 32))
    with pytest.raises(AccelsimError, match="nothing to mix"):
        measure_sqnr(hybrid, [images(1, 0)], {})


PRICES = {"ibert": (40, 9.0), "ivit": (70, 20.0), "fqvit": (15, 6.0), "table": (5, 1.0)}


def price(chosen: dict[str, str]) -> MapCost:
    """Additive cycles and energy: slots differ by a factor."""
    each = [(k + 1, PRICES[chosen[slot.op]]) for k, slot in enumerate(SLOTS) if slot.op in chosen]
    cycles = sum(times * one[0] for times, one in each)
    energy = sum(times * one[1] for times, one in each)
    return MapCost(cycles, energy, energy * cycles / 1e6, 1_000_000, float(cycles), energy)


@pytest.mark.parametrize("kind", ["latency_s", "energy_pj"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_hardware_aware_map_is_the_best_within_the_budget(kind: str, share: float) -> None:
    found = table([[3.0, 1.0, 4.0], [2.0, 0.5, 12.0], [0.2, 6.0, 1.0]])
    every = [
        dict(zip(("n1", "s", "g"), names, strict=True))
        for names in product(*(WITH_TABLE[slot.function] for slot in SLOTS))
    ]
    costs = [getattr(price(one), kind) for one in every]
    limit = min(costs) + share * (max(costs) - min(costs))

    def penalty(one: dict[str, str]) -> float:
        return sum(of_candidates(found, found.difference_db, k, WITH_TABLE)[one[s.op]] for k, s in enumerate(SLOTS))

    best = min(penalty(one) for one, cost in zip(every, costs, strict=True) if cost <= limit)
    chosen, cost = choose_within(found, price, Budget(kind, limit), WITH_TABLE)
    assert getattr(cost, kind) <= limit
    assert penalty(chosen) == pytest.approx(best, abs=1e-9)


def test_an_impossible_budget_says_what_the_cheapest_map_needs() -> None:
    found = table([[3.0, 1.0, 4.0], [2.0, 0.5, 12.0], [0.2, 6.0, 1.0]])
    with pytest.raises(InfeasibleError, match="needs 6e-05"):
        choose_within(found, price, Budget("latency_s", 1e-6), WITH_TABLE)


def test_methods_that_the_accelerator_lacks_are_left_out() -> None:
    def no_fqvit(chosen: dict[str, str]) -> MapCost:
        if "fqvit" in chosen.values():
            raise InfeasibleError([])
        return price(chosen)

    found = table([[3.0, 2.0, 1.0], [2.0, 1.5, 1.0], [0.2, 6.0, 1.0]])
    chosen, _ = choose_within(found, no_fqvit, Budget("latency_s", 1.0), WITH_TABLE)
    assert chosen == {"n1": "ivit", "s": "ivit", "g": "ibert"}


def test_integer_methods_are_not_exported_as_float_operators(mixed: Mixed, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from quant.onnx_export import export_onnx

    with pytest.raises(AccelsimError, match=r"b0\.softmax: its integer method has no ONNX form"):
        export_onnx(mixed.checkpoint({"b0.softmax": "ivit"}), tmp_path / "m.onnx")


def test_own_error_is_that_of_one_op_in_a_float_network(mixed: Mixed, network: Network) -> None:
    batch = images(8, 4)
    found = mixed.own_error([batch])
    op, method = "b1.norm2", "ivit"
    k = [slot.op for slot in found.slots].index(op)
    checkpoint = mixed.checkpoint(single(mixed.slots, method))
    with torch.no_grad():
        exact = run(network, batch, keep=("b1.attn_add", op))
        affine = checkpoint.stored["b1.attn_add"]
        codes = quantize_codes(exact["b1.attn_add"], affine).long()
    step = compile_integer(checkpoint).step(op)
    other = dequantize(step.run([codes]).float(), checkpoint.stored[op])
    expected = decibels([amplitude_ratios(exact[op], other)])
    assert found.outputs_db[k, found.methods.index(method)] == pytest.approx(expected, abs=1e-3)
    # A later slot does not inherit what an earlier one lost.
    assert found.inputs_db[-1, 0] > mixed.table([batch]).inputs_db[-1, 0] + 10


def test_a_scale_beyond_the_widths_of_a_method_is_refused_and_calibration_avoids_it(mixed: Mixed) -> None:
    name = "b0.fc1"
    checkpoint = mixed.checkpoint(single(mixed.slots, "ibert"))
    stored = checkpoint.stored[name]
    assert float(stored.scale) >= FINEST_INPUTS["gelu", "ibert"]
    fine = replace(checkpoint, stored={**checkpoint.stored, name: replace(stored, scale=stored.scale * 0 + 5e-5)})
    with pytest.raises(AccelsimError, match=r"op b0\.fc1\.gelu"):
        compile_integer(fine)
    narrow = Observed()
    narrow.update(torch.linspace(-0.5, 0.5, 100))
    groups = scale_groups(mixed.network)[name]
    quantized = apply_plan(mixed.network.workload, checkpoint.plan)
    statistics = Statistics(groups={name: [narrow]})
    found = stored_quantizer(name, quantized, statistics, groups, mixed.options)
    assert float(found.scale) == pytest.approx(FINEST_INPUTS["gelu", "ibert"])


@pytest.mark.parametrize(("function", "method"), [("gelu", "ivit"), ("softmax", "ivit"), ("softmax", "fqvit")])
def test_calibration_stops_at_the_finest_scale_of_the_readers_method(mixed: Mixed, function: str, method: str) -> None:
    (quantized, item) = next(
        (quantized, item)
        for quantized in [apply_plan(mixed.network.workload, mixed.plan(single(mixed.slots, method)))]
        for item in quantized.ops
        if item.function == function
    )
    narrow, name = Observed(), quantized.workload.storage_of(item.op.inputs[0])[0]
    narrow.update(torch.linspace(-1e-3, 1e-3, 100))
    groups, count = scale_groups(mixed.network)[name], scale_groups(mixed.network)[name].count
    found = stored_quantizer(name, quantized, Statistics(groups={name: [narrow] * count}), groups, mixed.options)
    assert item.op.recipe is not None
    assert float(found.scale.max()) == pytest.approx(finest_input(function, method, item.op.recipe.width))


def test_a_plan_without_methods_compiles_no_integers(mixed: Mixed, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("constants of integers were made for a float non-linear network")

    monkeypatch.setattr("quant.integer.graph.Compiler.__init__", refuse)
    assert Model(mixed.checkpoint({}))(images(2, 5)).shape == (2, 10)
