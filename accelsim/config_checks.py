"""Checks across the fields of an accelerator or plan file; each runs as soon as the fields that it needs are sound."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from accelsim.arch import FIELDS_OF_KIND
from accelsim.config_fields import BALANCED, MAX_SLOTS, MAX_TICKS, RESERVED_NAMES
from accelsim.config_walk import near
from accelsim.config_yaml import Source, child
from accelsim.dram import load_device
from accelsim.engines.registry import ENGINE_KINDS
from accelsim.plan import OLD_PLAN_FORMAT, PLAN_FORMAT, QuantPlan, Rule, WeightShare

SHARE_TOLERANCE = 1e-6
MAX_BURST_TICKS = 1 << 40
NEWER_PLAN_FIELDS: dict[type, tuple[str, ...]] = {
    QuantPlan: ("input_zero_point",),
    Rule: ("zero_point", "granularity", "nonlinear", "tokens", "heads", "weight_heads"),
    WeightShare: ("channels",),
}


def check_accelerator(source: Source) -> None:
    """Record what no single field shows: engines that clash, buffers that no macros fill, a clock that does not fit."""
    engines = _parts(source, "engines")
    _unique(source, engines, "name", "another engine has this name")
    slots = 0
    for path, values in engines.items():
        _check_engine(source, path, values)
        sizes = [values.get(name) for name in ("lanes", "lane_width", "pixel_groups")]
        if all(isinstance(size, int) for size in sizes):
            slots += sizes[0] * sizes[1] * sizes[2]  # type: ignore[operator]
    if slots > MAX_SLOTS:
        source.fault(
            "engines", f"{slots:,} slots in all engines", f"at most {MAX_SLOTS:,} (lanes × lane_width × pixel_groups)"
        )
    for name in ("activation_buffer", "weight_buffer"):
        _check_buffer(source, name, source.partial.get(name, {}))
    _check_clock(source)


def check_plan(source: Source) -> None:
    """Record rules that can never match, a plan that leaves ops without rule, and shares that do not add up."""
    rules = _parts(source, "rules")
    _unique(source, rules, "match", "an earlier rule has the same `match`, so this one never applies")
    for path, values in rules.items():
        _check_match(source, path, values.get("match"))
        if "weights" in values:
            _check_shares(source, child(path, "weights"), values["weights"])
        for name in ("heads", "weight_heads"):
            widths = values.get(name)
            if widths is not None and widths.shifts and len(widths.shifts) != len(widths.bits):
                what = f"{len(widths.shifts)} shifts for {len(widths.bits)} parts"
                source.fault(child(child(path, name), "shifts"), what, "one shift for every part, or none at all")
    if not rules:
        return
    matches = [values.get("match") for values in rules.values()]
    paths = list(rules)
    if "*" in matches[:-1]:
        index = matches.index("*")
        source.fault(
            child(paths[index], "match"),
            f"`*` matches every op, so the {len(matches) - 1 - index} rules after it never apply",
            "the catch-all as the last rule",
        )
    elif matches[-1] not in ("*", None):
        source.fault("rules", "ops that no rule matches would have no formats", 'a last rule with `match: "*"`')


def check_old_plan(source: Source) -> None:
    """Record fields that say something which the first format of plans could not."""
    for path, values in source.partial.items():
        for cls in (QuantPlan, Rule, WeightShare):
            for name in NEWER_PLAN_FIELDS[cls]:
                if values.get(name, getattr(cls, name)) != getattr(cls, name):
                    what = f"`{name}` in a file of the format {OLD_PLAN_FORMAT}"
                    source.fault(child(path, name), what, f"format: {PLAN_FORMAT}", (PLAN_FORMAT,))


def _parts(source: Source, name: str) -> dict[str, dict[str, Any]]:
    """Sound fields of every mapping in a list field, by path, in order."""
    found = [path for path in source.partial if path.startswith(f"{name}[") and path.endswith("]") and "." not in path]
    return {path: source.partial[path] for path in found}


def _unique(source: Source, parts: dict[str, dict[str, Any]], key: str, what: str) -> None:
    seen: dict[Any, str] = {}
    for path, values in parts.items():
        name = values.get(key)
        if name is not None and name in seen:
            source.fault(child(path, key), f"{name!a}: {what} ({seen[name]})", f"a {key} of its own")
        elif name is not None:
            seen[name] = path


def _check_engine(source: Source, path: str, values: dict[str, Any]) -> None:
    name = values.get("name")
    if isinstance(name, str) and name.lower() in RESERVED_NAMES:
        source.fault(child(path, "name"), f"{name!a} is reserved for a unit that every design has", "another name")
    if values.get("kind") in ENGINE_KINDS:
        _check_fields_of_other_kinds(source, path, values)
        for fault in ENGINE_KINDS[values["kind"]].faults(values):
            source.fault(f"{path}.{fault.field}", fault.what, fault.expected, fault.levers)


def _check_fields_of_other_kinds(source: Source, path: str, values: dict[str, Any]) -> None:
    for kind, defaults in FIELDS_OF_KIND.items():
        for name, default in defaults.items() if kind != values["kind"] else ():
            if values.get(name, default) != default:
                what = f"a {values['kind']} has no `{name}`"
                source.fault(child(path, name), what, f"{default}, or kind: {kind}".lower())


def _check_buffer(source: Source, path: str, values: dict[str, Any]) -> None:
    capacity, macro, word = (values.get(name) for name in ("capacity_bits", "macro_bits", "word_bits"))
    if capacity and macro and macro > capacity:
        source.fault(child(path, "macro_bits"), f"a macro of {macro:,} bits", f"at most capacity_bits = {capacity:,}")
    elif capacity and macro and capacity % macro:
        levers = (str(capacity // macro * macro), str(-(-capacity // macro) * macro))
        what = f"{capacity:,} bits are not a whole number of macros of {macro:,} bits"
        source.fault(child(path, "capacity_bits"), what, "a multiple of macro_bits", levers)
    if macro and word and macro % word:
        source.fault(child(path, "word_bits"), f"words of {word:,} bits", f"a divisor of macro_bits = {macro:,}")


def _check_clock(source: Source) -> None:
    """Time is kept in ticks of 1/d cycle, d the denominator of the burst time: d and a burst must stay small."""
    clock = source.partial.get("", {}).get("clock_hz")
    dram = source.partial.get("dram", {})
    if clock and "device" in dram:
        _check_device_clock(source, clock, load_device(dram["device"]).clock_hz)
    bandwidth, burst = dram.get("bandwidth_bits_per_s"), dram.get("burst_bits")
    if not (clock and bandwidth and burst):
        return
    cycles = Fraction(burst * clock, bandwidth)
    if cycles.denominator >= MAX_TICKS:
        levers = tuple(
            f"bandwidth_bits_per_s: {value}" for value in [_rounded_bandwidth(clock, bandwidth, burst)] if value
        )
        source.fault(
            "dram.bandwidth_bits_per_s",
            f"a burst takes {cycles.numerator}/{cycles.denominator} cycles: too fine a unit of time",
            f"a bandwidth and a clock that give a denominator below {MAX_TICKS:,}",
            levers or ("a round clock_hz",),
        )
    elif cycles.numerator >= MAX_BURST_TICKS:
        source.fault(
            "dram.bandwidth_bits_per_s",
            f"a burst takes {cycles.numerator:,} ticks, so 64-bit time could overflow",
            f"fewer than {MAX_BURST_TICKS:,} ticks per burst",
            ("a higher bandwidth", "rounder numbers"),
        )


def _check_device_clock(source: Source, clock: int, device_clock: int) -> None:
    ratio = Fraction(clock, device_clock)
    if ratio.denominator >= MAX_TICKS:
        levers = (value for value in (round(clock, -digits) for digits in range(1, 10)) if value > 0)
        rounder = (value for value in levers if Fraction(value, device_clock).denominator < MAX_TICKS)
        source.fault(
            "clock_hz",
            f"a clock of the DRAM takes {ratio.numerator}/{ratio.denominator} cycles: too fine a unit of time",
            f"a clock that gives a denominator below {MAX_TICKS:,}",
            tuple(str(value) for value in rounder)[:1],
        )


def _rounded_bandwidth(clock: int, bandwidth: int, burst: int) -> int | None:
    """The nearest rounder bandwidth that needs few ticks: decimal digits first, then whole bits per cycle."""
    decimal = [round(bandwidth, -digits) for digits in range(1, 13)]
    for value in [*decimal, clock * max(1, round(bandwidth / clock))]:
        close = abs(value - bandwidth) * 10 <= bandwidth
        if value > 0 and close and Fraction(burst * clock, value).denominator < MAX_TICKS:
            return value
    return None


def _check_match(source: Source, path: str, match: str | None) -> None:
    if match is None:
        return
    prefix, colon, rest = match.partition(":")
    if colon and prefix != "class":
        source.fault(
            child(path, "match"),
            f"unknown prefix {prefix!a}",
            "an op name glob, or class:GLOB",
            near(prefix, ["class"]),
        )
    elif colon and not rest:
        source.fault(child(path, "match"), "no class after `class:`", "class:GLOB, such as class:pw")


def _check_shares(source: Source, path: str, shares: tuple[WeightShare, ...]) -> None:
    names = [part.format.name for part in shares]
    for index, name in enumerate(names):
        if name in names[:index]:
            source.fault(child(path, index), f"{name} is listed twice", "one share for each format")
    if any(part.channels is not None for part in shares):
        _check_channels(source, path, shares)
        return
    balanced = [part.share is None for part in shares]
    if any(balanced):
        if not all(balanced):
            source.fault(path, f"`{BALANCED}` beside numbers", f"all shares numbers, or all `{BALANCED}`")
        elif len(shares) > 1 and sorted(part.format.is_shift for part in shares) != [False, True]:
            source.fault(
                path,
                f"`{BALANCED}` between {', '.join(names)}: the formats would compete for the same engine",
                "one uniform and one power-of-two format",
            )
        return
    total = sum(part.share or 0.0 for part in shares)
    if abs(total - 1) > SHARE_TOLERANCE:
        source.fault(path, f"the shares add up to {total:g}", "a sum of 1")


def _check_channels(source: Source, path: str, shares: tuple[WeightShare, ...]) -> None:
    """Channels in every share or in none, and beside no other share; `apply_plan` compares them with the op."""
    for index, part in enumerate(shares):
        if part.channels is None:
            expected = "`channels` in every share of the rule, or in none"
            source.fault(child(path, index), f"{part.format.name} has no `channels`, another share has", expected)
        elif part.share != WeightShare.share:
            what = "a share beside `channels`"
            source.fault(child(child(path, index), "share"), what, "`channels` alone: they say how many there are")
