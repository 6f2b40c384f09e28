"""Steps become a Workload, with the checks of its builder, and a Network."""

from __future__ import annotations

import math
from typing import Any

from accelsim.ir import Loop, Recipe, Tensor
from accelsim.problems import Problem
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder
from quant.capture.classes import op_class
from quant.capture.values import Ref, Shape, Step, StepGraph, elements, per_image
from quant.network import Network, Node, Operand

Layout = tuple[int, int, int]
# Steps that may remain: the functions that execute them (quant.functions).
FUNCTION_OF = {
    "conv": "conv", "linear": "linear", "matmul": "matmul", "add": "add", "softmax": "softmax",
    "layernorm": "layernorm", "activation": "activation", "embed": "embed", "bias_add": "bias_add",
    "divide": "divide", "normalize": "normalize", "mean": "mean", "gate": "gate", "pool_mixer": "pool_mixer",
    "concat": "concat", "view": "identity",
}  # fmt: skip
RECIPES_THAT_ACTIVATE = ("layernorm", "gate", "activation")


def in_hardware(step: Step) -> str:
    """The name by which the workload knows a step's activation."""
    return "gelu" if step.activation == "gelu_tanh" else step.activation


def leftovers(graph: StepGraph, name: str) -> list[Problem]:
    """Steps that no op of the hardware can hold."""
    found = []
    for step in graph.steps:
        if step.kind not in FUNCTION_OF:
            text = f"{step.kind} stands where no op of the workload computes it"
            found.append(Problem(f"capture {name}: {step.owner or step.label}", text))
    owners: dict[str, list[Step]] = {}
    for step in graph.steps:
        if step.owner:
            owners.setdefault(step.owner, []).append(step)
    for owner, steps in owners.items():
        if len(steps) > 1:
            kinds = ", ".join(step.kind for step in steps)
            found.append(Problem(f"capture {name}: {owner}", f"this module is {len(steps)} ops: {kinds}", "one op"))
    return found


