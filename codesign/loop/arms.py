"""The arms of a study: the loop's own designs, the loop without a family of options, and the baselines.

* `codesign`: for every limit of the predicted loss the best hardware of the outer searches (also of those for uniform
  widths and of those without a family: a plan of the loop may be the best for it), its plan chosen again exactly; and
  the networks with learned widths, as they were trained, on the hardware that suits them best.
* `without_FAMILY`: the same with fewer options, on the hardware of its own search and of those for uniform widths.
* `uniformB`: weights of B bits everywhere, on the hardware that its own search found best.
* `sequential`: the best hardware for uniform 8 bits; then formats by layer with an additive table, made once (in the
  manner of HAQ, arXiv 1811.08886: layer-wise widths, a table of single changes, no feedback, hardware fixed).
* `m2vit_rule`: half (or another share) of the filters powers of two, depthwise filters 4 bits, on fixed hardware
  (`hardware.rule`): the rule of M²-ViT as interpreted in `quant.methods.m2q`.
* `random`: random choices with a predicted loss of at most the largest limit, on the loop's hardware.

Softmax and LayerNorm of the baselines have the first of `options.methods`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from accelsim.arch import Accelerator
from accelsim.config import load_plan
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError
from codesign.allocate.feedback import LoopSettings, allocate
from codesign.allocate.goal import Limits
from codesign.allocate.options import OptionSettings, OptionSpace, Selection
from codesign.loop.allocated import BEST_HARDWARE, AllocatedArm, exact_rank
from codesign.loop.bench import Bench
from codesign.loop.designs import TRAINED, PlanMaker
from codesign.loop.final import Candidate
from codesign.loop.folder import StudyFolder
from codesign.loop.outer import (
    LOOP,
    Looked,
    arms_of,
    best_of,
    catalog_of,
    looked_at,
    maker_of,
    ranked,
    rule_hardware,
    searches,
)
from codesign.loop.spec import CodesignSpec
from codesign.loop.variants import PLAIN, UNIFORM, Variant

SEQUENTIAL, RULE, RANDOM = "sequential", "m2vit_rule", "random"


class Arms:
    """Candidates of a study; `allocated` are the arms whose plans are allocated, by name, the loop first."""

    def __init__(self, spec: CodesignSpec, folder: StudyFolder, maker: PlanMaker, bench: Bench | None) -> None:
        self.spec, self.maker, self.bench = spec, maker, bench
        self.looked = {name: looked_at(spec, folder, name) for name in searches(spec)}
        names = list(arms_of(spec))
        self.allocated = {
            name: AllocatedArm(
                name, spec, maker_of(maker, name), self.looked, names if name == LOOP else [name]
            )
            for name in names
        }  # fmt: skip

    def learned(self, name: str) -> Candidate:
        """A network with learned widths on its best hardware.  Raises InfeasibleError when the search found none."""
        found = self.maker.learned[name]
        own = [one for one in self.looked[LOOP] if one.plan == f"{TRAINED}{name}"]
        sets = [own, *(self.looked[f"{UNIFORM}{bits}"] for bits in self.spec.baselines.uniform)]
        one = self._best([one for ones in sets for one in first(ones)], found.plan)
        return self._candidate(
            f"learned-{name}", LOOP, one.accelerator(self.maker), one.values, found.plan,
            predicted_loss=found.loss, checkpoint=found.folder,
        )  # fmt: skip

    def uniform(self, bits: int) -> Candidate:
        """Weights of one width on their best hardware.  Raises InfeasibleError when the search found none."""
        name = f"{UNIFORM}{bits}"
        one = self._of_uniform(bits)
        accelerator = one.accelerator(self.maker)
        plan = self.maker.plain.uniform_plan(accelerator, bits)
        return self._candidate(name, name, accelerator, one.values, plan)

    def _of_uniform(self, bits: int) -> Looked:
        """The best hardware for a width: as the loop's, the best of the search's first ones by the final mapper."""
        looked = self.looked[f"{UNIFORM}{bits}"]
        accelerator = best_of(looked).accelerator(self.maker)
        return self._best(first(looked), self.maker.plain.uniform_plan(accelerator, bits))

    def _best(self, looked: list[Looked], plan: QuantPlan) -> Looked:
        """The design whose hardware is the best for a plan by the final mapper; the first `looked` of them if equal."""
        best_of(looked)  # says when there is none
        plain = self.maker.plain
        return min(looked, key=lambda one: exact_rank(self.spec, plain, plan, one.accelerator(self.maker)))

    def sequential(self, level: float) -> Candidate:
        """Hardware for uniform 8 bits, then layer-wise formats by an additive table."""
        one = self._of_uniform(8)
        accelerator = one.accelerator(self.maker)
        space = self.maker.plain.space(accelerator, layerwise(self.maker.plain.options))
        once = LoopSettings(self.maker.loop.objective, rounds=1, tries=0, method=self.maker.loop.method)
        found = allocate(space, accelerator, Limits(penalty=level), once)
        name = f"{SEQUENTIAL}-{level:g}"
        return self._candidate(name, SEQUENTIAL, accelerator, one.values, space.plan(found.selection, name), level)

    def rule(self) -> Candidate:
        """The fixed ratio of M²-ViT on the hardware as it comes."""
        share = self.spec.baselines.m2vit_rule
        assert share is not None
        accelerator = rule_hardware(self.spec, catalog_of(self.maker))
        plan = load_plan(f"m2q:{share:g}") if self.bench is None else self._m2q(self.bench, share)
        plan = with_methods(self.maker.plain, plan, accelerator)
        return self._candidate(RULE, RULE, accelerator, self.spec.hardware.rule, plan)

    def _m2q(self, bench: Bench, share: float) -> QuantPlan:
        from quant.methods.m2q import M2Q
        from quant.quantize import gather, make_plan

        method = M2Q(ratio=share)
        return make_plan(bench.network, method, gather(bench.network, bench.calibration, method))

    def random(self, number: int) -> Candidate:
        """A random choice within the largest limit of the predicted loss, on the loop's best hardware there."""
        level = self.spec.losses[-1]
        place = self.allocated[LOOP].hardware(level)[0]
        accelerator = place.looked.accelerator(self.maker)
        space = self.maker.variants[place.variant].space(accelerator)
        name = f"{RANDOM}-{number}"
        chosen = random_choice(space, level, random.Random(f"{self.spec.seed}/{number}"))
        values, plan = place.looked.values, space.plan(chosen, name)
        return self._candidate(name, RANDOM, accelerator, values, plan, level, place.variant, space.penalty(chosen))

    def _candidate(
        self, name: str, origin: str, accelerator: Accelerator, values: Mapping[str, Any], plan: QuantPlan,
        level: float | None = None, variant: str = PLAIN, predicted_loss: float | None = None, **more: Any,
    ) -> Candidate:  # fmt: skip
        label = (name if origin == LOOP else origin) if level is None else f"{origin} ≤ {level:g}"
        loss = table_loss(self.maker.variants[variant], plan) if predicted_loss is None else predicted_loss
        return Candidate(name, origin, label, accelerator, values, plan, loss, level, variant, **more)


