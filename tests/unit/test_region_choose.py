"""OPT-m: both searches, what they cannot lose to, weights from slopes, and untied steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from accelsim.formats import two_region
from accelsim.problems import AccelsimError
from quant.collect import SAMPLE, Statistics, WeightedSample
from quant.functional import fake_quantize
from quant.network import Network, forward, run
from quant.observers import Observed, minmax, mse
from quant.regions.choose import FACTORS, Sample, choose, exact_errors, sample_of, surrogate_errors
from quant.regions.codes import region_range, region_values
from quant.regions.slopes import slopes
from quant.regions.untied import UntiedSteps, released_softmax, untied_steps
from quant.sensitivity.gradients import gradients
from tests.support.networks import images_of, tiny_vit


def gelu_sample(seed: int, count: int = 4000) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return F.gelu(torch.randn(count, generator=random) * (1 + seed % 3) - 0.5)


def softmax_sample(seed: int, count: int = 4000) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.softmax(torch.randn(count // 20, 20, generator=random) * (1 + seed % 3), -1).flatten()


def sample(low_negative: bool, seed: int) -> Tensor:
    return gelu_sample(seed) if low_negative else softmax_sample(seed)


def direct_error(values: Tensor, step: float, shift: int, bits: int, low_negative: bool, weights: Tensor) -> float:
    fmt = two_region(bits, shift, low_negative)
    found = region_values(values.double(), torch.tensor(step, dtype=torch.float64), fmt)
    return float(((found - values.double()) ** 2 * weights.double()).sum())


@pytest.mark.parametrize("low_negative", [True, False])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_the_exact_search_finds_what_trying_everything_finds(low_negative: bool, bits: int) -> None:
    values = sample(low_negative, bits)[:300]
    weights = torch.rand(300, generator=torch.Generator().manual_seed(bits)) ** 3
    shifts = (0, 2, 3, 7)
    tried = {}
    for m in shifts:
        top = max(float(values.max()), -float(values.min()) if low_negative else 0.0)
        base = top / region_range(two_region(bits, m, low_negative))[1]
        for step in (np.float32(base * factor) for factor in FACTORS):
            tried[m, float(step)] = direct_error(values, float(step), m, bits, low_negative, weights)
    found = choose(values, bits, low_negative, weights, shifts=shifts)
    assert found.error == pytest.approx(min(tried.values()), rel=1e-9)
    assert tried[found.region_shift, found.step] == pytest.approx(found.error, rel=1e-9)
    for m in shifts:
        fixed = choose(values, bits, low_negative, weights, fixed=m)
        assert fixed.region_shift == m
        assert fixed.error == pytest.approx(min(e for (k, _), e in tried.items() if k == m), rel=1e-9)
        assert found.error <= fixed.error * (1 + 1e-9)


@settings(deadline=None, max_examples=30)
@given(st.booleans(), st.integers(3, 8), st.integers(0, 100), st.booleans())
def test_the_exact_search_cannot_lose_to_a_uniform_format_or_to_the_other_search(
    low_negative: bool, bits: int, seed: int, weighted: bool
) -> None:
    values = sample(low_negative, seed)
    weights = torch.rand(len(values), generator=torch.Generator().manual_seed(seed)) if weighted else None
    found = choose(values, bits, low_negative, weights)
    assert found.error <= choose(values, bits, low_negative, weights, "closed_form").error * (1 + 1e-9)
    for uniform in (minmax(values, bits, symmetric=True), mse(values, bits, symmetric=True)):
        error = (fake_quantize(values, uniform) - values).double() ** 2
        assert found.error <= float((error if weights is None else error * weights).sum()) * (1 + 1e-5)


@pytest.mark.parametrize(
    ("low_negative", "bits", "within", "worst"),
    [(True, 4, 0.01, 1.06), (True, 6, 0.01, 1.06), (False, 4, 0.20, 1.20), (False, 6, 0.08, 1.20)],
)
def test_the_closed_form_is_close_on_smooth_samples(low_negative: bool, bits: int, within: float, worst: float) -> None:
    """`within`: median relative error of the surrogate; `worst`: what its choice costs at most, of 20 samples."""
    apart, cost = [], []
    for seed in range(20):
        values = sample(low_negative, seed)
        best = choose(values, bits, low_negative)
        ordered, steps = Sample(values), best.step * np.array([0.8, 1.0, 1.1])
        for m in (2, 3, 4):
            fmt = two_region(bits, m, low_negative)
            exact = exact_errors(ordered, steps, fmt)
            apart += (abs(surrogate_errors(ordered, steps, fmt) - exact) / exact).tolist()
        cost.append(choose(values, bits, low_negative, search="closed_form").error / best.error)
    assert np.median(apart) < within, np.median(apart)
    assert max(cost) < worst, max(cost)


def test_a_sample_of_few_values_keeps_them_all() -> None:
    values = torch.tensor([-0.3, -0.1, 0.0, 0.8, 1.6, 5.6])  # 0.1 times -3, -1 and 0, 8, 16, 56
    found = choose(values, 4, True)
    assert found.region_shift == 3
    assert found.step == pytest.approx(0.1)
    assert found.error < 1e-12


def test_heavy_values_draw_the_step_to_themselves() -> None:
    values = torch.cat([torch.linspace(0, 0.1, 500), torch.linspace(0.1, 1, 500)])
    small = choose(values, 4, False, torch.where(values < 0.1, 1.0, 1e-6))
    large = choose(values, 4, False, torch.where(values < 0.1, 1e-6, 1.0))
    assert small.step < large.step / 4


@pytest.mark.parametrize("low_negative", [True, False])
def test_a_tensor_of_zeros_gets_step_one(low_negative: bool) -> None:
    found = choose(torch.zeros(5), 4, low_negative)
    assert (found.step, found.region_shift, found.error) == (1.0, 0, 0.0)
    below = choose(torch.full((5,), -1.0), 4, False)
    assert (below.step, below.error) == (1.0, 5.0)


def test_what_is_only_negative_still_has_a_range() -> None:
    values = -torch.linspace(0, 0.16, 100)
    found = choose(values, 5, True)
    assert found.error < float(mse(values, 5, symmetric=True).scale) ** 2 / 12 * 101


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"bits": 9}, "9 bits"),
        ({"fixed": 16}, "0 to 15"),
        ({"shifts": ()}, "shifts"),
        ({"search": "both"}, "closed_form"),
        ({"values": torch.tensor([])}, "no values"),
        ({"values": torch.tensor([1.0, torch.nan])}, "not finite"),
        ({"weights": torch.tensor([1.0])}, "weights"),
        ({"weights": torch.tensor([1.0, -1.0])}, "negative"),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], match: str) -> None:
    given_: dict[str, object] = {"values": torch.tensor([0.1, 0.2]), "bits": 4, "low_negative": False}
    with pytest.raises(AccelsimError, match=match):
        choose(**{**given_, **change})  # type: ignore[arg-type]


def test_weights_come_from_the_sample_of_slopes_where_there_is_one() -> None:
    seen = Observed(capacity=10)
    seen.update(torch.arange(4.0))
    weighted = WeightedSample(torch.ones(2), torch.tensor([0.0, 3.0]))
    values, none = sample_of(Statistics(groups={"x": [seen]}), "x")
    assert sorted(values.tolist()) == [0.0, 1.0, 2.0, 3.0]
    assert none is None
    assert sample_of(Statistics(groups={"x": [seen]}, slopes={"x": weighted}), "x") == (
        weighted.values, weighted.weights,
    )  # fmt: skip


def test_slopes_are_those_of_single_images() -> None:
    """The weighted sum of any function of the values is that of all values, to the accuracy of sampling."""
    network, name = tiny_vit(), "b0.fc1"
    batches = list(torch.split(images_of(network, 24), 8))
    found = slopes(network, batches, [name, "b1.softmax"])
    assert set(found) == {name, "b1.softmax"}
    single = [_slope_of_one(network, image, name) for image in torch.split(torch.cat(batches), 1)]
    values, squares = torch.cat([v for v, _ in single]), torch.cat([s for _, s in single]).double()
    one = found[name]
    assert one.values.shape == one.weights.shape == (SAMPLE // 3 * 3,)
    for f in (torch.ones_like, torch.relu, torch.square):
        ours = float((f(one.values).double() * one.weights).mean())
        theirs = float((f(values).double() * squares).sum() / squares.sum())
        assert ours == pytest.approx(theirs, rel=0.05)
    again = slopes(network, batches, [name, "b1.softmax"])[name]
    assert again.values.equal(one.values)
    assert again.weights.equal(one.weights)
    # Few values have most of the weight: an even sample would have kept only some of them.
    assert float(squares.sort(descending=True).values[: len(squares) // 10].sum() / squares.sum()) > 0.5
    assert float(one.weights.max()) < 6.0
    # Half of the draws are even: values without a slope are there, too.
    assert 0.1 < float((one.weights < 0.1).double().mean()) < 0.5


def _slope_of_one(network: Network, image: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The tensor of one image, and the squares of the slopes of its loss."""
    with torch.no_grad():
        choice = forward(network, image).argmax(1)
        values = run(network, image, keep=[name])[name]
    op = next(node.name for node in network.nodes if node.op.output == name)
    slope = gradients(network, image, choice, [op]).stored[op]
    return values.flatten(), slope.flatten() ** 2