class NetworkBuilder:
    """Adds steps to a workload in order and remembers the node of each."""

    def __init__(self, graph: StepGraph, name: str, params: dict[str, int]) -> None:
        _, channels, height, _ = graph.image.shape
        self.graph = graph
        self.params = params
        self.net = WorkloadBuilder(name, per_image(height), per_image(channels))
        self.names: dict[Step, str] = {graph.image: self.net.input}
        self.taken = {self.net.input}
        self.parts: list[tuple[str, dict[str, Any]]] = []

    def build(self, meta: tuple[tuple[str, str], ...]) -> Network:
        """The network of all steps.  Raises AccelsimError when a step does not fit the workload's rules."""
        for step in self.graph.steps:
            getattr(self, f"_{step.kind}", self._vector)(step)
        name = self._output(self.graph.output)
        workload = self.net.build(name, meta)
        ops = workload.op_by_name
        nodes = tuple(Node(op=ops[op], **fields) for op, fields in self.parts)
        return Network(workload, nodes, tuple(per_image(size) for size in self.graph.image.shape[1:]))

    def _output(self, ref: Ref) -> str:
        """The tensor that is the result; a view op where it is another arrangement of a stored tensor or a part."""
        if all(view.name == "reshape" for view in ref.views):
            return self.names[ref.step]
        name, source = self._name("output"), self.names[ref.step]
        self.net.view(name, (source,), *view_layout(ref.shape))
        self.parts.append((name, {"function": "identity", "operands": (Operand(source, ref.views),)}))
        return name

    def _name(self, text: str) -> str:
        name, k = text, 2
        while name in self.taken:
            name, k = f"{text}_{k}", k + 1
        self.taken.add(name)
        return name

    def _node(self, step: Step, name: str, operands: list[Operand], **settings: Any) -> None:
        self.names[step] = name
        # An op with a recipe has no field for its activation; a product's op names the table, not the exact function.
        if step.activation and (step.kind in RECIPES_THAT_ACTIVATE or step.activation != in_hardware(step)):
            settings["activation"] = step.activation
        self.parts.append((name, {
            "function": FUNCTION_OF[step.kind], "operands": tuple(operands), "weight": step.weight, "bias": step.bias,
            "settings": {**step.settings, **settings},
        }))  # fmt: skip

    def _operand(self, ref: Ref) -> Operand:
        return Operand(self.names[ref.step], ref.views)

    def _shape(self, ref: Ref) -> Layout:
        tensor = self.net.tensor(self.names[ref.step])
        return tensor.h, tensor.w, tensor.channels

    def _learned(self, step: Step) -> int:
        return sum(self.params[name] for name in step.learned)

    def _read_as(self, step: Step, name: str, layout: Layout) -> Operand:
        """The input of a product in the layout that it needs; a view op where the stored layout is another."""
        ref = step.operands[0]
        h, w, channels = self._shape(ref)
        if channels == layout[2] and h * w == layout[0] * layout[1]:
            return self._operand(ref)
        view = self._name(f"{name}.view")
        source = self.names[ref.step]
        self.net.view(view, (source,), *layout)
        self.parts.append((view, {"function": "identity", "operands": (Operand(source, ref.views),)}))
        return Operand(view)

    def _conv(self, step: Step) -> None:
        name = self._name(step.owner or step.label)
        shape = step.operands[0].shape
        operand = self._read_as(step, name, (per_image(shape[2]), per_image(shape[3]), per_image(shape[1])))
        assert step.weight is not None
        self._filters(step, name, operand, int(step.weight.shape[2]), step.settings)
        self._node(step, name, [operand])

    def _linear(self, step: Step) -> None:
        name = self._name(step.owner or step.label)
        shape = step.operands[0].shape
        operand = self._read_as(step, name, token_layout(shape))
        settings = {"stride": (1, 1), "padding": (0, 0), "groups": 1}
        windows = per_image(step.shape[0])
        layout = None
        if windows > 1 and all(user.kind == "matmul" for user in step.users):
            rows = elements(step.shape[1:-1])
            layout = (rows, 1, windows * per_image(step.shape[-1]))
        self._filters(step, name, operand, 1, settings, layout)
        self._node(step, name, [operand])

    def _filters(
        self, step: Step, name: str, operand: Operand, kernel: int, settings: dict[str, Any],
        layout: Layout | None = None,
    ) -> None:  # fmt: skip
        assert step.weight is not None
        self.net.conv(name, op_class(step), operand.source, int(step.weight.shape[0]), kernel=kernel,
                      stride=settings["stride"][0], padding=settings["padding"][0], groups=settings["groups"],
                      bias=step.learned_bias, norm=step.norm, input_norm=step.input_norm, activation=in_hardware(step),
                      layout=layout)  # fmt: skip

    def _matmul(self, step: Step) -> None:
        name = self._name(step.owner or step.label)
        left, right = step.operands
        groups = elements(left.shape[:-2])
        rows, depth, cols = per_image(left.shape[-2]), per_image(left.shape[-1]), per_image(right.shape[-1])
        h, w, _ = self._shape(left)
        kind = op_class(step)
        rows_h, rows_w = (h, w) if h * w == rows and kind != "ktv" else (rows, 1)
        ones = sum(view.name == "ones_row" for view in right.views)
        loop = Loop(groups, rows_h, rows_w, cols, depth, right_implicit_cols=ones)
        self.net.matmul(name, kind, self.names[left.step], self.names[right.step], loop, in_hardware(step))
        self._node(step, name, [self._operand(left), self._operand(right)])

    def _concat(self, step: Step) -> None:
        name = self._name(step.owner or step.label)
        layouts = [self._shape(ref) for ref in step.operands]
        dim, shape = step.settings["dim"], step.shape
        positions = {(h, w) for h, w, _ in layouts}
        along_channels = dim == (1 if len(shape) == 4 else len(shape) - 1) or dim == len(shape) - 1
        if along_channels and len(positions) == 1:
            h, w = positions.pop()
            layout = (h, w, elements(shape) // (h * w))
        else:
            layout = view_layout(shape)
        self.net.view(name, tuple(self.names[ref.step] for ref in step.operands), *layout)
        self._node(step, name, [self._operand(ref) for ref in step.operands])

    def _view(self, step: Step) -> None:
        name = self._name(step.owner or step.label)
        self.net.view(name, (self.names[step.operands[0].step],), *view_layout(step.shape))
        self._node(step, name, [self._operand(step.operands[0])])

    def _vector(self, step: Step) -> None:
        name = self._name(step.owner or step.label)
        if step.kind == "add" and step.weight is None and not step.owner:
            # The skip is the older one of the two.
            step.operands.sort(key=lambda ref: -list(self.names).index(ref.step))
        recipe, layout = self._recipe(step)
        inputs = tuple(self.names[ref.step] for ref in step.operands)
        self.net.vector(name, op_class(step), inputs, recipe, Tensor(name, *layout), self._learned(step))
        self._node(step, name, [self._operand(ref) for ref in step.operands])

    def _recipe(self, step: Step) -> tuple[Recipe, Layout]:
        """The vector recipe of a step and the layout of its result."""
        ref = step.operands[0]
        total = elements(step.shape)
        h, w, channels = self._shape(ref)
        h, w, channels = spread(step.shape, h, w)
        if step.kind == "layernorm":
            h, w, channels = self._token_rows(ref, step.shape)
            return recipes.layernorm(h * w, channels, in_hardware(step)), (h, w, channels)
        if step.kind == "embed":
            h, w, channels = token_layout(step.shape) if step.settings["rows"] else (h, w, channels)
            return recipes.elementwise_add(1, h, w, channels), (h, w, channels)
        if step.kind == "mean":
            return recipes.average_pool(total, elements(ref.shape) // total), (1, 1, total)
        if step.kind == "gate":
            return recipes.gate(channels, h, w, in_hardware(step)), (h, w, channels)
        if step.kind == "pool_mixer":
            return recipes.pool_mixer(channels, h, w), (h, w, channels)
        if step.kind == "add":
            kept = self._shape(step.operands[1])
            h, w, channels = kept if math.prod(kept) == total else (h, w, channels)
            return recipes.residual_add(1, h, w, channels), (h, w, channels)
        groups = 1
        heads = len(step.shape) == 4 and (h, w) not in (step.shape[2:], step.shape[1:3])
        if heads or step.kind in ("softmax", "bias_add", "normalize"):
            groups = elements(step.shape[:-2])
        width = channels // groups
        if step.kind == "activation":
            size = (groups, h, w, width)
            relu = step.activation == "relu"
            return recipes.relu(*size) if relu else recipes.lookup(in_hardware(step), *size), (h, w, channels)
        make = {"softmax": recipes.softmax, "bias_add": recipes.bias_add, "divide": recipes.division,
                "normalize": recipes.attention_normalize}[step.kind]  # fmt: skip
        return make(groups, h, w, width), (h, w, channels)

    def _token_rows(self, ref: Ref, shape: Shape) -> Layout:
        h, w, channels = self._shape(ref)
        width = per_image(shape[-1])
        return (h, w, width) if h * w * width == elements(shape) and channels >= width else token_layout(shape)


def token_layout(shape: Shape) -> Layout:
    """[batch, .., channels] as (h, w, channels): two axes of positions stay two, others become rows."""
    if len(shape) == 4 and per_image(shape[0]) == 1:
        return per_image(shape[1]), per_image(shape[2]), per_image(shape[3])
    return elements(shape[:-1]), 1, per_image(shape[-1])


def spread(shape: Shape, h: int, w: int) -> Layout:
    """The layout of an element-wise result of this shape whose operand is stored with h · w positions."""
    total, positions = elements(shape), h * w
    if len(shape) == 4 and per_image(shape[0]) == 1:
        if shape[2:] == (h, w) or shape[1:3] == (h, w) or positions in shape[2:]:
            return h, w, total // positions
        return view_layout(shape)
    if elements(shape[:-1]) == positions or shape[-1] == positions or (len(shape) > 3 and total % positions == 0):
        return h, w, total // positions
    return token_layout(shape)


def view_layout(shape: Shape) -> Layout:
    """The layout of a view's result: [batch, channels, h, w] or rows of channels."""
    if len(shape) == 4:
        return per_image(shape[2]), per_image(shape[3]), elements(shape[:2])
    return elements(shape[:-1]), 1, per_image(shape[-1])
