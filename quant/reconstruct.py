"""Block reconstruction: weights are rounded so that a block's output, not every weight, comes close to the float one.

AdaRound (Nagel et al. 2020) over blocks as in BRECQ (Li et al. 2021), for any level set: of the two neighbouring levels
of each weight one is chosen.  Blocks are the network's pieces between tensors that everything must pass.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Checkpoint, Filters
from quant.fake import FakeQuantized
from quant.functional import levels_tensor
from quant.network import Network, Node, Numerics, run
from quant.patchwise.network import rankings
from quant.rounding import SoftRounding, annealed_beta
from quant.structure import segments

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Reconstruction:
    """Options: steps per block, images per step, learning rate of the roundings, weight of the rounding penalty.

    The error is |difference|² of the block's output, summed over channels, mean over images and positions.
    `max_memory_bytes` bounds the activations kept in memory; more of them go to a temporary file.  Source of the
    defaults: AdaRound and BRECQ (β from 20 to 2, warm-up 0.2, penalty 0.01; rate 1e-3 for 20,000 steps, here ten times
    that for a tenth of the steps).
    """

    steps: int = 2000
    batch: int = 32
    rate: float = 1e-2
    penalty: float = 0.01
    warm_up: float = 0.2
    seed: int = 0
    max_memory_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "max_memory_bytes"):
            if getattr(self, name) < 1:
                raise AccelsimError(Problem(f"reconstruction: {name}", f"found {getattr(self, name)}", "1 or more"))


class _Soft(FakeQuantized):
    """A checkpoint's numerics with the filters of one block still undecided between two levels each."""

    def __init__(self, checkpoint: Checkpoint, roundings: dict[str, list[tuple[Tensor, SoftRounding]]]) -> None:
        super().__init__(checkpoint, gradients=True)
        self.roundings = roundings

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        """Soft weights for the block's layers."""
        parts = self.roundings.get(node.name)
        if parts is None:
            return super().parameters(node)
        filters = self.checkpoint.filters[node.name]
        rows = torch.zeros(len(filters.scale), filters.integers[0].numel())
        for index, rounding in parts:
            rows = rows.index_copy(0, index, rounding.soft())
        return rows.reshape(filters.integers.shape), filters.bias


