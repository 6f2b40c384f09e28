"""Learn widths, scales and weights together; the same steps train LSQ with uniform widths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.data.dataset import DataSet
from quant.finetune.batches import Batches
from quant.finetune.devices import check_device, network_on
from quant.finetune.settings import FineTune
from quant.finetune.state import State, asked_of
from quant.finetune.steps import Progress, Steps, Task, check_labels, one_thread
from quant.learned.budget import Budget, Widths, uniform_widths
from quant.learned.initial import starts
from quant.learned.network import LearnedNetwork
from quant.learned.quantizer import LOWEST_BITS, Quantizer, widths_of
from quant.learned.settings import LearnBits
from quant.learned.settle import settle
from quant.learned.sites import BY_HEAD, STORED, WEIGHTS, sites_of
from quant.learned.structure import attentions
from quant.network import Network

START_IMAGES = 64  # one batch, as the released code
Measure = Callable[[LearnedNetwork], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Learned:
    """A network with its quantizers after training; `state` has losses and the log of widths."""

    model: LearnedNetwork
    state: State
    snapped: tuple[str, ...]

    def widths(self) -> dict[str, Tensor]:
        """Whole widths [tables, heads] of every site."""
        return {name: one.width().detach() for name, one in self.model.quantizers.items()}


class LearnTask(Task):
    """Q-ViT's training: cross-entropy, the budget's penalty, bits frozen at the end."""

    def __init__(
        self,
        network: Network,
        images: Tensor,
        options: LearnBits,
        budget: Budget | None,
        widths: Widths | None,
        measure: Measure | None = None,
    ) -> None:
        sites = sites_of(network.workload, options.sites)
        first = uniform_widths(sites, options.start_bits) if widths is None else dict(widths)
        begun = starts(network, sites, images)
        self.options, self.budget = options, budget
        self.model = LearnedNetwork(
            network,
            {
                name: Quantizer(site, begun[name], first[name], options.learned and not site.pinned, options.switchable)
                for name, site in sites.items()
            },
        )
        summed = summed_sites(network, options.sites.head_axis)
        self.summed = tuple(name for name in summed if name in sites) if options.tied else ()
        self.frozen, self.measure = False, measure
        self._at_freeze: dict[str, Any] = {}
        self._flips, self._before = torch.zeros((), dtype=torch.int64), self._widths()

    def _widths(self) -> dict[str, Tensor]:
        return {name: one.width().detach() for name, one in self.model.quantizers.items()}

    def parameters_by_name(self) -> dict[str, Tensor]:
        """Everything that is trained or kept, by a unique name."""
        return self.model.parameters_by_name() | {"log/flips": self._flips}

    def logits(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, channels, h, w]."""
        return self.model.logits(images)

    def rate_share(self, name: str) -> float:
        """Bits, and scales and offsets, have rates of their own."""
        part = name.split("/", 1)[0]
        return {"bits": self.options.bit_rate, "growth": self.options.step_rate, "moved": self.options.step_rate}.get(
            part, 1.0
        )

    def penalty(self) -> Tensor | None:
        """The budget's part of the loss, while bits are learned."""
        if self.budget is None or self.frozen or not self.options.learned:
            return None
        return self.budget.penalty(widths_of(self.model.quantizers))

    def begins(self, step: int, steps: int) -> None:
        """Freeze the bits where the last share of the steps (at least one) begins; after a resume, go on as frozen."""
        self._before = self._widths()
        share = self.options.frozen_share
        first = steps - (max(1, round(steps * share)) if share else 0)
        if step == first:
            self.freeze()
        elif step > first and not self.frozen:
            self.frozen = True
            for one in self.model.quantizers.values():
                one.hold()

    def freeze(self) -> None:
        """Settle the widths within the budget and tie the scales that meet in one sum."""
        self.frozen = True
        quantizers = self.model.quantizers
        self._measure("learned")
        if self.budget is not None and self.options.learned:
            pinned = {name: one.site.pinned for name, one in quantizers.items()}
            real = {name: one.bits.detach() for name, one in quantizers.items()}
            for name, width in settle(real, self.budget, pinned).items():
                with torch.no_grad():
                    quantizers[name].bits.copy_(width)
        self._measure("settled")
        for name, one in quantizers.items():
            one.freeze(powers_of_two=name in self.summed)
        self._measure("tied")

    def _measure(self, stage: str) -> None:
        if self.measure is not None:
            with torch.no_grad():
                self._at_freeze[stage] = self.measure(self.model)

    def ends(self, step: int, steps: int) -> dict[str, Any] | None:
        """Bits back to 2 … 8; widths, flips since the last entry, share of the budget, figures at the freeze."""
        quantizers = self.model.quantizers
        for one in quantizers.values():
            one.clamp()
        now = self._widths()
        self._flips += sum(int((now[name] != self._before[name]).sum()) for name in now)
        if (step + 1) % self.options.log_every and step + 1 < steps and not self._at_freeze:
            return None
        flips = int(self._flips)
        self._flips.zero_()
        spent = {} if self.budget is None else {"spent": round(self.budget.spent(now), 5)}
        frozen, self._at_freeze = {"freeze": self._at_freeze} if self._at_freeze else {}, {}
        found = {k: v.int().tolist() for k, v in now.items()}
        return {"step": step + 1, "flips": flips, **spent, **frozen, "widths": found}


