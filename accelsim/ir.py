"""The workload: tensors, operations as loop nests or vector recipes, and the graph as a view of the op tuple."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import networkx as nx


class OpKind(StrEnum):
    """What executes an op: CONV and MATMUL run on arrays, VECTOR on the vector unit, VIEW moves nothing."""

    CONV = "conv"
    MATMUL = "matmul"
    VECTOR = "vector"
    VIEW = "view"


class VectorKind(StrEnum):
    """Kinds of functional units inside the vector unit; order is the column order of every per-kind array."""

    MUL = "mul"
    ADD = "add"
    SHIFT = "shift"
    COMPARE = "compare"
    TABLE = "table"
    DIVISION = "division"
    LEADING_ONE = "leading_one"


VECTOR_KINDS: tuple[VectorKind, ...] = tuple(VectorKind)


@dataclass(frozen=True)
class Loop:
    """Loop nest of an array op.

    `groups` independent products, each with `rows_h × rows_w` output positions (pixels, or tokens with rows_w = 1),
    `cols` output channels, and a reduction of `taps × depth` (kernel positions × input channels of the group).  A
    depthwise convolution has depth = cols = 1 and groups = channels.  `heads_left` / `heads_right` of a MATMUL are the
    per-group operand sizes implied by the nest: left rows × depth, right depth × cols.
    """

    groups: int
    rows_h: int
    rows_w: int
    cols: int
    depth: int
    kernel_h: int = 1
    kernel_w: int = 1
    stride: int = 1
    padding: int = 0
    in_h: int = 0
    in_w: int = 0
    right_implicit_cols: int = 0

    @property
    def rows(self) -> int:
        """Output positions per group."""
        return self.rows_h * self.rows_w

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return self.kernel_h * self.kernel_w

    @property
    def reduction(self) -> int:
        """Products summed into one output."""
        return self.taps * self.depth

    @property
    def macs(self) -> int:
        """Multiply-accumulates; taps on padding count."""
        return self.groups * self.rows * self.cols * self.reduction

    @property
    def depthwise(self) -> bool:
        """One input and one output channel per group and more than one tap."""
        return self.depth == 1 and self.cols == 1 and self.groups > 1 and self.taps > 1


@dataclass(frozen=True)
class VectorPass:
    """One pass of a vector recipe over its operand: operations per element and per row, by VectorKind."""

    per_element: tuple[tuple[VectorKind, int], ...] = ()
    per_row: tuple[tuple[VectorKind, int], ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A non-matrix op as passes over `rows_h × rows_w` rows of `groups × width` elements.

    `tiles_rows` / `tiles_groups` say along which axis the op may be cut.  `reduces_rows` marks pooling: the output has
    one row.  Every pass reads the first input once; further inputs (the skip of a residual add) are read once.
    """

    name: str
    passes: tuple[VectorPass, ...]
    groups: int
    rows_h: int
    rows_w: int
    width: int
    tiles_rows: bool = True
    tiles_groups: bool = False
    reduces_rows: bool = False

    @property
    def elements(self) -> int:
        """Elements that one pass visits."""
        return self.groups * self.rows_h * self.rows_w * self.width

    @property
    def norm_rows(self) -> int:
        """Rows over which `per_row` operations run (softmax and LayerNorm rows: one per group and position)."""
        return self.groups * self.rows_h * self.rows_w

    def operations(self) -> tuple[int, ...]:
        """Total operations by VectorKind, in `VECTOR_KINDS` order."""
        totals = dict.fromkeys(VECTOR_KINDS, 0)
        for step in self.passes:
            for kind, count in step.per_element:
                totals[kind] += count * self.elements
            for kind, count in step.per_row:
                totals[kind] += count * self.norm_rows
        return tuple(totals[kind] for kind in VECTOR_KINDS)


@dataclass(frozen=True)
class Tensor:
    """An activation: [positions h, positions w, channels], channels fastest in memory.

    `aliases` names the tensors whose storage a VIEW output shares (concatenation, slicing): it has none of its own.
    """

    name: str
    h: int
    w: int
    channels: int
    aliases: tuple[str, ...] = ()

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.h * self.w * self.channels


