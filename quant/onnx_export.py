"""Export a calibrated checkpoint as an ONNX model with QuantizeLinear and DequantizeLinear (the extra `onnx`).

The model computes what the fake-quantized network computes, in the same order: integer filters through
DequantizeLinear, every stored tensor through a QuantizeLinear-DequantizeLinear pair, float ops in between.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from accelsim.files import replacing
from accelsim.ir import OpKind
from accelsim.nonlinear.methods import TABLE, named_method
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import token_layers
from quant.calibrated import Checkpoint, Divisor
from quant.fake import FakeQuantized
from quant.functional import Affine
from quant.groups import stored_shapes
from quant.head_parts import refuse_parts
from quant.network import Network, Node
from quant.patchwise.network import rankings
from quant.regions.codes import region_format

if TYPE_CHECKING:
    import onnx

    from quant.onnx_graph import Graph


@dataclass
class Exported:
    """What was written where a format has no standard form of its own.

    `containers`: ops whose filters are held in wider integers than their format ("int8" for 2, 3, 5, 6 and 7 bits and
    plain powers of two, "int16" for more bits, additive powers of two and mixed filters).  `spelled_out`: tensors
    whose quantizer is written as Div, Round, Clip and Mul, because their scales vary along two axes or a zero point
    does not fit.  `divisors`: tensors with log2 divisors, written as comparisons.
    """

    containers: dict[str, str] = field(default_factory=dict)
    spelled_out: list[str] = field(default_factory=list)
    divisors: list[str] = field(default_factory=list)


def export_onnx(checkpoint: Checkpoint, path: str | Path) -> Exported:
    """Write the checkpoint as ONNX (opset 21): "images" [batch, channels, h, w] → "logits" [batch, classes].

    Filters are int8 with a scale per output channel (int4 for 4-bit ones, see `Exported` for the others).  Stored
    tensors are uint8 (signed codes + 128) or int16, behind a clip where the type has more codes than the quantizer.
    Power-of-two filters are stored as the integers they stand for: ONNX has no shifts.
    Raises AccelsimError with every part that has no ONNX form, or when `onnx` is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        levers = ("pip install 'hybrid-vit-codesign[onnx]'",)
        raise AccelsimError(Problem("onnx", "is not installed", "the extra onnx", levers))
    import onnx

    writer = _Writer(checkpoint)
    model = writer.model()
    onnx.checker.check_model(model)
    with replacing(path) as place:
        onnx.save(model, str(place))
    return writer.exported


