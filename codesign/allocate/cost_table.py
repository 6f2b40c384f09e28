"""The cost table: what every option of every op costs on an accelerator, simulated in a stated context.

An entry is the difference that one choice makes in the simulation of the whole network, everything else as in the
context.  To need few simulations, options of ops far apart are simulated together: every op has the choices within
half the way to its neighbours to itself (`SPACING` ops with filters lie between two that change).
docs/decisions/0016-cost-table-and-feedback.md has the reasons and the errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator
from accelsim.engines.registry import rules_of
from accelsim.formats import Format
from accelsim.ir import digest
from accelsim.optable import op_table
from accelsim.problems import InfeasibleError
from codesign.allocate.op_costs import OpCosts, op_costs
from codesign.allocate.option_counts import OpOptions
from codesign.allocate.options import OptionSpace, Selection
from codesign.allocate.problem import Floats

FORMAT = "codesign.cost_table/2"
SPACING = 4
# Columns of an entry; the loads of the units follow.
CYCLES, ENERGY, BUS_BITS, LOADS = range(4)


@dataclass(frozen=True, eq=False)
class CostTable:
    """Differences from the context, columns cycles, energy_pj, bus_bits, then the loads of `units` in cycles.

    `options[op, stored]` is [K, columns]: the op's options when the group it reads is stored so ("" where it reads
    none; `StoredChoice.stored_name`: readers do not see a method), relative to the context's option there; a row of inf
    cannot run.  `groups[group, choice]` and `switches[switch, value]` [columns] are relative to the context.  `total`
    [columns] is the context itself, energy without `static_pj_per_cycle` × latency; `simulations` is how many it took.
    """

    context: Selection
    units: tuple[str, ...]
    total: Floats
    static_pj_per_cycle: float
    options: Mapping[tuple[str, str], Floats]
    groups: Mapping[tuple[str, str], Floats]
    switches: Mapping[tuple[str, str], Floats]
    simulations: int
    names: Mapping[str, str]

    def predict(self, chosen: Selection, space: OptionSpace) -> Floats:
        """Columns of a choice: the context and all differences."""
        found = self.total.copy()
        for one in space.ops:
            found += self.options[one.op, space.read_by(one, chosen)][chosen.options[one.op]]
        for key in chosen.groups.items():
            found += self.groups[key]
        for key in chosen.switches.items():
            found += self.switches[key]
        return np.asarray(found, np.float64)

    def to_json(self, space: OptionSpace) -> dict[str, Any]:
        """Plain data, one entry per choice; the same table gives the same bytes."""
        columns = ("cycles", "energy_pj", "bus_bits", *(f"busy_cycles.{unit}" for unit in self.units))

        def entry(row: Floats) -> dict[str, float] | None:
            return None if not np.isfinite(row).all() else {n: _short(v) for n, v in zip(columns, row, strict=True)}

        rows = []
        for (op, fmt), block in self.options.items():
            one = space.by_op[op]
            for k, row in enumerate(block):
                counts = zip(space.settings.weight_formats, one.counts[k].tolist(), strict=True)
                filters = {name: count for name, count in counts if count}
                rows.append({"op": op, "input": fmt or None, "filters": filters, "difference": entry(row)})
        context: dict[str, Any] = {
            "groups": dict(self.context.groups),
            "switches": dict(self.context.switches),
            "filters": {},
        }
        for one in space.ops:
            chosen = one.counts[self.context.options[one.op]].tolist()
            names = zip(space.settings.weight_formats, chosen, strict=True)
            context["filters"][one.op] = {name: count for name, count in names if count}
        data = {
            "format": FORMAT, **self.names, "units": list(self.units), "context": context,
            "total": entry(self.total), "static_pj_per_cycle": _short(self.static_pj_per_cycle), "options": rows,
            "groups": [{"group": g, "output": f, "difference": entry(row)} for (g, f), row in self.groups.items()],
            "switches": [{"switch": n, "value": v, "difference": entry(row)} for (n, v), row in self.switches.items()],
        }  # fmt: skip
        return {**data, "fingerprint": digest(data)}


def _short(value: float) -> float:
    return float(f"{value:.12g}")


def cost_table(
    space: OptionSpace, accelerator: Accelerator, context: Selection | None = None, spacing: int = SPACING
) -> CostTable:
    """Simulate every option of a space on an accelerator, around a context (the base plan unless given).

    Mapped by the heuristic mapper.  Raises InfeasibleError when the context itself cannot run.
    """
    return _Maker(space, accelerator, context or space.start, spacing).table()


def run_choice(space: OptionSpace, chosen: Selection, accelerator: Accelerator) -> Report:
    """Simulate a choice with the heuristic mapper.  Raises InfeasibleError when it cannot run."""
    return simulate(op_table(space.workload, space.plan(chosen, channels=False)), accelerator)


def _coupled(space: OptionSpace, accelerator: Accelerator, one: OpOptions) -> bool:
    """Whether the speed of an op's weight formats depends on how its input is stored (as on composable arrays)."""
    formats = dict.fromkeys(choice.format for choice in space.stored.get(one.reads, {}).values())
    for engine in accelerator.engines:
        rules = rules_of(engine)
        for weight in space.settings.weight_formats:
            columns = {rules.column(engine, Format.parse(weight), fmt) for fmt in formats}
            rates = {None if column is None else rules.rate(engine, column) for column in columns}
            if len(rates) > 1:
                return True
    return False


