"""A float network whose layers and stored tensors may each have a width: plans, checkpoints and losses of states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.formats import Format, Scheme
from accelsim.ir import digest
from accelsim.plan import QuantPlan, Rule, WeightShare, apply_plan
from accelsim.problems import AccelsimError, Problem
from accelsim.rank_rules import ranking_rules
from codesign.greedy.evaluations import Evaluations
from codesign.greedy.prefixes import Key, SharedRuns
from codesign.greedy.trajectory import Component, State
from quant.calibrate import Calibration, corrected, finest_scale, norm_factors, rounded_filters, stored_quantizer
from quant.calibrated import Checkpoint, Filters
from quant.collect import Statistics
from quant.fake import FakeQuantized
from quant.functional import Affine
from quant.groups import Groups, scale_groups
from quant.methods.base import UNIFORM8, Method
from quant.network import Network, forward
from quant.penalties.activation_groups import activation_groups
from quant.quantize import calibrated, gather, make_plan
from quant.sensitivity.measure import look, network_fingerprint
from quant.structure import MULTIPLYING, readers

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT, ACTIVATION = "weight", "activation"
KINDS = (WEIGHT, ACTIVATION)
FormatOf = Callable[[Network, Statistics, str, int], Format]


def uniform_format(network: Network, statistics: Statistics, name: str, bits: int) -> Format:
    """The format of a stored tensor at a width: uniform."""
    return Format.parse(f"u{bits}", f"bits of {name}")


@dataclass(frozen=True)
class WidthSettings:
    """Which components a search has, and their widths in bits, descending, the first one where it starts.

    Weights are those of every layer with filters (without `ends` not of the first and last one), activations the
    stored tensors that products read.  With `full` all stored tensors: also what LayerNorm, softmax and residual adds
    read (the fully quantized setting).  Image, logits and numerators of divisions keep their formats.  Kept
    activations take at most `memory_bytes`.
    """

    kinds: tuple[str, ...] = KINDS
    full: bool = False
    ends: bool = True
    weight_widths: tuple[int, ...] = (8, 7, 6, 5, 4)
    activation_widths: tuple[int, ...] = (8, 7, 6, 5, 4)
    memory_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise AccelsimError(Problem("greedy kinds", f"found {', '.join(self.kinds)}", f"of {', '.join(KINDS)}"))
        for name in ("weight_widths", "activation_widths"):
            Component(name, getattr(self, name))
            for bits in getattr(self, name):
                Format.parse(f"u{bits}", name)


@dataclass(frozen=True)
class _Part:
    """A component of a network: the filters of an op, or the stored outputs of ops that have one width."""

    kind: str
    ops: tuple[str, ...]
    component: Component


@dataclass(eq=False)
class MixedNetwork:
    """Quantizations of a float network in which every component has a width.

    `network` is what the method prepares (smoothed, separated).  Filters of a component are uniform.  `batches` are
    calibration images [n, channels, h, w]; `images` those that losses are measured on, with labels: the loss is the
    mean cross-entropy in nats; with None for labels it is the mean KL divergence from the float network's outputs.
    All that no component changes is as `method` says; `format_of` gives the format of a stored tensor at a width.
    `path` keeps measured losses.  Raises AccelsimError without images or components, for labels of some images only,
    and for what states cannot share (divisors as powers of two, tied branches).
    """

    network: Network
    batches: Sequence[Tensor]
    images: Sequence[tuple[Tensor, Tensor | None]]
    method: Method
    settings: WidthSettings = field(default_factory=WidthSettings)
    options: Calibration = field(default_factory=Calibration)
    format_of: FormatOf = uniform_format
    path: Path | None = None

    def __post_init__(self) -> None:
        where = f"greedy search of {self.network.workload.name}"
        labelled = {labels is not None for _, labels in self.images}
        if not sum(len(batch) for batch, _ in self.images) or len(labelled) > 1:
            raise AccelsimError(Problem(where, "lacks images, or labels of some", "images, all with labels or none"))
        if not self.parts:
            raise AccelsimError(Problem(where, "there is nothing whose width may change", "a network with layers"))
        if self.options.tied_branches or (self._base_plan.division == "log2_shift" and self._divides):
            what = "quantizers of some tensors depend on others (tied branches, divisors as powers of two)"
            raise AccelsimError(Problem(where, what, "tied_branches off, exact division"))
        self._stored: dict[tuple[str, Format, float], Affine] = {}
        self._filters: dict[tuple[str, int], Filters] = {}

    @cached_property
    def parts(self) -> tuple[_Part, ...]:
        """The components with what they are, in order of execution."""
        nodes, settings = self.network.nodes, self.settings
        found: dict[str, list[_Part]] = {node.name: [] for node in nodes}
        layers = [node.name for node in nodes if node.has_filters]
        if WEIGHT in settings.kinds:
            for name in layers if settings.ends else layers[1:-1]:
                found[name].append(_part(WEIGHT, (name,), settings.weight_widths))
        if ACTIVATION in settings.kinds:
            read = {
                name
                for name, users in readers(self.network).items()
                if settings.full or any(node.function in MULTIPLYING for node, _ in users)
            }
            for group in activation_groups(self.network.workload):
                if any(self.network.workload.op_by_name[op].output in read for op in group.ops):
                    found[group.name].append(_part(ACTIVATION, group.ops, settings.activation_widths))
        return tuple(part for of_node in found.values() for part in of_node)

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The components in order of execution: "weight:OP" and "activation:OP"."""
        return tuple(part.component for part in self.parts)

    def widths(self, state: State, kind: str) -> dict[str, int]:
        """Bits by op of the filters ("weight"), or by tensor ("activation")."""
        outputs = self.network.workload.op_by_name
        found = {}
        for part, bits in zip(self.parts, state, strict=True):
            if part.kind == kind:
                found.update({op if kind == WEIGHT else outputs[op].output: bits for op in part.ops})
        return found

    def plan(self, state: State) -> QuantPlan:
        """The plan of a state."""
        weights, outputs = self.widths(state, WEIGHT), self.widths(state, ACTIVATION)

        def changed(rule: Rule) -> Rule:
            if rule.match in weights:
                rule = replace(rule, weights=(WeightShare(Format.parse(f"u{weights[rule.match]}")),))
            op = self.network.workload.op_by_name.get(rule.match)
            if op is not None and op.output in outputs:
                output = self._formats[op.output, outputs[op.output]]
                rule = replace(rule, output=output, right=output if output.scheme is Scheme.UNIFORM else UNIFORM8)
            return rule

        plan = replace(self._base_plan, rules=tuple(changed(rule) for rule in self._base_plan.rules))
        return ranking_rules(self.network.workload, plan)

    def checkpoint(self, state: State) -> Checkpoint:
        """The calibrated checkpoint of a state: `quant.quantize.calibrated` makes the same one of its plan."""
        plan = self.plan(state)
        quantized = apply_plan(self.network.workload, plan)
        stored = {}
        for name in self._base.stored:
            op = self.network.workload.op_by_name.get(name)
            key = (name, plan.rule_for(op).output if op else UNIFORM8, finest_scale(name, quantized))
            if key not in self._stored:
                groups, statistics = self._groups[name], self.statistics
                self._stored[key] = stored_quantizer(name, quantized, statistics, groups, self.options)
            stored[name] = self._stored[key]
        filters = dict(self._base.filters)
        for name, bits in self.widths(state, WEIGHT).items():
            if (name, bits) not in self._filters:
                self._filters[name, bits] = self._rounded(name, plan)
            filters[name] = self._filters[name, bits]
        factors = norm_factors(self.network, plan, self.statistics)
        return replace(self._base, plan=plan, stored=stored, filters=filters, factors=factors)

    def loss(self, state: State) -> float:
        """Mean loss over the images in nats, from the file where it was measured before."""
        known = self.evaluations.get(state)
        if known is None:
            known = self._measured(state)
            self.evaluations.put(state, known)
        return known

    def settle(self, state: State) -> None:
        """The next states differ from this one in one component: its activations are kept."""
        self.runs.settle(self._key(state), lambda: FakeQuantized(self.checkpoint(state)))

    @cached_property
    def runs(self) -> SharedRuns:
        """The runs on the images."""
        return SharedRuns(self.network, [batch for batch, _ in self.images], self.settings.memory_bytes)

    @cached_property
    def statistics(self) -> Statistics:
        """What calibration needs, of the float network."""
        return gather(self.network, self.batches, self.method)

    @cached_property
    def evaluations(self) -> Evaluations:
        """Losses that were measured."""
        return Evaluations(self.path, self.fingerprint(), tuple(one.name for one in self.components))

    def fingerprint(self) -> str:
        """Hash of everything that a loss depends on."""
        formats = {f"{name} {bits}": fmt.name for (name, bits), fmt in self._formats.items()}
        widths = [(one.name, one.widths) for one in self.components]
        images = [look(self.images).fingerprint, look([(batch, None) for batch in self.batches]).fingerprint]
        network, plan = network_fingerprint(self.network), self._base_plan.fingerprint()
        method = [type(self.method).__name__, asdict(self.method)]
        return digest([network, plan, images, asdict(self.options), method, widths, sorted(formats.items())])

    def outputs(self, state: State) -> list[Tensor]:
        """The network's outputs of every batch of images."""
        return self.runs.outputs(self._key(state), lambda: FakeQuantized(self.checkpoint(state)))

    def _measured(self, state: State) -> float:
        import torch
        from torch.nn import functional as F  # noqa: N812

        outputs = self.outputs(state)
        total, count = 0.0, 0
        for number, (images, labels) in enumerate(self.images):
            found = torch.log_softmax(outputs[number].reshape(len(images), -1).double(), dim=1)
            if labels is not None:
                total += float(F.nll_loss(found, labels, reduction="sum"))
            else:
                exact = self._exact[number]
                total += float((exact.exp() * (exact - found)).sum())
            count += len(images)
        return total / count

    def _key(self, state: State) -> Key:
        """Widths by block."""
        found: list[list[int]] = [[] for _ in self.runs.blocks]
        for part, bits in zip(self.parts, state, strict=True):
            found[self._place[part.ops[0]]].append(bits)
        return tuple(tuple(one) for one in found)

    def _rounded(self, name: str, plan: QuantPlan) -> Filters:
        node = self.network.node(name)
        made = rounded_filters(node, plan, self.options)
        return corrected(node, made, self.statistics) if self.options.bias_correction else made

    @cached_property
    def _place(self) -> Mapping[str, int]:
        """The block of every op."""
        return {node.name: k for k, block in enumerate(self.runs.blocks) for node in block}

    @cached_property
    def _exact(self) -> list[Tensor]:
        """Log probabilities of the float network, by batch."""
        import torch

        return [torch.log_softmax(outputs.double(), dim=1) for outputs in self.float_outputs]

    @cached_property
    def float_outputs(self) -> list[Tensor]:
        """Outputs of the float network of every batch of images."""
        import torch

        with torch.no_grad():
            return [forward(self.network, batch) for batch, _ in self.images]

    @cached_property
    def _formats(self) -> dict[tuple[str, int], Format]:
        """The format of every tensor whose width may change, by tensor and bits."""
        outputs = self.network.workload.op_by_name
        chosen = [part for part in self.parts if part.kind == ACTIVATION]
        names = [(outputs[op].output, bits) for part in chosen for op in part.ops for bits in part.component.widths]
        return {(name, bits): self.format_of(self.network, self.statistics, name, bits) for name, bits in names}

    @property
    def _divides(self) -> bool:
        return any(node.op.op_class == "division" for node in self.network.nodes)

    @cached_property
    def _groups(self) -> dict[str, Groups]:
        return scale_groups(self.network, self.method.channel_scales(self.network))

    @cached_property
    def _base_plan(self) -> QuantPlan:
        return make_plan(self.network, self.method, self.statistics)

    @cached_property
    def _base(self) -> Checkpoint:
        """What no state changes: filters of other layers, tables, and how it was made."""
        return calibrated(self.network, self.batches, self._base_plan, self.statistics, self.options)


def _part(kind: str, ops: tuple[str, ...], widths: tuple[int, ...]) -> _Part:
    return _Part(kind, ops, Component(f"{kind}:{ops[0]}", widths))
