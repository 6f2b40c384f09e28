"""The penalty table and its JSON: predicted loss of any plan.  No torch here: allocators read this."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.config import plan_from_data
from accelsim.files import write_text_atomic
from accelsim.formats import Format, Scheme
from accelsim.ir import Op, OpKind, digest
from accelsim.plan import MAX_PROBLEMS, QuantPlan, Rule
from accelsim.problems import AccelsimError, Problem
from quant.penalties.activation_groups import ActivationGroup
from quant.penalties.choices import StoredChoice

FORMAT, OLD_FORMAT = "quant.penalties/2", "quant.penalties/1"  # the old one has no parts and no tokens
METHOD_CLASSES = ("softmax", "layernorm")  # ops whose methods are priced; the table has no recipes
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PenaltyTable:
    """Predicted loss of quantization choices, additive, relative to a base plan that loses 0.

    `metric` says what the numbers are (nats of KL divergence, or a proxy), `fingerprints` are those of "network" and
    "images" ("" where there were none), `settings` say how they were found.  `filters[op]` is [channels, formats] in
    the order of `formats`; `activations[group][format]` holds when all ops of the group store that format;
    `divisions[method]` is the loss of a division method.  Formats of a group may be any choice of
    `quant.penalties.choices` (a two-region format, a format with the method that makes it); `parts[group][format]` are
    the losses of each part alone in a narrower width (heads of q, k, v), and `tokens[layer][full]` the loss of a layer
    whose first `full` tokens keep their width, the others having `drop_bits` bits fewer ("full": none has).
    `classes` are the ops (no views) with their classes, by which rules choose them; `base` is the reference plan, a
    rule for every op.
    Numbers have six significant digits, as they are written.
    """

    network: str
    fingerprints: Mapping[str, str]
    metric: str
    settings: Mapping[str, Any]
    formats: tuple[str, ...]
    filters: Mapping[str, Floats]
    groups: tuple[ActivationGroup, ...]
    activations: Mapping[str, Mapping[str, float]]
    divisions: Mapping[str, float]
    classes: Mapping[str, str]
    base: QuantPlan
    parts: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    tokens: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    drop_bits: int = 0

    def loss_of(self, plan: QuantPlan) -> float:
        """Predicted loss of a plan: the sum over its filters, activation groups, token groups and the division method.

        A group whose only output has head widths loses what its widest format loses and what every narrower part loses
        alone.  Zero points and granularities do not count.  Raises AccelsimError for what the table does not know: a
        format, method, width of parts or number of full tokens that it lacks, shares without channels (which filters
        have which format is then unknown), a group with two choices, filters with head widths, and tensors without a
        group that leave the base.
        """
        rules = {name: plan.rule_for(op) for name, op in self._ops.items()}
        problems: list[Problem] = []
        total = self._look(self.divisions, plan.division, f"plan {plan.name}: division", problems)
        for op, values in self.filters.items():
            total += self._filters(plan.name, op, values, rules[op], problems)
        for group in self.groups:
            total += self._outputs(plan.name, group, rules, problems)
        total += self._tokens(plan.name, rules, problems)
        grouped = {op for group in self.groups for op in group.ops}
        for op, rule in self._base_rules.items():
            if op not in grouped and rules[op].output != rule.output:
                what = f"is {rules[op].output.name}, which no group of the table covers"
                problems.append(Problem(f"plan {plan.name}: output of {op}", what, rule.output.name))
        first = next(iter(self.classes))
        if rules[first].activation != self._base_rules[first].activation:
            where, kept = f"plan {plan.name}: the image", self._base_rules[first].activation.name
            problems.append(Problem(where, f"is stored as {rules[first].activation.name}", kept))
        if problems:
            raise AccelsimError(problems[:MAX_PROBLEMS])
        return total

    @cached_property
    def _ops(self) -> dict[str, Op]:
        """What rules look at of every op."""
        return {name: Op(name, OpKind.VECTOR, kind, (), name) for name, kind in self.classes.items()}

    @cached_property
    def _base_rules(self) -> dict[str, Rule]:
        return {name: self.base.rule_for(op) for name, op in self._ops.items()}

    def _look(self, values: Mapping[str, float], name: str, where: str, problems: list[Problem]) -> float:
        if name not in values:
            problems.append(Problem(where, f"{name} is not in the penalty table", f"one of {', '.join(values)}"))
            return 0.0
        return values[name]

    def _outputs(self, plan: str, group: ActivationGroup, rules: Mapping[str, Rule], problems: list[Problem]) -> float:
        found = {self._choice(op, rules[op]).name: op for op in group.ops}
        where = f"plan {plan}: output of {' and '.join(found.values())}"
        if len(found) > 1:
            problems.append(Problem(where, f"{' and '.join(found)} in one group", "one format"))
            return 0.0
        total, heads = self._look(self.activations[group.name], next(iter(found)), where, problems), None
        for op in group.ops:
            heads = rules[op].heads or heads
        if heads is None:
            return total
        narrower = [k for k, bits in enumerate(heads.bits) if bits < max(heads.bits)]
        known = self.parts.get(group.name, {})
        if {len(row) for row in known.values()} != {len(heads.bits)}:
            problems.append(Problem(where, f"{len(heads.bits)} parts, which the table does not know", "one width"))
            return 0.0
        for name in {f"u{heads.bits[k]}" for k in narrower} - known.keys():
            problems.append(
                Problem(where, f"parts in {name} are not in the penalty table", f"one of {', '.join(known)}")
            )
        return total + sum(known.get(f"u{heads.bits[k]}", [0.0] * (k + 1))[k] for k in narrower)

    def _choice(self, op: str, rule: Rule) -> StoredChoice:
        """What the table calls what an op stores; methods of other functions do not count."""
        return StoredChoice(rule.output, rule.nonlinear if self.classes[op] in METHOD_CLASSES else "")

    def _tokens(self, plan: str, rules: Mapping[str, Rule], problems: list[Problem]) -> float:
        """Losses of the layers with token groups."""
        groups = [rule.tokens for rule in rules.values() if rule.tokens is not None]
        total = 0.0
        for layer, high, drop_bits in dict.fromkeys((one.layer, one.high, one.drop_bits) for one in groups):
            where = f"plan {plan}: tokens of layer {layer}"
            if layer not in self.tokens:
                problems.append(Problem(where, "the table has no token groups of it", "all tokens full"))
            elif drop_bits != self.drop_bits:
                problems.append(Problem(where, f"{drop_bits} bits fewer", f"{self.drop_bits}, as in the penalty table"))
            else:
                total += self._look(self.tokens[layer], str(high), where, problems)
        return total

    def _filters(self, plan: str, op: str, values: Floats, rule: Rule, problems: list[Problem]) -> float:
        where, total = f"plan {plan}: {op}", 0.0
        if rule.weight_heads is not None:
            problems.append(Problem(where, "head widths of filters, which the table does not know", "one width"))
        for part in rule.weights:
            if part.format.name not in self.formats:
                expected = f"one of {', '.join(self.formats)}"
                problems.append(Problem(where, f"{part.format.name} is not in the penalty table", expected))
            elif part.channels is None and len(rule.weights) > 1:
                what = "shares without channels: which filters have which format is unknown"
                problems.append(Problem(where, what, "the channels of every format"))
            else:
                column = values[:, self.formats.index(part.format.name)]
                if part.channels is not None and part.channels.last >= len(column):
                    what = f"channel {part.channels.last} of {len(column)}"
                    problems.append(Problem(where, what, f"channels 0 … {len(column) - 1}"))
                else:
                    total += float(column.sum() if part.channels is None else column[part.channels.indices].sum())
        return total

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": FORMAT,
            "network": self.network,
            "fingerprints": dict(self.fingerprints),
            "metric": self.metric,
            "settings": dict(self.settings),
            "formats": list(self.formats),
            "divisions": _short_all(self.divisions),
            "groups": [
                {"name": one.name, "ops": list(one.ops), "losses": _short_all(self.activations[one.name])}
                for one in self.groups
            ],
            "filters": {op: [[_short(v) for v in row] for row in rows.tolist()] for op, rows in self.filters.items()},
            "parts": {
                name: {fmt: [_short(v) for v in row] for fmt, row in one.items()} for name, one in self.parts.items()
            },
            "tokens": {layer: _short_all(one) for layer, one in self.tokens.items()},
            "drop_bits": self.drop_bits,
            "classes": dict(self.classes),
            "base": self.base.to_json(),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> PenaltyTable:
        """The inverse of `to_json`; an old table has no parts and no tokens.  Raises AccelsimError for other data."""
        if data.get("format") not in (FORMAT, OLD_FORMAT):
            raise AccelsimError(Problem("penalty table", f"has the format {data.get('format')!r}", FORMAT))
        try:
            return _table(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AccelsimError(Problem("penalty table", f"is damaged ({error!r})", "a table as written")) from error

    def fingerprint(self) -> str:
        """Hash of everything that `to_json` gives; there are no seconds in it."""
        return digest(self.to_json())

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, an op or a group per line."""
        parts = []
        for name, value in self.to_json().items():
            if name == "filters":
                rows = [f"{json.dumps(op)}: {_compact(one)}" for op, one in value.items()]
                parts.append('"filters": {\n  ' + ",\n  ".join(rows) + "\n }")
            elif name == "groups":
                parts.append('"groups": [\n  ' + ",\n  ".join(_compact(one) for one in value) + "\n ]")
            else:
                parts.append(f"{json.dumps(name)}: {_compact(value)}")
        write_text_atomic(path, "{\n " + ",\n ".join(parts) + "\n}\n")


