"""What follows from a network's graph: who reads a stored tensor, which tensors may have what, where to cut it."""

from __future__ import annotations

from accelsim.ir import OpKind
from quant.groups import compares, keeps_scale, passed_on
from quant.network import Network, Node
from quant.patchwise.narrow import FLAGS

MULTIPLYING = ("conv", "linear", "matmul")  # functions of the array engines: sums of products of codes
# Functions that need codes without a zero point: they multiply, divide, or compare sums with a share of the total.
MULTIPLIED = ("matmul", "gate", "divide", "normalize", "rank")


def readers(network: Network) -> dict[str, tuple[tuple[Node, int], ...]]:
    """Of every stored tensor the ops that read its codes, with the operand's position; what passes codes on is not.

    Nor is an op that reads the flags of rank words (`quant.patchwise.network`): it neither multiplies nor adds them.
    """
    origin: dict[str, frozenset[str]] = {network.workload.input: frozenset({network.workload.input})}
    found: dict[str, list[tuple[Node, int]]] = {network.workload.input: []}
    for node in network.nodes:
        sources = [origin[operand.source] for operand in node.operands]
        if node.op.kind is OpKind.VIEW or keeps_scale(node):
            origin[node.op.output] = frozenset().union(*(sources[k] for k in passed_on(node)))
            for position in range(len(passed_on(node)), len(sources)):
                for name in sources[position]:
                    found[name].append((node, position))
            continue
        origin[node.op.output] = frozenset({node.op.output})
        found[node.op.output] = []
        for position, names in enumerate(sources[:-1] if node.settings.get(FLAGS) else sources):
            for name in names:
                found[name].append((node, position))
    return {name: tuple(nodes) for name, nodes in found.items()}


def without_zero_point(network: Network) -> frozenset[str]:
    """Outputs whose codes are multiplied by codes, divided, or passed through a ReLU of its own (max(code, 0)).

    A zero point there would need sums that change with the image; these tensors have none.
    """
    names = {node.op.output for node in network.nodes if compares(node)}
    names |= {origin for node in network.nodes if compares(node) for origin in _origins(network, node)}
    for name, nodes in readers(network).items():
        if any(node.function in MULTIPLIED for node, _ in nodes):
            names.add(name)
    return frozenset(names)


def _origins(network: Network, node: Node) -> set[str]:
    """Stored tensors behind the operands of a node, views resolved."""
    return {root for operand in node.operands for root in network.workload.storage_of(operand.source)}


def depthwise_inputs(network: Network) -> tuple[str, ...]:
    """Outputs of convolutions that only depthwise convolutions read: each channel may have a scale of its own."""
    return _outputs_read_by(network, depthwise=True)


def pointwise_inputs_after_depthwise(network: Network) -> tuple[str, ...]:
    """Outputs of depthwise convolutions with a table activation that only dense 1 × 1 convolutions read.

    Each channel may have an offset of its own, which the reader's bias takes up (there is no padding).
    """
    names = []
    for name in _outputs_read_by(network, depthwise=False):
        maker = network.node(name)
        loop = maker.op.loop
        if loop is not None and loop.depthwise and maker.op.activation not in ("", "relu"):
            names.append(name)
    return tuple(names)


def _outputs_read_by(network: Network, depthwise: bool) -> tuple[str, ...]:
    makers = {node.op.output: node for node in network.nodes if node.function == "conv"}
    names = []
    for name, nodes in readers(network).items():
        if name in makers and nodes and all(_reads(node, depthwise) for node, _ in nodes):
            names.append(name)
    return tuple(names)


def _reads(node: Node, depthwise: bool) -> bool:
    loop = node.op.loop
    if node.function != "conv" or loop is None:
        return False
    return loop.depthwise if depthwise else loop.taps == 1 and loop.groups == 1


def segments(network: Network) -> tuple[tuple[Node, ...], ...]:
    """The network cut wherever exactly one tensor is alive: blocks with one input and one output tensor.

    Blocks without filters are joined to the next one.
    """
    last: dict[str, int] = {}
    for k, node in enumerate(network.nodes):
        for operand in node.operands:
            last[operand.source] = k
    parts: list[tuple[Node, ...]] = []
    current: list[Node] = []
    alive: set[str] = {network.workload.input}
    for k, node in enumerate(network.nodes):
        current.append(node)
        alive.add(node.op.output)
        alive = {name for name in alive if last.get(name, -1) > k or name == network.workload.output}
        if len(alive) == 1 and any(one.has_filters for one in current):
            parts.append(tuple(current))
            current = []
    if current:
        parts = [*parts[:-1], (*parts[-1], *current)] if parts else [tuple(current)]
    return tuple(parts)
