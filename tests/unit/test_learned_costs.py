"""Costs of learned widths on a target: lines between modes, slopes that push towards them, calibration, limits."""

from __future__ import annotations

from functools import cache
from statistics import median

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import simulate
from accelsim.config import load_accelerator
from accelsim.optable import op_table
from accelsim.problems import AccelsimError, InfeasibleError
from codesign.budgets import Budget
from codesign.learned.costs import TargetCost
from codesign.learned.modes import knots_of, modes_of
from codesign.learned.tables import WidthTable
from codesign.learned.target import limits_of
from quant.finetune.settings import FineTune
from quant.learned import budget as learned
from quant.learned.budget import uniform_widths
from quant.learned.export import export
from quant.learned.plans import WidthPlans
from quant.learned.settings import LearnBits
from quant.learned.settle import _lower, _nearest
from quant.learned.sites import SiteOptions
from quant.learned.train import learn_bits
from tests.support.finetuning import data_for
from tests.support.networks import images_of, tiny_vit

NETWORK = tiny_vit(depth=1, dim=64, heads=4)
MODES = ((2, 4, 8), (2, 4, 8))


@cache
def cost_of(kind="latency_s", modes="snap", arch="bitfusion_edge", granularity="head"):
    return TargetCost(kind, NETWORK, load_accelerator(arch), SiteOptions(granularity=granularity), modes)


def random_widths(sites, seed, choice=range(2, 9)):
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor(list(choice), dtype=torch.float32)
    found = uniform_widths(sites, 8)
    for name, one in found.items():
        if not sites[name].pinned:
            found[name] = values[torch.randint(len(values), one.shape, generator=generator)]
    return found


def test_modes_are_where_engines_change_what_they_do():
    assert modes_of(load_accelerator("bitfusion_edge")) == MODES
    assert modes_of(load_accelerator("trio_vit")) == ((8,), (8,))
    assert modes_of(load_accelerator("m2vit")) == ((8,), (4, 8))
    assert knots_of((2, 4, 8)) == (2, 4, 8)
    assert knots_of((4, 8)) == (2, 3, 4, 8)
    assert knots_of((8,)) == tuple(range(2, 9))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 10), min_size=18, max_size=18), st.floats(2, 8), st.floats(2, 8))
def test_tables_are_exact_at_modes_and_lines_between(values, left, right):
    table = WidthTable((2, 4, 8), (2, 4, 8), torch.tensor(values, dtype=torch.float64).reshape(1, 3, 3, 2), 0.0)

    def at(a, b):
        return table.at(torch.tensor([0]), torch.tensor([a]).double(), torch.tensor([b]).double())[0]

    for i, a in enumerate(table.left):
        for j, b in enumerate(table.right):
            assert torch.allclose(at(float(a), float(b)), table.values[0, i, j])
    # On the line from 4 to 8 bits every width has the slope of the modes, also where the hardware's cost is flat.
    assert torch.allclose(at(6.0, right), (at(4.0, right) + at(8.0, right)) / 2)
    assert torch.allclose(at(left, 3.0), (at(left, 2.0) + at(left, 4.0)) / 2)


def test_slopes_are_those_of_the_modes_and_at_a_mode_what_a_narrower_width_saves():
    values = torch.tensor([1.0, 2.0, 6.0]).double().reshape(1, 3, 1, 1).expand(1, 3, 3, 2)
    table = WidthTable((2, 4, 8), (2, 4, 8), values, 0.0)
    for bits, slope in ((2.0, 0.5), (3.0, 0.5), (4.0, 0.5), (5.0, 1.0), (6.0, 1.0), (8.0, 1.0)):
        width = torch.tensor([bits]).double().requires_grad_()
        table.at(torch.tensor([0]), width, torch.tensor([5.0]).double())[0, 0].backward()
        assert float(width.grad) == pytest.approx(slope)


@pytest.mark.parametrize("kind", ["latency_s", "energy_pj", "edp_pj_s"])
def test_uniform_plans_of_modes_are_estimated_as_they_are_simulated(kind):
    cost = cost_of(kind)
    for bits in (2, 4, 8):
        estimate = float(cost.of(uniform_widths(cost.plans.sites, bits))) / cost.scale
        assert estimate == pytest.approx(cost.uniform(bits), rel=0.02)


@pytest.mark.parametrize("granularity", ["head", "layer"])
@pytest.mark.parametrize("kind", ["latency_s", "edp_pj_s"])
def test_no_wider_width_is_estimated_cheaper(kind, granularity):
    cost = cost_of(kind, granularity=granularity)
    for seed in range(4):
        widths = {name: one.requires_grad_() for name, one in random_widths(cost.plans.sites, seed).items()}
        cost.of(widths).backward()
        slopes = torch.cat([one.grad.flatten() for one in widths.values() if one.grad is not None])
        assert bool((slopes >= 0).all())
        assert bool((slopes > 0).any())


