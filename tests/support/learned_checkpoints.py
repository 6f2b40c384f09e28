"""Small vision transformers with learned widths, exported; and a slow twin of their integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from accelsim.head_widths import HeadWidths
from quant.calibrated import Checkpoint
from quant.finetune.state import State
from quant.functional import Affine
from quant.learned.settings import LearnBits
from quant.learned.sites import SiteOptions, sites_of
from quant.learned.train import Learned, LearnTask
from quant.network import Network, Node
from tests.support.integer_twin import Held, Twin
from tests.support.networks import images_of

FINE = 2.0**-40


def learned(
    network: Network,
    seed: int = 0,
    sites: SiteOptions | None = None,
    low: int = 2,
    freeze: bool = True,
    **options: bool,
) -> Learned:
    """The network with random widths of `low` … 8 bits for every part, frozen where it starts."""
    chosen = LearnBits(sites=SiteOptions() if sites is None else sites, **options)
    random = torch.Generator().manual_seed(seed)
    widths = {
        name: torch.randint(low, 9, (site.tables, site.heads), generator=random).float()
        for name, site in sites_of(network.workload, chosen.sites).items()
    }
    dtype = network.nodes[0].weight.dtype
    task = LearnTask(network, images_of(network, 16, seed + 1).to(dtype), chosen, None, widths)
    if freeze:
        task.freeze()
    return Learned(task.model, State({}), task.summed)


def finely(checkpoint: Checkpoint, one: Learned) -> Checkpoint:
    """The checkpoint in float64, with steps of 2^−40 for everything that is no site of the learned network."""
    sites = {name.removeprefix("stored/") for name in one.model.quantizers if name.startswith("stored/")}

    def fine(name: str, affine: Affine) -> Affine:
        if name in sites:
            return replace(affine, scale=affine.scale.double(), zero_point=affine.zero_point.double())
        return Affine(torch.tensor(FINE).double(), torch.tensor(0.0).double(), -(1 << 52), 1 << 52)

    return replace(
        checkpoint,
        filters={name: replace(one, scale=one.scale.double()) for name, one in checkpoint.filters.items()},
        stored={name: fine(name, affine) for name, affine in checkpoint.stored.items()},
        preactivation={name: fine("", affine) for name, affine in checkpoint.preactivation.items()},
    )


class HeadTwin(Twin):
    """Parts by slices: each clamped to its own codes, and shifted where a linear layer sums them."""

    def linear(self, node: Node, a: Held) -> np.ndarray:
        """With the parts of the input in the finest step."""
        widths = self.widths(node.operands[0].source)
        if widths is not None:
            size = a.codes.shape[-1] // len(widths.bits)
            codes, scale = a.codes.copy(), a.scale.copy()
            for k, shift in enumerate(widths.shifts):
                codes[..., k * size : (k + 1) * size] *= 2**shift
                scale[..., k * size : (k + 1) * size] /= 2**shift
            a = Held(codes, scale, a.zero)
        found = super().linear(node, a)
        widths = self.widths(node.name)
        if widths is not None:
            size = found.shape[-1] // len(widths.bits)
            for k, bits in enumerate(widths.bits):
                part = found[..., k * size : (k + 1) * size]
                # Without the lowest code where the widest part has none.
                one = self.checkpoint.stored[node.op.output]
                part[...] = np.clip(part, -(2 ** (bits - 1)) + (one.low == -one.high), 2 ** (bits - 1) - 1)
        return found

    def matmul(self, node: Node, a: Held, b: Held) -> np.ndarray:
        """Clamped head by head."""
        found, widths = super().matmul(node, a, b), self.widths(node.name)
        for k, bits in enumerate(() if widths is None else widths.bits):
            found[:, k] = np.clip(found[:, k], -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return found

    def softmax(self, node: Node, a: Held) -> np.ndarray:
        """Without a sign, clamped head by head."""
        found, widths = super().softmax(node, a), self.widths(node.name)
        for k, bits in enumerate(() if widths is None else widths.bits):
            found[:, k] = np.clip(found[:, k], 0, 2**bits - 1)
        return found

    def widths(self, name: str) -> HeadWidths | None:
        """Head widths of an op's output (names of ops and tensors are the same in these networks)."""
        op = self.checkpoint.network.workload.op_by_name.get(name)
        return None if op is None else self.checkpoint.plan.rule_for(op).heads
