"""A Network: the simulator's op list with parameters, and the one interpreter that executes it in torch.

Float, fake-quantized and calibrating runs differ only in their `Numerics`: what happens to weights, to accumulators and
to what is stored.  So the network whose accuracy is measured is the network that the simulator prices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from accelsim.ir import Op, OpKind, Workload
from accelsim.problems import AccelsimError, Problem
from quant.views import View, rearrange


@dataclass(frozen=True)
class Operand:
    """What an op reads: a tensor of the workload as torch laid it out, re-arranged by view steps."""

    source: str
    views: tuple[View, ...] = ()


@dataclass(frozen=True, eq=False)
class Node:
    """An op with its meaning and its float parameters (BatchNorm folded).

    `function` names how it is computed (`quant.functions`); `settings` are that function's own arguments.  `weight`
    and `bias` are as torch has them ([outputs, inputs / groups, h, w] or [outputs, inputs], [outputs]); other
    functions say what theirs are.
    """

    op: Op
    function: str
    operands: tuple[Operand, ...]
    weight: Tensor | None = None
    bias: Tensor | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The op's name."""
        return self.op.name

    @property
    def activation(self) -> str:
        """The activation function that ends the op, exactly ("gelu_tanh" where the op says "gelu"); "": none."""
        return str(self.settings.get("activation", self.op.activation))

    @property
    def has_filters(self) -> bool:
        """True for a convolution or linear layer: its weight has one filter per output channel."""
        return self.op.kind is OpKind.CONV


@dataclass(frozen=True, eq=False)
class Network:
    """A workload and a node for each of its ops, in the same order.

    `image_shape` is that of one image, [channels, h, w].
    """

    workload: Workload
    nodes: tuple[Node, ...]
    image_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        names = tuple(node.op.name for node in self.nodes)
        if names != tuple(op.name for op in self.workload.ops):
            raise AccelsimError(Problem(f"network {self.workload.name}", "its nodes are not the ops of its workload"))

    def node(self, name: str) -> Node:
        """The node of that name.  Raises AccelsimError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise AccelsimError(Problem(f"network {self.workload.name}", f"has no op {name!r}"))


class Numerics:
    """What a run does to values; this base class computes in floating point and changes nothing."""

    def image(self, value: Tensor) -> Tensor:
        """The graph input as it is stored."""
        return value

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        """Weight and bias that the op uses."""
        return node.weight, node.bias

    def operand(self, node: Node, position: int, value: Tensor) -> Tensor:
        """An operand after its view steps."""
        return value

    def accumulator(self, node: Node, value: Tensor) -> Tensor:
        """The result before the op's activation function."""
        return value

    def nonlinear(self, node: Node, operands: list[Tensor]) -> Tensor | None:
        """The result of a softmax, LayerNorm or activation that is an op, where it is not the float function's."""
        return None

    def stored(self, node: Node, value: Tensor) -> Tensor:
        """The op's output as it is stored (views are not stored)."""
        return value

    def narrowed(self, node: Node, value: Tensor, operands: list[Tensor]) -> Tensor:
        """The stored output with fewer bits in some of its rows (`quant.patchwise`)."""
        return value


def run(
    network: Network,
    images: Tensor,
    numerics: Numerics | None = None,
    *,
    given: Mapping[str, Tensor] | None = None,
    nodes: Iterable[Node] | None = None,
    keep: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Execute nodes (all of them unless `nodes` is given) and return the tensors named in `keep`, or the output.

    `images` is [n, channels, h, w].  `given` are tensors that exist already (a run of some nodes only starts from
    them; `images` may then be any tensor with n rows).  Everything else is dropped after its last reader.
    """
    from quant.functions import FUNCTIONS

    rules = Numerics() if numerics is None else numerics
    chosen = tuple(network.nodes if nodes is None else nodes)
    wanted = set(keep) or {network.workload.output}
    values: dict[str, Tensor] = dict(given or {})
    last = {operand.source: k for k, node in enumerate(chosen) for operand in node.operands}
    image = network.workload.input
    if image not in values and (image in last or image in wanted):
        values[image] = rules.image(images)
    count = images.shape[0]
    for k, node in enumerate(chosen):
        read = [rearrange(values[operand.source], operand.views, count) for operand in node.operands]
        operands = [rules.operand(node, position, value) for position, value in enumerate(read)]
        value = FUNCTIONS[node.function](node, operands, rules)
        if node.op.kind is not OpKind.VIEW:
            value = rules.narrowed(node, rules.stored(node, value), operands)
        values[node.op.output] = value
        for name in {operand.source for operand in node.operands}:
            if last[name] == k and name not in wanted:
                values.pop(name, None)
    return {name: values[name] for name in wanted}


def forward(network: Network, images: Tensor, numerics: Numerics | None = None) -> Tensor:
    """The network's output for images [n, channels, h, w], [n, classes].

    Raises AccelsimError for images of another shape than the network was captured with.
    """
    if tuple(images.shape[1:]) != network.image_shape:
        what, expected = f"images of {list(images.shape[1:])}", f"images of {list(network.image_shape)}"
        raise AccelsimError(Problem(f"network {network.workload.name}", what, expected))
    result = run(network, images, numerics)[network.workload.output]
    return result.reshape(result.shape[0], -1)
