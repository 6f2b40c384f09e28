"""Measured penalties on tiny networks: what the numbers are, order of formats, going on after an interruption."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from accelsim.formats import Format
from accelsim.plan import WeightShare
from accelsim.problems import AccelsimError
from quant.calibrate import Calibration
from quant.calibrated import Filters
from quant.network import Numerics, forward
from quant.penalties.assemble import split
from quant.penalties.curvature import filter_losses
from quant.penalties.measure import make_base, measure_penalties
from quant.penalties.settings import Settings
from quant.penalties.table import load_penalties
from quant.quantize import quantize_plan
from tests.support.networks import images_of, tiny_hybrid, tiny_vit

FEW = Settings(formats=("u8", "u4"), activation_formats=("u8", "u4"))


def images(network, seed=1):
    return list(images_of(network, 12, seed).split(6))


@pytest.fixture(scope="module")
def hybrid():
    return tiny_hybrid()


@pytest.fixture(scope="module")
def table(hybrid):
    return measure_penalties(hybrid, images(hybrid), images(hybrid, 2), FEW)


class Rounded(Numerics):
    """Floating point but for one layer, or one stored tensor."""

    def __init__(self, checkpoint, filters="", output=""):
        self.checkpoint, self.filters, self.output = checkpoint, filters, output

    def parameters(self, node):
        one = self.checkpoint.filters.get(node.name)
        return (one.values(), one.bias) if node.name == self.filters else (node.weight, node.bias)

    def stored(self, node, value):
        if node.op.output != self.output:
            return value
        one = self.checkpoint.stored[self.output]
        return ((value / one.scale).round() + one.zero_point).clamp(one.low, one.high).sub(one.zero_point) * one.scale


def divergence(network, numerics, batches):
    with torch.no_grad():
        pairs = [(forward(network, part), forward(network, part, numerics)) for part in batches]
    rows = [F.kl_div(b.double().log_softmax(1), a.double().log_softmax(1), log_target=True, reduction="none").sum(1)
            for a, b in pairs]  # fmt: skip
    return float(torch.cat(rows).mean())


def test_an_ops_filters_sum_to_the_divergence_of_its_format_alone(hybrid, table):
    fitted, seen = images(hybrid), images(hybrid, 2)
    for op in ("stem.ds0.dw", "s1.b0.mb.proj"):
        found = []
        for name in ("u8", "u4"):
            shares = (WeightShare(Format.parse(name)),)
            rules = tuple(replace(r, weights=shares) if r.match == op else r for r in table.base.rules)
            checkpoint = quantize_plan(hybrid, fitted, replace(table.base, rules=rules))[1]
            found.append(divergence(hybrid, Rounded(checkpoint, filters=op), seen))
        assert found[1] > found[0]
        assert table.filters[op][:, 1].sum() == pytest.approx(found[1] - found[0], rel=1e-4)


def test_a_groups_loss_is_the_divergence_of_its_format_alone(hybrid, table):
    fitted, seen = images(hybrid), images(hybrid, 2)
    u4, found = Format.parse("u4"), []
    for output in (Format.parse("u8"), u4):
        rules = tuple(replace(r, output=output) if r.match == "stem.ds0.dw" else r for r in table.base.rules)
        checkpoint = quantize_plan(hybrid, fitted, replace(table.base, rules=rules))[1]
        found.append(divergence(hybrid, Rounded(checkpoint, output="stem.ds0.dw"), seen))
    assert table.activations["stem.ds0.dw"]["u4"] == pytest.approx(found[1] - found[0], rel=1e-4)


def test_the_base_loses_nothing_and_everything_else_something(table):
    assert table.loss_of(table.base) == 0.0
    assert all((values[:, 0] == 0).all() for values in table.filters.values())
    assert all((values[:, 1:].sum(axis=0) > 0).all() for values in table.filters.values())
    assert all(one["u8"] == 0 for one in table.activations.values())
    assert sum(one["u4"] > 0 for one in table.activations.values()) > 0.8 * len(table.activations)
    assert table.divisions["divide"] == 0
    assert table.divisions["log2_shift"] > 0


def test_coarser_filters_never_cost_less(hybrid):
    settings = Settings(formats=("u8", "u4", "u6", "apot8", "pot4"), activation_formats=("u8",))
    for values in measure_penalties(hybrid, images(hybrid)[:1], None, settings).filters.values():
        u8, u4, u6, apot8, pot4 = values.T
        assert ((u8 <= u6) & (u6 <= u4) & (apot8 <= pot4) & (u8 >= 0)).all()


def test_softmax_attention_has_penalties(tmp_path):
    network = tiny_vit(depth=1)
    table = measure_penalties(network, images(network), None, FEW)
    assert "b0.softmax" in table.activations
    assert table.divisions == {"divide": 0.0, "log2_shift": 0.0}
    table.save(tmp_path / "t.json")
    assert load_penalties(tmp_path / "t.json").fingerprint() == table.fingerprint()


class StopError(Exception):
    pass


def test_an_interrupted_run_goes_on_to_the_same_bytes(hybrid, table, tmp_path):
    def stop(what, done, total):
        if done == total // 2:
            raise StopError

    given = (images(hybrid), images(hybrid, 2), FEW, tmp_path / "cache")
    with pytest.raises(StopError):
        measure_penalties(hybrid, *given, progress=stop)
    steps = []
    again = measure_penalties(hybrid, *given, progress=lambda what, done, total: steps.append((done, total)))
    again.save(tmp_path / "again.json")
    table.save(tmp_path / "once.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "once.json").read_bytes()
    assert steps[0][0] > steps[0][1] // 2
    assert steps[-1][0] == steps[-1][1]


def test_a_cache_of_other_images_is_not_used(hybrid, table, tmp_path):
    few = Settings(formats=("u8", "u4"), activation_formats=("u8",))
    one = measure_penalties(hybrid, images(hybrid), images(hybrid, 3), few, tmp_path / "cache")
    two = measure_penalties(hybrid, images(hybrid), images(hybrid, 2), few, tmp_path / "cache")
    assert one.fingerprints["images"] != two.fingerprints["images"]
    assert two.filters["head.fc"][:, 1] == pytest.approx(table.filters["head.fc"][:, 1])
    assert one.filters["head.fc"][:, 1] != pytest.approx(two.filters["head.fc"][:, 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"formats": ("u6", "u4")}, "u8 \\(the base\\)"),
        ({"formats": ("u8", "u4", "u4")}, "each once"),
        ({"formats": ("u8", "u44")}, "unknown number format"),
        ({"activation_formats": ("u8", "pot4")}, "pot4 is not uniform"),
        ({"divisions": ("log2_shift",)}, "divide"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(AccelsimError, match=message):
        Settings(**settings)


def test_no_images_are_refused(hybrid):
    with pytest.raises(AccelsimError, match="calibration: there are no images"):
        measure_penalties(hybrid, [])


def test_curvature_is_the_second_order_loss(hybrid):
    """For steps so small that the network is linear in them, the mean over draws comes to the measured KL."""
    base, seen, changed = make_base(hybrid, images(hybrid), FEW), images(hybrid, 2)[0][:3], {}
    for op in ("head.conv", "head.fc"):
        node = hybrid.node(op)
        step = 0.01 * torch.randn(node.weight.shape, generator=torch.Generator().manual_seed(3))
        step[1:] = 0
        changed[op, "x"] = Filters(node.weight + step, torch.ones(len(step)), node.bias)
    draws = [filter_losses(hybrid, seen, changed, seed) for seed in range(250)]
    for (op, name), one in changed.items():
        found = torch.stack([draw[op, name] for draw in draws]).mean(0)
        checkpoint = replace(base.checkpoint, filters={**base.checkpoint.filters, op: one})
        exact = divergence(hybrid, Rounded(checkpoint, filters=op), [seen])
        assert float(found[0]) == pytest.approx(exact, rel=0.2)
        assert not found[1:].any()


def test_a_loss_is_split_by_what_is_beyond_the_base():
    assert split(6.0, np.array([1.0, 5.0, 2.0]), np.array([1.0, 2.0, 3.0])).tolist() == [0.0, 6.0, 0.0]
    assert split(6.0, np.array([1.0, 1.0]), np.array([1.0, 2.0])).tolist() == [3.0, 3.0]


def test_options_of_calibration_are_used(hybrid):
    base = make_base(hybrid, images(hybrid), replace(FEW, observer="minmax", bias_correction=False))
    assert base.options == Calibration("minmax", 2.4, False)
    assert torch.equal(base.checkpoint.filters["head.fc"].bias, hybrid.node("head.fc").bias)
