"""Lower bounds of every choice of an option space, as variables of an allocation problem.

Facts of an op depend on its filters, how what it reads is stored and how its output is made (`bound_contexts`).  What
depends on one choice alone is charged to it: filters under the format they read, written and second operands to their
groups, a method to the group of its output.  What depends on several is charged to one of them, least over the others;
parts of heads and tokens count as all narrow.  docs/decisions/0015-plan-bound.md has the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from accelsim.arch import Accelerator
from accelsim.bound_cut import CutFacts, between_ops, cut_facts
from accelsim.bound_energy import spill_pj_per_bit
from accelsim.bound_graph import graph_of
from accelsim.bound_tiles import RowTimes
from accelsim.ir import OpKind
from accelsim.optable import OpTable
from accelsim.problems import InfeasibleError, Problem
from codesign.allocate.bound_contexts import Contexts
from codesign.allocate.bound_facts import Idle, OpFacts, engine_prices, least_idle
from codesign.allocate.option_counts import OpOptions
from codesign.allocate.options import OptionSpace
from codesign.allocate.problem import Floats, Ints
from codesign.allocate.switches import DIVISION

Key = tuple[str, ...]


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
    """Terms from the facts of all contexts."""

    def __init__(self, space: OptionSpace, accelerator: Accelerator) -> None:
        self.space, self.accelerator = space, accelerator
        self.contexts = Contexts(space, accelerator)
        self.floor = self.contexts.floors[self.contexts.divisions[0]]
        self.place = {name: k for k, name in enumerate(self.floor.table.op_names)}
        self.terms = PlanTerms()

    def made(self) -> SpaceTerms:
        """Simulate nothing, only bound: every context once."""
        contexts, floor = self.contexts, self.floor.table
        every = contexts.every()
        self.prices = engine_prices(every, self.accelerator)
        self.work = {facts: facts.work(self.prices) for facts in (*every, *contexts.floors.values())}
        self._choices()
        for op in floor.quantized.ops:
            name = op.op.name
            if op.op.op_class == "division":
                for method, facts in contexts.floors.items():
                    energy = (facts.own_pj + facts.second_pj)[self.place[name]]
                    self._charge(self.branch.get((DIVISION, method), self.rest), name, self._row(facts, name), energy)
            elif name in self.space.by_op:
                self._charge_options(self.space.by_op[name])
            else:
                self._charge_fixed(name)
            self._charge_written(name)
        cut = cut_facts(floor, self.accelerator)
        least = self._least_weights(cut.least_weights)
        self._charge_bus(floor, cut.spills.bits)
        cut = replace(cut, least_weights=least, least_between=between_ops(cut.graph, least))
        idle = least_idle(every, contexts.vector_limit(), self.accelerator)
        return SpaceTerms(self.terms, cut, self.prices, idle, len(self.place))

    def _row(self, facts: OpFacts, name: str) -> Floats:
        """Work, own, drain, tile and weight bits of an op; a vector op's cycles with the smallest formats around it."""
        k = self.place[name]
        vector = facts.table.quantized.ops[k].op.kind is OpKind.VECTOR
        if vector and not self.contexts.around[name][2] and facts not in self.contexts.floors.values():
            facts = self.floor
        times, work = facts.times, self.work[facts][k]
        return np.array([*work, max(times.own[k], work.max()), times.drain[k], times.tile[k], facts.weights_bits[k]])

    def _charge(self, variable: int, name: str, row: Floats, energy_pj: float) -> None:
        self.terms.charge(variable, self.place[name], row, float(energy_pj))

    def _able(self, name: str, group: str, stored: str) -> bool:
        """Whether an op that reads a group can run when it is stored so."""
        if name in self.space.by_op:
            found = [facts for (op, _, f), facts in self.contexts.options.items() if op == name and f == stored]
        else:
            at = [n for n, read in enumerate(self.contexts.around[name][:2]) if read == group]
            found = [
                facts for key, facts in self.contexts.fixed.get(name, {}).items() if all(key[n] == stored for n in at)
            ]
        return not found or any(np.isfinite(facts.own_pj[self.place[name]]) for facts in found)

    def _choices(self) -> None:
        """Variables of the switches and of the choices of groups with which every op that reads them can run."""
        space, terms = self.space, self.terms
        self.rest = terms.add(("rest",), -1, 0.0)
        self.branch: dict[tuple[str, str], int] = {}
        self.ways: dict[tuple[str, str], int] = {}
        for name, values in space.switches.items():
            for value in values:
                self.branch[name, value] = terms.add(("switch", name), -1, space.switch_penalties[name][value])
        for group, ways in space.stored_as.items():
            readers = [name for name in self.place if group in self.contexts.around[name][:2]]
            able = {way for way in ways if all(self._able(name, group, way) for name in readers)}
            if not able:
                raise _impossible(group, self.accelerator)
            for way in (way for way in ways if way in able):
                self._add_choices(group, way)

    def _add_choices(self, group: str, way: str) -> None:
        """Variables of the choices that store a group so, below one of their own if they are several."""
        choices = self.space.stored_as[group][way]
        parent = self.terms.add(("group", group), -1, 0.0) if len(choices) > 1 else -1
        for choice in choices:
            name = ("group", group) if parent < 0 else ("group", group, way)
            last = self.terms.add(name, parent, self.space.group_penalties[group][choice])
            self.branch[group, choice] = last
            self.ways[group, way] = last if parent < 0 else parent

    def _of(self, group: str, way: str) -> int | None:
        """The variable of how a group is stored, variable 0 where there is nothing to choose, None if it cannot run."""
        return self.ways.get((group, way)) if group else self.rest

    def _charge_options(self, one: OpOptions) -> None:
        group, k = self.contexts.around[one.op][0], self.place[one.op]
        some = False
        for way in self.space.reads_of(one):
            parent = self._of(group, way)
            if parent is None:
                continue
            there = [(n, self.contexts.options[one.op, n, way]) for n in range(len(one.penalty))]
            able = [(n, facts) for n, facts in there if np.isfinite(facts.own_pj[k])]
            rows = [np.array([one.penalty[n], facts.own_pj[k], *self._row(facts, one.op)]) for n, facts in able]
            for row in _undominated(rows):
                variable = self.terms.add(("op", one.op, way), parent if group else -1, float(row[0]))
                self._charge(variable, one.op, row[2:], row[1])
                some = True
        if not some:
            raise _impossible(one.op, self.accelerator)

    def _charge_fixed(self, name: str) -> None:
        """An op whose filters are not chosen: what follows from its own choice to that, least over what it reads; the
        rest to what it reads first, least over the second operand.
        """
        k, (first, second, own) = self.place[name], self.contexts.around[name]
        main = 0 if first or not second else 1
        facts_of = {key: facts for key, facts in self.contexts.fixed[name].items() if np.isfinite(facts.own_pj[k])}
        if not facts_of:
            raise _impossible(name, self.accelerator)
        rows = {key: np.array([facts.own_pj[k], *self._row(facts, name)]) for key, facts in facts_of.items()}
        if own:
            for choice in dict.fromkeys(key[2] for key in rows):
                least = np.min([row for key, row in rows.items() if key[2] == choice], axis=0)
                if (own, choice) in self.branch:
                    self._charge(self.branch[own, choice], name, least[1:], least[0])
                rows |= {key: row - least for key, row in rows.items() if key[2] == choice}
        for way in dict.fromkeys(key[main] for key in rows):
            least = np.min([row for key, row in rows.items() if key[main] == way], axis=0)
            variable = self._of((first, second)[main], way)
            if variable is not None:
                self._charge(variable, name, least[1:], least[0])
        for way in dict.fromkeys(key[1] for key in rows):
            variable = self._of(second, way)
            if variable is not None:
                reads = min(facts.second_pj[k] for key, facts in facts_of.items() if key[1] == way)
                self.terms.energy_pj[variable] += float(reads)

    def _charge_written(self, name: str) -> None:
        group, k = self.space.group_of.get(name, ""), self.place[name]
        for way in self.space.stored_as[group] if group else ("",):
            facts = self.contexts.stored[group, way] if group else self.floor
            variable = self._of(group, way)
            if variable is not None:
                self.terms.energy_pj[variable] += float(facts.written_pj[k])

    def _least_weights(self, floor: Ints) -> Ints:
        """[n] weight bits of every op in the option that has fewest."""
        least = floor.copy()
        for (name, _, _), facts in self.contexts.options.items():
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
        for (group, way), facts in self.contexts.stored.items():
            variable = self._of(group, way)
            if variable is None:
                continue
            for item in graph_of(facts.table).crossings:
                if item.first in certain and self.space.group_of.get(floor.op_names[item.first]) == group:
                    more = item.spilled_bits - certain[item.first]
                    terms.bus_bits[variable] += more
                    terms.energy_pj[variable] += more * pj_per_bit


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
