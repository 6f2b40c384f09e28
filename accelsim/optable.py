"""Array form of a quantized workload and of an accelerator's engines: what the mapper and lowering kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from accelsim.arch import Accelerator, Engine, OutputStage
from accelsim.engines.registry import rules_of
from accelsim.engines.rules import operand_levers
from accelsim.formats import Format, accumulator_bits_needed
from accelsim.ir import VECTOR_KINDS, Loop, Op, OpKind, Recipe, Workload
from accelsim.limits import check_products, check_times, check_vector_kinds
from accelsim.plan import TABLE_ACTIVATIONS, QuantizedOp, QuantizedWorkload, QuantPlan
from accelsim.problems import InfeasibleError, Problem
from accelsim.program import Int64
from accelsim.slice_units import slice_units, unit_bits
from accelsim.workloads.rank import GATHER, RANK

KIND_CONV, KIND_MATMUL, KIND_VECTOR = range(3)
UNCUT = (RANK, GATHER)  # classes of vector ops whose outputs need all of their inputs
AXIS_ROWS, AXIS_GROUPS = 1, 2  # bit mask of the axes along which an op may be cut

OP_COLUMNS: tuple[str, ...] = (
    "kind", "groups", "rows_h", "rows_w", "cols", "depth", "taps", "kernel_h", "stride", "in_h", "depthwise",
    "activation_bits", "right_bits", "output_bits", "table", "units", "unit_weights", "unit_extra_bits", "slices",
    "axes", "in0_elements", "in1_elements", "in0_root0", "in0_root1", "in1_root0", "in1_root1", "output", "passes",
    "param_bits", "group_axis_extent", "unit_channels", "right_implicit_cols",
    "units_are_cols", "padding", "requantizations",
)  # fmt: skip
(
    O_KIND, O_GROUPS, O_ROWS_H, O_ROWS_W, O_COLS, O_DEPTH, O_TAPS, O_KERNEL_H, O_STRIDE, O_IN_H, O_DEPTHWISE,
    O_ABITS, O_RBITS, O_OBITS, O_TABLE, O_UNITS, O_UNIT_WEIGHTS, O_UNIT_EXTRA, O_SLICES,
    O_AXES, O_IN0, O_IN1, O_IN0_ROOT0, O_IN0_ROOT1, O_IN1_ROOT0, O_IN1_ROOT1, O_OUT, O_PASSES,
    O_PARAM_BITS, O_GROUP_EXTENT, O_UNIT_CHANNELS, O_IMPLICIT, O_UNITS_ARE_COLS,
    O_PADDING, O_REQUANTIZATIONS,
) = range(len(OP_COLUMNS))  # fmt: skip

# A slice: a run of output channels with one weight format. units -1: balanced by the engines; unit_bits: stored bits
# of the weights of a unit.
SLICE_COLUMNS: tuple[str, ...] = ("weight_bits", "units", "terms", "combo", "unit_bits")
S_BITS, S_UNITS, S_TERMS, S_COMBO, S_STORED = range(5)
MIN_SLICES = 3  # rows per op of every table; one whose plan has more weight formats has as many as it needs
MAX_PASSES = 4
MAX_PROBLEMS = 8

TENSOR_COLUMNS: tuple[str, ...] = ("bits", "first", "last", "positions", "graph_input", "graph_output", "twin")
T_BITS, T_FIRST, T_LAST, T_POSITIONS, T_INPUT, T_OUTPUT, T_TWIN = range(7)
OFF_CHIP = -2  # in the column of twins: never resident

ENGINE_COLUMNS: tuple[str, ...] = (
    "form", "lanes", "lane_width", "pixel_groups", "outputs_per_cycle", "pipeline", "activation_port", "weight_port",
    "double_buffered", "accumulator_rows",
)  # fmt: skip
(
    E_FORM, E_LANES, E_WIDTH, E_PIXELS, E_OUTPUTS, E_PIPELINE, E_APORT, E_WPORT, E_DOUBLE, E_ACCUMULATORS,
) = range(len(ENGINE_COLUMNS))  # fmt: skip

# Token groups of an op (docs/decisions/0019-token-groups.md).  Per operand and output: tokens in full, and bits that
# the others have less; the axis of the right operand's tokens; first row of the op's FORMS in `OpTable.forms`.
GROUP_COLUMNS: tuple[str, ...] = (
    "left_high", "left_drop", "right_high", "right_drop", "right_axis", "out_high", "out_drop", "form",
)  # fmt: skip
G_LEFT_HIGH, G_LEFT_DROP, G_RIGHT_HIGH, G_RIGHT_DROP, G_RIGHT_AXIS, G_OUT_HIGH, G_OUT_DROP, G_FORM = range(8)
ALL_TOKENS = 1 << 40  # `high` without groups: more than any tensor has
RIGHT_WHOLE, RIGHT_COLS, RIGHT_DEPTH = range(3)
# Forms of an op: rows of full tokens, then of narrow ones; of each all of the right operand in full, its full tokens,
# its narrow ones.
FORMS, S_WHOLE, S_FULL, S_NARROW = 6, 0, 1, 2

# Head widths of an op (docs/decisions/0020-head-widths.md).  Of left operand, right operand and output, in turn: first
# row of its parts in `OpTable.head_parts` (−1: one width), parts, elements of a part at a position, bits of a position
# of the whole tensor.  Then: first row of the op's forms in `OpTable.forms`, one for every pair of a left and a right
# width (−1: none), and the number of right widths.
HEAD_COLUMNS: tuple[str, ...] = (
    *(f"{operand}_{what}" for operand in ("left", "right", "out") for what in ("at", "parts", "size", "position_bits")),
    "form", "right_widths",
)  # fmt: skip
H_AT, H_PARTS, H_SIZE, H_POSITION = range(4)
H_LEFT, H_RIGHT, H_OUT, H_FORM, H_RIGHT_WIDTHS = 0, 4, 8, 12, 13
# A part: bits of an element of all parts before, number of its width among those of the operand, ascending.
PART_COLUMNS: tuple[str, ...] = ("before_bits", "width")
P_BEFORE, P_WIDTH_INDEX = range(2)

# Per (format combination, engine): -1 or the mode; output channels (depthwise: positions) per slot; passes over the
# terms of a weight; reduction inputs (depthwise: taps) per slot.
M_MODE, M_PRODUCTS, M_PASSES, M_INPUTS = range(4)


# Numbers of the format pairs (right or weight, left, depthwise, reduction) of a table.
Combos = dict[tuple[Format, Format, bool, int], int]


@dataclass(frozen=True, eq=False)
class OpTable:
    """A quantized workload as arrays; row order is `QuantizedWorkload.ops`, tensors in `tensor_names` order.

    `groups` [n, columns G_] are the token groups of every op, `heads` [n, columns H_] its head widths with their
    `head_parts` [parts, PART_COLUMNS], `forms` and `form_slices` the rows of `ops` and `slices` that stand for groups
    of tokens and for pairs of head widths.  All other arrays are those of the worst case: all tokens full, all parts
    in the widest width.
    """

    quantized: QuantizedWorkload
    op_names: tuple[str, ...]
    tensor_names: tuple[str, ...]
    ops: Int64
    slices: Int64
    vector: Int64
    tensors: Int64
    combos: tuple[tuple[Format, Format, bool, int], ...]
    groups: Int64
    forms: Int64
    form_slices: Int64
    heads: Int64
    head_parts: Int64


@lru_cache(maxsize=64)
def op_table(workload: Workload, plan: QuantPlan) -> OpTable:
    """Arrays of `apply_plan(workload, plan)`; cached, because a sweep asks for the same few over and over."""
    from accelsim.plan import apply_plan

    return build_op_table(apply_plan(workload, plan))


def build_op_table(quantized: QuantizedWorkload) -> OpTable:
    """Arrays of a quantized workload.  Lifetimes count executed ops only (views take no time)."""
    from accelsim.head_forms import add_head_forms
    from accelsim.token_forms import add_forms

    workload = quantized.workload
    stored = [t.name for t in workload.tensors if not t.aliases]
    # A parameter per element (position embedding) is streamed from DRAM with the tiles, like a second graph input.
    streamed = {f"{item.op.name}.parameters": item for item in quantized.ops if _streams_parameters(item)}
    stored += streamed
    index = {name: k for k, name in enumerate(stored)}
    n = len(quantized.ops)
    ops = np.zeros((n, len(OP_COLUMNS)), np.int64)
    most = max(MIN_SLICES, *(len(item.weights) for item in quantized.ops))
    slices = np.zeros((n, most, len(SLICE_COLUMNS)), np.int64)
    vector = np.zeros((n, MAX_PASSES, len(VECTOR_KINDS)), np.int64)
    combos: Combos = {}
    for k, item in enumerate(quantized.ops):
        ops[k] = _op_row(item, quantized, index)
        _slice_rows(item, ops[k], slices[k], combos)
        if item.op.recipe:
            _vector_rows(item, vector[k])
    tensors = _tensor_rows(quantized, index, streamed)
    _mark_twins(ops, tensors)
    groups, forms, form_slices = add_forms(quantized, ops, slices, combos)
    heads, head_parts, forms, form_slices = add_head_forms(quantized, ops, slices, combos, forms, form_slices)
    table = OpTable(
        quantized, tuple(q.op.name for q in quantized.ops), tuple(stored), ops, slices, vector, tensors, tuple(combos),
        groups, forms, form_slices, heads, head_parts,
    )  # fmt: skip
    check_products(table)
    return table


def _streams_parameters(item: QuantizedOp) -> bool:
    return item.op.op_class == "embed" and item.op.params_extra > 0 and len(item.op.inputs) == 1


def _op_row(item: QuantizedOp, quantized: QuantizedWorkload, index: dict[str, int]) -> list[int]:
    op, workload, plan = item.op, quantized.workload, quantized.plan
    row = dict.fromkeys(OP_COLUMNS, 0) | {
        "activation_bits": item.activation.bits, "output_bits": item.output.bits, "output": index[op.output],
        "right_bits": quantized.activation_bits[op.inputs[1]] if len(op.inputs) > 1 else item.right.bits,
        "table": int(op.activation in TABLE_ACTIVATIONS), "requantizations": 1 + item.requantizes_twice,
    }  # fmt: skip
    roots = [[index[name] for name in workload.storage_of(source)] for source in op.inputs]
    for position in range(2):
        names = roots[position] if position < len(roots) else []
        row[f"in{position}_root0"] = names[0] if names else -1
        row[f"in{position}_root1"] = names[1] if len(names) > 1 else -1
    elements = [workload.tensor_by_name[source].elements for source in op.inputs]
    views = [bool(workload.tensor_by_name[source].aliases) for source in op.inputs]
    row["in0_elements"] = elements[0]
    row["in1_elements"] = elements[1] if len(elements) > 1 else 0
    if _streams_parameters(item):
        row["in1_root0"] = index[f"{op.name}.parameters"]
        row["in1_elements"], row["right_bits"] = op.params_extra, item.output.bits
    if op.loop:
        row |= _loop_columns(op, op.loop)
        row |= _conv_columns(item, op.loop, plan, views[0]) if op.kind is OpKind.CONV else _product_columns(op.loop)
    if op.recipe:
        row |= _recipe_columns(item, op.recipe, plan, views[0])
    return [int(row[name]) for name in OP_COLUMNS]


def _loop_columns(op: Op, loop: Loop) -> dict[str, int]:
    """Columns of a loop nest."""
    names = ("groups", "rows_h", "rows_w", "cols", "depth", "taps", "kernel_h", "stride", "in_h", "padding")
    # What an op's tile is split by: output channels of an ungrouped convolution, else groups.
    by_cols = loop.groups == 1 and op.kind is OpKind.CONV
    units = loop.cols if by_cols else loop.groups
    return {
        **{name: getattr(loop, name) for name in names}, "depthwise": int(loop.depthwise),
        "units_are_cols": int(by_cols), "units": units, "unit_channels": loop.groups * loop.cols // units,
        "group_axis_extent": loop.groups,
    }  # fmt: skip


def _conv_columns(item: QuantizedOp, loop: Loop, plan: QuantPlan, view: bool) -> dict[str, int]:
    """Columns of a product with filters: axes, what a unit of filters holds, what it reads of a view."""
    op, channels = item.op, loop.groups * loop.cols
    units = loop.cols if loop.groups == 1 else loop.groups
    # A depthwise op with one weight format may also be cut along its channels, as a chain of its own.
    by_channels = AXIS_GROUPS if loop.depthwise and len(item.weights) == 1 else 0
    bias_bits = plan.bias_bits * (op.bias > 0 or op.bn_channels > 0)
    index_bits = max(1, (channels - 1).bit_length()) if item.mixed else 0
    # A requantization after the table has a multiplier and an offset of its own for every channel.
    again_bits = (plan.bias_bits + plan.scale_bits) * item.requantizes_twice
    channel_bits = bias_bits + plan.scale_bits + again_bits + index_bits
    return {
        "kind": KIND_CONV, "axes": AXIS_ROWS | by_channels, "unit_weights": op.weights // units,
        "unit_extra_bits": channels // units * channel_bits,
        **({"in0_elements": loop.groups * loop.depth * loop.in_h * loop.in_w} if view else {}),
    }  # fmt: skip


def _product_columns(loop: Loop) -> dict[str, int]:
    """Columns of a product of two tensors."""
    return {
        "kind": KIND_MATMUL, "axes": AXIS_GROUPS, "in0_elements": loop.groups * loop.rows * loop.depth,
        "in1_elements": loop.groups * loop.depth * (loop.cols - loop.right_implicit_cols),
        "right_implicit_cols": loop.right_implicit_cols,
    }  # fmt: skip


def _recipe_columns(item: QuantizedOp, recipe: Recipe, plan: QuantPlan, view: bool) -> dict[str, int]:
    """Columns of a vector op; of a view it reads its recipe's elements."""
    return {
        "kind": KIND_VECTOR, "groups": recipe.groups, "rows_h": recipe.rows_h, "rows_w": recipe.rows_w,
        "cols": recipe.width, "units": 1, "kernel_h": 1, "stride": 1, "in_h": recipe.rows_h,
        "axes": AXIS_ROWS * recipe.tiles_rows + AXIS_GROUPS * recipe.tiles_groups,
        "group_axis_extent": 1 if item.op.op_class in UNCUT else recipe.groups, "passes": len(recipe.passes),
        "param_bits": 0 if _streams_parameters(item) else item.op.params_extra * plan.scale_bits,
        **({"in0_elements": recipe.elements} if view else {}),
    }  # fmt: skip