def load_penalties(path: str | Path) -> PenaltyTable:
    """A table that `PenaltyTable.save` wrote.  Raises AccelsimError when there is none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        levers = ("accelsim penalties MODEL -o FILE.json",)
        raise AccelsimError(Problem(str(path), f"cannot be read ({error})", "a penalty table", levers)) from error
    return PenaltyTable.from_json(data if isinstance(data, dict) else {})


def ordered(values: Floats, formats: Sequence[str]) -> Floats:
    """Losses [.., formats], not below 0, with a coarser format never below a finer one of the same scheme.

    Finer is: more bits of a uniform format; more terms, or more exponents, of a power-of-two format.  A uniform and a
    power-of-two format are not compared.
    """
    result = np.maximum(values, 0.0)
    for chain in _chains(formats):
        result[..., chain] = np.maximum.accumulate(result[..., chain], axis=-1)
    return result


def rounded(values: Floats) -> Floats:
    """Numbers with the six significant digits that a file keeps."""
    return np.array([_short(one) for one in values.ravel().tolist()], np.float64).reshape(values.shape)


def _chains(formats: Sequence[str]) -> list[list[int]]:
    """Positions of the formats of each scheme, from fine to coarse."""
    parsed = [Format.parse(name) for name in formats]
    uniform = [k for k, one in enumerate(parsed) if one.scheme is Scheme.UNIFORM]
    shift = [k for k, one in enumerate(parsed) if one.scheme is not Scheme.UNIFORM]
    return [
        sorted(uniform, key=lambda k: -parsed[k].bits),
        sorted(shift, key=lambda k: (-parsed[k].terms, -parsed[k].exponent_bits)),
    ]


def _table(data: Mapping[str, Any]) -> PenaltyTable:
    formats = tuple(data["formats"])
    filters = {op: np.array(rows, np.float64) for op, rows in data["filters"].items()}
    for op, values in filters.items():
        if values.ndim != 2 or values.shape[1] != len(formats) or not np.isfinite(values).all():
            raise ValueError(f"filters of {op}: {list(values.shape)}, expected [channels, {len(formats)}], finite")
    groups = tuple(ActivationGroup(one["name"], tuple(one["ops"])) for one in data["groups"])
    losses = {one["name"]: {name: float(v) for name, v in one["losses"].items()} for one in data["groups"]}
    divisions = {name: float(value) for name, value in data["divisions"].items()}
    tokens = {name: {count: float(v) for count, v in of.items()} for name, of in data.get("tokens", {}).items()}
    parts = {
        name: {fmt: tuple(map(float, row)) for fmt, row in of.items()} for name, of in data.get("parts", {}).items()
    }
    rows = [(name, tuple(row.values())) for name, row in (*losses.items(), *tokens.items(), ("divisions", divisions))]
    rows += [(name, row) for name, of in parts.items() for row in of.values()]
    for name, row in rows:
        if not np.isfinite(row).all():
            raise ValueError(f"losses of {name}: {row}, expected finite")
    return PenaltyTable(
        data["network"], dict(data["fingerprints"]), data["metric"], dict(data["settings"]), formats, filters, groups,
        losses, divisions, dict(data["classes"]), plan_from_data(data["base"], "penalty table: base"), parts, tokens,
        int(data.get("drop_bits", 0)),
    )  # fmt: skip


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _short_all(values: Mapping[str, float]) -> dict[str, float]:
    return {name: _short(value) for name, value in values.items()}


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
