"""Weight-only penalties: the stored fractions, shares of filters, networks with and without weights."""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.ir import OpKind
from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError
from accelsim.workloads import build_workload
from quant.penalties.table import load_penalties
from quant.penalties.weights_only import FILTER_LENGTHS, NOISE, network_penalties, noise, workload_penalties


@pytest.mark.parametrize(
    ("name", "length"), [("u4", 16), ("u6", 256), ("pot4", 64), ("apot8", 8), ("u8", 32), ("pot3", 4)]
)
def test_the_stored_fractions_can_be_computed_again(name, length):
    pytest.importorskip("torch")
    from quant.penalties.weights_only import computed

    assert NOISE[name][FILTER_LENGTHS.index(length)] == pytest.approx(computed(name, length), rel=1e-3)


def test_fractions_in_between_and_beyond():
    low, high = NOISE["u4"][FILTER_LENGTHS.index(64)], NOISE["u4"][FILTER_LENGTHS.index(128)]
    assert noise("u4", 64) == low
    assert noise("u4", 91) == pytest.approx(low + (high - low) * np.log2(91 / 64))
    assert noise("u4", 1) == NOISE["u4"][0]
    assert noise("u4", 10**6) == NOISE["u4"][-1]


def test_a_network_of_shapes():
    workload = build_workload("efficientvit_b1")
    table = workload_penalties(workload)
    layers = [op for op in workload.ops if op.kind is OpKind.CONV]
    assert set(table.filters) == {op.name for op in layers}
    for op in layers:
        values = table.filters[op.name]
        assert values.shape == (op.loop.groups * op.loop.cols, 5)
        expected = [noise(name, op.loop.reduction) - noise("u8", op.loop.reduction) for name in table.formats]
        assert values.sum(axis=0) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert table.loss_of(table.base) == 0
    apply_plan(workload, table.base)
    assert {rule.output.name for rule in table.base.rules} == {"u8", "u16"}
    assert table.divisions == {"divide": 0.0}


def test_a_network_with_weights(tmp_path):
    pytest.importorskip("torch")
    from quant.observers import weight_scale
    from tests.support.networks import tiny_hybrid

    network = tiny_hybrid()
    table = network_penalties(network, ("u8", "u4"))
    rows = network.node("head.conv").weight.detach().double().flatten(1)
    from accelsim.formats import Format

    errors = []
    for name in ("u8", "u4"):
        scale, integers = weight_scale(rows, Format.parse(name), 2.4)
        errors.append(((rows - scale[:, None] * integers) ** 2).sum(1) / (rows**2).sum())
    expected = (errors[1] - errors[0]).clamp(min=0).numpy()
    assert table.filters["head.conv"][:, 1] == pytest.approx(expected, rel=1e-4)
    table.save(tmp_path / "t.json")
    assert load_penalties(tmp_path / "t.json").fingerprint() == table.fingerprint()


def test_unknown_formats_are_refused():
    workload = build_workload("deit_tiny")
    for formats in (("u8", "u9"), ("u6", "u4"), ("u8", "u8")):
        with pytest.raises(AccelsimError, match="the base"):
            workload_penalties(workload, formats)