def _slice_rows(item: QuantizedOp, row: Int64, out: Int64, combos: Combos) -> None:
    if not item.op.loop:
        return
    formats = [share.format for share in item.weights] or [item.right]
    row[O_SLICES] = len(formats)
    sizes = slice_units(item.weights, int(row[O_UNITS]), int(row[O_UNIT_CHANNELS]))
    for k, fmt in enumerate(formats):
        key = (fmt, item.activation, bool(row[O_DEPTHWISE]), item.op.loop.reduction)
        combo = combos.setdefault(key, len(combos))
        out[k] = (fmt.bits, sizes[k], fmt.terms, combo, unit_bits(item, int(row[O_UNIT_WEIGHTS]), fmt))


def _vector_rows(item: QuantizedOp, out: Int64) -> None:
    recipe = item.op.recipe
    assert recipe is not None
    for p, step in enumerate(recipe.passes):
        for kind, count in step.per_element:
            out[p, VECTOR_KINDS.index(kind)] += count * recipe.elements
        for kind, count in step.per_row:
            out[p, VECTOR_KINDS.index(kind)] += count * recipe.norm_rows


def _tensor_rows(quantized: QuantizedWorkload, index: dict[str, int], streamed: dict[str, QuantizedOp]) -> Int64:
    workload = quantized.workload
    # Positions in the list of executed ops; a view has the position of the op that follows it.
    executed = np.cumsum([op.kind is not OpKind.VIEW for op in workload.ops])
    position = [int(executed[k]) - (op.kind is not OpKind.VIEW) for k, op in enumerate(workload.ops)]
    lives = workload.lifetimes()
    tensors = np.zeros((len(index), len(TENSOR_COLUMNS)), np.int64)
    outputs = workload.storage_of(workload.output)
    for name, k in index.items():
        if name in streamed:
            item = streamed[name]
            assert item.op.recipe is not None
            positions = item.op.recipe.rows_h * item.op.recipe.rows_w
            own = quantized.ops.index(item)
            tensors[k] = (item.op.params_extra * item.output.bits, own, own, positions, 1, 0, -1)
            continue
        tensor = workload.tensor_by_name[name]
        first, last = (min(position[k], len(quantized.ops) - 1) for k in lives[name])
        bits = tensor.elements * quantized.activation_bits[name]
        tensors[k] = (bits, first, last, tensor.h * tensor.w, name == workload.input, name in outputs, -1)
    return tensors