def reconstruct(
    network: Network,
    checkpoint: Checkpoint,
    calibration: Sequence[Tensor],
    options: Reconstruction,
    progress: Progress | None = None,
) -> Checkpoint:
    """A checkpoint whose integer weights minimise the error of each block's output, in order of execution.

    A block reads what the quantized network before it gives and aims at the float network's output.  The float
    `network` gives targets and float weights.
    """
    if rankings(network):
        what = "ranks its tokens: blocks of the float and the quantized network have them in different orders"
        levers = ("reconstruct the network without rankings and take its filters",)
        raise AccelsimError(Problem(f"reconstruction of {network.workload.name}", what, "no rankings", levers))
    parts = segments(network)
    generator = torch.Generator().manual_seed(options.seed)
    with tempfile.TemporaryDirectory(prefix="reconstruct-") as folder:
        exact = _Cache(Path(folder), "float", calibration, options.max_memory_bytes // 4)
        rounded = _Cache(Path(folder), "quantized", calibration, options.max_memory_bytes // 4)
        for k, part in enumerate(parts):
            if progress is not None:
                progress("reconstruction", k, len(parts))
            exact.advance(network, part, Numerics())
            if any(node.has_filters for node in part):
                checkpoint = _block(network, checkpoint, part, rounded, exact, options, generator)
            rounded.advance(network, part, FakeQuantized(checkpoint))
    if progress is not None:
        progress("reconstruction", len(parts), len(parts))
    return checkpoint


class _Cache:
    """The tensor between two blocks for all calibration images, in memory or in a file."""

    def __init__(self, folder: Path, name: str, calibration: Sequence[Tensor], max_bytes: int) -> None:
        self.folder, self.name, self.max_bytes = folder, name, max_bytes
        self.calibration = calibration
        self.tensor = ""
        self.values: Tensor | None = None
        self.count = sum(len(batch) for batch in calibration)
        self._turn = 0

    def rows(self, index: Tensor) -> Tensor:
        """The tensor for some images, or the images before the first block."""
        if self.values is None:
            self.values = torch.cat(list(self.calibration))
        return self.values[index]

    def advance(self, network: Network, part: tuple[Node, ...], numerics: Numerics) -> None:
        """Run a block on all images and keep its output instead of its input."""
        output = part[-1].op.output
        place: Tensor | None = None
        for start in range(0, self.count, 64):
            index = torch.arange(start, min(start + 64, self.count))
            value = self.run(network, part, self.rows(index), numerics)
            if place is None:
                place = self._room((self.count, *value.shape[1:]))
            place[index] = value
        self.tensor, self.values = output, place

    def run(self, network: Network, part: tuple[Node, ...], inputs: Tensor, numerics: Numerics) -> Tensor:
        """Output of a block for inputs that this cache gave."""
        given = {self.tensor: inputs} if self.tensor else None
        with torch.no_grad():
            return run(network, inputs, numerics, given=given, nodes=part, keep=[part[-1].op.output])[
                part[-1].op.output
            ]

    def _room(self, shape: tuple[int, ...]) -> Tensor:
        if 4 * int(np.prod(shape)) <= self.max_bytes:
            return torch.empty(shape)
        self._turn ^= 1
        path = self.folder / f"{self.name}{self._turn}.f32"
        return torch.from_numpy(np.memmap(path, np.float32, "w+", shape=shape))


def _block(
    network: Network,
    checkpoint: Checkpoint,
    part: tuple[Node, ...],
    inputs: _Cache,
    targets: _Cache,
    options: Reconstruction,
    generator: torch.Generator,
) -> Checkpoint:
    roundings = {node.name: _roundings(node, checkpoint) for node in part if node.has_filters}
    soft = _Soft(checkpoint, roundings)
    parameters = [one for parts in roundings.values() for _, rounding in parts for one in rounding.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=options.rate)
    output = part[-1].op.output
    for step in range(options.steps):
        index = torch.randint(inputs.count, (min(options.batch, inputs.count),), generator=generator)
        given = {inputs.tensor: inputs.rows(index)} if inputs.tensor else None
        value = run(network, inputs.rows(index), soft, given=given, nodes=part, keep=[output])[output]
        loss = (value - targets.rows(index)).pow(2).sum(1 if value.dim() == 4 else -1).mean()
        beta = annealed_beta(step, options.steps, warm_up=options.warm_up)
        if beta is not None:
            for parts in roundings.values():
                for _, rounding in parts:
                    loss = loss + options.penalty * rounding.penalty(beta)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    filters = dict(checkpoint.filters)
    for name, parts in roundings.items():
        filters[name] = _hard(filters[name], parts)
    return replace(checkpoint, filters=filters)


def _roundings(node: Node, checkpoint: Checkpoint) -> list[tuple[Tensor, SoftRounding]]:
    """One soft rounding per format of the layer's filters, with the filters it holds."""
    assert node.weight is not None
    rows = node.weight.detach().reshape(len(node.weight), -1)
    scale = checkpoint.filters[node.name].scale
    parts = []
    for share in checkpoint.plan.rule_for(node.op).weights:
        index = torch.arange(len(rows)) if share.channels is None else torch.from_numpy(share.channels.indices.copy())
        parts.append((index, SoftRounding(rows[index], scale[index], levels_tensor(share.format))))
    return parts


def _hard(filters: Filters, parts: list[tuple[Tensor, SoftRounding]]) -> Filters:
    rows = filters.integers.reshape(len(filters.scale), -1).clone()
    for index, rounding in parts:
        rows[index] = rounding.hard().to(rows.dtype)
    return replace(filters, integers=rows.reshape(filters.integers.shape))
