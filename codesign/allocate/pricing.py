"""From a cost table to the arrays that solvers take, and back from chosen variables to a choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from accelsim.formats import Format
from codesign.allocate.cost_table import BUS_BITS, CYCLES, ENERGY, LOADS, CostTable
from codesign.allocate.option_counts import OpOptions
from codesign.allocate.options import OptionSpace, Selection
from codesign.allocate.problem import Floats, Ints, Knapsack

RESOURCES = ("energy_pj", "bus_bits", "size_bits")


@dataclass(frozen=True, eq=False)
class Priced:
    """A Knapsack, and what its variables stand for: (kind, name, value).

    Kinds are "rest", "switch", "group", "op" and "stored".  The value of an op is the number of its option, of a group
    its choice; what is "stored" so has choices below it.
    """

    problem: Knapsack
    meaning: tuple[tuple[str, str, int | str], ...]

    def selection(self, chosen: Ints) -> Selection:
        """The choice that chosen variables stand for."""
        options: dict[str, int] = {}
        groups: dict[str, str] = {}
        switches: dict[str, str] = {}
        for v in chosen.tolist():
            kind, name, value = self.meaning[v]
            if kind == "op":
                options[name] = int(value)
            elif kind == "group":
                groups[name] = str(value)
            elif kind == "switch":
                switches[name] = str(value)
        return Selection(options, groups, switches)


def size_bits(space: OptionSpace, one: OpOptions) -> Floats:
    """[K] bits of an op's weights, with the index table of a mixture; scales and biases are the same in all options."""
    op = space.workload.op_by_name[one.op]
    filters = int(one.counts[0].sum())
    bits = np.array([Format.parse(name).bits for name in space.settings.weight_formats])
    weights = one.counts @ bits * (op.weights // filters)
    index = filters * max(1, (filters - 1).bit_length())
    return np.asarray(weights + index * ((one.counts > 0).sum(axis=1) > 1), np.float64)


def priced(space: OptionSpace, table: CostTable) -> Priced:
    """The allocation problem of a space with the prices of a table: one stage, whose rows are time and every unit.

    The time of the table's entries already has the makespan of the engines that share an op and the overlap of the
    context; the rows of the units bound what overlap can give.  Options that cannot run, and those that another one
    beats in every column, are left out.
    """
    rows = _Rows(space, table)
    rows.add("rest", "", "", -1, 0.0, table.total)
    for name, values in space.switches.items():
        for value in values:
            if np.isfinite(table.switches[name, value]).all():
                rows.add("switch", name, value, -1, space.switch_penalties[name][value], table.switches[name, value])
    branch = _groups(rows, space, table)
    for one in space.ops:
        sizes = size_bits(space, one)
        for stored in space.reads_of(one):
            if one.reads and (one.reads, stored) not in branch:
                continue
            block = table.options[one.op, stored]
            parent = branch[one.reads, stored] if one.reads else -1
            for k in _kept(block, one.penalty, sizes):
                rows.add("op", one.op, int(k), parent, float(one.penalty[k]), block[k], float(sizes[k]), stored)
    return rows.priced()


def _groups(rows: _Rows, space: OptionSpace, table: CostTable) -> dict[tuple[str, str], int]:
    """Add the choices of groups that can run; group and how it is stored → the variable under which its readers hang.

    Choices that readers see as one hang under a variable of their own that costs nothing.
    """
    found: dict[tuple[str, str], int] = {}
    for name, ways in space.stored_as.items():
        for stored, choices in ways.items():
            able = [choice for choice in choices if np.isfinite(table.groups[name, choice]).all()]
            parent = rows.add("stored", name, stored, -1, 0.0, 0.0 * table.total) if len(able) > 1 else -1
            for choice in able:
                penalty = space.group_penalties[name][choice]
                under = "" if parent < 0 else stored
                last = rows.add("group", name, choice, parent, penalty, table.groups[name, choice], 0.0, under)
                found[name, stored] = last if parent < 0 else parent
    return found


class _Rows:
    """Variables as they are added."""

    def __init__(self, space: OptionSpace, table: CostTable) -> None:
        self.table = table
        self.meaning: list[tuple[str, str, int | str]] = []
        self.group: list[int] = []
        self.parent: list[int] = []
        self.penalty: list[float] = []
        self.costs: list[Floats] = []
        self.sizes: list[float] = []
        self._groups: dict[tuple[str, str, str], int] = {}

    def add(
        self, kind: str, name: str, value: int | str, parent: int, penalty: float, costs: Floats, size: float = 0.0,
        under: str = "",
    ) -> int:  # fmt: skip
        """Append a variable; returns its number.  Variables of one kind and name (and branch) exclude each other."""
        self.meaning.append((kind, name, value))
        exclusive = ("group" if kind == "stored" else kind, name, under)
        self.group.append(self._groups.setdefault(exclusive, len(self._groups)))
        self.parent.append(parent)
        self.penalty.append(penalty)
        self.costs.append(costs)
        self.sizes.append(size)
        return len(self.group) - 1

    def priced(self) -> Priced:
        costs = np.array(self.costs)
        loads = np.column_stack([costs[:, CYCLES], costs[:, LOADS:]])
        resources = np.column_stack([costs[:, ENERGY], costs[:, BUS_BITS], np.array(self.sizes)])
        problem = Knapsack(
            np.array(self.group, np.int64), np.array(self.parent, np.int64), np.array(self.penalty), resources,
            RESOURCES, csr_array(loads), np.zeros(loads.shape[1], np.int64), np.zeros(1), np.zeros(len(RESOURCES)),
            self.table.static_pj_per_cycle,
        )  # fmt: skip
        return Priced(problem, tuple(self.meaning))


def _kept(block: Floats, penalty: Floats, sizes: Floats) -> Ints:
    """Options that can run and that no other one beats or equals in every column (the first of equals stays)."""
    able = np.flatnonzero(np.isfinite(block).all(axis=1))
    columns = np.column_stack([penalty, sizes, block])[able]
    order = np.lexsort(columns.T[::-1])
    kept: list[int] = []
    for row in order:
        if not any((columns[other] <= columns[row]).all() for other in kept):
            kept.append(int(row))
    return able[np.sort(np.array(kept, np.int64))]
