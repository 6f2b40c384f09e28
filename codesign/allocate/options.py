"""What may be chosen: formats of every op's filters, at the numbers of filters where an engine gains or loses a pass.

Engine cycles are step functions of how many filters have a format.  So the options of an op are its formats alone, and
mixtures whose numbers of filters end where an engine's lanes are full (lane breakpoints).  Which filters get which
format follows from the penalties (`assign`): it does not change the cost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from accelsim.arch import Accelerator
from accelsim.channels import Channels
from accelsim.engines.registry import rules_of
from accelsim.formats import Format, accumulator_bits_needed
from accelsim.ir import Op, OpKind, Workload, digest
from accelsim.plan import MAX_PROBLEMS, QuantPlan, Rule, WeightShare
from accelsim.problems import AccelsimError, Problem
from codesign.allocate.assign import assign_channels, total_by_count
from codesign.allocate.problem import Floats, Ints
from quant.penalties.activation_groups import ActivationGroup
from quant.penalties.table import PenaltyTable

BASE = "u8"  # of weights and activations, in the base plan
REGIONS = re.compile(r"r[3-8]")  # a two-region format whose ratio comes from data


@dataclass(frozen=True)
class OptionSettings:
    """What a plan may choose.

    `mixtures` is how many mixtures of two weight formats an op offers at most (spread over the lanes).  Of
    `activation_formats` rB is a two-region format of B bits whose ratio comes from data, for values after a softmax or
    a GELU.  `methods` are those of softmax and LayerNorm, the first one that of the base (none: real numbers);
    `head_formats` the narrow widths of parts of a tensor (heads of q, k and v), with at most `head_mixtures` counts
    each; `token_shares` the shares of full tokens in a layer of a ranked network, the others in `drop_bits` bits fewer.
    """

    weight_formats: tuple[str, ...] = ("u8", "u6", "u4", "apot8", "pot4")
    activation_formats: tuple[str, ...] = ("u8", "u6")
    divisions: tuple[str, ...] = ("divide", "log2_shift")
    mixtures: int = 7
    methods: tuple[str, ...] = ()
    head_formats: tuple[str, ...] = ()
    head_mixtures: int = 3
    token_shares: tuple[float, ...] = ()
    drop_bits: int = 2

    def __post_init__(self) -> None:
        for name in (*self.weight_formats, *self.activation_formats, *self.head_formats):
            if not (name in self.activation_formats and REGIONS.fullmatch(name)):
                Format.parse(name)
        for field_name in ("weight_formats", "activation_formats"):
            given = getattr(self, field_name)
            if BASE not in given:
                raise AccelsimError(Problem(f"options.{field_name}", f"lacks {BASE}", f"{BASE}, which every layer has"))
            if len(set(given)) < len(given):
                raise AccelsimError(Problem(f"options.{field_name}", f"is {', '.join(given)}", "formats, each once"))


@dataclass(frozen=True, eq=False)
class OpOptions:
    """Options of an op with filters: `counts` [K, formats] filters of each format, `penalty` [K] of the best filters.

    `reads` is the activation group of its input, "" when the input's format is not chosen.  Option 0 is the base.
    """

    op: str
    reads: str
    counts: Ints
    penalty: Floats


@dataclass(frozen=True)
class Selection:
    """A choice: per op the number of its option, per group its format, the division method."""

    options: Mapping[str, int]
    groups: Mapping[str, str]
    division: str = "divide"

    def fingerprint(self) -> str:
        """Hash of the choice, to notice that a loop repeats itself."""
        return digest([sorted(self.options.items()), sorted(self.groups.items()), self.division])


@dataclass(frozen=True, eq=False)
class OptionSpace:
    """Everything that a plan of this workload may choose on this accelerator, with its penalties."""

    workload: Workload
    penalties: PenaltyTable
    base: QuantPlan
    settings: OptionSettings
    ops: tuple[OpOptions, ...]
    groups: tuple[ActivationGroup, ...]
    group_formats: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    divisions: tuple[str, ...] = ("divide",)

    @cached_property
    def by_op(self) -> dict[str, OpOptions]:
        """Options by op name."""
        return {one.op: one for one in self.ops}

    @cached_property
    def start(self) -> Selection:
        """The base plan: uniform 8 bits everywhere."""
        return Selection({one.op: 0 for one in self.ops}, {one.name: BASE for one in self.groups}, self.divisions[0])

    @cached_property
    def uniform(self) -> tuple[Selection, ...]:
        """One format for the filters of all ops that can have it, the base for the others: a choice for each format."""
        found = []
        for k in range(len(self.settings.weight_formats)):
            alone = {one.op: np.flatnonzero(one.counts[:, k] == one.counts.sum(axis=1)) for one in self.ops}
            options = {op: int(rows[0]) if len(rows) else 0 for op, rows in alone.items()}
            found.append(Selection(options, self.start.groups, self.start.division))
        return tuple(found)

    @cached_property
    def _group_of(self) -> dict[str, str]:
        return {op: group.name for group in self.groups for op in group.ops}

    def penalty(self, chosen: Selection) -> float:
        """Predicted loss of a choice, nats or what the table's metric says."""
        total = sum(one.penalty[chosen.options[one.op]] for one in self.ops)
        total += sum(self.penalties.activations[name][fmt] for name, fmt in chosen.groups.items())
        return float(total + self.penalties.divisions.get(chosen.division, 0.0))

    def plan(self, chosen: Selection, name: str = "allocated", channels: bool = True) -> QuantPlan:
        """The plan of a choice; without `channels` the filters are only counted, which costs the same and is faster."""
        rules = []
        for op in self.workload.ops:
            output = chosen.groups[self._group_of[op.name]] if op.name in self._group_of else ""
            rules.append(self._rule(op, output, chosen.options.get(op.name, -1), channels))
        return replace(self.base, name=name, rules=(*rules, Rule("*")), division=chosen.division)

    def _rule(self, op: Op, output: str, option: int, channels: bool) -> Rule:
        """The rule of an op; kept, because plans of one space share most of their rules."""
        key = (op.name, output, option, channels)
        if key not in self._rules:
            rule = self.base.rule_for(op)
            rule = rule if rule.match == op.name else replace(rule, match=op.name)
            if output and output != rule.output.name:
                rule = replace(rule, output=Format.parse(output), right=Format.parse(output))
            if option >= 0:
                rule = replace(rule, weights=self._shares(self.by_op[op.name], option, channels))
            self._rules[key] = rule
        return self._rules[key]

    @cached_property
    def _rules(self) -> dict[tuple[str, str, int, bool], Rule]:
        return {}

    def _shares(self, one: OpOptions, option: int, channels: bool) -> tuple[WeightShare, ...]:
        counts, names = one.counts[option], self.settings.weight_formats
        used = np.flatnonzero(counts)
        total = int(counts.sum())
        if len(used) == 1:
            return (WeightShare(Format.parse(names[used[0]])),)
        if not channels:
            return tuple(WeightShare(Format.parse(names[k]), int(counts[k]) / total) for k in used)
        owner = used[assign_channels(self._filters(one.op)[:, used], counts[used])]
        return tuple(
            WeightShare(
                Format.parse(names[k]), int(counts[k]) / total, Channels.of(np.flatnonzero(owner == k).tolist())
            )
            for k in used
        )

    def _filters(self, op: str) -> Floats:
        columns = [self.penalties.formats.index(name) for name in self.settings.weight_formats]
        return self.penalties.filters[op][:, columns]


