"""Activation functions as ops of their own: what follows a product leaves the output stage for the vector unit.

The output stage looks a GELU up in a table of 8-bit codes.  A method that computes it (i-GELU, ShiftGELU) runs on the
vector unit instead and reads what the product stored.
"""

from __future__ import annotations

from dataclasses import replace

from accelsim.ir import Op, OpKind, Tensor, Workload
from accelsim.workloads.recipes import lookup


def separated_name(op: str, function: str) -> str:
    """Name of the op, and of the tensor, that computes the activation function of `op`."""
    return f"{op}.{function}"


def separate_activations(workload: Workload, function: str = "gelu") -> Workload:
    """The workload with this activation function of convolutions and linear layers as vector ops.

    `b0.fc1` with a GELU becomes `b0.fc1`, which stores what is before it, and `b0.fc1.gelu`, whose output its readers
    read.  The same function; the workload itself when no product has it.
    """
    ops: list[Op] = []
    tensors = {tensor.name: tensor for tensor in workload.tensors}
    renamed: dict[str, str] = {}
    for op in workload.ops:
        inputs = tuple(renamed.get(name, name) for name in op.inputs)
        if op.kind is OpKind.VIEW or op.activation != function or op.loop is None:
            ops.append(replace(op, inputs=inputs))
            continue
        after = separated_name(op.name, function)
        renamed[op.output] = after
        shape = tensors[op.output]
        ops.append(replace(op, inputs=inputs, activation=""))
        recipe = lookup(function, 1, shape.h, shape.w, shape.channels)
        ops.append(Op(after, OpKind.VECTOR, function, (op.output,), after, recipe=recipe))
    if not renamed:
        return workload
    return replace(
        workload,
        ops=tuple(ops),
        tensors=_with_tensors(workload.tensors, renamed),
        output=renamed.get(workload.output, workload.output),
    )


def _with_tensors(tensors: tuple[Tensor, ...], renamed: dict[str, str]) -> tuple[Tensor, ...]:
    """The tensors, each new one behind the one that it is made of; views share the storage of what is now read."""
    result: list[Tensor] = []
    for tensor in tensors:
        result.append(replace(tensor, aliases=tuple(renamed.get(name, name) for name in tensor.aliases)))
        if tensor.name in renamed:
            result.append(replace(tensor, name=renamed[tensor.name]))
    return tuple(result)
