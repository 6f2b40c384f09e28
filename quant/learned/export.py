"""From a trained network to a plan and a checkpoint: learned widths and steps in the formats of the hardware.

The steps of a site are kept to the last bit.  Values after GELU with an offset, or without a sign, are signed codes
with a zero point.  Shares of softmax are codes 0 … 2^n − 1; that the multiplier's operand gets a sign bit for them is
an interpretation.  The projection's filters are stored as code · 2^shift in steps of the finest head, so that a sum
over heads is a sum of whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from accelsim.head_widths import HeadWidths
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, Problem
from quant.calibrate import Calibration, calibrate, corrected
from quant.calibrated import Checkpoint, Filters
from quant.collect import collect
from quant.finetune.devices import network_on
from quant.functional import Affine, fake_quantize
from quant.groups import scale_groups
from quant.head_parts import part_places, parts_with, whole_shifts
from quant.learned.quantizer import Quantizer
from quant.learned.sites import STORED, WEIGHTS, Site
from quant.learned.structure import attentions
from quant.learned.train import Learned, summed_sites
from quant.methods.qvit import NAME, QVit
from quant.network import Network, Node, Numerics
from quant.quantize import image_batches, make_plan
from quant.structure import without_zero_point

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class _Parts:
    """What a site learned: bits, steps and whole offsets of its parts in order, [parts]; all alike: of one part."""

    site: Site
    bits: Tensor
    steps: Tensor
    zeros: Tensor
    shifts: Tensor | None

    @property
    def widths(self) -> HeadWidths:
        """Widths, and the shifts of steps that meet in one sum."""
        shifts = () if self.shifts is None else tuple(self.shifts.tolist())
        return HeadWidths(tuple(self.bits.tolist()), shifts)


def export(
    learned: Learned,
    batches: Iterable[Tensor | Sequence[Tensor]],
    options: Calibration | None = None,
    about: Mapping[str, Any] | None = None,
) -> tuple[QuantPlan, Checkpoint]:
    """The plan and the checkpoint of a network with learned widths.

    Sites have exactly the widths and steps that were learned; every other stored tensor has 8 bits, calibrated on
    `batches` [n, channels, h, w] (labels beside them are ignored) with the trained quantizers in place.  `about` is
    stored with the checkpoint.  Raises AccelsimError for widths that training did not freeze, for steps that meet in
    one sum and are not tied, for heads along the axis of the released code (`head_axis`), and as `apply_plan`.
    """
    chosen = Calibration() if options is None else options
    network = _detached(network_on(learned.model.network, _CPU))
    images = image_batches(batches)
    found = _learned_parts(learned, network)
    stored, filters = _known(network, found)
    method = QVit(
        stored={one.site.of: one.widths for one in found if one.site.kind == STORED},
        weights={one.site.of: one.widths for one in found if one.site.kind == WEIGHTS},
        pointed=tuple(name for name, one in stored.items() if bool(one.zero_point.any())),
    )
    heads = {name: widths for name, widths in method.stored.items() if len(widths.bits) > 1}
    labels = scale_groups(network, (), heads)
    statistics = collect(network, images, labels, rules=_Trained(network, heads, stored, filters))
    plan = make_plan(network, method, statistics)
    checkpoint = calibrate(network, plan, statistics, labels, chosen, stored, filters)
    if chosen.bias_correction:
        rest = {name: one for name, one in checkpoint.filters.items() if name not in filters}
        rest = {name: corrected(network.node(name), one, statistics) for name, one in rest.items()}
        checkpoint = replace(checkpoint, filters={**checkpoint.filters, **rest})
    made = {
        "method": NAME,
        "method_options": asdict(method),
        "calibration": {**asdict(chosen), "images": sum(len(batch) for batch in images)},
        "reconstruction": None,
    }
    return plan, replace(checkpoint, about={**made, **(about or {})})


class _Trained(Numerics):
    """The roundings of the sites, everything else in real numbers: what the network was trained as."""

    def __init__(
        self,
        network: Network,
        heads: Mapping[str, HeadWidths],
        stored: Mapping[str, Affine],
        filters: Mapping[str, Filters],
    ) -> None:
        self.stored_affines, self.filters, self.name = dict(stored), filters, network.workload.input
        for node in network.nodes:
            name = node.op.output
            if name in heads:
                channels = network.workload.tensor_by_name[name].channels
                parts = parts_with(node, channels, heads[name], stored[name])
                self.stored_affines[name] = parts.within(stored[name])

    def image(self, value: Tensor) -> Tensor:
        """The image as it is stored."""
        return self._rounded(self.name, value)

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        """Quantized filters."""
        found = self.filters.get(node.name)
        return (node.weight, node.bias) if found is None else (found.values(), found.bias)

    def stored(self, node: Node, value: Tensor) -> Tensor:
        """The output as it is stored."""
        return self._rounded(node.op.output, value)

    def _rounded(self, name: str, value: Tensor) -> Tensor:
        affine = self.stored_affines.get(name)
        return value if affine is None else fake_quantize(value, affine)


def _detached(network: Network) -> Network:
    def plain(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.detach().clone()

    nodes = tuple(replace(node, weight=plain(node.weight), bias=plain(node.bias)) for node in network.nodes)
    return replace(network, nodes=nodes)


def _learned_parts(learned: Learned, network: Network) -> list[_Parts]:
    """Bits and steps of every site.  Raises AccelsimError with every site that has no form in hardware."""
    quantizers, summed = learned.model.quantizers, set(summed_sites(network))
    found: list[_Parts] = []
    problems: list[Problem] = []
    dtype = next(node.weight.dtype for node in network.nodes if node.has_filters and node.weight is not None)
    repeats = {}
    for attention in attentions(network.workload):
        qkv = f"{STORED}/{network.workload.op_by_name[attention.qkv].output}"
        site = quantizers[qkv].site if qkv in quantizers else None
        # A width of q, k or v as a whole is that of all its heads.
        repeats[qkv] = attention.heads if site is not None and site.heads == 1 else 1
    for name, quantizer in quantizers.items():
        try:
            one = _parts(name, quantizer, repeats.get(name, 1), name in summed)
            found.append(replace(one, steps=one.steps.to(dtype), zeros=one.zeros.to(dtype)))
        except AccelsimError as error:
            problems += error.problems
    if problems:
        raise AccelsimError(problems)
    return found


def _parts(name: str, quantizer: Quantizer, repeats: int, summed: bool) -> _Parts:
    where, site = f"export: {name}", quantizer.site
    if not quantizer.frozen:
        what, expected = "its widths were never frozen", "a run whose last steps train whole widths"
        raise AccelsimError(Problem(where, what, expected, ("frozen_share above 0",)))
    if site.kind == WEIGHTS and site.heads > 1 and _by_code(site):
        what = "its heads are cut along the axis of the released code: no format has shares of outputs and of inputs"
        raise AccelsimError(Problem(where, what, "heads of q, k, v along outputs, of the projection along inputs",
                                    ("head_axis: head", "evaluate it as it was trained")))  # fmt: skip
    with torch.no_grad():
        width = quantizer.width()
        numbers = (width, quantizer.step(width), quantizer.zero)
        bits, steps, zeros = (one.detach().cpu().repeat_interleave(repeats, 1).flatten() for one in numbers)
    if len(bits) == 1 or bool((bits == bits[0]).all() & (steps == steps[0]).all() & (zeros == zeros[0]).all()):
        return _Parts(site, bits[:1].long(), steps[:1], zeros[:1], None)
    shifts = whole_shifts(steps) if summed else None
    if summed and shifts is None:
        what = "steps of heads that one layer sums are not powers of two times each other"
        raise AccelsimError(Problem(where, what, "widths learned with `tied`", ("tied: true",)))
    return _Parts(site, bits.long(), steps, zeros, shifts)


def _by_code(site: Site) -> bool:
    """True for filters whose heads are inputs of q, k and v, or outputs of the projection."""
    return site.parts[1] != site.heads if site.tables > 1 else site.dims > 1


def _known(network: Network, found: Sequence[_Parts]) -> tuple[dict[str, Affine], dict[str, Filters]]:
    """Quantizers of stored tensors, by tensor, and filters, by op, exactly as they were trained."""
    makers = {node.op.output: node for node in network.nodes}
    multiplied = without_zero_point(network)
    stored, filters = {}, {}
    for one in found:
        name = one.site.of
        if one.site.kind == WEIGHTS:
            filters[name] = _filters(network.node(name), one)
            continue
        if len(one.bits) > 1:
            channels = network.workload.tensor_by_name[name].channels
            scale = one.steps[part_places(makers[name], channels, len(one.bits))]
        else:
            scale = one.steps.reshape(())
        stored[name] = _affine(one, scale, name in multiplied)
    return stored, filters


def _affine(one: _Parts, scale: Tensor, multiplied: bool) -> Affine:
    """The quantizer of a stored tensor: codes of the widest part, signed unless a product reads shares."""
    half = 1 << (int(one.bits.max()) - 1)
    if one.site.signed:
        return Affine(scale, torch.zeros_like(scale), -half, half - 1)
    if multiplied:
        return Affine(scale, torch.zeros_like(scale), 0, 2 * half - 1)
    return Affine(scale, torch.full_like(scale, float(one.zeros[0]) - half), -half, half - 1)


def _filters(node: Node, one: _Parts) -> Filters:
    """Codes of trained filters; those of parts along the inputs in steps of the finest part."""
    assert node.weight is not None
    outputs, parts = len(node.weight), len(one.bits)
    along = node.weight.shape[1] if one.shifts is not None else outputs
    place = torch.arange(along) // (along // parts)
    if one.shifts is None:
        place = place.reshape(-1, *[1] * (node.weight.dim() - 1))
    half = torch.exp2(one.bits[place] - 1)
    codes = torch.round(torch.clamp(node.weight / one.steps[place], -half, half - 1)).to(torch.int32)
    if one.shifts is not None:
        scale = one.steps.min().expand(outputs).clone()
        return Filters(codes << one.shifts[place].to(torch.int32), scale, node.bias)
    return Filters(codes, one.steps[place].reshape(-1).expand(outputs).clone(), node.bias)
