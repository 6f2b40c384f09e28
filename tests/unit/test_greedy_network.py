"""Widths of a real network: states, checkpoints, shared runs, a file of losses that survives a kill, costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from accelsim.config import load_accelerator
from accelsim.formats import Format
from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.workloads.vit import Variant
from codesign.budgets import Budget, cost, parse_budget
from codesign.greedy.costs import COSTS, PlanCosts
from codesign.greedy.evaluations import Evaluations
from codesign.greedy.mixed import ACTIVATION, WEIGHT, MixedNetwork, WidthSettings
from codesign.greedy.plan import GreedyChoice, GreedySettings, greedy_plan
from codesign.greedy.prefixes import SharedRuns
from codesign.greedy.trajectory import State
from codesign.greedy.walk import WalkSettings
from quant.calibrate import Calibration
from quant.capture import capture
from quant.checkpoint import Model
from quant.methods.mnq import MNQ
from quant.methods.uniform import Uniform
from quant.models.vit import VisionTransformer
from quant.network import Network, Numerics, forward
from quant.quantize import quantize, quantize_plan
from tests.support.networks import tiny_hybrid

WIDTHS = (8, 6, 4, 3)
METHOD = Uniform(zero_points=False)
PRODUCTS_READ = {"qkv", "softmax", "values", "norm1", "norm2", "fc1"}


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = VisionTransformer(Variant(16, 2, 2, patch=8, classes=6, in_channels=1), 16).eval()
        with torch.no_grad():  # as training leaves it: losses that differ between layers
            for value in model.parameters():
                value.add_(0.1 * torch.randn(value.shape))
    return capture(model, (1, 16, 16))


def pictures(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


LABELLED = [(pictures(12, 1), torch.arange(12) % 6), (pictures(8, 2), torch.arange(8) % 6)]
UNLABELLED = [(images, None) for images, _ in LABELLED]
CALIBRATION = [pictures(16, 3)]


def mixed_of(network: Network, images=LABELLED, path: Path | None = None, **settings) -> MixedNetwork:
    chosen = WidthSettings(weight_widths=WIDTHS, activation_widths=WIDTHS, **settings)
    return MixedNetwork(network, CALIBRATION, images, METHOD, chosen, path=path)


@pytest.fixture(scope="module")
def mixed(network: Network) -> MixedNetwork:
    return mixed_of(network)


def some_state(mixed: MixedNetwork, seed: int) -> State:
    draw = torch.Generator().manual_seed(seed)
    return tuple(WIDTHS[int(torch.randint(len(WIDTHS), (), generator=draw))] for _ in mixed.components)


def names(mixed: MixedNetwork, kind: str) -> list[str]:
    return [one.name.split(":")[1] for one in mixed.components if one.name.startswith(kind)]


def test_components_are_all_layers_and_what_products_read(network: Network, mixed: MixedNetwork) -> None:
    layers = [node.name for node in network.nodes if node.has_filters]
    assert names(mixed, WEIGHT) == layers
    assert layers[0] == "patch_embed"
    assert layers[-1] == "head"
    found = names(mixed, ACTIVATION)
    assert {name.split(".")[-1] for name in found} == {*PRODUCTS_READ, "norm"}
    assert len(found) == 2 * len(PRODUCTS_READ) + 1
    inner = mixed_of(network, ends=False, kinds=(WEIGHT,))
    assert names(inner, WEIGHT) == layers[1:-1]
    assert names(inner, ACTIVATION) == []
    full = names(mixed_of(network, full=True), ACTIVATION)
    of_block = ("scores", "proj", "attn_add", "fc2", "mlp_add")
    more = {"patch_embed", "embed", *(f"b{k}.{op}" for k in range(2) for op in of_block)}
    assert set(full) - set(found) == more


def test_joined_tensors_are_one_component() -> None:
    mixed = MixedNetwork(
        hybrid := tiny_hybrid(),
        [torch.randn(4, *hybrid.image_shape, generator=torch.Generator().manual_seed(0))],
        [(torch.randn(4, *hybrid.image_shape, generator=torch.Generator().manual_seed(1)), None)],
        METHOD,
        WidthSettings(weight_widths=(8, 4), activation_widths=(8, 4)),
    )
    joined = [part for part in mixed.parts if part.kind == ACTIVATION and len(part.ops) > 1]
    assert joined
    lowest = tuple(one.widths[-1] for one in mixed.components)
    apply_plan(hybrid.workload, mixed.plan(lowest))
    assert mixed.loss(lowest) > mixed.loss(tuple(one.widths[0] for one in mixed.components))


def test_a_plan_has_the_widths_of_its_state(network: Network, mixed: MixedNetwork) -> None:
    state = some_state(mixed, 0)
    quantized = apply_plan(network.workload, mixed.plan(state))
    by_name = dict(zip((one.name for one in mixed.components), state, strict=True))
    for item in quantized.ops:
        if item.weights:
            assert item.weights[0].format.bits == by_name[f"weight:{item.op.name}"]
        output = quantized.activation_bits[item.op.output]
        assert output == by_name.get(f"activation:{item.op.name}", 8)
    assert mixed.widths(state, ACTIVATION)["b1.fc1"] == by_name["activation:b1.fc1"]
    assert mixed.widths(state, WEIGHT)["head"] == by_name["weight:head"]


@pytest.mark.parametrize("correction", [True, False])
def test_shared_checkpoints_are_those_of_quantize(network: Network, correction: bool) -> None:
    options = Calibration(bias_correction=correction)
    mixed = replace_options(mixed_of(network), options)
    for state in (some_state(mixed, 1), some_state(mixed, 2), (4,) * len(mixed.components)):
        found = mixed.checkpoint(state)
        _, expected = quantize_plan(network, CALIBRATION, mixed.plan(state), options)
        theirs = expected.tensors()
        assert found.tensors().keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in found.tensors().items())
        ranges = {name: (one.low, one.high) for name, one in found.stored.items()}
        assert ranges == {name: (one.low, one.high) for name, one in expected.stored.items()}


def replace_options(mixed: MixedNetwork, options: Calibration) -> MixedNetwork:
    return MixedNetwork(mixed.network, mixed.batches, mixed.images, mixed.method, mixed.settings, options)


def test_eight_bits_everywhere_are_the_methods_own_checkpoint(network: Network, mixed: MixedNetwork) -> None:
    plan, expected = quantize(network, CALIBRATION, METHOD)
    state = tuple(8 for _ in mixed.components)
    assert mixed.plan(state).fingerprint() == plan.fingerprint()
    images = LABELLED[0][0]
    assert torch.equal(Model(mixed.checkpoint(state))(images), Model(expected)(images))


def test_loss_is_cross_entropy_or_divergence_of_the_whole_network(network: Network, mixed: MixedNetwork) -> None:
    state = some_state(mixed, 3)
    model = Model(mixed.checkpoint(state))
    logits = torch.cat([model(images) for images, _ in LABELLED]).double()
    labels = torch.cat([labels for _, labels in LABELLED])
    assert mixed.loss(state) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-12)
    exact = torch.cat([forward(network, images) for images, _ in LABELLED]).double().log_softmax(1)
    divergence = (exact.exp() * (exact - logits.log_softmax(1))).sum(1).mean()
    assert mixed_of(network, UNLABELLED).loss(state) == pytest.approx(float(divergence), rel=1e-9)


@pytest.mark.parametrize("memory_bytes", [1 << 30, 30_000, 0])
def test_shared_runs_give_the_losses_of_whole_runs(network: Network, memory_bytes: int) -> None:
    mixed = mixed_of(network, memory_bytes=memory_bytes)
    here = tuple(8 for _ in mixed.components)
    mixed.settle(here)
    runs, labels = 0, torch.cat([labels for _, labels in LABELLED])
    for seed in range(3):  # walk down: every state differs from the settled one in a component
        for k in range(seed, len(here), 4):
            state = (*here[:k], 3, *here[k + 1 :])
            model = Model(mixed.checkpoint(state))
            logits = torch.cat([model(images) for images, _ in LABELLED]).double()
            expected = float(torch.nn.functional.cross_entropy(logits, labels))
            assert mixed.loss(state) == pytest.approx(expected, rel=1e-12), (seed, k)
            runs += 1
        here = state
        mixed.settle(here)
    whole = runs * len(mixed.runs.blocks)
    assert mixed.runs.blocks_run == whole if not memory_bytes else mixed.runs.blocks_run < 0.9 * whole


def test_a_run_that_was_the_last_one_is_not_run_again_when_it_is_settled(network: Network) -> None:
    runs = SharedRuns(network, [pictures(4, 9)], 1 << 20)
    count = len(runs.blocks)
    runs.outputs((0,) * count, Numerics)
    assert runs.blocks_run == count
    runs.settle((0,) * count, Numerics)
    runs.outputs((*[0] * (count - 2), 1, 0), Numerics)
    assert runs.blocks_run == count + 2
    runs.settle((0, *[1] * (count - 1)), Numerics)  # not the last one: run from block 1 when it is needed
    runs.outputs((0, *[1] * (count - 2), 2), Numerics)
    assert runs.blocks_run == count + 2 + (count - 1) + 1


def test_kept_activations_stay_within_the_memory(network: Network) -> None:
    images = [pictures(4, 9)]
    runs = {memory: SharedRuns(network, images, memory) for memory in (1 << 20, 3000, 0)}
    kept = {}
    for memory, one in runs.items():
        one.settle((0,) * len(one.blocks), Numerics)
        one.outputs((0,) * len(one.blocks), Numerics)
        kept[memory] = sum(value.nbytes for batches in one._last.inputs.values() for value in batches)
        assert 2 * kept[memory] <= memory
    assert kept[1 << 20] > kept[3000] > kept[0] == 0


def choice(network: Network, folder: Path | None, **changes) -> GreedyChoice:
    given = {
        "budget": Budget("layer_bits", 5.5),
        "settings": GreedySettings(
            WalkSettings(search="lazy"), WidthSettings(weight_widths=WIDTHS, activation_widths=WIDTHS)
        ),
        "accelerator": load_accelerator("m2vit"),
        **changes,
    }
    return greedy_plan(network, CALIBRATION, LABELLED, METHOD, folder=folder, **given)


def test_a_killed_search_goes_on_and_ends_the_same(network: Network, tmp_path: Path, monkeypatch) -> None:
    whole = choice(network, tmp_path / "whole")
    data = (tmp_path / "whole" / "evaluations.jsonl").read_bytes()
    rows = len(data.splitlines()) - 1
    assert rows == whole.trajectory.evaluations
    cut = tmp_path / "cut"
    cut.mkdir()
    file = cut / "evaluations.jsonl"
    file.write_bytes(data[: len(data) * 2 // 3])  # in the middle of a line
    assert not file.read_bytes().endswith(b"\n")
    kept = len(file.read_bytes().split(b"\n")) - 2
    measured = []
    real = MixedNetwork._measured
    monkeypatch.setattr(MixedNetwork, "_measured", lambda self, state: measured.append(state) or real(self, state))
    again = choice(network, cut)
    assert len(measured) == rows - kept
    assert file.read_bytes() == data
    assert again.trajectory.to_json() == whole.trajectory.to_json()
    assert again.plan.fingerprint() == whole.plan.fingerprint()
    measured.clear()
    choice(network, cut)
    assert not measured


def test_losses_of_something_else_are_refused(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    widest = tuple(8 for _ in mixed_of(network).components)
    loss = mixed_of(network, path=path).loss(widest)
    assert mixed_of(network, path=path).evaluations.get(widest) == loss
    others = [
        mixed_of(network, UNLABELLED, path),
        mixed_of(network, full=True, path=path),
        MixedNetwork(network, [pictures(16, 4)], LABELLED, METHOD, mixed_of(network).settings, path=path),
        MixedNetwork(network, CALIBRATION, LABELLED, Uniform(), mixed_of(network).settings, path=path),
        MixedNetwork(
            network, CALIBRATION, LABELLED, METHOD, mixed_of(network).settings, Calibration("minmax"), path=path
        ),
        MixedNetwork(
            network, CALIBRATION, LABELLED, METHOD, mixed_of(network).settings, path=path,
            format_of=lambda net, seen, name, bits: Format.parse(f"u{min(bits, 7)}"),
        ),
    ]  # fmt: skip
    for other in others:
        with pytest.raises(AccelsimError, match="another network"):
            other.loss(tuple(one.widths[0] for one in other.components))
    path.write_text("{}\n")
    with pytest.raises(AccelsimError, match="another network"):
        Evaluations(path, "x", ("a",))
    good = tmp_path / "good.jsonl"
    Evaluations(good, "x", ("a",)).put((8,), 1.5)
    good.write_bytes(good.read_bytes() + b'{"state": [7]}\n')
    with pytest.raises(AccelsimError, match="damaged"):
        Evaluations(good, "x", ("a",))
    with pytest.raises(AccelsimError, match="cannot be used"):
        Evaluations(tmp_path, "x", ("a",))


def test_formats_come_from_the_caller(network: Network) -> None:
    asked = []

    def format_of(net: Network, statistics, name: str, bits: int) -> Format:
        assert statistics.groups[name]
        asked.append((name, bits))
        narrow = {"b0.softmax": "r3p2", "b0.fc1": "u5"}
        return Format.parse(narrow.get(name, "u3") if bits == 3 else f"u{bits}")

    settings = WidthSettings(kinds=(ACTIVATION,), activation_widths=(8, 3))
    mixed = MixedNetwork(network, CALIBRATION, LABELLED, METHOD, settings, format_of=format_of)
    here = (8,) * len(mixed.components)
    plan = mixed.plan((3,) * len(here))
    rules = {name: plan.rule_for(network.workload.op_by_name[name]) for name in ("b0.softmax", "b0.fc1", "b1.fc1")}
    assert [(rule.output.name, rule.right.name) for rule in rules.values()] == [
        ("r3p2", "u8"),
        ("u5", "u5"),
        ("u3", "u3"),
    ]
    k = names(mixed, ACTIVATION).index("b0.fc1")
    assert mixed.checkpoint((*here[:k], 3, *here[k + 1 :])).stored["b0.fc1"].high == 15
    assert len(asked) == len(set(asked)) == 2 * len(here)  # a search for a format is made once


def test_the_choice_keeps_its_budget_and_is_what_quantize_makes(network: Network) -> None:
    reports = []
    found = choice(network, None, progress=lambda *one: reports.append(one))
    bits = [*found.weight_bits.values(), *found.tensor_bits.values()]
    assert sum(bits) / len(bits) == pytest.approx(found.point.cost)
    assert found.point.cost <= 5.5 == found.limit
    assert reports[-1][1] <= reports[-1][2] == 3 * len(bits)
    assert [one[1] for one in reports] == list(range(1, len(reports) + 1))
    assert found.note()["evaluations"] == found.trajectory.evaluations
    json.dumps(found.note())
    _, expected = quantize_plan(network, CALIBRATION, found.plan)
    images = LABELLED[0][0]
    assert torch.equal(Model(found.checkpoint())(images), Model(expected)(images))


def test_the_method_prepares_the_network(network: Network) -> None:
    settings = GreedySettings(WalkSettings("compressibility"), WidthSettings(weight_widths=(8, 4), kinds=(WEIGHT,)))
    found = greedy_plan(
        network, CALIBRATION, UNLABELLED, MNQ(), load_accelerator("m2vit"), Budget("avg_bits", 7.0), settings
    )
    assert len(found.mixed.network.nodes) == len(network.nodes) + 2  # GELUs as ops of their own
    assert found.point.cost <= 7


@pytest.mark.parametrize("kind", COSTS)
def test_costs_are_those_of_the_plan(network: Network, mixed: MixedNetwork, kind: str) -> None:
    accelerator = load_accelerator("m2vit")
    costs = PlanCosts(network.workload, accelerator, mixed.plan)
    state = some_state(mixed, 4)
    if kind == "layer_bits":
        assert costs.of(kind)(state) == pytest.approx(sum(state) / len(state))
        return
    assert costs.of(kind)(state) == pytest.approx(
        cost(Budget(kind, 1), network.workload, mixed.plan(state), accelerator)
    )
    assert costs.of(kind)((8,) * len(state)) > costs.of(kind)((4,) * len(state))


def test_a_state_is_simulated_once_for_all_kinds(network: Network, mixed: MixedNetwork, monkeypatch) -> None:
    import accelsim.api

    calls = []
    real = accelsim.api.simulate
    monkeypatch.setattr(accelsim.api, "simulate", lambda *given: calls.append(given) or real(*given))
    costs = PlanCosts(network.workload, load_accelerator("m2vit"), mixed.plan)
    for kind in ("latency_s", "energy_pj", "edp_pj_s", "edp_pj_s"):
        costs.of(kind)(some_state(mixed, 5))
    assert len(calls) == 1


def test_budgets_of_mean_widths_are_for_greedy_searches_only() -> None:
    assert parse_budget("layer_bits=5", COSTS) == Budget("layer_bits", 5.0)
    with pytest.raises(AccelsimError, match="unknown kind 'layer_bits'"):
        parse_budget("layer_bits=5")


def test_what_a_search_does_not_know_is_refused(network: Network) -> None:
    with pytest.raises(AccelsimError, match="kinds"):
        WidthSettings(kinds=("heads",))
    with pytest.raises(AccelsimError, match="descending"):
        WidthSettings(weight_widths=(4, 8))
    with pytest.raises(AccelsimError, match="lacks images"):
        mixed_of(network, [LABELLED[0], UNLABELLED[1]])
    with pytest.raises(AccelsimError, match="lacks images"):
        mixed_of(network, [])
    with pytest.raises(AccelsimError, match="tied branches"):
        replace_options(mixed_of(network), Calibration(tied_branches=True))
    with pytest.raises(InfeasibleError, match="least cost"):
        choice(network, None, budget=Budget("layer_bits", 2.0))
