"""Where scales and offsets start: for every width the fixed point of the squared error on one batch.

Source: the released code of Q-ViT (`_quan_base.py`): from α = max|x| / Qp, codes of x under α, then α of the codes in
closed form, until the relative change is below 1e-5; with an offset also β = mean(x − α · code), from β = min x.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quant.learned.quantizer import HIGHEST_BITS, LOWEST_BITS, SMALLEST_STEP, Start
from quant.learned.sites import STORED, Site
from quant.network import Network, Numerics, run

TOLERANCE = 1e-5
MOST_ROUNDS = 200
MOST_VALUES = 1 << 15
SAMPLE_SEED = 0


def fixed_point(values: Tensor, bits: int, signed: bool, offset: bool) -> tuple[float, float]:
    """(step, offset) of values for a width, in float64; the offset is 0 without `offset`."""
    x = values.detach().double().flatten()
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    shift = float(x.min()) if offset else 0.0
    step = max(float((x - shift).abs().max()) / high, SMALLEST_STEP)
    for _ in range(MOST_ROUNDS):
        codes = ((x - shift) / step).clamp(low, high).round()
        squares = float(codes.square().sum())
        if squares == 0:
            break
        better = max(float(((x - shift) * codes).sum()) / squares, SMALLEST_STEP)
        if offset:
            shift = float((x - better * codes).mean())
        change, step = abs(better - step) / step, better
        if change < TOLERANCE:
            break
    return step, shift


def starts(network: Network, sites: dict[str, Site], images: Tensor) -> dict[str, Start]:
    """The start of every site: weights as they are, tensors of the float network on a batch of images.

    Of more than 32,768 values of a tensor, that many random ones are taken.
    """
    names = [site.of for site in sites.values() if site.kind == STORED]
    with torch.no_grad():
        seen = run(network, images, Numerics(), keep=names)
    found = {}
    for name, site in sites.items():
        value = seen[site.of] if site.kind == STORED else network.node(site.of).weight
        assert value is not None
        found[name] = _start(site, value.detach())
    return found


def _start(site: Site, value: Tensor) -> Start:
    """Steps of every table: its parts of the value, all heads together."""
    seen = site.seen(value)
    axis = seen.dim() - len(site.parts) if site.tables > 1 else None
    tables = [seen] if axis is None else list(seen.unbind(axis))
    steps, offsets = [], []
    for one in tables:
        sample = _sampled(one.flatten())
        pairs = [fixed_point(sample, bits, site.signed, site.offset) for bits in range(LOWEST_BITS, HIGHEST_BITS + 1)]
        steps.append([step for step, _ in pairs])
        offsets.append([shift for _, shift in pairs])
    found = torch.tensor([steps, offsets], device=value.device)
    return Start(found[0], found[1] if site.offset else None)


def _sampled(values: Tensor) -> Tensor:
    """Random values of many: evenly spaced ones would be those of some channels."""
    if values.numel() <= MOST_VALUES:
        return values
    chosen = torch.randperm(values.numel(), generator=torch.Generator().manual_seed(SAMPLE_SEED))[:MOST_VALUES]
    return values[chosen.to(values.device)]
