"""What may be chosen: formats of every op's filters, how tensors are stored, and choices of several ops at once.

The options of an op's filters are in `option_counts`, how a group of tensors may be stored in `stored_choices`, what
several ops choose at once in `switches`.  Which filters get which format follows from the penalties (`assign`): it does
not change the cost.  docs/decisions/0021-all-options.md says what an option is and what adds up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from accelsim.arch import Accelerator
from accelsim.channels import Channels
from accelsim.formats import Format, Scheme
from accelsim.ir import Op, OpKind, Workload, digest
from accelsim.nonlinear.methods import method_names
from accelsim.plan import MAX_PROBLEMS, QuantPlan, Rule, WeightShare
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from accelsim.rank_rules import followed, followers, ranking_rules
from accelsim.token_groups import TokenGroups
from accelsim.token_rules import sliced_ops
from accelsim.workloads.rank import RANK
from codesign.allocate.assign import assign_channels
from codesign.allocate.option_counts import BASE, OpOptions, nearest_option, op_options
from codesign.allocate.problem import Floats
from codesign.allocate.stored_choices import REGIONS, Choices, group_choices, nearest_choice
from codesign.allocate.switches import TOKENS, division_of, nearest_switches, switches_of, token_groups
from quant.penalties.activation_groups import ActivationGroup
from quant.penalties.choices import StoredChoice
from quant.penalties.table import METHOD_CLASSES, PenaltyTable


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
        unknown = [name for name in self.methods if name not in method_names()]
        if unknown:
            known = f"of {', '.join(method_names())}"
            raise AccelsimError(Problem("options.methods", f"has {', '.join(unknown)}", known))
        wide = [name for name in self.head_formats if not re.fullmatch("u[2-7]", name)]
        if wide:
            raise AccelsimError(Problem("options.head_formats", f"has {', '.join(wide)}", f"narrower than {BASE}: u4"))
        if self.drop_bits < 1 or not all(0 < share < 1 for share in self.token_shares):
            what = f"{self.drop_bits} bits fewer, shares {', '.join(f'{one:g}' for one in self.token_shares)}"
            raise AccelsimError(Problem("options.token_shares", what, "1 bit or more, shares between 0 and 1"))
        for field_name in ("weight_formats", "activation_formats"):
            given = getattr(self, field_name)
            if BASE not in given:
                raise AccelsimError(Problem(f"options.{field_name}", f"lacks {BASE}", f"{BASE}, which every layer has"))
            if len(set(given)) < len(given):
                raise AccelsimError(Problem(f"options.{field_name}", f"is {', '.join(given)}", "formats, each once"))


@dataclass(frozen=True)
class Selection:
    """A choice: per op the number of its option, per group its choice, per switch its value."""

    options: Mapping[str, int]
    groups: Mapping[str, str]
    switches: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Hash of the choice, to notice that a loop repeats itself."""
        return digest([sorted(part.items()) for part in (self.options, self.groups, self.switches)])