@dataclass(frozen=True)
class Op:
    """One operation.  Exactly one of `loop` and `recipe` is set, except for VIEW ops, which have neither.

    `inputs[0]` is the left (streamed) operand; a MATMUL's `inputs[1]` is its right operand.  `weights` counts weight
    elements, `bias` the output channels that have a bias, `bn_channels` the BatchNorm channels folded away (they count
    as two parameters each; folding leaves a bias in the hardware), `params_extra` other learned parameters (LayerNorm,
    position embeddings, tokens).
    `activation` is applied by the output stage: "" | "relu" | "hardswish" | "gelu" | "silu" | "sigmoid".
    """

    name: str
    kind: OpKind
    op_class: str
    inputs: tuple[str, ...]
    output: str
    loop: Loop | None = None
    recipe: Recipe | None = None
    weights: int = 0
    bias: int = 0
    bn_channels: int = 0
    params_extra: int = 0
    activation: str = ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the op (0 for vector and view ops)."""
        return self.loop.macs if self.loop else 0

    @property
    def params(self) -> int:
        """Learned parameters, BatchNorm counted as two per channel."""
        return self.weights + self.bias + 2 * self.bn_channels + self.params_extra


@dataclass(frozen=True)
class Workload:
    """A network at one resolution.  `ops` is the truth (a topological order); `graph()` is a view."""

    name: str
    resolution: int
    ops: tuple[Op, ...]
    tensors: tuple[Tensor, ...]
    input: str
    output: str
    meta: tuple[tuple[str, str], ...] = field(default=())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(op.macs for op in self.ops)

    @property
    def params(self) -> int:
        """Learned parameters."""
        return sum(op.params for op in self.ops)

    def macs_by_class(self) -> dict[str, int]:
        """Multiply-accumulates by op class, in order of first appearance; classes without MACs are left out."""
        result: dict[str, int] = {}
        for op in self.ops:
            if op.macs:
                result[op.op_class] = result.get(op.op_class, 0) + op.macs
        return result

    @cached_property
    def tensor_by_name(self) -> dict[str, Tensor]:
        """Tensors by name."""
        return {tensor.name: tensor for tensor in self.tensors}

    @cached_property
    def op_by_name(self) -> dict[str, Op]:
        """Operations by name."""
        return {op.name: op for op in self.ops}

    def storage_of(self, name: str) -> tuple[str, ...]:
        """The tensors that hold the storage behind `name`, views resolved."""
        aliases = self.tensor_by_name[name].aliases
        if not aliases:
            return (name,)
        return tuple(dict.fromkeys(root for alias in aliases for root in self.storage_of(alias)))

    @cached_property
    def readers(self) -> dict[str, tuple[Op, ...]]:
        """Of every stored tensor the ops that read its storage, each once, through views or not; views read nothing."""
        found: dict[str, list[Op]] = {tensor.name: [] for tensor in self.tensors if not tensor.aliases}
        for op in self.ops:
            if op.kind is not OpKind.VIEW:
                for root in dict.fromkeys(root for name in op.inputs for root in self.storage_of(name)):
                    found[root].append(op)
        return {name: tuple(ops) for name, ops in found.items()}

    def lifetimes(self) -> dict[str, tuple[int, int]]:
        """First and last op index (inclusive) during which each stored tensor must exist.

        The graph input lives from op 0; the graph output to the last op.  A view is no use of what it aliases, but its
        readers are.
        """
        first: dict[str, int] = {self.input: 0}
        last: dict[str, int] = {self.input: 0}
        for index, op in enumerate(self.ops):
            if op.kind is not OpKind.VIEW:
                first[op.output] = index
                last[op.output] = index
                for root in (root for name in op.inputs for root in self.storage_of(name)):
                    last[root] = index
        for root in self.storage_of(self.output):
            last[root] = len(self.ops) - 1
        return {name: (first[name], last[name]) for name in first}

    def graph(self) -> nx.DiGraph:
        """Networkx view: one node per op, one edge per tensor that flows between two ops."""
        import networkx as nx

        graph = nx.DiGraph(name=self.name)
        producer: dict[str, str] = {}
        for op in self.ops:
            graph.add_node(op.name, kind=str(op.kind), op_class=op.op_class, macs=op.macs)
            for name in op.inputs:
                if name in producer:
                    graph.add_edge(producer[name], op.name, tensor=name)
            producer[op.output] = op.name
        return graph

    def to_json(self) -> dict[str, Any]:
        """Plain data; `fingerprint` hashes it."""
        return asdict(self)

    def fingerprint(self) -> str:
        """Hash of everything that can change a simulation."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        # Kept: walking every op costs more than simulating the workload.
        return digest(self.to_json())


def digest(data: Any) -> str:
    """Stable 16-hex-digit hash of plain data."""
    return digest_text(plain_text(data))


def plain_text(data: Any) -> str:
    """Plain data as JSON that is the same for equal data."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)


def digest_text(text: str) -> str:
    """Stable 16-hex-digit hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
