"""Where a vision transformer's attention is: the ops of every layer, found by what they read."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.ir import Op, OpKind, Workload
from accelsim.problems import AccelsimError, Problem


@dataclass(frozen=True)
class Attention:
    """Names of the ops of an attention layer; the output of `qkv` holds q, k and v of every head, in this order."""

    name: str
    heads: int
    head_dim: int
    qkv: str
    scores: str
    softmax: str
    values: str
    proj: str


def attentions(workload: Workload) -> tuple[Attention, ...]:
    """Softmax attentions of a workload whose q, k and v come from one layer, in order.

    Raises AccelsimError when there is none, and for one of another form.
    """
    makers = {op.output: op for op in workload.ops}
    found = [
        _attention(workload, makers, op)
        for op in workload.ops
        if op.recipe is not None and op.recipe.name.startswith("softmax") and op.op_class == "softmax"
    ]
    if not found:
        what, expected = "has no softmax attention whose heads could have bits of their own", "a vision transformer"
        raise AccelsimError(Problem(f"network {workload.name}", what, expected, ("deit_tiny", "glyph_vit")))
    return tuple(found)


def _attention(workload: Workload, makers: dict[str, Op], softmax: Op) -> Attention:
    scores = makers.get(softmax.inputs[0])
    after = workload.readers[softmax.output]
    values = after[0] if len(after) == 1 else None
    if scores is None or values is None or scores.loop is None or values.loop is None:
        raise _other(workload, softmax, "is not between two products")
    sources = {root for one in (scores, values) for name in one.inputs for root in workload.storage_of(name)}
    sources -= {softmax.output}
    heads, dim = scores.loop.groups, scores.loop.depth
    qkv = makers.get(next(iter(sources))) if len(sources) == 1 else None
    if qkv is None or qkv.loop is None or qkv.kind is not OpKind.CONV:
        raise _other(workload, softmax, f"reads q, k and v of {', '.join(sorted(sources))}")
    after = workload.readers[values.output]
    proj = after[0] if len(after) == 1 and after[0].kind is OpKind.CONV else None
    sizes = (values.loop.groups, values.loop.cols, qkv.loop.cols)
    if proj is None or sizes != (heads, dim, 3 * heads * dim):
        raise _other(workload, softmax, f"has {heads} heads of {dim} channels and a layer of {qkv.loop.cols} behind it")
    name = softmax.name.rpartition(".")[0] or softmax.name
    return Attention(name, heads, dim, qkv.name, scores.name, softmax.name, values.name, proj.name)


def _other(workload: Workload, softmax: Op, what: str) -> AccelsimError:
    expected = "one layer that gives q, k and v of equal heads, two products and a projection (DeiT, ViT)"
    return AccelsimError(Problem(f"network {workload.name}: {softmax.name}", what, expected))
