"""Products of real networks: which there are, what their widths cost, and plans from the frontier."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from accelsim.config import load_accelerator
from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.workloads.vit import Variant
from codesign.budgets import Budget
from codesign.frontier.allocation import priced
from codesign.frontier.products import ProductNetwork
from codesign.frontier.search import (
    CACHE,
    TABLE,
    FrontierPlan,
    FrontierSettings,
    component_errors,
    frontier_plan,
    measured,
)
from codesign.greedy.costs import COSTS, PlanCosts
from codesign.greedy.mixed import ACTIVATION, WEIGHT, MixedNetwork, WidthSettings
from codesign.greedy.trajectory import State
from quant.capture import capture
from quant.costs import bit_operations
from quant.methods.pmq import PMQ
from quant.models.vit import VisionTransformer
from quant.network import Network
from quant.quantize import quantize
from quant.sensitivity.table import load_table
from tests.support.networks import tiny_hybrid

WIDTHS = (8, 6, 4, 3)
ACCELERATOR = load_accelerator("m2vit")
OF_BLOCK = ("qkv", "scores", "values", "proj", "fc1", "fc2")


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = VisionTransformer(Variant(16, 2, 2, patch=8, classes=6, in_channels=1), 16).eval()
        with torch.no_grad():  # as training leaves it: errors that differ between layers
            for value in model.parameters():
                value.add_(0.1 * torch.randn(value.shape))
    return capture(model, (1, 16, 16))


def pictures(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


IMAGES = [pictures(12, 1), pictures(8, 2)]
CALIBRATION = [pictures(16, 3)]


def products_of(network: Network, images: list[Tensor], kind: str = "bops", **settings: Any) -> ProductNetwork:
    chosen = WidthSettings(weight_widths=WIDTHS, activation_widths=WIDTHS, **settings)
    mixed = MixedNetwork(network, images, [(one, None) for one in images], PMQ(), chosen)
    return ProductNetwork(mixed, PlanCosts(network.workload, ACCELERATOR, mixed.plan).of(kind))


@pytest.fixture(scope="module")
def of_transformer(network: Network) -> ProductNetwork:
    return products_of(network, IMAGES)


@pytest.fixture(scope="module")
def of_hybrid() -> ProductNetwork:
    hybrid = tiny_hybrid()
    return products_of(hybrid, [torch.randn(6, *hybrid.image_shape, generator=torch.Generator().manual_seed(0))])


def some_state(products: ProductNetwork, seed: int) -> State:
    draw = torch.Generator().manual_seed(seed)
    return tuple(WIDTHS[int(torch.randint(len(WIDTHS), (), generator=draw))] for _ in products.components)


def parts(products: ProductNetwork) -> dict[str, set[str]]:
    names = [one.name for one in products.mixed.components]
    return {one.component.name: {names[k] for k in one.parts} for one in products.products}


def test_components_of_a_transformer(of_transformer: ProductNetwork) -> None:
    found = parts(of_transformer)
    blocks = [f"b{k}.{op}" for k in range(2) for op in OF_BLOCK]
    assert list(found) == ["patch_embed", *blocks, "head"]
    assert found["patch_embed"] == {"weight:patch_embed"}
    assert found["b1.qkv"] == {"weight:b1.qkv", "activation:b1.norm1"}
    assert found["b1.scores"] == {"activation:b1.qkv"}
    assert found["b1.values"] == {"activation:b1.softmax"}
    assert found["b1.fc2"] == {"weight:b1.fc2", "activation:b1.fc1"}
    assert found["head"] == {"weight:head", "activation:norm"}
    together = [[of_transformer.components[k].name for k in one] for one in of_transformer.coupled if len(one) > 1]
    assert together == [["b0.scores", "b0.values"], ["b1.scores", "b1.values"]]


def test_components_of_a_hybrid(of_hybrid: ProductNetwork) -> None:
    found = parts(of_hybrid)
    assert sorted(name for some in found.values() for name in some) == sorted(
        one.name for one in of_hybrid.mixed.components
    )
    joined = [one for one in of_hybrid.products if len(one.members) > 1]
    assert [one.members[1].split(".")[-1] for one in joined] == ["KtV"] * len(joined)  # it reads the aggregated values
    assert joined
    assert any("QKV" in of_hybrid.components[k].name for one in of_hybrid.coupled if len(one) > 1 for k in one)


@pytest.mark.parametrize("name", ["of_transformer", "of_hybrid"])
def test_bit_operations_add_up_over_coupled_groups(name: str, request: pytest.FixtureRequest) -> None:
    products: ProductNetwork = request.getfixturevalue(name)
    first = tuple(8 for _ in products.components)
    groups, options = priced(products, [torch.zeros(4).numpy()] * len(first), first)
    for seed in range(5):
        state = some_state(products, seed)
        predicted = products.cost(first)
        for members, some, group in zip(products.coupled, options, groups, strict=True):
            predicted += float(group.costs[some.index(tuple(state[k] for k in members))])
        assert predicted == products.cost(state)
        quantized = apply_plan(products.mixed.network.workload, products.plan(state))
        assert predicted == bit_operations(quantized)


def test_a_plan_has_the_widths_of_its_state(of_transformer: ProductNetwork) -> None:
    state = some_state(of_transformer, 3)
    by_name = dict(zip((one.name for one in of_transformer.components), state, strict=True))
    quantized = apply_plan(of_transformer.mixed.network.workload, of_transformer.plan(state))
    for item in quantized.ops:
        if item.op.name in by_name and item.weights:
            assert item.weights[0].format.bits == by_name[item.op.name]
            if item.op.name != "patch_embed":
                assert item.activation.bits == by_name[item.op.name]
        if item.op.name.endswith("values"):
            assert (item.activation.bits, item.right.bits) == (
                by_name[item.op.name], by_name[item.op.name.replace("values", "scores")],
            )  # fmt: skip


def test_errors_of_a_component_are_those_of_its_members(of_hybrid: ProductNetwork) -> None:
    table = measured(of_hybrid, [images for images, _ in of_hybrid.mixed.images])
    errors = component_errors(of_hybrid, table)
    (joined,) = [one for one in of_hybrid.products if len(one.members) > 1][:1]
    single = {(row.component.name, row.bits): row.values["logit_l2"] for row in table.rows}
    assert errors[joined.component.name, 4] == sum(single[name, 4] for name in joined.members)
    assert all(single[name, 4] > 0 for name in joined.members)
    assert set(errors) == {(one.name, bits) for one in of_hybrid.components for bits in WIDTHS}


def plan_of(network: Network, budget: Budget, folder: Path | None = None, **settings: Any) -> FrontierPlan:
    chosen = FrontierSettings(widths=WIDTHS, **settings)
    return frontier_plan(network, CALIBRATION, IMAGES, PMQ(), ACCELERATOR, budget, chosen, folder)


def test_budgets_of_every_kind_are_met(network: Network, tmp_path: Path) -> None:
    for kind in COSTS:
        wide = products_of(network, IMAGES, kind, **({"kinds": (WEIGHT,)} if kind in ("size_bits", "avg_bits") else {}))
        costs = [wide.cost(tuple(bits for _ in wide.components)) for bits in (8, 3)]
        budget = Budget(kind, 5 if kind == "uniform" else sum(costs) / 2)
        found = plan_of(network, budget, tmp_path)
        assert wide.cost(found.choice.state) == found.choice.cost <= found.limit
        assert len(set(found.choice.state)) > 1
    assert load_table(tmp_path / TABLE).metrics[0].name == "logit_l2"


def test_the_choice_is_no_worse_than_one_width_for_all(network: Network) -> None:
    found = plan_of(network, Budget("uniform", 6))
    errors = component_errors(found.network, found.table)
    six = tuple(6 for _ in found.choice.state)
    assert found.network.cost(six) == found.limit
    assert found.choice.error < sum(errors[one.name, 6] for one in found.network.components)
    note = found.note()
    assert 0.2 < note["output_error"] / note["error"] < 5
    assert note["least_error"] <= note["error"]


def test_the_method_makes_the_same_plan_and_checkpoint(network: Network) -> None:
    found = plan_of(network, Budget("uniform", 5))
    method = PMQ(weight_widths=found.weight_bits, widths=found.tensor_bits)
    plan, checkpoint = quantize(network, CALIBRATION, method)
    assert plan.fingerprint() == found.plan.fingerprint()
    mine = found.checkpoint()
    assert checkpoint.stored == mine.stored or all(
        torch.equal(checkpoint.stored[name].scale, mine.stored[name].scale) for name in mine.stored
    )
    assert all(torch.equal(one.integers, mine.filters[name].integers) for name, one in checkpoint.filters.items())


def test_storage_budgets_choose_filters_only(network: Network) -> None:
    found = plan_of(network, Budget("avg_bits", 5))
    assert found.tensor_bits == {}
    assert found.network.kind == "weight"
    assert len(found.weight_bits) == len([node for node in network.nodes if node.has_filters])


def test_a_killed_measurement_goes_on_to_the_same_choice(network: Network, tmp_path: Path) -> None:
    whole = plan_of(network, Budget("uniform", 5), tmp_path)
    with sqlite3.connect(tmp_path / CACHE) as cache:
        cache.execute("delete from result where rowid % 2 = 0")
    seen: list[str] = []
    again = frontier_plan(
        network, CALIBRATION, IMAGES, PMQ(), ACCELERATOR, Budget("uniform", 5), FrontierSettings(widths=WIDTHS),
        tmp_path, progress=lambda what, done, total: seen.append(what),
    )  # fmt: skip
    assert set(seen) == {"frontier: errors"}
    assert again.note() == whole.note()
    assert again.plan.fingerprint() == whole.plan.fingerprint()


@pytest.mark.parametrize("metric", ["kl", "gradient", "fisher"])
def test_other_metrics_need_no_labels(network: Network, metric: str) -> None:
    found = plan_of(network, Budget("uniform", 5), metric=metric)
    assert found.note()["metric"] == metric
    assert found.choice.cost <= found.limit


def test_faults_are_named(network: Network, tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError, match="the least cost is"):
        plan_of(network, Budget("layer_bits", 2), tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for metric in ("logit_sqnr_db", "cross_entropy"):
        with pytest.raises(AccelsimError, match="an error that adds up"):
            plan_of(network, Budget("uniform", 5), metric=metric)
    chosen = WidthSettings(weight_widths=(8, 4), activation_widths=(8, 6))
    mixed = MixedNetwork(network, IMAGES, [(one, None) for one in IMAGES], PMQ(), chosen)
    with pytest.raises(AccelsimError, match="the same widths"):
        ProductNetwork(mixed, lambda state: 0.0)
    for given in (WidthSettings(full=True), WidthSettings(ends=False), WidthSettings((ACTIVATION,))):
        with pytest.raises(AccelsimError, match="are not all products"):
            ProductNetwork(MixedNetwork(network, IMAGES, [(one, None) for one in IMAGES], PMQ(), given), lambda _: 0.0)
