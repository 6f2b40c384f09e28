"""What a plan may ask of token groups: ranked layers, operands of array engines, one count for a layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from accelsim.ir import Op, OpKind, Workload
from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import CLASS_TOKEN, RECEIVED, TokenGroups, token_layers
from accelsim.workloads.rank import GATHER, RANK, rank_tokens, rank_word_bits, ranked_layers

if TYPE_CHECKING:
    from accelsim.plan import QuantizedOp, QuantPlan

COLS, DEPTH = "cols", "depth"
LEVERS = ("accelsim.workloads.rank.rank_tokens", "no `tokens` in this rule")


def right_axis(workload: Workload, op: Op, tokens: TokenGroups | None) -> str:
    """The axis of a matmul's nest along which the tokens of its right operand lie.

    Keys are columns, values are summed over: their left operand is what a softmax made.
    """
    if tokens is None or op.loop is None or op.kind is not OpKind.MATMUL:
        return ""
    makers = {one.output: one for one in workload.ops}
    left = makers.get(op.inputs[0])
    softmax = left is not None and left.recipe is not None and left.recipe.name.startswith("softmax")
    return DEPTH if softmax else COLS


def sliced_ops(workload: Workload, layer: str) -> tuple[str, ...]:
    """Ops of a layer of `ranked_layers` whose outputs can have token groups, in order.

    They have a row for every token, and nothing but array engines reads them, token by token.  The layer ends where
    the next one starts.  Empty for another name.
    """
    layers = {one.name: one for one in ranked_layers(workload)}
    if layer not in layers:
        return ()
    place = {op.name: k for k, op in enumerate(workload.ops)}
    norms = sorted(place[one.norm] for one in layers.values())
    start = place[layers[layer].norm]
    stop = next((place for place in norms if place > start), len(workload.ops))
    found = []
    for op in workload.ops[start:stop]:
        rows = op.kind is not OpKind.VIEW and workload.tensor_by_name[op.output].h == layers[layer].tokens
        if rows and workload.readers[op.output] and not any(_reader_faults(workload, op.output)):
            found.append(op.name)
    return tuple(found)


def ranked_for(workload: Workload, plan: QuantPlan) -> Workload:
    """The workload with the ranking ops of the plan's token groups; the same one where nothing is missing.

    A token is as important as the attention that the class token pays to it; in a workload that never picks one token
    out, as that of all tokens.  Full tokens are counted by number, not found by a threshold: for another ranking give
    the workload that has it (`rank_tokens`); layers that are ranked already stay as they are.  Raises AccelsimError for
    a layer that cannot be ranked.
    """
    made = {op.name for op in workload.ops}
    missing = [layer for layer in token_layers(plan) if f"{layer}.{GATHER}" not in made]
    if not missing:
        return workload
    tensors = workload.tensor_by_name
    tokens = {one.tokens for one in ranked_layers(workload)}
    picked = any(
        op.kind is OpKind.VIEW and tensors[op.output].h == 1 and tensors[op.inputs[0]].h in tokens
        for op in workload.ops
    )
    return rank_tokens(workload, missing, CLASS_TOKEN if picked else RECEIVED)


def token_problems(workload: Workload, plan: QuantPlan, ops: Sequence[QuantizedOp]) -> list[Problem]:
    """Token groups that nothing ranks, that no engine reads as rows, or that do not agree within a layer.

    Also ranks whose words are too narrow for the number of a token and its flag, and gathers that store what they copy
    in another format.
    """
    found = [*_ranking_problems(workload, plan, ops)]
    asked = [item for item in ops if item.tokens is not None]
    if not asked:
        return found
    makers = {op.output: op for op in workload.ops}
    first: dict[str, TokenGroups] = {}
    for item in asked:
        assert item.tokens is not None
        faults = [*_own_faults(workload, item, makers), *_reader_faults(workload, item.op.output)]
        known = first.setdefault(item.tokens.layer, item.tokens)
        if known.high != item.tokens.high:
            what = f"{item.tokens.high} full tokens, but {known.high} in another op of layer {known.layer}"
            faults.append((what, "one number for a layer"))
        found += [Problem(f"plan {plan.name}: {item.op.name}: tokens", *fault, LEVERS) for fault in faults]
    return found


def _ranking_problems(workload: Workload, plan: QuantPlan, ops: Sequence[QuantizedOp]) -> Iterator[Problem]:
    for item in ops:
        tokens, stored = workload.tensor_by_name[item.op.output].h, item.output.name
        if item.op.op_class == RANK and item.output.bits < rank_word_bits(tokens):
            what = f"words of {stored} for the places of {tokens} tokens and a flag"
            expected = f"u{rank_word_bits(tokens)}"
        elif item.op.op_class == GATHER and item.output != item.activation:
            what, expected = f"a copy of {item.activation.name} in {stored}", item.activation.name
        else:
            continue
        rule = f"a rule before the others with match: {item.op.name}, output: {expected}"
        yield Problem(f"plan {plan.name}: {item.op.name}: output", what, expected, (rule,))


def _order_of(op: Op, makers: Mapping[str, Op]) -> str:
    """The gather whose order the rows of an op have; "" where no op before it has one."""
    maker: Op | None = op
    while maker is not None and maker.op_class != GATHER:
        maker = makers.get(maker.inputs[0])
    return "" if maker is None else maker.name


def _own_faults(workload: Workload, item: QuantizedOp, makers: Mapping[str, Op]) -> Iterator[tuple[str, str]]:
    assert item.tokens is not None
    tokens = workload.tensor_by_name[item.op.output].h
    if item.tokens.high > tokens:
        yield f"{item.tokens.high} full tokens of {tokens}", f"1 … {tokens}"
    gather = f"{item.tokens.layer}.{GATHER}"
    order = _order_of(item.op, makers)
    if order != gather:
        there = f"the tokens are in the order of {order}" if order else "nothing has put the tokens into an order"
        expected = "a workload that ranks the tokens of this layer, and the last layer that did"
        yield f"{there}: no op {gather} has put them into its own", expected
    if item.granularity.startswith("channel"):
        yield f"token groups of an output with {item.granularity}", "granularity: tensor or group"
    try:
        item.tokens.narrow(item.output)
    except AccelsimError as error:
        yield error.problems[0].what, error.problems[0].expected


def _reader_faults(workload: Workload, output: str) -> Iterator[tuple[str, str]]:
    tokens = workload.tensor_by_name[output].h
    for op in workload.readers[output]:
        loop = op.loop
        if loop is None:
            yield f"{op.name}, a vector op, reads them", "array engines as the only readers"
        elif op.kind is OpKind.CONV and (loop.taps > 1 or loop.groups > 1 or loop.rows != tokens):
            yield f"{op.name} does not read them token by token", "layers with one output row per token"
        elif op.kind is OpKind.MATMUL and loop.rows not in (1, tokens):
            # One row is that of the class token, which is always full.
            expected = "products with one row per token, or that of the first"
            yield f"{op.name} has {loop.rows} rows for {tokens} tokens", expected
