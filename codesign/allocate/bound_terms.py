"""Lower bounds of every choice of an option space, as variables of an allocation problem.

Facts of an op depend on its filters, the formats that it reads and the one that it writes.  What depends on one choice
alone is charged to it: filters under the format they read, written and second operands to their groups.  What depends
on several is charged to one of them, least over the others.  docs/decisions/0015-plan-bound.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from accelsim.arch import Accelerator
from accelsim.bound_cut import CutFacts, between_ops, cut_facts
from accelsim.bound_energy import spill_pj_per_bit
from accelsim.bound_graph import graph_of
from accelsim.bound_tiles import RowTimes, most_vector_cycles
from accelsim.formats import Format
from accelsim.ir import OpKind
from accelsim.optable import OpTable, op_table
from accelsim.problems import InfeasibleError, Problem
from codesign.allocate.bound_facts import Idle, OpFacts, engine_prices, least_idle, op_facts
from codesign.allocate.option_counts import OpOptions
from codesign.allocate.options import OptionSpace, Selection
from codesign.allocate.problem import Floats, Ints
from codesign.allocate.switches import DIVISION

Key = tuple[str, ...]  # formats of what an op reads, "" where they are not chosen


@dataclass(eq=False)
class PlanTerms:
    """Variables with penalties, energies and bits over the bus; contributions of variables to the facts of ops.

    Contribution c adds `facts[c]` (work columns, own, drain, tile, weight bits) to op `op[c]` with `variable[c]`.
    `energy_pj` [V] is dynamic energy without idle units.  Variable 0 is chosen in every plan.
    """

    group: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    penalty: list[float] = field(default_factory=list)
    energy_pj: list[float] = field(default_factory=list)
    bus_bits: list[float] = field(default_factory=list)
    variable: list[int] = field(default_factory=list)
    op: list[int] = field(default_factory=list)
    facts: list[Floats] = field(default_factory=list)
    _groups: dict[Key, int] = field(default_factory=dict)

    def add(self, group: Key, parent: int, penalty: float) -> int:
        """A new variable; variables of one group exclude each other."""
        self.group.append(self._groups.setdefault(group, len(self._groups)))
        self.parent.append(parent)
        self.penalty.append(penalty)
        self.energy_pj.append(0.0)
        self.bus_bits.append(0.0)
        return len(self.group) - 1

    def charge(self, variable: int, op: int, facts: Floats, energy_pj: float) -> None:
        """A variable's part of an op: facts and energy; weight bits go over the bus."""
        self.variable.append(variable)
        self.op.append(op)
        self.facts.append(facts)
        self.energy_pj[variable] += energy_pj
        self.bus_bits[variable] += float(facts[-1])


@dataclass(frozen=True, eq=False)
class SpaceTerms:
    """Terms of a space on an accelerator, and what cuts of all its plans have in common."""

    terms: PlanTerms
    cut: CutFacts
    prices: Floats
    idle: Idle
    n_ops: int

    def facts_of(self, chosen: Ints) -> tuple[Floats, RowTimes, Floats]:
        """(work, times of rows, weight bits) of the ops when variables are chosen."""
        taken = np.isin(np.array(self.terms.variable), chosen)
        total = np.zeros((self.n_ops, len(self.prices) + 5))
        np.add.at(total, np.array(self.terms.op)[taken], np.array(self.terms.facts)[taken])
        return total[:, :-4], RowTimes(total[:, -4], total[:, -3], total[:, -2]), total[:, -1]

    def between(self, weights_bits: Floats) -> Floats:
        """Weight bits between any two ops."""
        return between_ops(self.cut.graph, weights_bits)


def space_terms(space: OptionSpace, accelerator: Accelerator) -> SpaceTerms:
    """The terms of a space.  Raises InfeasibleError when an op has no choice that an engine executes."""
    return _Maker(space, accelerator).made()