def summed_sites(network: Network, head_axis: str = BY_HEAD) -> tuple[str, ...]:
    """Sites whose parts meet in one sum: the attention's output and filters that heads cut along their inputs."""
    workload = network.workload
    found = []
    for one in attentions(workload):
        filters = one.proj if head_axis == BY_HEAD else one.qkv
        found += [f"{STORED}/{workload.op_by_name[one.values].output}", f"{WEIGHTS}/{filters}"]
    return tuple(found)


def learn_bits(
    network: Network,
    training: DataSet,
    settings: FineTune,
    options: LearnBits,
    budget: Budget | None = None,
    widths: Widths | None = None,
    state: str | Path | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
    keep_every: int = 20,
    measure: Measure | None = None,
    measured_on: str = "",
) -> Learned:
    """Fine-tune a float network with learned widths, from its weights; `widths` are where they start, if not uniform.

    Images of the first batch give the scales' start.  The file `state` is written and resumed from as
    `quant.finetune.fine_tune` does.  `measure` gives figures of the network for the log's entry of the freeze:
    "learned" as it was trained, "settled" with whole widths within the budget, "tied" with the scales that are kept;
    `measured_on` says of which data, so that a run cannot go on with figures of others.
    Raises AccelsimError for a network that is no vision transformer, a budget that 2 bits everywhere exceed, and as
    `fine_tune` does.
    """
    check_labels(network, training, settings)
    _check_budget(network, options, budget)
    place = check_device(device)
    images = Batches(training, settings).at(0)[0][:START_IMAGES].to(place)
    asked = asked_of(network, training, settings, device) | {
        "learned bits": asdict(options),
        "budget": None if budget is None else [budget.cost.name, budget.limit, budget.weight],
        "widths": None if widths is None else {name: one.tolist() for name, one in widths.items()},
    }
    if measured_on:
        asked["figures of"] = measured_on
    with one_thread():
        start = network_on(network, place)
        steps = Steps(
            lambda: LearnTask(start, images, options, budget, widths, measure), start, training, settings, place
        )
        path = None if state is None else Path(state)
        found = steps.carry_out(asked, path, keep_every, progress, "learning bits")
        # A finished run that is read from its file, and one without a frozen share, end frozen as well.
        steps.task.begins(found.steps, found.steps)
        return Learned(steps.task.model, found, steps.task.summed)


def _check_budget(network: Network, options: LearnBits, budget: Budget | None) -> None:
    """Raise AccelsimError for a limit that the narrowest widths exceed."""
    if budget is None or not options.learned:
        return
    least = budget.cost.exact(uniform_widths(sites_of(network.workload, options.sites), LOWEST_BITS))
    if least > budget.limit:
        what = f"{LOWEST_BITS} bits everywhere cost {least:.6g}"
        levers = ("a larger budget", "ends_learned: first and last layer below 8 bits too")
        raise AccelsimError(Problem(f"budget: {budget.cost.name}", what, f"at most {budget.limit:.6g}", levers))