def _mark_twins(ops: Int64, tensors: Int64) -> None:
    """Tensors read together through a view stay on chip together or leave together.

    A graph input or output lives in DRAM, so what is read with it stays off chip; so do three tensors or more that
    views tie together.
    """
    tied: dict[int, set[int]] = {}
    for row in ops.tolist():
        for a, b in ((row[O_IN0_ROOT0], row[O_IN0_ROOT1]), (row[O_IN1_ROOT0], row[O_IN1_ROOT1])):
            if a >= 0 and b >= 0 and a != b:
                group = tied.get(a, {a}) | tied.get(b, {b})
                tied.update(dict.fromkeys(group, group))
    for t, group in tied.items():
        in_dram = any(tensors[member, T_INPUT] or tensors[member, T_OUTPUT] for member in group)
        tensors[t, T_TWIN] = OFF_CHIP if in_dram or len(group) > 2 else next(iter(group - {t}))


@dataclass(frozen=True, eq=False)
class EngineTable:
    """An accelerator's engines as arrays, and which (weight, activation) format pairs run on which in which mode."""

    engines: Int64
    modes: Int64  # [combo, engine, 4]


def engine_table(accelerator: Accelerator, table: OpTable) -> EngineTable:
    """Arrays for this accelerator and these formats.

    Raises InfeasibleError when an op has a slice that no engine can execute, naming widths and levers.
    """
    found = engine_arrays(accelerator, table)
    _require_engines(accelerator, table, found.modes)
    check_vector_kinds(table, accelerator)
    check_times(table, accelerator)
    return found