@dataclass(frozen=True, eq=False)
class OptionSpace:
    """Everything that a plan of this workload may choose on this accelerator, with its penalties.

    `stored` has the choices of every group by name, `group_penalties` and `switch_penalties` their losses and those of
    the values of every switch, the base first.  Ops that rank tokens are in the groups of the ops that they follow
    (`followers`).
    """

    workload: Workload
    penalties: PenaltyTable
    base: QuantPlan
    settings: OptionSettings
    ops: tuple[OpOptions, ...]
    groups: tuple[ActivationGroup, ...]
    stored: Mapping[str, Mapping[str, StoredChoice]]
    group_penalties: Mapping[str, Mapping[str, float]]
    switch_penalties: Mapping[str, Mapping[str, float]]
    followers: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def by_op(self) -> dict[str, OpOptions]:
        """Options by op name."""
        return {one.op: one for one in self.ops}

    @cached_property
    def group_formats(self) -> dict[str, tuple[str, ...]]:
        """Names of the choices of every group, the base first."""
        return {name: tuple(choices) for name, choices in self.stored.items()}

    @cached_property
    def switches(self) -> dict[str, tuple[str, ...]]:
        """Values of every switch, the base first."""
        return {name: tuple(values) for name, values in self.switch_penalties.items()}

    @cached_property
    def group_of(self) -> dict[str, str]:
        """Op → the group that its output is in."""
        return {op: group.name for group in self.groups for op in group.ops}

    @cached_property
    def start(self) -> Selection:
        """The base plan: uniform 8 bits everywhere, the first method of every function."""
        groups = {name: names[0] for name, names in self.group_formats.items()}
        return Selection({one.op: 0 for one in self.ops}, groups, {name: v[0] for name, v in self.switches.items()})

    @cached_property
    def uniform(self) -> tuple[Selection, ...]:
        """One format for the filters of all ops that can have it, the base for the others: a choice for each format."""
        found = []
        for k in range(len(self.settings.weight_formats)):
            alone = {one.op: np.flatnonzero(one.counts[:, k] == one.counts.sum(axis=1)) for one in self.ops}
            options = {op: int(rows[0]) if len(rows) else 0 for op, rows in alone.items()}
            found.append(replace(self.start, options=options))
        return tuple(found)

    def penalty(self, chosen: Selection) -> float:
        """Predicted loss of a choice, nats or what the table's metric says."""
        total = sum(one.penalty[chosen.options[one.op]] for one in self.ops)
        total += sum(self.group_penalties[name][choice] for name, choice in chosen.groups.items())
        return float(total + sum(self.switch_penalties[name][value] for name, value in chosen.switches.items()))

    @cached_property
    def stored_names(self) -> dict[str, dict[str, str]]:
        """Group → choice → what readers see of it: its format and parts, not its method."""
        return {g: {name: one.stored_name for name, one in choices.items()} for g, choices in self.stored.items()}

    @cached_property
    def stored_as(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Group → how it may be stored → the choices that store it so."""
        found: dict[str, dict[str, tuple[str, ...]]] = {}
        for group, names in self.stored_names.items():
            here = found.setdefault(group, {})
            for choice, stored in names.items():
                here[stored] = (*here.get(stored, ()), choice)
        return found

    def reads_of(self, one: OpOptions) -> Mapping[str, tuple[str, ...]]:
        """How the group that an op reads may be stored → the choices that store it so; {"": ()} where it reads none."""
        return self.stored_as[one.reads] if one.reads else {"": ()}

    def read_by(self, one: OpOptions, chosen: Selection) -> str:
        """How the group that an op reads is stored in a choice; "" where it reads none."""
        return self.stored_names[one.reads][chosen.groups[one.reads]] if one.reads else ""

    def as_stored(self, group: str, stored: str, context: Selection) -> str:
        """The choice of a group that stores it so, with the context's method where that can."""
        able, choices = self.stored_as[group][stored], self.stored[group]
        method = choices[context.groups[group]].method
        return next((name for name in able if choices[name].method == method), able[0])

    def plan(self, chosen: Selection, name: str = "allocated", channels: bool = True) -> QuantPlan:
        """The plan of a choice; without `channels` the filters are only counted, which costs the same and is faster.

        Raises InfeasibleError where two choices exclude each other: tokens of too few bits to lose some.
        """
        tokens = {
            op: groups
            for layer, groups in token_groups(chosen.switches, self.settings.drop_bits).items()
            for op in self._sliced[layer]
        }
        rules = []
        for op in self.workload.ops:
            choice = chosen.groups[self.group_of[op.name]] if op.name in self.group_of else ""
            option = chosen.options.get(op.name, -1)
            rules.append(self._rule(op, choice, option, tokens.get(op.name), channels))
        return replace(self.base, name=name, rules=(*rules, Rule("*")), division=division_of(chosen.switches))

    @cached_property
    def _sliced(self) -> dict[str, tuple[str, ...]]:
        """Ops of every layer with a switch for its tokens whose outputs can have token groups."""
        layers = [name.removeprefix(TOKENS) for name in self.switches if name.startswith(TOKENS)]
        return {layer: sliced_ops(self.workload, layer) for layer in layers}

    def _rule(self, op: Op, choice: str, option: int, tokens: TokenGroups | None, channels: bool) -> Rule:
        """The rule of an op; kept, because plans of one space share most of their rules."""
        key = (op.name, choice, option, tokens, channels)
        if key not in self._rules:
            self._rules[key] = self._made(op, choice, option, tokens, channels)
        return self._rules[key]

    @cached_property
    def _rules(self) -> dict[tuple[str, str, int, TokenGroups | None, bool], Rule]:
        return {}

    def _made(self, op: Op, choice: str, option: int, tokens: TokenGroups | None, channels: bool) -> Rule:
        source = self.followers.get(op.name, "")
        if source in self.group_of:
            return followed(self._rule(self.workload.op_by_name[source], choice, -1, None, True), op.name, op.op_class)
        rule = self.base.rule_for(op)
        rule = rule if rule.match == op.name else replace(rule, match=op.name)
        if choice and choice != rule.output.name:
            rule = self.stored[self.group_of[op.name]][choice].applied(rule)
        if tokens is not None and rule.output.scheme is Scheme.UNIFORM:
            try:
                tokens.narrow(rule.output)
            except AccelsimError as error:
                raise InfeasibleError(error.problems) from error
            rule = replace(rule, tokens=tokens)
        return rule if option < 0 else replace(rule, weights=self._shares(self.by_op[op.name], option, channels))

    def _shares(self, one: OpOptions, option: int, channels: bool) -> tuple[WeightShare, ...]:
        counts, names = one.counts[option], self.settings.weight_formats
        used = np.flatnonzero(counts)
        total = int(counts.sum())
        if len(used) == 1:
            return (WeightShare(Format.parse(names[used[0]])),)
        if not channels:
            return tuple(WeightShare(Format.parse(names[k]), int(counts[k]) / total) for k in used)
        owner = used[assign_channels(_filters(self.penalties, one.op, self.settings)[:, used], counts[used])]
        return tuple(
            WeightShare(
                Format.parse(names[k]), int(counts[k]) / total, Channels.of(np.flatnonzero(owner == k).tolist())
            )
            for k in used
        )

    def nearest(self, plan: QuantPlan) -> Selection:
        """The choice closest to a plan: filters by their bits, groups by method, format and mean width, equal switches.

        What the space does not offer is as in the base.  The plan of a choice gives that choice again.
        """
        ops = self.workload.op_by_name
        options = {
            one.op: nearest_option(one, self.settings.weight_formats, _filters_of(plan, ops[one.op], one))
            for one in self.ops
        }
        groups = {
            group.name: nearest_choice(self.stored[group.name], plan.rule_for(ops[group.ops[0]]))
            for group in self.groups
        }
        return Selection(options, groups, nearest_switches(self.switches, plan, self.settings.drop_bits))


def _filters(penalties: PenaltyTable, op: str, settings: OptionSettings) -> Floats:
    """[channels, formats] penalties of an op's filters in the formats of the settings."""
    return penalties.filters[op][:, [penalties.formats.index(name) for name in settings.weight_formats]]


def _filters_of(plan: QuantPlan, op: Op, one: OpOptions) -> dict[str, float]:
    """Numbers of filters of every format that a plan gives an op; balanced shares count as equal ones."""
    total, found = int(one.counts[0].sum()), dict[str, float]()
    weights = plan.rule_for(op).weights
    for part in weights:
        share = 1 / len(weights) if part.share is None else part.share
        count = share * total if part.channels is None else len(part.channels.indices)
        found[part.format.name] = found.get(part.format.name, 0.0) + count
    return found


def option_space(
    workload: Workload, penalties: PenaltyTable, accelerator: Accelerator, settings: OptionSettings | None = None
) -> OptionSpace:
    """The options of a workload on an accelerator.

    Formats that no engine executes for an op (in the input format of every group it may read) are left out.  Raises
    AccelsimError when the penalty table lacks a format of the settings or belongs to another network.
    """
    chosen = OptionSettings() if settings is None else settings
    check_penalties(workload, penalties, chosen)
    follow = followers(workload)
    groups = _with_followers(workload, penalties.groups, follow)
    group_of = {op: group.name for group in groups for op in group.ops}
    makers = {op.output: op.name for op in workload.ops if op.kind is not OpKind.VIEW}
    ops = []
    for op in workload.ops:
        if op.name in penalties.filters:
            reads = group_of.get(makers.get(workload.storage_of(op.inputs[0])[0], ""), "")
            filters = _filters(penalties, op.name, chosen)
            ops.append(op_options(op, reads, filters, chosen.weight_formats, chosen.mixtures, accelerator))
    choices: dict[str, Choices] = {one.name: group_choices(workload, penalties, one, chosen) for one in groups}
    return OptionSpace(
        workload, penalties, ranking_rules(workload, penalties.base), chosen, tuple(ops), groups,
        {name: {key: one for key, (one, _) in found.items()} for name, found in choices.items()},
        {name: {key: loss for key, (_, loss) in found.items()} for name, found in choices.items()},
        switches_of(workload, penalties, chosen), follow,
    )  # fmt: skip


def _with_followers(
    workload: Workload, groups: tuple[ActivationGroup, ...], follow: Mapping[str, str]
) -> tuple[ActivationGroup, ...]:
    """The groups of ops that follow no other one, each with those that follow its ops; rank words are in none."""
    ranks = {op.name for op in workload.ops if op.op_class == RANK}
    own = [replace(one, ops=tuple(op for op in one.ops if op not in follow and op not in ranks)) for one in groups]
    return tuple(
        replace(one, ops=(*one.ops, *(op for op, source in follow.items() if source in one.ops)))
        for one in own
        if one.ops
    )


def check_penalties(workload: Workload, penalties: PenaltyTable, settings: OptionSettings) -> None:
    """Raise AccelsimError unless a table has the ops and filters of a workload, and what the settings ask for.

    That is all formats of filters, every method where an op could have one, and of a table with parts or tokens the
    widths and counts asked for.  Formats of stored tensors are offered as far as the table has them.
    """
    missing = [name for name in settings.weight_formats if name not in penalties.formats]
    if missing:
        levers = (f"accelsim penalties … --formats {','.join(settings.weight_formats)}",)
        raise AccelsimError(Problem("penalty table", f"lacks {', '.join(missing)}", "all formats of options", levers))
    problems = [
        Problem("penalty table", what, f"the table of {workload.name}") for what in _differences(workload, penalties)
    ]
    problems += [
        Problem("penalty table", f"lacks {what}", "a table that was measured with it", ("accelsim penalties …", "less"))
        for what in _not_measured(penalties, settings)
    ]
    if problems:
        raise AccelsimError(problems[:MAX_PROBLEMS])


def _not_measured(penalties: PenaltyTable, settings: OptionSettings) -> Iterator[str]:
    """Methods and widths of parts that settings ask for and a table could have, but has not."""
    able = [one for one in penalties.groups if {penalties.classes[op] for op in one.ops} <= set(METHOD_CLASSES)]
    there = {StoredChoice.parse(name).method for one in able for name in penalties.activations[one.name]}
    yield from (f"the method {name}" for name in settings.methods if able and name not in there)
    if penalties.parts:
        narrow = {name for losses in penalties.parts.values() for name in losses}
        yield from (f"parts of tensors in {name}" for name in settings.head_formats if name not in narrow)


def _differences(workload: Workload, penalties: PenaltyTable) -> Iterator[str]:
    """How a network that a table was made for differs from this one, as far as a table tells."""
    there = {op.name for op in workload.ops if op.kind is not OpKind.VIEW}
    yield from (f"has the op {name}, which {workload.name} has not" for name in penalties.classes if name not in there)
    yield from (f"lacks the op {name}" for name in sorted(there - penalties.classes.keys()))
    for name, rows in penalties.filters.items():
        loop = workload.op_by_name[name].loop if name in there else None
        if loop is not None and len(rows) != loop.groups * loop.cols:
            yield f"has {len(rows)} filters of {name}, {workload.name} has {loop.groups * loop.cols}"