class _Maker:
    """The simulations behind one table."""

    def __init__(self, space: OptionSpace, accelerator: Accelerator, context: Selection, spacing: int) -> None:
        self.space, self.accelerator, self.context, self.spacing = space, accelerator, context, spacing
        report = run_choice(space, context, accelerator)
        self.simulations = 1
        self.base: OpCosts = op_costs(report)
        self.units = report.result.program.units
        place = {name: k for k, name in enumerate(report.table.op_names)}
        self.place = [place[one.op] for one in space.ops]

    def table(self) -> CostTable:
        space, context = self.space, self.context
        groups = {
            (name, choice): self._zero()
            if choice == context.groups[name]
            else self._total(replace(context, groups={**context.groups, name: choice}))
            for name, choices in space.group_formats.items()
            for choice in choices
        }
        switches = {
            (name, value): self._zero()
            if value == context.switches[name]
            else self._total(replace(context, switches={**context.switches, name: value}))
            for name, values in space.switches.items()
            for value in values
        }
        options: dict[tuple[str, str], Floats] = {}
        coupled = [_coupled(space, self.accelerator, one) for one in space.ops]
        for colour in range(min(self.spacing, len(space.ops))):
            members = range(colour, len(space.ops), self.spacing)
            options |= self._shared([k for k in members if not coupled[k]])
            there = [k for k in members if coupled[k]]
            for column in range(max((len(space.reads_of(space.ops[k])) for k in there), default=0)):
                options |= self._column(there, column)
        ordered = {(one.op, stored): options[one.op, stored] for one in space.ops for stored in space.reads_of(one)}
        names = {
            "network": space.workload.name, "workload": space.workload.fingerprint(), "arch": self.accelerator.name,
            "accelerator": self.accelerator.fingerprint(), "penalties": space.penalties.fingerprint(),
            "mapper": "heuristic",
        }  # fmt: skip
        return CostTable(
            context, self.units, self.base.stacked.sum(axis=0), self.base.static_pj_per_cycle, ordered, groups,
            switches, self.simulations, names,
        )  # fmt: skip

    def _zero(self) -> Floats:
        return np.zeros(3 + len(self.units))

    def _total(self, chosen: Selection) -> Floats:
        """Difference of all columns; inf when it cannot run."""
        costs = self._costs(chosen)
        return self._zero() + np.inf if costs is None else (costs - self.base.stacked).sum(axis=0)

    def _costs(self, chosen: Selection) -> Floats | None:
        self.simulations += 1
        try:
            return op_costs(run_choice(self.space, chosen, self.accelerator)).stacked
        except InfeasibleError:
            return None

    def _shared(self, members: list[int]) -> dict[tuple[str, str], Floats]:
        """Options of ops far apart with the context's inputs, for every input format: their speed is the same."""
        blocks = self._entries(members, self.context, self.base.stacked)
        ops = self.space.ops
        return {(ops[k].op, stored): block for k, block in blocks.items() for stored in self.space.reads_of(ops[k])}

    def _column(self, members: list[int], column: int) -> dict[tuple[str, str], Floats]:
        """Options of ops far apart, each with its input group stored in the group's format of this number; ops whose
        group has fewer are left out.
        """
        ops, stored = self.space.ops, {k: list(self.space.reads_of(self.space.ops[k])) for k in members}
        offered = [k for k in members if column < len(stored[k])]
        groups = dict(self.context.groups)
        for k in offered:
            if ops[k].reads:
                groups[ops[k].reads] = self.space.as_stored(ops[k].reads, stored[k][column], self.context)
        start = replace(self.context, groups=groups)
        reference = self.base.stacked if groups == self.context.groups else self._costs(start)
        blocks = self._one_by_one(offered, groups) if reference is None else self._entries(offered, start, reference)
        return {(ops[k].op, stored[k][column]): block for k, block in blocks.items()}

    def _entries(self, offered: list[int], start: Selection, reference: Floats) -> dict[int, Floats]:
        """Differences from `start`, whose costs are `reference`, of every option of ops far apart."""
        ops = self.space.ops
        edges = self._windows(offered)
        found = {k: np.zeros((len(ops[k].counts), 3 + len(self.units))) for k in offered}
        for option in range(max((len(ops[k].counts) for k in offered), default=0)):
            there = [k for k in offered if option < len(ops[k].counts) and option != self.context.options[ops[k].op]]
            if not there:
                continue
            costs = self._costs(replace(start, options={**self.context.options, **{ops[k].op: option for k in there}}))
            if costs is None:
                for k in there:
                    found[k][option] = self._alone(start, ops[k].op, option, reference)
                continue
            difference = costs - reference
            for k in there:
                first, last = edges[k]
                found[k][option] = difference[first:last].sum(axis=0)
        return found

    def _one_by_one(self, offered: list[int], groups: Mapping[str, str]) -> dict[int, Floats]:
        """The formats of several groups together cannot run: every op with its own group alone."""
        found = {}
        for k in offered:
            one = self.space.ops[k]
            own = {one.reads: groups[one.reads]} if one.reads else {}
            start = replace(self.context, groups={**self.context.groups, **own})
            reference = self._costs(start)
            rows = [
                self._zero() + np.inf if reference is None else self._alone(start, one.op, option, reference)
                for option in range(len(one.counts))
            ]
            found[k] = np.array(rows)
        return found

    def _alone(self, start: Selection, op: str, option: int, reference: Floats) -> Floats:
        costs = self._costs(replace(start, options={**start.options, op: option}))
        return self._zero() + np.inf if costs is None else (costs - reference).sum(axis=0)

    def _windows(self, offered: list[int]) -> dict[int, tuple[int, int]]:
        """Ops whose differences belong to each changing op: up to half the way to the next one."""
        places = [self.place[k] for k in offered]
        n = len(self.base.cycles)
        middles = [0, *((a + b + 1) // 2 for a, b in pairwise(places)), n]
        return {k: (middles[i], middles[i + 1]) for i, k in enumerate(offered)}
