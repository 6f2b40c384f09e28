"""Which stored outputs must have one format.  Reads nothing but the workload: a network without weights has groups."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.ir import Op, OpKind, Workload
from accelsim.workloads.rank import GATHER, RANK, ranked_layers


@dataclass(frozen=True)
class ActivationGroup:
    """Ops whose stored outputs have one format; `name` is the first op's."""

    name: str
    ops: tuple[str, ...]


def activation_groups(workload: Workload) -> tuple[ActivationGroup, ...]:
    """Groups of ops whose stored outputs may change their format, each group as one; in order of execution.

    Joined are the tensors that a view joins (its readers have one width) and the input and output of a stand-alone
    ReLU (it passes codes on).  In a ranked workload (`accelsim.workloads.rank`) a gather copies codes, too, and the
    class token's scores and shares are stored as those of the whole attention.  A group that holds the graph input, the
    graph output, rank words or a tensor that is divided is left out: those keep their formats in every plan.
    """
    owner = {name: name for name in (workload.input, *(op.output for op in workload.ops if op.kind is not OpKind.VIEW))}

    def root(name: str) -> str:
        while owner[name] != name:
            name = owner[name]
        return name

    fixed, twins = {workload.input, *workload.storage_of(workload.output)}, _class_token_twins(workload)
    for op in workload.ops:
        sources = [name for operand in op.inputs for name in workload.storage_of(operand)]
        if op.op_class == "division":
            fixed.update(workload.storage_of(op.inputs[0]))
        if op.op_class == RANK:
            fixed.add(op.output)
        if passes_codes_on(op):
            joined = [*workload.storage_of(op.inputs[0]), op.output]
        else:
            joined = sources if op.kind is OpKind.VIEW else twins.get(op.name, [])
        for name in joined[1:]:
            owner[root(name)] = root(joined[0])
    pinned = {root(name) for name in fixed}
    members: dict[str, list[str]] = {}
    for op in workload.ops:
        if op.kind is not OpKind.VIEW and root(op.output) not in pinned:
            members.setdefault(root(op.output), []).append(op.name)
    return tuple(ActivationGroup(ops[0], tuple(ops)) for ops in members.values())


def passes_codes_on(op: Op) -> bool:
    """True for a ReLU that is an op of its own, max(code, 0), and for a gather, which copies: output as the input."""
    return op.op_class == GATHER or (op.recipe is not None and op.recipe.name == "relu")


def _class_token_twins(workload: Workload) -> dict[str, list[str]]:
    """By op of the class token's scores and shares: the outputs of the attention's own and of this op."""
    ops = workload.op_by_name
    pairs = [
        pair
        for one in ranked_layers(workload)
        for pair in ((one.rank_scores, one.scores), (one.rank_softmax, one.softmax))
    ]
    return {new: [ops[old].output, ops[new].output] for new, old in pairs if new in ops}