def first(looked: list[Looked]) -> list[Looked]:
    """The best designs within the limits, by the mapper of the search."""
    return ranked([one for one in looked if one.within])[:BEST_HARDWARE]


def layerwise(options: OptionSettings) -> OptionSettings:
    """One uniform width or scheme for a layer, one for a tensor, and one method: what a layer-wise search chooses."""
    stored = tuple(name for name in options.activation_formats if name.startswith("u"))
    return replace(
        options, mixtures=0, activation_formats=stored, methods=options.methods[:1], head_formats=(), token_shares=()
    )


def with_methods(variant: Variant, plan: QuantPlan, accelerator: Accelerator) -> QuantPlan:
    """A plan with the methods of the base: those of the start of the space."""
    if not variant.options.methods:
        return plan
    space = variant.space(accelerator)
    methods = {op: space.stored[group][space.start.groups[group]].method for op, group in space.group_of.items()}
    rules = []
    for op in variant.workload.ops:
        if methods.get(op.name):
            rules.append(replace(plan.rule_for(op), match=op.name, nonlinear=methods[op.name]))
    named = {rule.match for rule in rules}
    return replace(plan, rules=(*rules, *(rule for rule in plan.rules if rule.match not in named)))


def table_loss(variant: Variant, plan: QuantPlan) -> float | None:
    """The table's loss of a plan; None when it has formats or filters that the table cannot price."""
    try:
        return variant.penalties.loss_of(plan)
    except AccelsimError:
        return None


def random_choice(space: OptionSpace, level: float, draw: random.Random) -> Selection:
    """Ops, groups and switches in random order take random choices that leave the predicted loss within the limit.

    They start from the choices of least loss: the base's, but where another method loses less than the first one.
    """
    names = {
        "options": [one.op for one in space.ops],
        "groups": list(space.group_formats),
        "switches": [*space.switches],
    }
    tables = {(kind, name): _losses(space, kind, name) for kind, all_names in names.items() for name in all_names}
    least = {kind: {name: _least(tables[kind, name]) for name in all_names} for kind, all_names in names.items()}
    chosen = Selection(**least)
    spent, places = space.penalty(chosen), list(tables)
    draw.shuffle(places)
    for kind, name in places:
        now, losses = getattr(chosen, kind), tables[kind, name]
        fitting = [one for one, loss in losses.items() if spent - losses[now[name]] + loss <= level]
        if fitting:
            taken = draw.choice(fitting)
            spent += losses[taken] - losses[now[name]]
            chosen = replace(chosen, **{kind: {**now, name: taken}})
    return chosen


def _least(losses: Mapping[Any, float]) -> Any:
    """The choice of least loss, the first one of equals."""
    return min(losses, key=lambda one: losses[one])


def _losses(space: OptionSpace, kind: str, name: str) -> Mapping[Any, float]:
    """Predicted loss of every choice of an op, a group or a switch."""
    if kind == "options":
        return dict(enumerate(space.by_op[name].penalty.tolist()))
    return (space.group_penalties if kind == "groups" else space.switch_penalties)[name]