# Untied steps


def test_untied_steps_after_gelu() -> None:
    values = gelu_sample(1)
    found = untied_steps(values, 4, True)
    assert found.low_step == pytest.approx(0.16997 / 8)
    assert found.split == 0.0
    tops = (factor * float(values.max()) / 7.5 for factor in np.linspace(0.01, 1.2, 100))
    tried = [UntiedSteps(0.16997 / 8, float(top), 0.0, 4, True) for top in tops]
    best = min(tried, key=lambda one: float(((one.values(values) - values) ** 2).sum()))
    assert found.high_step == pytest.approx(best.high_step)
    shown = UntiedSteps(0.02, 0.5, 0.0, 4, True).values(torch.tensor([-0.3, -0.031, -0.0, 0.2, 0.3, 9.0]))
    assert shown.tolist() == pytest.approx([-0.16, -0.04, 0.0, 0.0, 0.5, 3.5])


def test_untied_steps_of_shares() -> None:
    values = softmax_sample(2)
    found = untied_steps(values, 4, False)
    tried = {s: UntiedSteps(s / 7, 1 / 7, s, 4, False) for s in (2.0**-k for k in range(20))}
    errors = {s: float(((one.values(values) - values) ** 2).sum()) for s, one in tried.items()}
    assert found == tried[min(errors, key=lambda s: errors[s])]
    shown = UntiedSteps(0.25 / 7, 1 / 7, 0.25, 4, False).values(torch.tensor([0.0, 0.1, 0.2499, 0.25, 0.55, 1.0]))
    assert shown.tolist() == pytest.approx([0, 3 * 0.25 / 7, 0.25, 2 / 7, 4 / 7, 1])


