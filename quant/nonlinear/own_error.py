"""What every method loses on the same input: an alternative to the SQNR difference.

In the SQNR difference every method is seen on the input of its own network.  The noise that a method adds hides behind
noise that is there already, so the difference favours methods whose networks are noisy.  Here the float network runs,
and each method gets the float input, rounded to the codes that it reads.  Not part of MNQ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from quant.fake import FakeQuantized
from quant.functional import Affine, fake_quantize
from quant.functions import FUNCTIONS
from quant.integer.graph import Compiler
from quant.network import Network, Node, Numerics, run
from quant.nonlinear.sqnr import Floats, SqnrTable, amplitude_ratios, decibels, slots_of

Ratios = dict[tuple[str, str], list[Tensor]]


class _Beside(Numerics):
    """The float network; every slot is also computed by each method, from the same input."""

    def __init__(self, network: Network, fakes: Mapping[str, FakeQuantized]) -> None:
        self.fakes, self.slots = fakes, {slot.op for slot in slots_of(network)}
        compilers = {name: Compiler(fake.checkpoint) for name, fake in fakes.items()}
        self.sources = {
            (name, node.name): _source(compiler, node)
            for name, compiler in compilers.items()
            for node in network.nodes
            if node.name in self.slots
        }
        self.read: dict[str, Tensor] = {}
        self.inputs: Ratios = {}
        self.outputs: Ratios = {}

    def operand(self, node: Node, position: int, value: Tensor) -> Tensor:
        if node.name in self.slots and position == 0:
            self.read[node.name] = value
        return value

    def stored(self, node: Node, value: Tensor) -> Tensor:
        if node.name in self.slots:
            exact = self.read.pop(node.name)
            for name, fake in self.fakes.items():
                rounded = fake_quantize(exact, self.sources[name, node.name])
                result = fake.stored(node, FUNCTIONS[node.function](node, [rounded], fake))
                self.inputs.setdefault((node.name, name), []).append(amplitude_ratios(exact, rounded))
                self.outputs.setdefault((node.name, name), []).append(amplitude_ratios(value, result))
        return value


def _source(compiler: Compiler, node: Node) -> Affine:
    scale, zero = compiler.single(node, 0)
    return Affine(scale.float(), zero.float(), *compiler.range(node, 0))


def measure_own_error(network: Network, images: Sequence[Tensor], fakes: Mapping[str, FakeQuantized]) -> SqnrTable:
    """SQNR of input and output of every slot under every method, [slots, methods], each from the float input.

    `images` are batches [n, channels, h, w].
    """
    beside = _Beside(network, fakes)
    with torch.no_grad():
        for batch in images:
            run(network, batch, beside)
    slots = slots_of(network)

    def table(found: Ratios) -> Floats:
        return np.array([[decibels(found[slot.op, name]) for name in fakes] for slot in slots])

    return SqnrTable(slots, tuple(fakes), table(beside.inputs), table(beside.outputs), sum(len(b) for b in images))
