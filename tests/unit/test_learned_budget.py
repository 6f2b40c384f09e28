"""Bit operations as published, the penalty, and whole widths that keep to a budget."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.workloads import build_workload
from quant.learned.budget import BitOperations, Budget, uniform_widths
from quant.learned.settle import CLOSE, settle
from quant.learned.sites import SiteOptions, sites_of
from tests.support.networks import tiny_vit

# Uniform budgets in G bit operations, first and last layer at 8 bits.  Source: the formula of Q-ViT's released code for
# 224 × 224 images and 1000 classes; the budget of its 4-bit DeiT-T is 21.455.
WIDTHS = (2, 3, 4, 5, 6, 8)
PUBLISHED = {
    "deit_tiny": ("6.760", "12.883", "21.455", "32.477", "45.947", "80.236"),
    "deit_small": ("21.887", "44.590", "76.375", "117.241", "167.189", "294.328"),
    "deit_base": ("77.238", "164.475", "286.607", "443.634", "635.556", "1124.085"),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("granularity", ["head", "layer"])
def test_bitops_budgets(name, granularity):
    workload = build_workload(name)
    sites, cost = sites_of(workload, SiteOptions(granularity=granularity)), BitOperations(workload)
    found = tuple(f"{cost.exact(uniform_widths(sites, bits)) / 1e9:.3f}" for bits in WIDTHS)
    assert found == PUBLISHED[name]


def random_widths(sites, seed):
    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(2, 9, (one.tables, one.heads), generator=random).double().requires_grad_()
        for name, one in sites.items()
    }


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_bit_operations_are_those_of_the_released_formula(seed):
    n, c, heads = 5, 12, 2
    workload = tiny_vit(depth=2).workload
    sites = sites_of(workload)
    b = random_widths(sites, seed)
    expected = (
        4 * (16 * c) * b["stored/image"] * b["weights/patch_embed"] + c * 10 * b["stored/norm"] * b["weights/head"]
    )
    for k in ("b0", "b1"):
        q, k_, v = b[f"stored/{k}.qkv"]
        w = b[f"weights/{k}.qkv"]
        expected = expected + n * c * c * (w.sum() / heads) * b[f"stored/{k}.norm1"]
        expected = expected + n * n * c * ((q * k_).mean() + (v * b[f"stored/{k}.softmax"][0]).mean())
        expected = expected + n * c * c * b[f"stored/{k}.values"].mean() * b[f"weights/{k}.proj"].mean()
        mlp = b[f"stored/{k}.norm2"] * b[f"weights/{k}.fc1"] + b[f"stored/{k}.fc1"] * b[f"weights/{k}.fc2"]
        expected = expected + n * 2 * c * c * mlp  # a hidden layer of twice the width here
    cost = BitOperations(workload)
    assert float(cost.of(b).detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    assert cost.exact(b) == pytest.approx(float(expected.detach()), rel=1e-12)
    cost.of(b).backward()
    assert all(bool((one.grad > 0).all()) for one in b.values())


@pytest.mark.parametrize("over", [0.7, 1.0, 1.0001, 1.5, 3.0])
def test_the_penalty_is_the_paper_s_for_4_bit_deit_t(over):
    workload = build_workload("deit_tiny")
    sites, cost = sites_of(workload), BitOperations(workload)
    limit = cost.exact(uniform_widths(sites, 4))

    class Scaled:
        name = "scaled"

        def of(self, widths):
            return over * cost.of(widths)

        exact = of

    paper = 0.1 * max(over * limit / 1e9 - limit / 1e9, 0) ** 2
    found = float(Budget(Scaled(), limit).penalty(uniform_widths(sites, 4)))
    assert found == pytest.approx(paper, rel=2e-3, abs=1e-9)
    assert float(Budget(Scaled(), limit, 0.4).penalty(uniform_widths(sites, 4))) == pytest.approx(4 * found)


def test_the_penalty_lowers_every_width_above_the_budget_and_none_below():
    workload = tiny_vit().workload
    sites, cost = sites_of(workload), BitOperations(workload)
    widths = {name: one.requires_grad_() for name, one in uniform_widths(sites, 5).items()}
    budget = Budget(cost, cost.exact(uniform_widths(sites, 4)))
    budget.penalty(widths).backward()
    assert all(bool((one.grad > 0).all()) for one in widths.values())
    widths = {name: one.requires_grad_() for name, one in uniform_widths(sites, 3).items()}
    budget.penalty(widths).backward()
    assert not any(bool(one.grad.any()) for one in widths.values())
    assert budget.spent(uniform_widths(sites, 4)) == 1.0


def test_floating_sites_count_32_bits():
    workload = tiny_vit(depth=1).workload
    cost, plain = BitOperations(workload), sites_of(workload)
    left = sites_of(workload, SiteOptions(floating=("gelu",)))
    more = cost.exact(uniform_widths(left, 4)) - cost.exact(uniform_widths(plain, 4))
    assert more == 5 * 24 * 12 * 4 * (32 - 4)


# Settling


def settled(spread, share, seed=0):
    workload = tiny_vit(depth=1).workload
    sites, cost = sites_of(workload), BitOperations(workload)
    random = torch.Generator().manual_seed(seed)
    real = {
        name: one + (0 if sites[name].pinned else spread * (torch.rand(one.shape, generator=random) - 0.5))
        for name, one in uniform_widths(sites, 5).items()
    }
    pinned = {name: one.pinned for name, one in sites.items()}
    budget = Budget(cost, share * cost.exact(uniform_widths(sites, 5)))
    return real, settle(real, budget, pinned), budget, pinned, cost


@settings(deadline=None, max_examples=8)
@given(spread=st.sampled_from([0.0, 1.0, 4.0, 9.0]), share=st.floats(0.5, 2.4), seed=st.integers(0, 999))
def test_settled_widths_keep_to_the_budget_and_use_it(spread, share, seed):
    real, whole, budget, pinned, _ = settled(spread, share, seed)
    for name, one in whole.items():
        assert torch.equal(one, one.round())
        assert 2 <= float(one.min()) <= float(one.max()) <= 8
        if pinned[name]:
            assert torch.equal(one, real[name])
    assert budget.spent(whole) <= 1
    if budget.spent(whole) < CLOSE:
        for name, one in whole.items():  # no part can have one bit more
            for place in range(one.numel()):
                if not pinned[name] and one.view(-1)[place] < 8:
                    wider = one.clone()
                    wider.view(-1)[place] += 1
                    assert budget.spent({**whole, name: wider}) > 1
    again = settle(whole, budget, pinned)
    assert all(torch.equal(again[name], one) for name, one in whole.items())


def test_widths_that_fit_are_only_rounded():
    real, whole, budget, _, _ = settled(0.8, 1.0)
    nearest = {name: one.round() for name, one in real.items()}
    assert budget.spent(nearest) == 1.0
    assert all(torch.equal(whole[name], one) for name, one in nearest.items())


def test_the_part_nearest_to_the_next_width_changes_first():
    real, _, _, pinned, cost = settled(0.0, 1.0)
    real["stored/b0.softmax"] = torch.tensor([[5.0, 4.6]])
    real["stored/b0.fc1"] = torch.tensor([[5.4]])
    rounded = {name: one.round() for name, one in real.items()}
    tight = Budget(cost, cost.exact(rounded) - 1)
    whole = settle(real, tight, pinned)
    less = {name: rounded[name] - one for name, one in whole.items()}
    assert {name: one.tolist() for name, one in less.items() if bool(one.any())} == {"stored/b0.softmax": [[0.0, 1.0]]}
    wide = Budget(cost, cost.exact(rounded) * 1.05)
    whole = settle(real, wide, pinned)
    assert float(whole["stored/b0.fc1"]) == 6


def test_a_budget_that_cannot_be_kept_ends_at_the_narrowest():
    _, whole, budget, pinned, _ = settled(1.0, 0.1)
    assert budget.spent(whole) > 1
    assert all(bool((one == 2).all()) for name, one in whole.items() if not pinned[name])
