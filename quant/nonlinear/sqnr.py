"""The SQNR difference of MNQ: what every method loses inside every non-linear layer, beside what it inherits.

SQNR(x, y) = 20·log10 of the mean over images of ‖x‖ / ‖x − y‖: the mean of amplitude ratios, before the logarithm.
The difference of a layer is the SQNR of its input minus that of its output.  Source: Kim et al. 2024 (MNQ, arXiv
2407.18437) as its released analysis computes it; the formula of the difference is an interpretation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accelsim.ir import OpKind
from accelsim.nonlinear.methods import function_of
from accelsim.problems import AccelsimError, Problem
from quant.network import Network, Node, Numerics, run

MOST_DB = 300.0  # of a tensor without any error
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Slot:
    """A non-linear layer with methods to choose from."""

    op: str
    function: str


def slots_of(network: Network) -> tuple[Slot, ...]:
    """Softmax, LayerNorm and GELU ops of a network in order; GELUs only where they are ops of their own."""
    found = ((node.name, function_of(node.op.recipe)) for node in network.nodes if node.op.kind is OpKind.VECTOR)
    return tuple(Slot(op, function) for op, function in found if function)


@dataclass(frozen=True, eq=False)
class SqnrTable:
    """SQNR in dB of input and output of every slot under every method, [slots, methods].

    A column is a network in which every slot has that method (where the function has it, else the float function).
    """

    slots: tuple[Slot, ...]
    methods: tuple[str, ...]
    inputs_db: Floats
    outputs_db: Floats
    images: int

    @property
    def difference_db(self) -> Floats:
        """Input minus output: what the layer itself loses."""
        return self.inputs_db - self.outputs_db

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {
            "methods": list(self.methods),
            "images": self.images,
            "slots": [
                {
                    "op": slot.op,
                    "function": slot.function,
                    "input_db": _rounded(self.inputs_db[k]),
                    "output_db": _rounded(self.outputs_db[k]),
                    "difference_db": _rounded(self.difference_db[k]),
                }
                for k, slot in enumerate(self.slots)
            ],
        }


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 3) for value in values]


class _Record(Numerics):
    """Another run's numerics, and what every slot reads and stores."""

    def __init__(self, inner: Numerics, slots: Iterable[str]) -> None:
        self.inner, self.wanted = inner, frozenset(slots)
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}

    def image(self, value: Tensor) -> Tensor:
        return self.inner.image(value)

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        return self.inner.parameters(node)

    def operand(self, node: Node, position: int, value: Tensor) -> Tensor:
        if node.name in self.wanted and position == 0:
            self.inputs[node.name] = value.flatten(1)
        return self.inner.operand(node, position, value)

    def accumulator(self, node: Node, value: Tensor) -> Tensor:
        return self.inner.accumulator(node, value)

    def nonlinear(self, node: Node, operands: list[Tensor]) -> Tensor | None:
        return self.inner.nonlinear(node, operands)

    def narrowed(self, node: Node, value: Tensor, operands: list[Tensor]) -> Tensor:
        return self.inner.narrowed(node, value, operands)

    def stored(self, node: Node, value: Tensor) -> Tensor:
        result = self.inner.stored(node, value)
        if node.name in self.wanted:
            self.outputs[node.name] = result.flatten(1)
        return result


def amplitude_ratios(exact: Tensor, other: Tensor) -> Tensor:
    """‖x‖ / ‖x − y‖ of every image, [n] in float64, of values [n, ..]; at most 10^15 where nothing differs."""
    signal = exact.double().flatten(1).norm(dim=1)
    noise = (exact.double() - other.double()).flatten(1).norm(dim=1)
    least = (signal * 10 ** (-MOST_DB / 20)).clamp(min=1e-300)
    ratios: Tensor = signal / torch.maximum(noise, least)
    return ratios


def decibels(ratios: Sequence[Tensor]) -> float:
    """20·log10 of the mean ratio."""
    mean = float(torch.cat(list(ratios)).mean())
    return 20 * math.log10(mean) if mean > 0 else -MOST_DB


def measure_sqnr(
    network: Network,
    images: Sequence[Tensor],
    networks: Mapping[str, Callable[[], Numerics]],
    progress: Callable[[int, int], None] | None = None,
) -> SqnrTable:
    """The table of a float network against quantized runs of it; `networks` makes the numerics of each method.

    `images` are batches [n, channels, h, w].  Raises AccelsimError when the network has no slot.
    """
    slots = slots_of(network)
    if not slots:
        what = "has no softmax, LayerNorm or GELU of its own: there is nothing to mix"
        raise AccelsimError(Problem(f"network {network.workload.name}", what, "a vision transformer"))
    names = [slot.op for slot in slots]
    runs = {method: _Record(make(), names) for method, make in networks.items()}
    exact = _Record(Numerics(), names)
    ratios: dict[tuple[str, str, str], list[Tensor]] = {}
    with torch.no_grad():
        for k, batch in enumerate(images):
            run(network, batch, exact)
            for method, record in runs.items():
                run(network, batch, record)
                for name in names:
                    for kind in ("inputs", "outputs"):
                        pair = getattr(exact, kind)[name], getattr(record, kind)[name]
                        ratios.setdefault((kind, name, method), []).append(amplitude_ratios(*pair))
            if progress is not None:
                progress(k + 1, len(images))

    def table(kind: str) -> Floats:
        return np.array([[decibels(ratios[kind, name, method]) for method in runs] for name in names])

    return SqnrTable(slots, tuple(runs), table("inputs"), table("outputs"), sum(len(batch) for batch in images))
