"""Which stored outputs must have one format.  Reads nothing but the workload: a network without weights has groups."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.ir import Op, OpKind, Workload


@dataclass(frozen=True)
class ActivationGroup:
    """Ops whose stored outputs have one format; `name` is the first op's."""

    name: str
    ops: tuple[str, ...]


def activation_groups(workload: Workload) -> tuple[ActivationGroup, ...]:
    """Groups of ops whose stored outputs may change their format, each group as one; in order of execution.

    Joined are the tensors that a view joins (its readers have one width) and the input and output of a stand-alone
    ReLU (it passes codes on).  A group that holds the graph input, the graph output or a tensor that is divided is left
    out: those keep their formats in every plan.
    """
    owner = {name: name for name in (workload.input, *(op.output for op in workload.ops if op.kind is not OpKind.VIEW))}

    def root(name: str) -> str:
        while owner[name] != name:
            name = owner[name]
        return name

    fixed = {workload.input, *workload.storage_of(workload.output)}
    for op in workload.ops:
        sources = [name for operand in op.inputs for name in workload.storage_of(operand)]
        if op.op_class == "division":
            fixed.update(workload.storage_of(op.inputs[0]))
        joined = [*sources, op.output] if passes_codes_on(op) else sources if op.kind is OpKind.VIEW else []
        for name in joined[1:]:
            owner[root(name)] = root(joined[0])
    pinned = {root(name) for name in fixed}
    members: dict[str, list[str]] = {}
    for op in workload.ops:
        if op.kind is not OpKind.VIEW and root(op.output) not in pinned:
            members.setdefault(root(op.output), []).append(op.name)
    return tuple(ActivationGroup(ops[0], tuple(ops)) for ops in members.values())


def passes_codes_on(op: Op) -> bool:
    """True for a ReLU that is an op of its own: max(code, 0), so its output has the format of its input."""
    return op.recipe is not None and op.recipe.name == "relu"
