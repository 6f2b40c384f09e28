"""A view joins tensors of one format; a plan that stores them differently is refused, not rounded to one of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from accelsim.config import load_plan
from accelsim.formats import Format
from accelsim.plan import QuantPlan, Rule, apply_plan
from accelsim.problems import AccelsimError
from accelsim.workloads.registry import build_workload


def with_output(match: str, output: str) -> QuantPlan:
    plan = load_plan("uniform8")
    rule = plan.rule_for(build_workload("efficientvit_b1").op_by_name["s3.b0.qkv"])
    first: Rule = replace(rule, match=match, output=Format.parse(output))
    return replace(plan, rules=(first, *plan.rules))


def test_mixed_formats_behind_a_view_are_refused() -> None:
    with pytest.raises(AccelsimError) as caught:
        apply_plan(build_workload("efficientvit_b1"), with_output("*.qkv", "u4"))
    text = str(caught.value)
    assert "s3.b0" in text
    assert "u4" in text
    assert "tensors of one format" in text


def test_one_format_behind_a_view_is_kept() -> None:
    quantized = apply_plan(build_workload("efficientvit_b1"), with_output("*", "u4"))
    widths = {quantized.activation_bits[name] for name in ("s3.b0.qkv", "s3.b0.concat")}
    assert widths == {4}