def engine_arrays(accelerator: Accelerator, table: OpTable) -> EngineTable:
    """As `engine_table`, also where an op has a slice that no engine can execute."""
    engines = np.zeros((len(accelerator.engines), len(ENGINE_COLUMNS)), np.int64)
    modes = np.empty((max(1, len(table.combos)), len(accelerator.engines), 4), np.int64)
    for k, engine in enumerate(accelerator.engines):
        rules = rules_of(engine)
        engines[k] = (
            rules.form(engine), engine.lanes, engine.lane_width, engine.pixel_groups,
            engine.output_stage.outputs_per_cycle, rules.pipeline_cycles(engine),
            engine.activation_port_bits_per_cycle, engine.weight_port_bits_per_cycle, engine.double_buffered,
            engine.accumulator_rows,
        )  # fmt: skip
        modes[:, k] = _placements(table, _without_sizes(engine))
    return EngineTable(engines, modes)


_ANY_STAGE = OutputStage(1)


def _without_sizes(engine: Engine) -> Engine:
    """What placement may depend on: a sweep over sizes and ports asks the rules once."""
    return Engine(
        "engine", engine.kind, 1, 1, 1, _ANY_STAGE, engine.modes, engine.terms, engine.depthwise,
        engine.accumulator_bits, 1, 1, engine.dataflow, engine.double_buffered, 0, engine.timing, engine.dynamic_shift,
        engine.region_shift,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _placements(table: OpTable, engine: Engine) -> Int64:
    """Columns M_ of every format combination of a table on an engine, [combo, 4] (read-only)."""
    rules = rules_of(engine)
    placed = np.full((max(1, len(table.combos)), 4), -1, np.int64)
    for c, (weight, activation, depthwise, reduction) in enumerate(table.combos):
        column = rules.column(engine, weight, activation)
        if column is None or (depthwise and not rules.runs_depthwise(engine, column)):
            continue
        if accumulator_bits_needed(weight, activation, reduction) <= engine.accumulator_bits:
            rate = rules.rate(engine, column)
            placed[c] = (column, rate.products, rate.passes, rate.inputs)
    placed.setflags(write=False)
    return placed


def _require_engines(accelerator: Accelerator, table: OpTable, modes: Int64) -> None:
    """Raise InfeasibleError with the ops that have a slice without engine."""
    slices = table.slices
    there = np.arange(slices.shape[1]) < table.ops[:, O_SLICES, None]
    able = there & (modes[:, :, M_MODE].max(axis=1)[slices[:, :, S_COMBO]] >= 0)
    # Balanced slices share the work of an op: one that runs is enough.
    able |= (slices[:, :, S_UNITS] < 0) & able.any(axis=1, keepdims=True)
    missing, parts = np.nonzero(there & (slices[:, :, S_UNITS] != 0) & ~able)
    if not len(missing):
        return
    problems = []
    for k, first in zip(*np.unique(missing, return_index=True), strict=True):
        part = slices[k, parts[first]]
        weight, activation, depthwise, reduction = table.combos[int(part[S_COMBO])]
        what = f"no engine executes {weight.name} weights with {activation.name} activations"
        what += " in depthwise mode" if depthwise else ""
        readable = any(rules_of(one).column(one, weight, activation) is not None for one in accelerator.engines)
        levers = () if readable else operand_levers(activation)
        levers = levers or ("another plan", "a mode or engine for this format")
        problems.append(
            Problem(
                f"op {table.op_names[k]} on {accelerator.name}",
                what,
                f"an engine whose modes hold both widths and whose accumulators hold {reduction} products",
                (*levers, "wider accumulators"),
            )
        )
    raise InfeasibleError(problems[:MAX_PROBLEMS])
