"""Ranking of tokens as ops of the workload: what a layer with token groups does before it starts.

The importance of a token is the attention that the class token paid to it in the layer before (or, where there is no
class token, that all tokens paid to it), summed over heads.  The class token's row of attention is computed once more
from the queries and keys, so that scores, softmax and values of that layer stay one chain.  The tokens are then sorted
and the residual stream is copied into their order.  Attention and MLP do not depend on the order of tokens, so nothing
is put back; the class token stays in front.  An interpretation: PMQ (arXiv 2305.06559) does not say how its patches are
ranked and moved.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from accelsim.ir import Op, OpKind, Recipe, Tensor, VectorKind, VectorPass, Workload
from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import CLASS_TOKEN
from accelsim.workloads.recipes import softmax

RANK, GATHER = "rank", "gather"  # classes of ops that cannot be cut


@dataclass(frozen=True)
class RankedLayer:
    """A layer whose tokens can be ranked by the attention of the layer before, by the names of ops.

    `name` is the layer's, `norm` its first LayerNorm, `source` the tensor of the residual stream that it starts from;
    `scores`, `softmax` and `values` are the attention before it.  `tokens` includes the class token.
    """

    name: str
    norm: str
    source: str
    tokens: int
    heads: int
    scores: str
    softmax: str
    values: str

    @property
    def rank_scores(self) -> str:
        """Op and tensor: the class token's scores, [heads, 1, tokens]."""
        return f"{self.name}.rank_scores"

    @property
    def rank_softmax(self) -> str:
        """Op and tensor: the class token's attention."""
        return f"{self.name}.rank_softmax"

    @property
    def rank(self) -> str:
        """Op and tensor: a word for every place of the new order: the old place, and a flag for a full token."""
        return f"{self.name}.{RANK}"

    @property
    def gather(self) -> str:
        """Op and tensor: the residual stream in the new order."""
        return f"{self.name}.{GATHER}"

    @property
    def rank_bits(self) -> int:
        """Bits of a word of `rank`."""
        return rank_word_bits(self.tokens)


def rank_word_bits(tokens: int) -> int:
    """Bits of a word of ranking: ⌈log2 tokens⌉ of the place, one of the flag."""
    return max(1, (tokens - 1).bit_length()) + 1


def ranked_layers(workload: Workload) -> tuple[RankedLayer, ...]:
    """Layers with a LayerNorm in front of an attention of tokens, but the first one: it has no attention before it.

    An attention is a product of two parts of one tensor with as many rows as columns, a softmax of it, and the product
    with that; the tensor is made by a layer from the LayerNorm.  Both attentions must have the same tokens.
    """
    makers = {op.output: op for op in workload.ops}
    found: list[RankedLayer] = []
    before: tuple[Op, Op, Op] | None = None
    for values in workload.ops:
        attention = _attention(values, makers)
        if attention is None:
            continue
        scores = attention[0]
        layer = makers.get(scores.inputs[0])
        norm = makers.get(layer.inputs[0]) if layer is not None else None
        if norm is None or norm.op_class != "layernorm":
            before = None
            continue
        assert scores.loop is not None
        if before is not None and before[0].loop is not None and before[0].loop.rows == scores.loop.rows:
            name = norm.name.rpartition(".")[0] or norm.name
            first, middle, last = before
            tokens, heads = scores.loop.rows, before[0].loop.groups
            found.append(
                RankedLayer(name, norm.name, norm.inputs[0], tokens, heads, first.name, middle.name, last.name)
            )
        before = attention
    return tuple(found)


def _attention(values: Op, makers: dict[str, Op]) -> tuple[Op, Op, Op] | None:
    """(scores, softmax, values) when `values` is the last op of an attention of tokens."""
    if values.kind is not OpKind.MATMUL or values.loop is None:
        return None
    middle = makers.get(values.inputs[0])
    if middle is None or middle.recipe is None or not middle.recipe.name.startswith("softmax"):
        return None
    scores = makers.get(middle.inputs[0])
    if scores is None or scores.kind is not OpKind.MATMUL or scores.loop is None:
        return None
    same = len({*scores.inputs, values.inputs[1]}) == 1 and scores.loop.rows == scores.loop.cols == values.loop.rows
    return (scores, middle, values) if same else None