def test_weights_decide_between_splits() -> None:
    values = torch.cat([torch.linspace(0, 0.02, 200), torch.linspace(0.1, 1, 200)])
    small, large = torch.where(values < 0.1, 1.0, 0.0), torch.where(values < 0.1, 0.0, 1.0)
    assert untied_steps(values, 4, False, small).split < 0.1
    assert untied_steps(values, 4, False, large).split > 0.1


def test_the_released_softmax_adds_both_halves() -> None:
    """Right only where split · (q − 1) < ½; elsewhere a large share is too large by about split."""
    x = torch.linspace(0, 1, 1001)
    fine = UntiedSteps(2.0**-5 / 7, 1 / 7, 2.0**-5, 4, False)  # split · 7 = 0.22
    coarse = UntiedSteps(0.25 / 7, 1 / 7, 0.25, 4, False)  # split · 7 = 1.75
    below = x < fine.split
    assert torch.allclose(released_softmax(x, fine)[below], fine.values(x)[below])
    assert torch.allclose(released_softmax(x, fine)[~below], fine.values(x)[~below] + fine.split)
    large = x >= coarse.split
    assert torch.allclose(released_softmax(x, coarse)[large], coarse.values(x)[large] + 0.25)
    assert torch.allclose(released_softmax(x, coarse)[~large], coarse.values(x)[~large] + round(1.75) / 7)


def test_untied_steps_pass_gradients_inside_their_range() -> None:
    x = torch.tensor([-1.0, -0.1, 0.3, 9.0], requires_grad=True)
    steps = UntiedSteps(0.02, 0.5, 0.0, 4, True)
    shown = steps.values(x)
    shown.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