class _Maker:
    """Facts of all contexts, then terms."""

    def __init__(self, space: OptionSpace, accelerator: Accelerator) -> None:
        self.space, self.accelerator = space, accelerator
        self.formats = dict(space.group_formats)
        self.group_of = space.group_of
        makers = {op.output: op.name for op in space.workload.ops if op.kind is not OpKind.VIEW}
        self.reads: dict[str, Key] = {}
        for op in space.workload.ops:
            roots = [space.workload.storage_of(name)[0] for name in op.inputs]
            read = [self.group_of.get(makers.get(root, ""), "") for root in roots[:2]]
            # A position embedding is streamed in the format of the output that it is added to.
            read += [self.group_of.get(op.name, "")] * (op.op_class == "embed" and len(read) == 1)
            self.reads[op.name] = (*read, "", "")[:2]
        least = {name: min(formats, key=lambda f: Format.parse(f).bits) for name, formats in self.formats.items()}
        self.floor = replace(space.start, groups=least)
        self.terms = PlanTerms()
        self.options: dict[tuple[str, int, str], OpFacts] = {}
        self.fixed: dict[str, dict[Key, OpFacts]] = {}
        self.stored: dict[tuple[str, str], OpFacts] = {}

    def made(self) -> SpaceTerms:
        """Simulate nothing, only bound: every context once."""
        self._contexts()
        self.divisions = self.space.switches.get(DIVISION, ("",))
        self.floors = {method: self._facts(_divided(self.floor, method)) for method in self.divisions}
        base = self.floors[self.divisions[0]]
        self.place = {name: k for k, name in enumerate(base.table.op_names)}
        every = [*dict.fromkeys((*self.options.values(), *(f for one in self.fixed.values() for f in one.values())))]
        self.prices = engine_prices(every, self.accelerator)
        self.work = {facts: facts.work(self.prices) for facts in (*every, *self.floors.values())}
        self._choices()
        for op in base.table.quantized.ops:
            name = op.op.name
            if op.op.op_class == "division":
                for method, facts in self.floors.items():
                    energy = (facts.own_pj + facts.second_pj)[self.place[name]]
                    self._charge(self.branch.get((DIVISION, method), self.rest), name, self._row(facts, name), energy)
            elif name in self.space.by_op:
                self._charge_options(self.space.by_op[name])
            else:
                self._charge_fixed(name)
            self._charge_written(name)
        cut = cut_facts(base.table, self.accelerator)
        least = self._least_weights(cut.least_weights)
        self._charge_bus(base.table, cut.spills.bits)
        cut = replace(cut, least_weights=least, least_between=between_ops(cut.graph, least))
        idle = least_idle(every, self._vector_limit(), self.accelerator)
        return SpaceTerms(self.terms, cut, self.prices, idle, len(self.place))

    def _vector_limit(self) -> float:
        """Cycles for which the vector unit is busy at most: the widest formats, the slowest division method."""
        widest = {name: max(formats, key=lambda f: Format.parse(f).bits) for name, formats in self.formats.items()}
        tables = [
            self._facts(_divided(replace(self.space.start, groups=widest), method)).table for method in self.divisions
        ]
        return float(np.max([most_vector_cycles(table, self.accelerator.vector) for table in tables], axis=0).sum())

    def _facts(self, chosen: Selection) -> OpFacts:
        return op_facts(op_table(self.space.workload, self.space.plan(chosen, channels=False)), self.accelerator)

    def _contexts(self) -> None:
        """Facts of every option in every format that its op reads, and of every other op in every pair of formats."""
        space = self.space
        most = max((len(one.penalty) for one in space.ops), default=1)
        for fmt in dict.fromkeys(("", *(f for formats in self.formats.values() for f in formats))):
            groups = {g: fmt if fmt in formats else space.start.groups[g] for g, formats in self.formats.items()}
            if fmt == "" and self.formats:
                continue
            for number in range(most):
                picks = {one.op: min(number, len(one.penalty) - 1) for one in space.ops}
                facts = self._facts(replace(space.start, options=picks, groups=groups))
                for one in space.ops:
                    if number < len(one.penalty):
                        self.options[one.op, number, groups.get(self.reads[one.op][0], "")] = facts
                if number == 0:
                    self._keep(facts, groups)
        while self._keep_rest():
            pass

    def _keep(self, facts: OpFacts, groups: Mapping[str, str]) -> None:
        """Keep the facts of ops without a choice of filters; of a group with one format for all of it."""
        for name in facts.table.op_names:
            if name not in self.space.by_op:
                pair = tuple(groups.get(group, "") for group in self.reads[name])
                self.fixed.setdefault(name, {}).setdefault(pair, facts)
        for group, fmt in groups.items():
            self.stored.setdefault((group, fmt), facts)

    def _keep_rest(self) -> bool:
        """One more plan, with as many missing pairs of formats as possible; False when none is missing."""
        groups: dict[str, str] = {}
        for name, found in self.fixed.items():
            first, second = self.reads[name]
            if not first or not second or first == second:
                continue
            for pair in product(self.formats[first], self.formats[second]):
                wanted = {first: pair[0], second: pair[1]}
                if pair not in found and all(groups.get(group, fmt) == fmt for group, fmt in wanted.items()):
                    groups |= wanted
                    break
        if groups:
            whole = {**self.space.start.groups, **groups}
            self._keep(self._facts(replace(self.space.start, groups=whole)), whole)
        return bool(groups)

    def _row(self, facts: OpFacts, name: str) -> Floats:
        """Work, own, drain, tile and weight bits of an op; a vector op's cycles with the smallest formats around it."""
        k = self.place[name]
        if facts.table.quantized.ops[k].op.kind is OpKind.VECTOR and facts not in self.floors.values():
            facts = self.floors[self.divisions[0]]
        times, work = facts.times, self.work[facts][k]
        return np.array([*work, max(times.own[k], work.max()), times.drain[k], times.tile[k], facts.weights_bits[k]])

    def _charge(self, variable: int, name: str, row: Floats, energy_pj: float) -> None:
        self.terms.charge(variable, self.place[name], row, float(energy_pj))

    def _able(self, name: str, group: str, fmt: str) -> bool:
        """Whether an op that reads a group can run with one of its formats."""
        if name in self.space.by_op:
            found = [facts for (op, _, f), facts in self.options.items() if op == name and f == fmt]
        else:
            at = [n for n, read in enumerate(self.reads[name]) if read == group]
            found = [facts for pair, facts in self.fixed.get(name, {}).items() if all(pair[n] == fmt for n in at)]
        return not found or any(np.isfinite(facts.own_pj[self.place[name]]) for facts in found)

    def _choices(self) -> None:
        """Variables of the division methods and of the formats with which every op that reads them can run."""
        space, terms = self.space, self.terms
        self.rest = terms.add(("rest",), -1, 0.0)
        self.branch: dict[tuple[str, str], int] = {}
        for name, values in space.switches.items():
            for value in values:
                penalty = space.switch_penalties[name][value]
                self.branch[name, value] = terms.add(("switch", name), -1, penalty)
        for group, formats in self.formats.items():
            readers = [name for name in self.place if group in self.reads[name]]
            able = [fmt for fmt in formats if all(self._able(name, group, fmt) for name in readers)]
            if not able:
                raise _impossible(group, self.accelerator)
            for fmt in able:
                penalty = space.group_penalties[group][fmt]
                self.branch[group, fmt] = terms.add(("group", group), -1, penalty)

    def _of(self, group: str, fmt: str) -> int | None:
        """The variable of a group's format, variable 0 where there is nothing to choose, None if it cannot run."""
        return self.branch.get((group, fmt)) if group else self.rest

    def _charge_options(self, one: OpOptions) -> None:
        group, k = self.reads[one.op][0], self.place[one.op]
        some = False
        for fmt in self.formats.get(group, ("",)):
            parent = self._of(group, fmt)
            if parent is None:
                continue
            there = [(n, self.options[one.op, n, fmt]) for n in range(len(one.penalty))]
            able = [(n, facts) for n, facts in there if np.isfinite(facts.own_pj[k])]
            rows = [np.array([one.penalty[n], facts.own_pj[k], *self._row(facts, one.op)]) for n, facts in able]
            for row in _undominated(rows):
                name = ("op", one.op, fmt)
                variable = self.terms.add(name, parent if group else -1, float(row[0]))
                self._charge(variable, one.op, row[2:], row[1])
                some = True
        if not some:
            raise _impossible(one.op, self.accelerator)

    def _charge_fixed(self, name: str) -> None:
        """An op whose filters are not chosen: to what it reads first, least over the second operand's formats."""
        k, (first, second) = self.place[name], self.reads[name]
        main = 0 if first or not second else 1
        pairs = {pair: facts for pair, facts in self.fixed[name].items() if np.isfinite(facts.own_pj[k])}
        if not pairs:
            raise _impossible(name, self.accelerator)
        for fmt in dict.fromkeys(pair[main] for pair in pairs):
            variable = self._of(self.reads[name][main], fmt)
            if variable is not None:
                found = [facts for pair, facts in pairs.items() if pair[main] == fmt]
                row = np.min([self._row(facts, name) for facts in found], axis=0)
                self._charge(variable, name, row, min(facts.own_pj[k] for facts in found))
        for fmt in dict.fromkeys(pair[1] for pair in pairs):
            variable = self._of(second, fmt)
            if variable is not None:
                reads = min(facts.second_pj[k] for pair, facts in pairs.items() if pair[1] == fmt)
                self.terms.energy_pj[variable] += float(reads)

    def _charge_written(self, name: str) -> None:
        group, k = self.group_of.get(name, ""), self.place[name]
        for fmt in self.formats.get(group, ("",)):
            variable = self._of(group, fmt)
            if variable is not None:
                facts = self.stored[group, fmt] if group else self.floors[self.divisions[0]]
                self.terms.energy_pj[variable] += float(facts.written_pj[k])

    def _least_weights(self, floor: Ints) -> Ints:
        """[n] weight bits of every op in the option that has fewest."""
        least = floor.copy()
        for (name, _, _), facts in self.options.items():
            least[self.place[name]] = min(least[self.place[name]], int(facts.weights_bits[self.place[name]]))
        return least

    def _charge_bus(self, floor: OpTable, spilled_bits: int) -> None:
        """Graph inputs and outputs, spills with the smallest formats, and what larger formats add to certain spills."""
        terms, graph = self.terms, graph_of(floor)
        pj_per_bit = spill_pj_per_bit(self.accelerator)
        capacity = self.accelerator.activation_buffer.capacity_bits
        terms.bus_bits[self.rest] += float((graph.input_bits + graph.output_bits).sum() + spilled_bits)
        terms.energy_pj[self.rest] += spilled_bits * pj_per_bit
        certain = {item.first: item.spilled_bits for item in graph.crossings if item.bits > capacity}
        for (group, fmt), facts in self.stored.items():
            variable = self.branch.get((group, fmt))
            if variable is None:
                continue
            for item in graph_of(facts.table).crossings:
                if item.first in certain and self.group_of.get(floor.op_names[item.first]) == group:
                    more = item.spilled_bits - certain[item.first]
                    terms.bus_bits[variable] += more
                    terms.energy_pj[variable] += more * pj_per_bit


def _divided(chosen: Selection, method: str) -> Selection:
    """The choice with a division method; itself where nothing divides."""
    return replace(chosen, switches={**chosen.switches, DIVISION: method}) if method else chosen


def _undominated(rows: list[Floats]) -> list[Floats]:
    """Rows that no other row beats or equals in every column (the first of equals stays)."""
    kept: list[Floats] = []
    for row in sorted(rows, key=lambda row: row.tolist()):
        if not any((other <= row).all() for other in kept):
            kept.append(row)
    return kept


def _impossible(name: str, accelerator: Accelerator) -> InfeasibleError:
    what = "no engine executes any of its formats"
    return InfeasibleError(
        Problem(f"{name} on {accelerator.name}", what, "an engine for one of them", ("other formats", "another engine"))
    )
