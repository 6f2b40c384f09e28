"""MPTQ-ViT (Tai and Wu 2024, arXiv 2401.14895): SQ-b, two-region formats with a ratio from data, a width per tensor.

The ideas are the abstract's; the formulas of SQ-b's offset, of OPT-m and of the greedy score are interpretations (no
code of the authors is public).  The widths that Greedy MP chooses come from `codesign.greedy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from accelsim.formats import Format, two_region
from accelsim.ir import OpKind
from accelsim.nonlinear.methods import function_of
from accelsim.plan import WeightShare
from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Checkpoint
from quant.collect import Moments, Statistics
from quant.methods.base import Method, method
from quant.network import Network, Node
from quant.regions.choose import choose, sample_of
from quant.regions.codes import region_format
from quant.regions.untied import untied_steps
from quant.smooth import Smooth, layernorm_outputs, smooth
from quant.structure import MULTIPLYING, readers

UNTIED = "ptq4vit"
REGIONS = ("opt", "closed_form", "fixed", UNTIED, "none")
FIXED_SHIFT = 4


@method("mptq")
@dataclass(frozen=True)
class MPTQ(Method):
    """Symmetric weights and activations, smoothed LayerNorm outputs, two-region softmax and GELU outputs.

    Tensors that products read have `activation_bits`, all others (the residual stream, what softmaxes read)
    `other_bits`; `widths` gives the bits of some tensors instead, `weight_widths` those of some layers' filters.
    `smooth` is "sq_b", "smoothquant" or "none" with `alpha`, and `values` folds the same into the values of attention
    (`quant.smooth`).  `regions` says how the ratio 2^m of two-region formats is found: "opt" or "closed_form" (OPT-m),
    "fixed" (`fixed_shift`), "ptq4vit" (steps that are not tied: the plan has OPT-m's formats, the checkpoint no
    integers), or "none": uniform formats, those after GELU with a zero point if `region_points`;
    `region_bits` is their width (0: `activation_bits`), and with `weighted_regions` an error counts by the square of
    the loss's gradient.  `offsets` gives LayerNorm outputs an offset per channel.
    `functions` names the integer method of softmax and LayerNorm ("ibert", "ivit"); "": real numbers.
    """

    activation_bits: int = 6
    weight_bits: int = 6
    other_bits: int = 8
    smooth: str = "sq_b"
    alpha: float = 0.5
    values: str = "no"
    regions: str = "opt"
    fixed_shift: int = FIXED_SHIFT
    region_bits: int = 0
    region_points: bool = False
    weighted_regions: bool = False
    offsets: bool = False
    functions: str = ""
    zero_points: bool = False
    widths: Mapping[str, int] = field(default_factory=dict)
    weight_widths: Mapping[str, int] = field(default_factory=dict)

    def prepare(self, network: Network, batches: Sequence[Tensor]) -> Network:
        """The network with smoothed LayerNorm outputs; the same one where nothing can be smoothed."""
        return smooth(network, batches, self.smoothing)

    @property
    def smoothing(self) -> Smooth:
        """What is folded into LayerNorms and the layers behind them."""
        return Smooth(self.smooth, self.alpha, self.values)

    def channel_offsets(self, network: Network) -> tuple[str, ...]:
        """LayerNorm outputs that only linear layers read, if asked for."""
        return layernorm_outputs(network) if self.offsets else ()

    def zero_point(self, network: Network, name: str) -> bool:
        """For all tensors, or for those after GELU that have a uniform format."""
        return self.zero_points or (self.region_points and region_kind(network, name) is not None)

    def weighted(self, network: Network) -> tuple[str, ...]:
        """The two-region tensors, if their errors are weighted."""
        if not self.weighted_regions or self.regions == "none":
            return ()
        return tuple(name for name in readers(network) if region_kind(network, name))

    def nonlinear(self, node: Node) -> str:
        """The method of softmaxes and LayerNorms."""
        return self.functions if function_of(node.op.recipe) in ("softmax", "layernorm") else ""

    def shares(self, node: Node, moments: Moments | None) -> tuple[WeightShare, ...]:
        """One format for all filters of a layer."""
        bits = self.weight_widths.get(node.name, self.weight_bits)
        return (WeightShare(Format.parse(f"u{bits}", "weight_bits")),)

    def outputs(self, network: Network, statistics: Statistics) -> dict[str, Format]:
        """Formats of all stored tensors.  Raises AccelsimError for an unknown way to choose regions."""
        if self.regions not in REGIONS:
            raise AccelsimError(Problem("regions", f"found {self.regions!r}", f"one of {', '.join(REGIONS)}"))
        return {name: self.format_of(network, statistics, name, self._bits(network, name)) for name in readers(network)}

    def finish(self, checkpoint: Checkpoint, statistics: Statistics) -> Checkpoint:
        """With the untied steps of PTQ4ViT, if asked for."""
        if self.regions != UNTIED:
            return checkpoint
        found = {}
        for node in checkpoint.network.nodes:
            regions = region_format(checkpoint.plan.rule_for(node.op))
            if regions is not None and node.op.output in checkpoint.stored:
                values, weights = sample_of(statistics, node.op.output)
                found[node.op.output] = untied_steps(values, regions.bits, regions.low_negative, weights)
        return replace(checkpoint, untied=found)

    def format_of(self, network: Network, statistics: Statistics, name: str, bits: int) -> Format:
        """The format of a stored tensor at a width: two-region after softmax and GELU, else uniform."""
        kind = region_kind(network, name) if self.regions != "none" else None
        if kind is None:
            return Format.parse(f"u{bits}", f"bits of {name}")
        if self.regions == "fixed":
            return two_region(bits, self.fixed_shift, kind == "n")
        values, weights = sample_of(statistics, name)
        search = "closed_form" if self.regions == "closed_form" else "exact"
        found = choose(values, bits, kind == "n", weights, search)
        return two_region(bits, found.region_shift, kind == "n")

    def _bits(self, network: Network, name: str) -> int:
        if name in self.widths:
            return self.widths[name]
        users = readers(network)[name]
        narrow = not users or any(node.function in MULTIPLYING for node, _ in users)
        if self.region_bits and region_kind(network, name):
            return self.region_bits
        return self.activation_bits if narrow else self.other_bits


def region_kind(network: Network, name: str) -> str | None:
    """The two-region kind of a stored tensor: "p" after a softmax, "n" after a GELU, None for all others.

    Only tensors that nothing but products reads, as their left operand, can have one.
    """
    users = readers(network).get(name, ())
    if not users or any(node.function not in MULTIPLYING or position for node, position in users):
        return None
    makers = [node for node in network.nodes if node.op.output == name]
    if not makers or makers[0].op.kind is OpKind.VIEW:
        return None
    if makers[0].function == "softmax":
        return "p"
    return "n" if makers[0].op.activation == "gelu" else None
