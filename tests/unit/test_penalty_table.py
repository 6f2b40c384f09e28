"""Penalty tables: sums by hand, what is refused, files."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from accelsim.channels import Channels
from accelsim.formats import Format
from accelsim.plan import QuantPlan, Rule, WeightShare
from accelsim.problems import AccelsimError
from quant.penalties.activation_groups import ActivationGroup
from quant.penalties.table import PenaltyTable, load_penalties, ordered, rounded

U8, U6, U4, POT4 = (Format.parse(name) for name in ("u8", "u6", "u4", "pot4"))
GROUPS = (ActivationGroup("a", ("a", "relu")), ActivationGroup("b", ("b",)))
CLASSES = {"a": "pw", "relu": "relu", "b": "pw", "fc": "head"}


def table() -> PenaltyTable:
    filters = {
        "a": np.array([[0.0, 1.0, 2.0, 4.0], [0.0, 0.5, 0.7, 0.25], [0.0, 0.125, 3.0, 8.0]]),
        "b": np.array([[0.0, 10.0, 20.0, 30.0]]),
        "fc": np.array([[0.0, 0.1, 0.2, 0.3]]),
    }
    base = QuantPlan("base", (*(Rule(name) for name in CLASSES), Rule("*")), "divide")
    return PenaltyTable(
        "net", {"network": "n", "images": "i"}, "nats", {"images": 3}, ("u8", "u6", "u4", "pot4"), filters, GROUPS,
        {"a": {"u8": 0.0, "u4": 0.3}, "b": {"u8": 0.0, "u6": 0.01, "u4": 0.02}}, {"divide": 0.0, "log2_shift": 0.7},
        CLASSES, base,
    )  # fmt: skip


def changed(plan: QuantPlan, match: str, **fields) -> QuantPlan:
    return replace(plan, rules=tuple(replace(r, **fields) if r.match == match else r for r in plan.rules))


def test_the_base_loses_nothing():
    assert table().loss_of(table().base) == 0.0


def test_the_loss_is_the_sum_by_hand():
    mixed = (WeightShare(POT4, None, Channels.of([1])), WeightShare(U6, None, Channels.of([0, 2])))
    plan = changed(table().base, "a", weights=mixed, output=U4)
    plan = changed(plan, "relu", output=U4)
    plan = changed(plan, "b", weights=(WeightShare(U4),), output=U6)
    plan = replace(plan, division="log2_shift")
    assert table().loss_of(plan) == pytest.approx(0.25 + 1.0 + 0.125 + 20.0 + 0.3 + 0.01 + 0.7, abs=1e-12)


def test_rules_by_class_and_order_count_as_in_a_plan():
    rules = (Rule("class:pw", weights=(WeightShare(U6),)), Rule("fc", weights=(WeightShare(U4),)), Rule("*"))
    assert table().loss_of(QuantPlan("p", rules, "divide")) == pytest.approx(1.625 + 10.0 + 0.2)


SHARES = (WeightShare(U8, 0.5), WeightShare(U4, 0.5))


@pytest.mark.parametrize(
    ("match", "fields", "message"),
    [
        ("a", {"weights": (WeightShare(Format.parse("u3")),)}, "u3 is not in the penalty table"),
        ("a", {"weights": SHARES}, "shares without channels"),
        ("a", {"weights": (WeightShare(U4, None, Channels.of([5])),)}, "channel 5 of 3"),
        ("a", {"output": U4}, "u4 and u8 in one group"),
        ("b", {"output": Format.parse("u5")}, "u5 is not in the penalty table"),
        ("fc", {"output": U4}, "no group of the table covers"),
        ("a", {"activation": U4}, "is stored as u4"),
    ],
)
def test_what_the_table_does_not_know_is_refused(match, fields, message):
    with pytest.raises(AccelsimError, match=message):
        table().loss_of(changed(table().base, match, **fields))


def test_an_unknown_division_is_refused():
    one = replace(table(), divisions={"divide": 0.0})
    with pytest.raises(AccelsimError, match="log2_shift is not in the penalty table"):
        one.loss_of(replace(one.base, division="log2_shift"))


def test_files_hold_everything(tmp_path):
    table().save(tmp_path / "a.json")
    again = load_penalties(tmp_path / "a.json")
    assert again.to_json() == table().to_json()
    assert again.fingerprint() == table().fingerprint()
    assert again.base.fingerprint() == table().base.fingerprint()
    again.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_fingerprints_tell_tables_apart():
    other = replace(table(), divisions={"divide": 0.0, "log2_shift": 0.8})
    assert other.fingerprint() != table().fingerprint()


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "t.json"
    with pytest.raises(AccelsimError, match="cannot be read"):
        load_penalties(path)
    path.write_text("[]")
    with pytest.raises(AccelsimError, match="has the format None"):
        load_penalties(path)
    data = table().to_json()
    data["filters"]["a"] = [[1.0, 2.0]]
    path.write_text(json.dumps(data))
    with pytest.raises(AccelsimError, match="is damaged"):
        load_penalties(path)


@pytest.mark.parametrize("where", ["filters", "activations", "divisions", "parts", "tokens"])
def test_losses_that_are_not_numbers_are_refused(where, tmp_path):
    nan = float("nan")
    fields = {
        "filters": {**table().filters, "fc": np.full((1, 4), nan)},
        "activations": {**table().activations, "b": {"u8": 0.0, "u6": nan}},
        "divisions": {"divide": nan}, "parts": {"b": {"u4": (0.0, nan)}}, "tokens": {"layer": {"full": 0.0, "2": nan}},
    }  # fmt: skip
    replace(table(), **{where: fields[where]}).save(tmp_path / "p.json")
    with pytest.raises(AccelsimError, match="finite"):
        load_penalties(tmp_path / "p.json")


def test_coarser_formats_never_cost_less():
    given = np.array([[0.0, -1.0, 5.0, 3.0, 2.0], [0.0, 0.4, 0.1, -0.6, -0.5]])
    found = ordered(given, ("u8", "u4", "u6", "apot8", "pot4"))
    assert found.tolist() == [[0.0, 5.0, 5.0, 3.0, 3.0], [0.0, 0.4, 0.1, 0.0, 0.0]]


def test_six_significant_digits():
    assert rounded(np.array([[1.23456789e-7, 123456789.0]])).tolist() == [[1.23457e-7, 123457000.0]]


def test_tables_need_no_torch():
    code = (
        "import sys; from accelsim.workloads import build_workload; import quant.penalties.table; "
        "from quant.penalties.weights_only import workload_penalties; "
        "workload_penalties(build_workload('deit_tiny')); print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
