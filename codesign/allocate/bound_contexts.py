"""Facts of every op in every context that they depend on: its filters, what it reads, how its own output is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from accelsim.arch import Accelerator
from accelsim.bound_tiles import most_vector_cycles
from accelsim.formats import Scheme
from accelsim.ir import Op, OpKind
from accelsim.optable import OpTable, op_table
from accelsim.plan import QuantPlan
from accelsim.rank_rules import with_rules
from accelsim.token_groups import MIN_BITS
from accelsim.token_rules import sliced_ops
from codesign.allocate.bound_facts import OpFacts, op_facts
from codesign.allocate.options import OptionSpace, Selection
from codesign.allocate.switches import DIVISION, FULL, TOKENS, fewest_full
from quant.penalties.choices import StoredChoice

# How what an op reads first and second is stored, and the choice of what it makes; "" where it does not matter.
Key = tuple[str, str, str]


class Contexts:
    """Facts of all contexts of a space on an accelerator, with tokens narrow wherever they can be.

    `around[op]` are the groups that the facts of an op depend on: what it reads first and second, and its own where
    that is made by different methods or codes ("" otherwise).  `floors[division]` are the facts of the narrowest
    tensors, `options[op, option, stored]` those of every option of filters, `fixed[op][key]` those of other ops, and
    `stored[group, stored]` those of a plan in which the whole group is stored so.
    """

    def __init__(self, space: OptionSpace, accelerator: Accelerator) -> None:
        self.space, self.accelerator = space, accelerator
        self.around = dict(_around(space))
        self.divisions = space.switches.get(DIVISION, ("",))
        self._tokens = {
            op: groups
            for layer, groups in fewest_full(space.switches, space.settings.drop_bits).items()
            for op in sliced_ops(space.workload, layer)
        }
        self.options: dict[tuple[str, int, str], OpFacts] = {}
        self.fixed: dict[str, dict[Key, OpFacts]] = {}
        self.stored: dict[tuple[str, str], OpFacts] = {}
        self._of_options()
        while self._keep_rest():
            pass
        least = {group: min(choices, key=lambda n: _width(choices[n])) for group, choices in space.stored.items()}
        self.floors = {
            method: self._facts(_divided(replace(space.start, groups=least), method)) for method in self.divisions
        }

    def every(self) -> list[OpFacts]:
        """The facts of all contexts but the floors, each once."""
        return [*dict.fromkeys((*self.options.values(), *(f for one in self.fixed.values() for f in one.values())))]

    def vector_limit(self) -> float:
        """Cycles for which the vector unit is busy at most: the widest inputs, the slowest choice of every output."""
        space = self.space
        widest = {group: max(choices, key=lambda n: _width(choices[n])) for group, choices in space.stored.items()}
        tables = [self._table(_divided(replace(space.start, groups=widest), method)) for method in self.divisions]
        own = {around[2] for around in self.around.values() if around[2]}
        read = own & {group for around in self.around.values() if around[2] for group in around[:2]}
        for members in (own - read, *({group} for group in sorted(read))):
            for number in range(max((len(space.stored[group]) for group in members), default=0)):
                there = {g: space.group_formats[g][number] for g in members if number < len(space.stored[g])}
                tables.append(self._table(replace(space.start, groups={**widest, **there})))
        return float(np.max([most_vector_cycles(table, self.accelerator.vector) for table in tables], axis=0).sum())

    def keys(self, name: str) -> Iterator[tuple[Key, dict[str, str]]]:
        """The keys of an op whose filters are not chosen, each with choices of its groups that have it."""
        first, second, own = self.around[name]
        choices = {
            group: self.space.group_formats[group] if group == own else tuple(v[0] for v in self._ways(group).values())
            for group in (first, second, own)
            if group
        }
        for values in product(*choices.values()):
            wanted = dict(zip(choices, values, strict=True))
            yield self._key(name, wanted), wanted

    def _ways(self, group: str) -> Mapping[str, tuple[str, ...]]:
        return self.space.stored_as[group]

    def _key(self, name: str, groups: Mapping[str, str]) -> Key:
        first, second, own = self.around[name]
        names = [self.space.stored_names[group][groups[group]] if group else "" for group in (first, second)]
        return (names[0], names[1], groups[own] if own else "")

    def _of_options(self) -> None:
        """Facts of every option in every way in which what its op reads is stored."""
        space, start = self.space, self.space.start
        for column in range(max((len(ways) for ways in space.stored_as.values()), default=1)):
            groups = dict(start.groups)
            for group, ways in space.stored_as.items():
                if column < len(ways):
                    groups[group] = [*ways.values()][column][0]
            there = [one for one in space.ops if column < len(space.reads_of(one))]
            for number in range(max((len(one.penalty) for one in there), default=1)):
                picks = {one.op: min(number, len(one.penalty) - 1) for one in space.ops}
                chosen = replace(start, options=picks, groups=groups)
                facts = self._facts(chosen)
                for one in space.ops:
                    if number < len(one.penalty):
                        self.options.setdefault((one.op, number, space.read_by(one, chosen)), facts)
                if number == 0:
                    self._keep(facts, groups)

    def _keep(self, facts: OpFacts, groups: Mapping[str, str]) -> None:
        """Keep the facts of ops without a choice of filters, and of groups as they are stored."""
        for name in facts.table.op_names:
            if name not in self.space.by_op:
                self.fixed.setdefault(name, {}).setdefault(self._key(name, groups), facts)
        for group, choice in groups.items():
            self.stored.setdefault((group, self.space.stored_names[group][choice]), facts)

    def _keep_rest(self) -> bool:
        """One more plan, with as many missing keys as possible; False when none is missing."""
        groups: dict[str, str] = {}
        for name, found in self.fixed.items():
            for key, wanted in self.keys(name):
                if key not in found and all(groups.get(group, choice) == choice for group, choice in wanted.items()):
                    groups |= wanted
                    break
        if groups:
            whole = {**self.space.start.groups, **groups}
            self._keep(self._facts(replace(self.space.start, groups=whole)), whole)
        return bool(groups)

    def _facts(self, chosen: Selection) -> OpFacts:
        full = {name: FULL if name.startswith(TOKENS) else value for name, value in chosen.switches.items()}
        plan = self._narrow(self.space.plan(replace(chosen, switches=full), channels=False))
        return op_facts(op_table(self.space.workload, plan), self.accelerator)

    def _table(self, chosen: Selection) -> OpTable:
        return op_table(self.space.workload, self.space.plan(chosen, channels=False))

    def _narrow(self, plan: QuantPlan) -> QuantPlan:
        """The plan with narrow tokens in every output that can have some."""
        rules = {}
        for name, tokens in self._tokens.items():
            rule = plan.rule_for(self.space.workload.op_by_name[name])
            if rule.output.scheme is Scheme.UNIFORM and rule.output.bits - tokens.drop_bits >= MIN_BITS:
                rules[name] = replace(rule, tokens=tokens)
        return with_rules(plan, rules) if rules else plan


def _around(space: OptionSpace) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """The groups that facts of ops depend on."""
    workload = space.workload
    makers = {op.output: op.name for op in workload.ops if op.kind is not OpKind.VIEW}
    for op in workload.ops:
        roots = [workload.storage_of(name)[0] for name in op.inputs]
        read = [space.group_of.get(makers.get(root, ""), "") for root in roots[:2]]
        # A position embedding is streamed in the format of the output that it is added to.
        read += [space.group_of.get(op.name, "")] * (op.op_class == "embed" and len(read) == 1)
        first, second = (*read, "", "")[:2]
        yield op.name, (first, second, _own(space, op))


def _own(space: OptionSpace, op: Op) -> str:
    """The group of a vector op's output where its choices take different passes to make."""
    group = space.group_of.get(op.name, "") if op.kind is OpKind.VECTOR else ""
    choices = space.stored[group].values() if group else ()
    return group if any(one.method or one.format.scheme is not Scheme.UNIFORM for one in choices) else ""


def _width(choice: StoredChoice) -> float:
    """Mean bits of a channel."""
    return float(choice.format.bits) if choice.heads is None else choice.heads.mean


def _divided(chosen: Selection, method: str) -> Selection:
    """The choice with a division method; itself where nothing divides."""
    return replace(chosen, switches={**chosen.switches, DIVISION: method}) if method else chosen
