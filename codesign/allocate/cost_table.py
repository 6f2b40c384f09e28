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
from codesign.allocate.options import OptionSpace, Selection
from codesign.allocate.problem import Floats

FORMAT = "codesign.cost_table/1"
SPACING = 4
# Columns of an entry; the loads of the units follow.
CYCLES, ENERGY, BUS_BITS, LOADS = range(4)


@dataclass(frozen=True, eq=False)
class CostTable:
    """Differences from the context, columns cycles, energy_pj, bus_bits, then the loads of `units` in cycles.

    `options[op, format]` is [K, columns]: the op's options when the group it reads has the format ("" where it reads
    none), relative to the context's option at that format; a row of inf cannot run.  `groups[group, format]` and
    `divisions[method]` [columns] are relative to the context.  `total` [columns] is the context itself, energy without
    `static_pj_per_cycle` × latency; `simulations` is how many it took.
    """

    context: Selection
    units: tuple[str, ...]
    total: Floats
    static_pj_per_cycle: float
    options: Mapping[tuple[str, str], Floats]
    groups: Mapping[tuple[str, str], Floats]
    divisions: Mapping[str, Floats]
    simulations: int
    names: Mapping[str, str]

    def predict(self, chosen: Selection, space: OptionSpace) -> Floats:
        """Columns of a choice: the context and all differences."""
        found = self.total.copy()
        for one in space.ops:
            found += self.options[one.op, chosen.groups.get(one.reads, "")][chosen.options[one.op]]
        for name, fmt in chosen.groups.items():
            found += self.groups[name, fmt]
        return np.asarray(found + self.divisions[chosen.division], np.float64)

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
            "division": self.context.division,
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
            "divisions": {name: entry(row) for name, row in self.divisions.items()},
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


def _coupled(space: OptionSpace, accelerator: Accelerator) -> bool:
    """Whether the speed of a weight format depends on the format of the activations (as on composable arrays)."""
    names = dict.fromkeys(fmt for formats in space.group_formats.values() for fmt in formats)
    for engine in accelerator.engines:
        rules = rules_of(engine)
        for weight in space.settings.weight_formats:
            columns = {rules.column(engine, Format.parse(weight), Format.parse(name)) for name in names}
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
        space, groups = self.space, {}
        for name, formats in space.group_formats.items():
            for fmt in formats:
                changed = replace(self.context, groups={**self.context.groups, name: fmt})
                groups[name, fmt] = self._total(changed) if fmt != self.context.groups[name] else self._zero()
        divisions = {}
        for method in space.divisions:
            changed = replace(self.context, division=method)
            divisions[method] = self._total(changed) if method != self.context.division else self._zero()
        options: dict[tuple[str, str], Floats] = {}
        coupled = _coupled(space, self.accelerator)
        formats_of_any = dict.fromkeys(f for formats in space.group_formats.values() for f in formats)
        for colour in range(min(self.spacing, len(space.ops))):
            members = list(range(colour, len(space.ops), self.spacing))
            if not coupled:
                options |= self._shared(members)
                continue
            for fmt in ("", *formats_of_any):
                options |= self._column(members, fmt)
        ordered = {key: options[key] for one in space.ops for key in options if key[0] == one.op}
        names = {
            "network": space.workload.name, "workload": space.workload.fingerprint(), "arch": self.accelerator.name,
            "accelerator": self.accelerator.fingerprint(), "penalties": space.penalties.fingerprint(),
            "mapper": "heuristic",
        }  # fmt: skip
        return CostTable(
            self.context, self.units, self.base.stacked.sum(axis=0), self.base.static_pj_per_cycle, ordered, groups,
            divisions, self.simulations, names,
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
        found: dict[tuple[str, str], Floats] = {}
        for (op, _), block in self._entries(members, self.context, self.base.stacked, "").items():
            reads = self.space.by_op[op].reads
            found |= {(op, fmt): block for fmt in (self.space.group_formats[reads] if reads else ("",))}
        return found

    def _column(self, members: list[int], fmt: str) -> dict[tuple[str, str], Floats]:
        """Options of ops far apart, with their input groups in one format; ops that do not offer it are left out."""
        ops = self.space.ops
        offered = [k for k in members if fmt in (self.space.group_formats[ops[k].reads] if ops[k].reads else ("",))]
        if not offered:
            return {}
        groups = {**self.context.groups, **{ops[k].reads: fmt for k in offered if fmt}}
        start = replace(self.context, groups=groups)
        reference = self.base.stacked if groups == self.context.groups else self._costs(start)
        return self._one_by_one(offered, fmt) if reference is None else self._entries(offered, start, reference, fmt)

    def _entries(
        self, offered: list[int], start: Selection, reference: Floats, fmt: str
    ) -> dict[tuple[str, str], Floats]:
        """Differences from `start`, whose costs are `reference`, of every option of ops far apart."""
        ops = self.space.ops
        edges = self._windows(offered)
        found = {(ops[k].op, fmt): np.zeros((len(ops[k].counts), 3 + len(self.units))) for k in offered}
        for option in range(max(len(ops[k].counts) for k in offered)):
            there = [k for k in offered if option < len(ops[k].counts) and option != self.context.options[ops[k].op]]
            if not there:
                continue
            costs = self._costs(replace(start, options={**self.context.options, **{ops[k].op: option for k in there}}))
            if costs is None:
                for k in there:
                    found[ops[k].op, fmt][option] = self._alone(start, ops[k].op, option, reference)
                continue
            difference = costs - reference
            for k in there:
                first, last = edges[k]
                found[ops[k].op, fmt][option] = difference[first:last].sum(axis=0)
        return found

    def _one_by_one(self, offered: list[int], fmt: str) -> dict[tuple[str, str], Floats]:
        """The formats of several groups together cannot run: every op with its own group alone."""
        found = {}
        for k in offered:
            one = self.space.ops[k]
            start = replace(self.context, groups={**self.context.groups, one.reads: fmt})
            reference = self._costs(start)
            rows = [
                self._zero() + np.inf if reference is None else self._alone(start, one.op, option, reference)
                for option in range(len(one.counts))
            ]
            found[one.op, fmt] = np.array(rows)
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