def test_the_penalty_pushes_widths_between_modes_down_though_the_hardware_gains_nothing_there():
    cost = cost_of()
    sites = cost.plans.sites
    budget = learned.Budget(cost, cost.uniform(4))
    widths = {name: one.requires_grad_() for name, one in uniform_widths(sites, 6).items()}
    budget.penalty(widths).backward()
    for name in ("weights/b0.qkv", "weights/b0.fc1", "weights/b0.fc2"):
        assert bool((widths[name].grad > 0).all())
    assert widths["weights/head"].grad is None or bool((widths["weights/head"].grad == 0).all())


def test_the_estimate_is_scaled_to_random_plans():
    cost = cost_of()
    assert cost.ratio[1] <= cost.ratio[0] == cost.scale <= cost.ratio[2]
    plans = [random_widths(cost.plans.sites, 100 + k, (2, 4, 8)) for k in range(12)]
    ratios = [cost.exact(one) / float(cost.of(one)) for one in plans]
    assert median(ratios) == pytest.approx(1, abs=0.1)


def test_a_plan_is_simulated_once():
    cost = cost_of("energy_pj")
    widths = random_widths(cost.plans.sites, 7)
    first = cost.exact(widths)
    before = cost.simulations
    assert cost.exact({name: one.clone() for name, one in widths.items()}) == first
    assert cost.figures(widths)["energy_pj"] == first
    assert cost.simulations == before


def test_widths_go_up_where_that_costs_nothing():
    cost = cost_of()
    widths = random_widths(cost.plans.sites, 3, (3, 5, 6, 7))
    fixed = {"weights/b0.fc1": True}
    found = cost.raised(widths, fixed)
    assert cost.exact(found) <= cost.exact(widths) * (1 + 1e-9)
    assert bool((found["weights/b0.fc1"] == widths["weights/b0.fc1"]).all())
    assert all(bool((found[name] >= widths[name]).all()) for name in widths)
    gained = sum(float((found[name] - widths[name]).sum()) for name in widths)
    assert gained > 0
    free = cost_of(modes="free").raised(widths, {})
    assert all(bool((free[name] == widths[name]).all()) for name in widths)


def test_unreachable_budgets_name_the_least_figure():
    least = min(cost_of().uniform(bits) for bits in range(2, 9))
    asked = (NETWORK, load_accelerator("bitfusion_edge"), SiteOptions(), "snap")
    with pytest.raises(InfeasibleError, match=f"{least:.6g} is the least"):
        limits_of(Budget("latency_s", 0.5 * least), *asked)
    limits = limits_of(Budget("latency_s", cost_of().uniform(4)), *asked)
    assert limits.start_bits > 4
    assert limits.target["binds"]
    assert not limits.target["flat"]
    plenty = limits_of(Budget("latency_s", 10 * cost_of().uniform(8)), *asked)
    assert plenty.start_bits == 8
    assert not plenty.target["binds"]


@pytest.mark.parametrize("kind", ["latency_s", "energy_pj"])
def test_learned_widths_keep_to_the_simulated_budget_and_the_exported_plan_costs_the_same(kind):
    cost = cost_of(kind)
    budget = learned.Budget(cost, cost.uniform(5) * 0.97)
    options = LearnBits(6, frozen_share=0.5)
    found = learn_bits(NETWORK, data_for(NETWORK), FineTune(steps=2, batch=16), options, budget)
    assert budget.spent(found.widths()) <= 1
    plan, checkpoint = export(found, [images_of(NETWORK, 16)])
    metrics = simulate(op_table(checkpoint.network.workload, plan), load_accelerator("bitfusion_edge")).metrics()
    assert metrics[kind] == pytest.approx(cost.exact(found.widths()), rel=0.01)


class Counted(learned.BitOperations):
    """Bit operations that count how often they are asked for."""

    def __init__(self, workload):
        super().__init__(workload)
        self.asked = 0

    def exact(self, widths):
        self.asked += 1
        return super().exact(widths)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.floats(0.15, 1.2))
def test_settling_lowers_as_bit_by_bit_with_few_evaluations(seed, share):
    cost = Counted(NETWORK.workload)
    real = random_widths(cost_of().plans.sites, seed)
    generator = torch.Generator().manual_seed(seed)
    real = {name: one - 0.4 * torch.rand(one.shape, generator=generator) for name, one in real.items()}
    budget = learned.Budget(cost, share * cost.exact({name: one.round() for name, one in real.items()}))
    slow = {name: one.clamp(2, 8).round() for name, one in real.items()}
    free, moves = [name for name in real if "head" not in name], 0
    while budget.spent(slow) > 1 and (found := _nearest(real, slow, free, -1)):
        slow[found[0]].view(-1)[found[1]] -= 1
        moves += 1
    whole = {name: one.clamp(2, 8).round() for name, one in real.items()}
    cost.asked = 0
    _lower(real, whole, budget, free)
    assert all(bool((whole[name] == slow[name]).all()) for name in real)
    assert cost.asked <= 3 * (moves + 2).bit_length()


def test_what_no_plan_can_express_is_refused():
    for options in (SiteOptions(head_axis="code"), SiteOptions(floating=("gelu",))):
        with pytest.raises(AccelsimError, match="plan of learned widths"):
            WidthPlans(NETWORK, options)
    with pytest.raises(AccelsimError, match="unknown bops"):
        TargetCost("bops", NETWORK, load_accelerator("tiny"), SiteOptions())