def rank_tokens(
    workload: Workload, layers: Collection[str], importance: str = CLASS_TOKEN, threshold: bool = False
) -> Workload:
    """The workload with ranking and gathering before these layers (names of `ranked_layers`).

    With `threshold` the number of full tokens is found at run time, from a share of the summed importance.  Raises
    AccelsimError for a layer that cannot be ranked.
    """
    able = {one.name: one for one in ranked_layers(workload)}
    for name in layers:
        if name not in able:
            known = ", ".join(able) or "none: it has no two attentions of the same tokens, each behind a LayerNorm"
            raise AccelsimError(Problem(f"ranked layer {name}", f"{workload.name} cannot rank its tokens", known))
    chosen = [able[name] for name in able if name in layers]
    tensors = {tensor.name: tensor for tensor in workload.tensors}
    renamed: dict[str, str] = {}
    ops: list[Op] = []
    for op in workload.ops:
        for one in chosen:
            if op.name == one.norm:
                ops.append(_gather(one, renamed.get(one.source, one.source), tensors))
                renamed[one.source] = one.gather
        ops.append(replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs)))
        for one in chosen:
            if op.name == one.values:
                ops += _ranking(one, workload, tensors, importance, threshold)
    views = {op.output: op.inputs for op in ops if op.kind is OpKind.VIEW}
    kept = [replace(one, aliases=views.get(one.name, one.aliases)) for one in tensors.values()]
    return replace(workload, ops=tuple(ops), tensors=tuple(kept), output=renamed.get(workload.output, workload.output))


def _ranking(
    one: RankedLayer, workload: Workload, tensors: dict[str, Tensor], importance: str, threshold: bool
) -> list[Op]:
    """The ops that end with the order of the tokens; their tensors are added."""
    ops, source, rows = [], one.softmax, one.tokens
    if importance == CLASS_TOKEN:
        scores = workload.op_by_name[one.scores]
        assert scores.loop is not None
        row = replace(scores.loop, rows_h=1, rows_w=1)
        ops.append(replace(scores, name=one.rank_scores, output=one.rank_scores, loop=row))
        recipe = softmax(one.heads, 1, 1, one.tokens)
        ops.append(Op(one.rank_softmax, OpKind.VECTOR, "softmax", (one.rank_scores,), one.rank_softmax, recipe=recipe))
        for name in (one.rank_scores, one.rank_softmax):
            tensors[name] = Tensor(name, 1, 1, one.heads * one.tokens)
        source, rows = one.rank_softmax, 1
    recipe = sort_tokens(one.tokens, one.heads * rows, threshold)
    ops.append(Op(one.rank, OpKind.VECTOR, RANK, (source,), one.rank, recipe=recipe))
    tensors[one.rank] = Tensor(one.rank, one.tokens, 1, 1)
    return ops


def _gather(one: RankedLayer, source: str, tensors: dict[str, Tensor]) -> Op:
    """The copy of the residual stream in the new order; its tensor is added."""
    tensors[one.gather] = replace(tensors[one.source], name=one.gather, aliases=())
    channels = tensors[one.source].channels
    recipe = Recipe(GATHER, (VectorPass(),), 1, one.tokens, 1, channels, tiles_rows=False, tiles_groups=True)
    return Op(one.gather, OpKind.VECTOR, GATHER, (source, one.rank), one.gather, recipe=recipe)


def sort_tokens(tokens: int, width: int, threshold: bool) -> Recipe:
    """Sum of `width` shares per token, then a bitonic sort of the sums.

    A network of ⌈log2 N⌉ = L stages of stages makes L(L + 1)/4 compares per token, rounded up.  With `threshold` the
    sorted sums are added up and compared with a share of the total: one add and one compare more.
    """
    stages = max(1, (tokens - 1).bit_length())
    compares = -(-stages * (stages + 1) // 4)
    per_token = ((VectorKind.COMPARE, compares + threshold), (VectorKind.ADD, 1))[: 1 + threshold]
    passes = (VectorPass(((VectorKind.ADD, 1),)), VectorPass((), per_token))
    name = f"{RANK}_threshold" if threshold else RANK
    return Recipe(name, passes, tokens, 1, 1, width, tiles_rows=False, tiles_groups=True, reduces_rows=True)
