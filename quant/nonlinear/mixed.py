"""One network, one width, any map of methods: checkpoints that share everything that a map does not change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from accelsim.formats import Format
from accelsim.plan import QuantPlan, apply_plan
from quant.calibrate import Calibration, finest_scale, norm_factors, stored_quantizer
from quant.calibrated import Checkpoint
from quant.collect import Statistics
from quant.fake import FakeQuantized
from quant.functional import Affine
from quant.groups import Groups, scale_groups
from quant.methods.mnq import METHODS, MNQ
from quant.network import Network, Numerics
from quant.nonlinear.assign import single
from quant.nonlinear.own_error import measure_own_error
from quant.nonlinear.sqnr import Slot, SqnrTable, measure_sqnr, slots_of
from quant.quantize import calibrated, gather, make_plan


@dataclass(eq=False)
class Mixed:
    """Quantizations of a float network (GELUs as ops of their own, `quant.separate`) under maps of methods.

    `batches` are calibration images [n, channels, h, w]; weights and activations have `bits`.
    """

    network: Network
    batches: Sequence[Tensor]
    bits: int
    options: Calibration = field(default_factory=Calibration)

    def method(self, chosen: Mapping[str, str]) -> MNQ:
        """The method with a map."""
        return MNQ(activation_bits=self.bits, weight_bits=self.bits, methods=dict(chosen))

    def plan(self, chosen: Mapping[str, str]) -> QuantPlan:
        """The plan of a map."""
        return make_plan(self.network, self.method(chosen), self.statistics)

    def checkpoint(self, chosen: Mapping[str, str]) -> Checkpoint:
        """The calibrated checkpoint of a map, as `quant.quantize` makes it."""
        plan = self.plan(chosen)
        quantized = apply_plan(self.network.workload, plan)
        stored = {}
        for name in self._base.stored:
            rules = self.network.workload.op_by_name
            fmt = plan.rule_for(rules[name]).output if name in rules else Format.parse("u8")
            key = (name, fmt, finest_scale(name, quantized))
            if key not in self._stored:
                groups, statistics = self._groups[name], self.statistics
                self._stored[key] = stored_quantizer(name, quantized, statistics, groups, self.options)
            stored[name] = self._stored[key]
        factors = norm_factors(self.network, plan, self.statistics)
        return replace(self._base, plan=plan, stored=stored, factors=factors)

    def table(
        self, images: Sequence[Tensor] | None = None, progress: Callable[[int, int], None] | None = None
    ) -> SqnrTable:
        """SQNR of every slot in networks of one method each, on images (default: the calibration images)."""

        def numerics(name: str) -> Callable[[], Numerics]:
            return lambda: FakeQuantized(self.checkpoint(single(self.slots, name)))

        networks = {name: numerics(name) for name in METHODS}
        return measure_sqnr(self.network, self.batches if images is None else images, networks, progress)

    def own_error(self, images: Sequence[Tensor] | None = None) -> SqnrTable:
        """SQNR of every slot and method from the float input, on images (default: the calibration images)."""
        fakes = {name: FakeQuantized(self.checkpoint(single(self.slots, name))) for name in METHODS}
        return measure_own_error(self.network, self.batches if images is None else images, fakes)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The non-linear layers."""
        return slots_of(self.network)

    @cached_property
    def statistics(self) -> Statistics:
        """What calibration needs, of the float network."""
        return gather(self.network, self.batches, self.method({}))

    @cached_property
    def _groups(self) -> dict[str, Groups]:
        return scale_groups(self.network)

    @cached_property
    def _base(self) -> Checkpoint:
        """Filters, biases and what else no map changes."""
        return calibrated(self.network, self.batches, self.plan({}), self.statistics, self.options)

    @cached_property
    def _stored(self) -> dict[tuple[str, Format, float], Affine]:
        return {}