def option_space(
    workload: Workload, penalties: PenaltyTable, accelerator: Accelerator, settings: OptionSettings | None = None
) -> OptionSpace:
    """The options of a workload on an accelerator.

    Formats that no engine executes for an op (in the input format of every group it may read) are left out.  Raises
    AccelsimError when the penalty table lacks a format of the settings or belongs to another network.
    """
    chosen = OptionSettings() if settings is None else settings
    check_penalties(workload, penalties, chosen)
    group_of = {op: group.name for group in penalties.groups for op in group.ops}
    makers = {op.output: op.name for op in workload.ops if op.kind is not OpKind.VIEW}
    ops = []
    for op in workload.ops:
        if op.name not in penalties.filters:
            continue
        roots = workload.storage_of(op.inputs[0])
        reads = group_of.get(makers.get(roots[0], ""), "")
        ops.append(_op_options(op, reads, penalties, accelerator, chosen))
    formats = {group.name: _kept(penalties.activations[group.name], chosen) for group in penalties.groups}
    there = {op.op_class for op in workload.ops}
    divisions = tuple(name for name in chosen.divisions if name in penalties.divisions) if "division" in there else ()
    return OptionSpace(
        workload,
        penalties,
        penalties.base,
        chosen,
        tuple(ops),
        tuple(penalties.groups),
        formats,
        divisions or ("divide",),
    )


