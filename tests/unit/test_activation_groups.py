"""Groups of activations: every built-in network takes the change of any group, and of no part of a joined one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from accelsim.formats import Format
from accelsim.ir import OpKind
from accelsim.plan import QuantPlan, apply_plan
from accelsim.problems import AccelsimError
from accelsim.workloads import build_workload
from accelsim.workloads.reference_models import HYBRIDS, VITS
from quant.penalties.activation_groups import activation_groups
from quant.penalties.weights_only import base_plan

NETWORKS = (*HYBRIDS, *VITS, "efficientvit_b1", "deit_tiny", "swin_tiny", "mobilevit_s")
U4 = Format.parse("u4")


def with_outputs(plan: QuantPlan, ops) -> QuantPlan:
    return replace(plan, rules=tuple(replace(r, output=U4, right=U4) if r.match in ops else r for r in plan.rules))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_group_may_change_alone(name):
    workload = build_workload(name)
    plan = base_plan(workload)
    before = apply_plan(workload, plan).activation_bits
    for group in activation_groups(workload):
        after = apply_plan(workload, with_outputs(plan, group.ops)).activation_bits
        stored = {workload.op_by_name[op].output for op in group.ops}
        changed = {tensor for tensor, bits in after.items() if bits != before[tensor]}
        # Views of the group follow it; no tensor with storage of its own does that is not in the group.
        assert {root for tensor in changed for root in workload.storage_of(tensor)} == stored


@pytest.mark.parametrize("name", NETWORKS)
def test_each_op_is_in_one_group_but_for_logits_and_numerators(name):
    workload = build_workload(name)
    members = [op for group in activation_groups(workload) for op in group.ops]
    assert len(set(members)) == len(members)
    divided = {root for op in workload.ops if op.op_class == "division" for root in workload.storage_of(op.inputs[0])}
    fixed = divided | set(workload.storage_of(workload.output))
    left = {op.output for op in workload.ops if op.kind is not OpKind.VIEW and op.name not in members}
    assert left == fixed
    assert len(fixed) == 1 + len([op for op in workload.ops if op.op_class == "division"])


def test_queries_of_two_branches_are_one_group():
    workload = build_workload("efficientvit_b1")
    joined = next(group for group in activation_groups(workload) if "s3.b0.qkv" in group.ops)
    assert joined.ops == ("s3.b0.qkv", "s3.b0.aggr.pwg", "s3.b0.relu")
    with pytest.raises(AccelsimError, match="joins"):
        apply_plan(workload, with_outputs(base_plan(workload), ("s3.b0.qkv",)))
