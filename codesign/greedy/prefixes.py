"""Runs of one network that share their beginnings: activations at block boundaries are kept, runs go on from there."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from math import prod

from torch import Tensor

from quant.groups import stored_shapes
from quant.network import Network, Numerics, run
from quant.structure import segments

Key = tuple[Hashable, ...]  # what the numerics of every block depend on


@dataclass(frozen=True, eq=False)
class _Kept:
    """Inputs [batches] of the blocks of a run that are kept, by the block's number."""

    key: Key = ()
    inputs: dict[int, list[Tensor]] = field(default_factory=dict)

    def shared(self, key: Key) -> int:
        """The last block whose input is kept and is that of a run with this key; 0: the images."""
        equal = next((k for k, (a, b) in enumerate(zip(self.key, key, strict=False)) if a != b), len(self.key))
        return max((k for k in self.inputs if k <= equal), default=0)


class SharedRuns:
    """A network (blocks as `quant.structure.segments` cuts it) on batches of images [n, channels, h, w].

    Kept are the boundaries of the run that `settle` named and of the last run, at most `memory_bytes` together; where
    that is too little for all, every second one, every third and so on.  `blocks_run` counts blocks (of all batches).
    """

    def __init__(self, network: Network, batches: Sequence[Tensor], memory_bytes: int) -> None:
        self.network, self.batches = network, batches
        self.blocks = segments(network)
        self.blocks_run = 0
        self._boundaries = self._affordable(memory_bytes)
        self._anchor: tuple[Key, Callable[[], Numerics]] | None = None
        self._kept = self._last = _Kept()

    def settle(self, key: Key, numerics: Callable[[], Numerics]) -> None:
        """The next runs differ little from this one: keep its boundaries, as soon as they are needed."""
        self._anchor = key, numerics
        if self._last.key == key:
            self._kept = self._last

    def outputs(self, key: Key, numerics: Callable[[], Numerics]) -> list[Tensor]:
        """The network's output for every batch; `key` has an entry for every block."""
        if self._anchor is not None:
            anchor, make = self._anchor
            if anchor != self._kept.key and _Kept(anchor, self._all).shared(key) > self._kept.shared(key):
                self._kept = self._run(anchor, make())[1]
        found, self._last = self._run(key, numerics())
        return found

    @property
    def _all(self) -> dict[int, list[Tensor]]:
        return {k: [] for k in self._boundaries}

    def _run(self, key: Key, numerics: Numerics) -> tuple[list[Tensor], _Kept]:
        import torch

        first = self._kept.shared(key)
        inputs = {k: self._kept.inputs[k] if k <= first else [] for k in self._boundaries}
        outputs = []
        with torch.no_grad():
            for number, images in enumerate(self.batches):
                given = {self._input(first): self._kept.inputs[first][number]} if first else {}
                for k in range(first, len(self.blocks)):
                    if k > first and k in inputs:
                        inputs[k].append(given[self._input(k)])
                    block = self.blocks[k]
                    given = run(self.network, images, numerics, given=given, nodes=block, keep=[block[-1].op.output])
                outputs.append(given[self.network.workload.output])
        self.blocks_run += len(self.blocks) - first
        return outputs, _Kept(key, inputs)

    def _input(self, k: int) -> str:
        """The tensor that block k reads."""
        return self.blocks[k - 1][-1].op.output

    def _affordable(self, memory_bytes: int) -> tuple[int, ...]:
        """Blocks whose inputs are kept."""
        shapes, images = stored_shapes(self.network), sum(len(batch) for batch in self.batches)
        size = self.batches[0].element_size() * images
        for stride in range(1, len(self.blocks) + 1):
            kept = tuple(range(stride, len(self.blocks), stride))
            if 2 * size * sum(prod(shapes[self._input(k)]) for k in kept) <= memory_bytes:
                break
        return kept
