"""What images do with a ranked network: how many tokens are full, and how unequal their importances are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accelsim.ir import Workload
from accelsim.plan import QuantPlan, apply_plan
from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import token_layers, with_counts
from accelsim.workloads.rank import ranked_layers
from quant.calibrated import Checkpoint
from quant.costs import bit_operations
from quant.fake import FakeQuantized
from quant.network import Network, Numerics, run
from quant.patchwise.network import rankings
from quant.patchwise.order import SHARE_BITS, flags, full_tokens

Counts = Mapping[str, NDArray[np.int64]]
Batch = Tensor | Sequence[Any]  # images [n, channels, h, w], or a pair of them with labels


def measured_counts(checkpoint: Checkpoint, batches: Iterable[Batch]) -> dict[str, NDArray[np.int64]]:
    """Full tokens of every image, [images], by layer with token groups, in fake quantization.

    Under the fixed rule it is the plan's number for all images.
    """
    groups, network = token_layers(checkpoint.plan), checkpoint.network
    ranks = {layer: rankings(network)[layer] for layer in groups}
    outputs = [node.op.output for node in ranks.values()]
    found: dict[str, list[NDArray[np.int64]]] = {layer: [] for layer in groups}
    for values, images in _runs(network, batches, outputs, FakeQuantized(checkpoint)):
        for layer, node in ranks.items():
            if int(node.settings["share_256"]):
                found[layer].append(flags(values[node.op.output]).sum(1).numpy())
            else:
                found[layer].append(np.full(images, groups[layer].high, np.int64))
    return {layer: np.concatenate(parts) for layer, parts in found.items()}


def mean_bit_operations(workload: Workload, plan: QuantPlan, counts: Counts) -> float:
    """Mean of `bit_operations` over images with these numbers of full tokens, [images] by layer.

    The groups of a layer change its own products only, so the layers' differences add up.
    """
    base = bit_operations(apply_plan(workload, plan))
    total = base
    for layer, full in counts.items():
        for high, images in zip(*np.unique(full, return_counts=True), strict=True):
            other = bit_operations(apply_plan(workload, with_counts(plan, {layer: int(high)})))
            total += (other - base) * int(images) / len(full)
    return total


@dataclass(frozen=True)
class Importance:
    """Means over images of how a layer's importances are distributed over its N tokens.

    `entropy`: −Σ p·log2 p of the importances' shares p, over log2 N: 1 where all tokens are alike.  `quarter`: the
    share of the N/4 (rounded down) most important tokens.  `first`: the share of token 0.
    """

    entropy: float
    quarter: float
    first: float


def importance_statistics(network: Network, batches: Iterable[Batch]) -> dict[str, tuple[Importance, Importance]]:
    """By layer that can be ranked: statistics of the attention before it, of the class token's and of that received.

    In floating point, of a network with or without rankings.  Heads are summed first, as a ranking does.
    """
    found: dict[str, list[Tensor]] = {}
    images = 0
    for layer, parts in _importances(network, batches):
        rows = torch.stack([_distribution(part) for part in parts])
        found.setdefault(layer, []).append(rows.sum(1))
        images += rows.shape[1] if layer == next(iter(found)) else 0
    result = {}
    for layer, sums in found.items():
        ours, theirs = (torch.stack(sums).sum(0) / images).tolist()
        result[layer] = (Importance(*ours), Importance(*theirs))
    return result


def matching_threshold(network: Network, batches: Iterable[Batch], full: float, received: bool = False) -> int:
    """The least threshold, in 256ths, under which at least `full` tokens are full, on the mean of layers and images.

    In floating point, over all layers that can be ranked: what makes the variable rule cost as much as the fixed one.
    Raises AccelsimError when even all of the importance needs fewer tokens.
    """
    ordered = [_ordered(parts[int(received)]) for _, parts in _importances(network, batches)]
    for share in range(1, (1 << SHARE_BITS) + 1):
        counts = torch.cat([full_tokens(part, share) for part in ordered])
        if float(counts.double().mean()) >= full:
            return share
    what, levers = f"all of the importance is held by fewer than {full:g} tokens on the mean", ("the fixed rule",)
    raise AccelsimError(Problem("token threshold", what, "a smaller number of full tokens", levers))


def _importances(network: Network, batches: Iterable[Batch]) -> Iterable[tuple[str, tuple[Tensor, Tensor]]]:
    """Of every batch and layer the importances [n, tokens]: the class token's row, and the sum of all rows."""
    layers = ranked_layers(network.workload)
    if not layers:
        raise AccelsimError(Problem(f"network {network.workload.name}", "has no layer whose tokens can be ranked"))
    for values, _ in _runs(network, batches, [one.softmax for one in layers], Numerics()):
        for one in layers:
            heads = values[one.softmax].double().sum(1)
            yield one.name, (heads[:, 0], heads.sum(1))


def _runs(
    network: Network, batches: Iterable[Batch], names: Sequence[str], numerics: Numerics
) -> Iterable[tuple[dict[str, Tensor], int]]:
    """Tensors of every batch, and its number of images."""
    for batch in batches:
        images = batch if isinstance(batch, Tensor) else batch[0]
        with torch.no_grad():
            found = run(network, images, numerics, keep=names)
        yield found, len(images)


def _ordered(importance: Tensor) -> Tensor:
    """Importances, token 0 first, then the largest."""
    return torch.cat([importance[:, :1], importance[:, 1:].sort(dim=1, descending=True).values], dim=1)


def _distribution(importance: Tensor) -> Tensor:
    """[n, 3]: entropy over log2 of the number of tokens, share of the first quarter, share of token 0."""
    shares = importance / importance.sum(1, keepdim=True)
    tokens = shares.shape[1]
    entropy = -torch.special.xlogy(shares, shares).sum(1) / float(np.log(tokens))
    quarter = shares.topk(tokens // 4, dim=1).values.sum(1)
    return torch.stack([entropy, quarter, shares[:, 0]], dim=1)
