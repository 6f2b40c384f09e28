"""How much a network depends on each head: all of it at 8 bits, one head at 2.

Source: the released code of Q-ViT (`head_analysis` of `engine.py`), which looks at the first block.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.data.dataset import DataSet
from quant.evaluate import evaluate
from quant.learned.budget import Widths, uniform_widths
from quant.learned.initial import starts
from quant.learned.network import LearnedNetwork
from quant.learned.quantizer import HIGHEST_BITS, LOWEST_BITS, Quantizer
from quant.learned.sites import STORED, WEIGHTS, Site, SiteOptions, sites_of
from quant.learned.structure import Attention, attentions
from quant.network import Network

BATCH = 250


@dataclass(frozen=True)
class HeadProbe:
    """`accuracy`: share of images that are right with everything at 8 bits; `drops`: how much less, per head."""

    layer: str
    accuracy: float
    drops: tuple[float, ...]


def head_drops(
    network: Network,
    data: DataSet,
    samples: Tensor,
    layer: str | None = None,
    options: SiteOptions | None = None,
    bits: int = LOWEST_BITS,
) -> HeadProbe:
    """Accuracy on `data` that every head of an attention costs when its tensors and weights have `bits` bits.

    All sites are at 8 bits, from the start that `samples` [n, channels, h, w] give; nothing is trained.  The head's
    q, k, v, shares, output, and its parts of the filters are narrow.  `layer` is the attention's name (default: the
    first).  Raises AccelsimError for an unknown layer, unlabelled data, widths outside 2 … 8, one width per layer.
    """
    chosen = SiteOptions() if options is None else options
    sites = sites_of(network.workload, chosen)
    attention = _attention(network, layer)
    names = [name for name in _head_wise(network, attention) if name in sites]
    _check(data, bits, attention, [sites[name] for name in names])
    begun = starts(network, sites, samples)

    def accuracy(widths: Widths) -> float:
        quantizers = {name: Quantizer(site, begun[name], widths[name], False) for name, site in sites.items()}
        batches = ((images, labels) for images, labels in data.batches(BATCH) if labels is not None)
        return evaluate(LearnedNetwork(network, quantizers).logits, batches).top1

    whole = uniform_widths(sites, HIGHEST_BITS)
    exact = accuracy(whole)
    drops = []
    for head in range(attention.heads):
        widths = {name: one.clone() for name, one in whole.items()}
        for name in names:
            widths[name][:, head] = bits
        drops.append(exact - accuracy(widths))
    return HeadProbe(attention.name, exact, tuple(drops))


def _attention(network: Network, layer: str | None) -> Attention:
    found = {one.name: one for one in attentions(network.workload)}
    if layer is None:
        return next(iter(found.values()))
    if layer not in found:
        where = f"network {network.workload.name}"
        raise AccelsimError(Problem(where, f"has no attention {layer!r}", f"one of {', '.join(found)}"))
    return found[layer]


def _head_wise(network: Network, one: Attention) -> tuple[str, ...]:
    """Sites of an attention that are cut into heads."""
    outputs = (network.workload.op_by_name[name].output for name in (one.qkv, one.softmax, one.values))
    return (*(f"{STORED}/{of}" for of in outputs), f"{WEIGHTS}/{one.qkv}", f"{WEIGHTS}/{one.proj}")


def _check(data: DataSet, bits: int, attention: Attention, sites: list[Site]) -> None:
    problems = []
    if not LOWEST_BITS <= bits <= HIGHEST_BITS:
        problems.append(Problem("probe of heads", f"{bits} bits", f"{LOWEST_BITS} … {HIGHEST_BITS}"))
    if data.labels is None or not len(data):
        problems.append(Problem(f"data {data.name}", "has no labelled images", "images with labels"))
    if any(site.heads != attention.heads for site in sites) or not sites:
        problems.append(Problem("probe of heads", "the sites are not cut into heads", "granularity head"))
    if problems:
        raise AccelsimError(problems)