def _kept(penalties: Mapping[str, float], settings: OptionSettings) -> tuple[str, ...]:
    return tuple(name for name in settings.activation_formats if name in penalties)


def check_penalties(workload: Workload, penalties: PenaltyTable, settings: OptionSettings) -> None:
    """Raise AccelsimError unless a table has the ops and filters of a workload, and the formats of the settings."""
    missing = [name for name in settings.weight_formats if name not in penalties.formats]
    if missing:
        levers = (f"accelsim penalties … --formats {','.join(settings.weight_formats)}",)
        raise AccelsimError(Problem("penalty table", f"lacks {', '.join(missing)}", "all formats of options", levers))
    problems = [
        Problem("penalty table", what, f"the table of {workload.name}") for what in _differences(workload, penalties)
    ]
    if problems:
        raise AccelsimError(problems[:MAX_PROBLEMS])


def _differences(workload: Workload, penalties: PenaltyTable) -> Iterator[str]:
    """How a network that a table was made for differs from this one, as far as a table tells."""
    there = {op.name for op in workload.ops if op.kind is not OpKind.VIEW}
    yield from (f"has the op {name}, which {workload.name} has not" for name in penalties.classes if name not in there)
    yield from (f"lacks the op {name}" for name in sorted(there - penalties.classes.keys()))
    for name, rows in penalties.filters.items():
        loop = workload.op_by_name[name].loop if name in there else None
        if loop is not None and len(rows) != loop.groups * loop.cols:
            yield f"has {len(rows)} filters of {name}, {workload.name} has {loop.groups * loop.cols}"


def _op_options(
    op: Op, reads: str, penalties: PenaltyTable, accelerator: Accelerator, settings: OptionSettings
) -> OpOptions:
    columns = [penalties.formats.index(name) for name in settings.weight_formats]
    filters = penalties.filters[op.name][:, columns]
    total = len(filters)
    steps = {k: lane_step(accelerator, op, name) for k, name in enumerate(settings.weight_formats)}
    able = [k for k, step in steps.items() if step]
    first = settings.weight_formats.index(BASE)
    able.sort(key=lambda k: (k != first, k))
    rows, values = [], []
    for k in able:
        rows.append(_row(len(columns), {k: total}))
        values.append(float(filters[:, k].sum()))
    loop = op.loop
    if loop is not None and loop.groups == 1:
        for a, b in combinations(able, 2):
            sums = total_by_count(filters[:, a], filters[:, b])
            for count in _spread(breakpoints(total, steps[a], steps[b]), settings.mixtures):
                rows.append(_row(len(columns), {a: total - count, b: count}))
                values.append(float(sums[count]))
    if not rows:
        what = f"no engine executes {', '.join(settings.weight_formats)} for {op.name}"
        raise AccelsimError(Problem(f"op {op.name} on {accelerator.name}", what, "an engine for one of the formats"))
    return OpOptions(op.name, reads, np.array(rows, np.int64), np.array(values))


def _row(width: int, counts: Mapping[int, int]) -> list[int]:
    return [counts.get(k, 0) for k in range(width)]


def breakpoints(total: int, step_a: int, step_b: int) -> list[int]:
    """Filters of the second format, 0 < n < total, at which either format fills its lanes exactly."""
    found = {*range(step_b, total, step_b), *(total - n for n in range(step_a, total, step_a))}
    return sorted(found)


def _spread(values: list[int], most: int) -> Iterable[int]:
    """At most `most` of the values, evenly spread."""
    if len(values) <= most:
        return values
    return [values[round(k)] for k in np.linspace(0, len(values) - 1, most)]


def lane_step(accelerator: Accelerator, op: Op, weight: str, activation: str = BASE) -> int:
    """Filters that a pass of the fastest able engine takes in this format; 0 when no engine executes it."""
    loop, fmt, other = op.loop, Format.parse(weight), Format.parse(activation)
    assert loop is not None
    step = 0
    for engine in accelerator.engines:
        rules = rules_of(engine)
        column = rules.column(engine, fmt, other)
        if column is None or (loop.depthwise and not rules.runs_depthwise(engine, column)):
            continue
        if accumulator_bits_needed(fmt, other, loop.reduction) <= engine.accumulator_bits:
            step = max(step, engine.lanes * rules.rate(engine, column).products)
    return step
