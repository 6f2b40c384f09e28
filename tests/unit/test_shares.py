"""How many channels each format got."""

from __future__ import annotations

from accelsim.api import Report, simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.optable import op_table
from accelsim.plan import QuantPlan
from accelsim.plans import m2q
from accelsim.shares import layer_shares
from accelsim.workloads import build_workload


def run(arch: str, plan: QuantPlan) -> Report:
    return simulate(op_table(build_workload("efficientvit_b1"), plan), load_accelerator(arch))


def test_balanced_shares_of_b1_on_m2vit() -> None:
    report = run("m2vit", load_plan("m2q"))
    shares = layer_shares(report)
    ops = report.table.quantized.workload.op_by_name
    mixed = {"pw", "qkv", "proj", "mlp"}
    assert list(shares) == [name for name, op in ops.items() if op.op_class in mixed and op.weights]
    for name, channels in shares.items():
        loop = ops[name].loop
        assert loop is not None
        assert list(channels) == ["u8", "apot8"]
        assert sum(channels.values()) == loop.groups * loop.cols
    # Two engines of equal size: 7,376 and 7,552 of 14,928 channels; one layer is too small to split.
    assert shares["stem.ds0.pw"] == {"u8": 0, "apot8": 16}
    assert shares["s1.mb0.expand"] == {"u8": 32, "apot8": 32}
    assert sum(channels["apot8"] for channels in shares.values()) == 7552


def test_the_engines_decide() -> None:
    """A larger shift-add engine gets more filters; without one, the multipliers get all."""
    larger = layer_shares(run("m2vit_iso_area", load_plan("m2q")))
    assert sum(channels["apot8"] for channels in larger.values()) > 7552
    none = layer_shares(run("trio_vit", load_plan("m2q")))
    assert none
    assert all(channels["apot8"] == 0 for channels in none.values())


def test_fixed_shares_are_the_plans_own() -> None:
    shares = layer_shares(run("m2vit", m2q(0.25)))
    assert shares["s1.mb0.expand"] == {"u8": 48, "apot8": 16}
    assert not layer_shares(run("m2vit", load_plan("uniform8")))
