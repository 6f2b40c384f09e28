"""Build an ONNX graph node by node, with the helper API of `onnx`; view steps as ONNX ops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.views import Batch, View, rearrange

OPSET = 21  # the first with 4-bit integers
IR_VERSION = 10
LAST = 2**63 - 1  # "to the end" in a Slice
INTEGERS = {
    "int4": TensorProto.INT4, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16,
    "uint16": TensorProto.UINT16,
}  # fmt: skip
LIMITS = {
    "int4": (-8, 7), "int8": (-128, 127), "uint8": (0, 255), "int16": (-(1 << 15), (1 << 15) - 1),
    "uint16": (0, (1 << 16) - 1),
}  # fmt: skip
# Types of stored tensors, in the order in which they are tried.  Fused kernels of onnxruntime take no int4 activations.
STORED = ("int8", "uint8", "int16", "uint16")


class Graph:
    """Nodes and constants of a model; `scope` is the prefix of new names.  Methods return the name of the result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.scope = ""
        self._count = 0

    def op(self, kind: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        """One node; the result is called `name`, or a new name."""
        result = name or self._fresh(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [result], name=f"node/{result}", **attributes))
        return result

    def floats(self, value: Tensor | float) -> str:
        """A float32 constant."""
        array = torch.as_tensor(value, dtype=torch.float32).detach().contiguous().numpy()
        return self._constant(TensorProto.FLOAT, array.shape, array.tobytes())

    def longs(self, values: Iterable[int] | int) -> str:
        """An int64 constant: a vector, or a single number."""
        array = np.array(values if isinstance(values, int) else list(values), np.int64)
        return self._constant(TensorProto.INT64, array.shape, array.tobytes())

    def integers(self, values: Tensor, kind: str) -> str:
        """A constant of small integers; `kind` is a key of `INTEGERS`.  Raises AccelsimError when one does not fit."""
        low, high = LIMITS[kind]
        array: NDArray[np.int64] = values.detach().to(torch.int64).contiguous().numpy()
        if array.size and (array.min() < low or array.max() > high):
            raise AccelsimError(Problem(f"onnx: {self.scope}", f"integers beyond {low} … {high}", f"values of {kind}"))
        return self._constant(INTEGERS[kind], array.shape, _packed(array, kind))

    def model(self, name: str, image_shape: Sequence[int], classes: int, about: dict[str, str]) -> onnx.ModelProto:
        """The finished model: "images" [batch, …] in, "logits" [batch, classes] out."""
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *image_shape])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])
        graph = helper.make_graph(self.nodes, name, [images], [logits], self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hybrid-vit-codesign"
        )
        helper.set_model_props(model, about)
        return model

    def _constant(self, kind: int, shape: Sequence[int], data: bytes) -> str:
        name = self._fresh("constant")
        self.constants.append(helper.make_tensor(name, kind, list(shape), data, raw=True))
        return name

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{self.scope}/{kind}_{self._count}"


def _packed(values: NDArray[np.int64], kind: str) -> bytes:
    """Raw data of an ONNX tensor; two 4-bit integers share a byte, the first in its lower half."""
    if kind != "int4":
        return bytes(values.astype(kind).tobytes())
    halves = np.resize(values.reshape(-1) & 15, values.size + values.size % 2)
    return bytes((halves[0::2] | halves[1::2] << 4).astype(np.uint8).tobytes())


def slice_op(graph: Graph, value: str, axis: int, start: int, stop: int, step: int = 1) -> str:
    """Part of an axis."""
    return graph.op("Slice", [value, *(graph.longs([one]) for one in (start, stop, axis, step))])


def view_ops(graph: Graph, value: str, views: Iterable[View], shape: tuple[int, ...]) -> str:
    """The view steps of an operand; `shape` is that of the tensor for two images.

    Raises AccelsimError for a step without a form for any number of images.
    """
    probe = torch.empty(shape, device="meta")
    for view in views:
        after = rearrange(probe, (view,), 2)
        value = _view(graph, value, view, probe.dim(), tuple(after.shape))
        probe = after
    return value


def _view(graph: Graph, value: str, view: View, rank: int, shape: tuple[int, ...]) -> str:
    args = view.args
    match view.name:
        case "reshape":
            return graph.op("Reshape", [value, graph.longs(_free(graph, args[0], shape))])
        case "permute":
            return graph.op("Transpose", [value], perm=[dim % rank for dim in args[0]])
        case "slice":
            dim, start, stop, step = args
            return slice_op(graph, value, dim % rank, start, min(stop, LAST), step)
        case "select":
            return graph.op("Gather", [value, graph.longs(args[1])], axis=args[0] % rank)
        case "unsqueeze":
            return graph.op("Unsqueeze", [value, graph.longs([args[0] % (rank + 1)])])
        case "squeeze":
            return graph.op("Squeeze", [value, graph.longs([args[0] % rank])]) if len(shape) < rank else value
        case "expand":
            # A size of 1 keeps what is there: the number of images, too.
            sizes = [1 if isinstance(size, Batch) or size == -1 else size for size in args[0]]
            return graph.op("Expand", [value, graph.longs(sizes)])
        case "roll":
            return _roll(graph, value, args[0], args[1], shape)
        case "ones_row":
            ends = graph.longs([0, 1])
            return graph.op("Pad", [value, ends, graph.floats(1.0), graph.longs([args[0] % rank])], mode="constant")
    raise AccelsimError(Problem(f"onnx: {graph.scope}", f"the view step {view.name!r} has no ONNX form"))


def _free(graph: Graph, sizes: Sequence[Any], shape: tuple[int, ...]) -> list[int]:
    """Sizes of a Reshape: −1 where the number of images enters."""
    found = [-1 if isinstance(size, Batch) else size for size in sizes]
    batches = sum(isinstance(size, Batch) for size in sizes)
    if batches > 1:
        raise AccelsimError(Problem(f"onnx: {graph.scope}", "the number of images enters two sizes of a reshape"))
    if batches == 1:  # another −1 is known
        found = [shape[k] if size == -1 and not isinstance(sizes[k], Batch) else size for k, size in enumerate(found)]
    return found


def _roll(graph: Graph, value: str, shifts: Any, dims: Any, shape: tuple[int, ...]) -> str:
    pairs = zip(shifts, dims, strict=True) if isinstance(shifts, tuple) else ((shifts, dims),)
    for shift, dim in pairs:
        cut = -shift % shape[dim]
        ends = [slice_op(graph, value, dim, cut, LAST), slice_op(graph, value, dim, 0, cut)]
        value = graph.op("Concat", ends, axis=dim)
    return value