class _Writer:
    """The graph of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from quant.onnx_functions import EMITTERS, Context
        from quant.onnx_graph import Graph

        self.checkpoint, self.network = checkpoint, checkpoint.network
        self.graph, self.exported = Graph(), Exported()
        self.emitters = EMITTERS
        self.rules = FakeQuantized(checkpoint)
        self.shapes = stored_shapes(self.network)
        self.context = Context(
            self.graph,
            lambda node: self._filters(node, transposed=False),
            lambda node: self._filters(node, transposed=True),
            self._constant,
            self._accumulator,
        )
        self.formats = {
            node.name: {share.format for share in checkpoint.plan.rule_for(node.op).weights}
            for node in self.network.nodes
        }

    def model(self) -> onnx.ModelProto:
        """The whole model.  Raises AccelsimError with every problem."""
        from quant.onnx_graph import view_ops

        _check_tokens(self.network, self.checkpoint.plan)
        refuse_parts(self.checkpoint.plan, "onnx")
        names = {self.network.workload.input: self._image()}
        problems: list[Problem] = []
        for node in self.network.nodes:
            self.graph.scope = node.name
            try:
                operands = []
                for one in node.operands:
                    first, *rest = self.shapes[one.source]
                    operands.append(view_ops(self.graph, names[one.source], one.views, (2 * first, *rest)))
                if node.function not in self.emitters:
                    raise AccelsimError(Problem(f"onnx: {node.name}", f"{node.function!r} has no ONNX form"))
                if named_method(self.checkpoint.plan, node.op) not in ("", TABLE):
                    what = "its integer method has no ONNX form: float operators would compute something else"
                    raise AccelsimError(Problem(f"onnx: {node.name}", what, "a plan without `nonlinear`"))
                value = self.emitters[node.function](self.context, node, operands)
                if node.op.kind is not OpKind.VIEW:
                    value = self._stored(node, value)
                names[node.op.output] = value
            except AccelsimError as error:
                problems += error.problems
                names[node.op.output] = node.op.output
        if problems:
            raise AccelsimError(problems)
        self.graph.scope = "logits"
        self.graph.op("Flatten", [names[self.network.workload.output]], "logits", axis=1)
        classes = int(self.shapes[self.network.workload.output].numel())
        about = {"network": self.network.workload.name, "plan": self.checkpoint.plan.fingerprint()}
        return self.graph.model(self.network.workload.name, self.network.image_shape, classes, about)

    def _image(self) -> str:
        name = self.network.workload.input
        self.graph.scope = name
        return self._rounded("images", self.checkpoint.stored[name], name)

    def _constant(self, node: Node) -> Tensor:
        weight = self.rules.parameters(node)[0]
        assert weight is not None
        return weight

    def _filters(self, node: Node, transposed: bool) -> tuple[str, str | None]:
        """Integers through DequantizeLinear with a scale per output channel."""
        filters = self.checkpoint.filters[node.name]
        kind = self._container(node)
        integers = filters.integers.t() if transposed else filters.integers
        given = [self.graph.integers(integers, kind), self.graph.floats(filters.scale)]
        weight = self.graph.op("DequantizeLinear", given, axis=1 if transposed else 0)
        return weight, None if filters.bias is None else self.graph.floats(filters.bias)

    def _container(self, node: Node) -> str:
        formats = self.formats[node.name]
        largest = max(2 if fmt.is_shift else 1 for fmt in formats)
        widths = {fmt.bits for fmt in formats}
        if widths in ({4}, {8}) and largest == 1:
            return f"int{widths.pop()}"
        limit = int(self.checkpoint.filters[node.name].integers.abs().max())
        kind = "int8" if limit <= 127 else "int16"
        self.exported.containers[node.name] = kind
        return kind

    def _accumulator(self, node: Node, value: str) -> str:
        affine = self.checkpoint.preactivation.get(node.name)
        return value if affine is None else self._rounded(value, affine, f"{node.name} before its activation")

    def _stored(self, node: Node, value: str) -> str:
        self._check_regions(node)
        name = node.op.output
        affine, divisor = self.checkpoint.stored.get(name), self.checkpoint.divisors.get(name)
        result = value if affine is None else self._rounded(value, affine, name)
        if divisor is None:
            return result
        self.exported.divisors.append(name)
        rows = self.graph.op("Cast", [self.graph.floats(divisor.rows.float())], to=9)  # 9: bool
        return self.graph.op("Where", [rows, log2_divisor_ops(self.graph, value, divisor), result])

    def _check_regions(self, node: Node) -> None:
        regions = region_format(self.checkpoint.plan.rule_for(node.op))
        if regions is not None or node.op.output in self.checkpoint.untied:
            what = "a two-region format has no ONNX form: QuantizeLinear has one step"
            raise AccelsimError(Problem(f"onnx: {node.name}", what, "a uniform output format", ("output: u8",)))

    def _rounded(self, value: str, affine: Affine, what: str) -> str:
        """A quantizer and its inverse."""
        shape = (affine.scale + affine.zero_point).shape
        varying = [axis - len(shape) for axis, size in enumerate(shape) if size > 1]
        kind = _kind(affine)
        if len(varying) > 1 or kind is None:
            self.exported.spelled_out.append(what)
            return _spelled_out(self.graph, value, affine)
        if kind == "int8":
            # Kernels of onnxruntime on x86 want unsigned activations; its conversion of signed ones fails at times.
            affine = Affine(affine.scale, affine.zero_point + 128, affine.low + 128, affine.high + 128)
            kind = "uint8"
        return _pair(self.graph, value, affine, kind, varying[0] if varying else None)


def _kind(affine: Affine) -> str | None:
    """The narrowest type from 8 bits on that holds codes and zero points; None when there is none."""
    from quant.onnx_graph import LIMITS, STORED

    low = min(affine.low, int(affine.zero_point.min()))
    high = max(affine.high, int(affine.zero_point.max()))
    return next((kind for kind in STORED if LIMITS[kind][0] <= low and high <= LIMITS[kind][1]), None)


def _pair(graph: Graph, value: str, affine: Affine, kind: str, axis: int | None) -> str:
    """QuantizeLinear and DequantizeLinear, behind a clip where the type has more codes than the quantizer."""
    from quant.onnx_graph import LIMITS

    shape = (affine.scale + affine.zero_point).shape
    scale, zero = affine.scale.float().expand(shape), affine.zero_point.float().expand(shape)
    if (affine.low, affine.high) != LIMITS[kind]:
        # The ends divided by the scale are the end codes again, so nothing else changes.
        value = graph.op("Max", [value, graph.floats((affine.low - zero) * scale)])
        value = graph.op("Min", [value, graph.floats((affine.high - zero) * scale)])
    flat = () if axis is None else (-1,)
    given = [graph.floats(scale.reshape(flat)), graph.integers(zero.reshape(flat), kind)]
    place: dict[str, Any] = {} if axis is None else {"axis": axis}
    return graph.op("DequantizeLinear", [graph.op("QuantizeLinear", [value, *given], **place), *given], **place)


def _spelled_out(graph: Graph, value: str, affine: Affine) -> str:
    """The same in floating point: scale · (clip(round(x / scale) + zero, low, high) − zero)."""
    scale, zero = graph.floats(affine.scale), graph.floats(affine.zero_point)
    code = graph.op("Add", [graph.op("Round", [graph.op("Div", [value, scale])]), zero])
    code = graph.op("Clip", [code, graph.floats(float(affine.low)), graph.floats(float(affine.high))])
    return graph.op("Mul", [graph.op("Sub", [code, zero]), scale])


def log2_divisor_ops(graph: Graph, value: str, divisor: Divisor) -> str:
    """Divisors as unit · 2^k, exactly as `quant.fake.log2_divisor`, without logarithms.

    The exponent of s whole steps is at least e when s ≥ 0.75 · 2^e (the leading one, rounded up by the bit below it),
    so comparing with all ends of the window and counting gives it; a table gives the power of two.
    """
    lowest = divisor.lowest.expand((divisor.unit + divisor.lowest).shape)
    steps = graph.op("Round", [graph.op("Div", [value, graph.floats(divisor.unit)])])
    count = (1 << divisor.bits) - 1
    ends = 0.75 * torch.exp2(lowest[..., None] + torch.arange(1, count + 1))
    above = graph.op("GreaterOrEqual", [graph.op("Unsqueeze", [steps, graph.longs([-1])]), graph.floats(ends)])
    index = graph.op("ReduceSum", [graph.op("Cast", [above], to=7), graph.longs([-1])], keepdims=0)  # 7: int64
    power = graph.op("Gather", [graph.floats(torch.exp2(torch.arange(count + 1.0))), index])
    result = graph.op("Mul", [power, graph.floats(divisor.unit * torch.exp2(lowest))])
    none = graph.op("Less", [steps, graph.floats(1.0)])
    return graph.op("Where", [none, graph.floats(0.0), result])


def _check_tokens(network: Network, plan: QuantPlan) -> None:
    """Raise AccelsimError for a network that ranks its tokens, or a plan that gives some of them fewer bits."""
    layers = dict.fromkeys([*rankings(network), *token_layers(plan)])
    if layers:
        what = f"tokens of {', '.join(layers)} are ranked and stored in several widths, which has no ONNX form"
        expected = "a network without patch-wise bits"
        raise AccelsimError(Problem(f"onnx: {network.workload.name}", what, expected, ("quantize without rankings",)))
