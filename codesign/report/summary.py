"""A study in plain sentences and a few figures: the best design, against what, how accurate, how far from a bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from codesign.report.study import Bound, Comparison, Design, Measured, Result

ORIGINS = {
    "codesign": "co-design",
    "uniform8": "uniform 8-bit",
    "uniform6": "uniform 6-bit",
    "uniform4": "uniform 4-bit",
    "sequential": "hardware first, then plan",
    "m2vit_rule": "M²-ViT rule",
    "random": "random plans",
}
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))
JOULES_PER_PJ = 1e-12


@dataclass(frozen=True)
class Figure:
    """A number worth a tile: what it is, its text, and a line that says more."""

    name: str
    text: str
    note: str = ""


def si(value: float, unit: str) -> str:
    """Three significant digits with an SI prefix: ``1.23 µJ·s``."""
    if value == 0:
        return f"0 {unit}"
    size = float(f"{abs(value):.3g}")
    factor, prefix = next((pair for pair in _PREFIXES if size >= pair[0]), _PREFIXES[-1])
    return f"{digits(value / factor)} {prefix}{unit}"


def digits(value: float) -> str:
    """Three significant digits without an exponent."""
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(float(f'{value:.3g}')))))}f}"


def seconds_text(seconds: float) -> str:
    """A duration for people."""
    if seconds < 60:
        return f"{digits(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def origin_text(origin: str) -> str:
    """An origin in words."""
    return ORIGINS.get(origin, origin)


def name_of(result: Result, design: str) -> str:
    """A design (its label, else its name, in quotation marks) or an origin in words."""
    found = next((one for one in result.designs if one.id == design), None)
    return f"“{found.label or found.id}”" if found is not None else origin_text(design)


def percent(share: float, places: int = 1) -> str:
    """A share as ``94.1 %``."""
    return f"{100 * share:.{places}f} %".replace("-", "−")


def best_design(result: Result) -> Design | None:
    """The co-designed design of least EDP, among those that are not less accurate where some are; None without any.

    Choosing by validation: the test set must not choose.
    """
    designs = [design for design in result.designs if design.origin == "codesign"]
    equal = [one for one in designs if one.validation is not None and one.validation.non_inferior]
    return min(equal or designs, key=lambda design: design.edp_pj_s, default=None)


def bound_of(result: Result, design: Design) -> Bound | None:
    """The bound of a design."""
    return next((bound for bound in result.bounds if bound.design == design.id), None)


def summary(result: Result) -> str:
    """The study in one paragraph."""
    return " ".join(_sentences(result))


def _sentences(result: Result) -> Iterator[str]:
    best = best_design(result)
    looked = (
        f"{len(result.cloud):,} designs were looked at" if result.cloud else "what was searched is not in the study"
    )
    size = f" at {result.resolution}×{result.resolution}" if result.resolution else ""
    yield f"Accelerator, mapping and quantization plan chosen together for {result.model}{size}; {looked}."
    if best is None:
        least = min(result.designs, key=lambda design: design.edp_pj_s)
        yield f"The study holds no co-designed design; of its others {name_of(result, least.id)} has the least EDP, "
        yield f"{si(least.edp_pj_s * JOULES_PER_PJ, 'J·s')}."
        return
    costs = ", ".join(
        (
            f"EDP {si(best.edp_pj_s * JOULES_PER_PJ, 'J·s')}",
            si(best.latency_s, "s"),
            si(best.energy_pj * JOULES_PER_PJ, "J"),
            f"{digits(best.area_mm2)} mm²",
        )
    )
    yield f"The best design, {name_of(result, best.id)}, has {costs}."
    yield _accuracy(best)
    yield from _against(result, best)
    yield _bound(bound_of(result, best))


def _accuracy(best: Design) -> str:
    measured, kind = (best.test, "test") if best.test is not None else (best.validation, "validation")
    if measured is None:
        loss = "" if best.predicted_loss is None else f"; the predicted loss is {digits(best.predicted_loss)} nats"
        return f"Its accuracy was not measured{loss}."
    images = f"{measured.images:,} {kind} images"
    return f"Measured on {images}, its top-1 accuracy is {percent(measured.top1, 2)}{_change(measured)}."


def _change(measured: Measured) -> str:
    if measured.change is None:
        return ""
    text = f", {_points(measured.change)} against the float network{_interval(measured.low, measured.high)}"
    if measured.non_inferior is None:
        return text
    return f"{text}, which is {'not inferior' if measured.non_inferior else 'inferior or not shown to be as good'}"


def _points(share: float) -> str:
    return f"{100 * share:+.2f} points".replace("-", "−")


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f" ({100 * low:+.2f} … {100 * high:+.2f})".replace("-", "−")


def against(result: Result, best: Design) -> list[Comparison]:
    """A comparison per baseline, the strongest baseline first: that of `best`, else that of the least EDP.

    A baseline that is less accurate than float by measurement is left out where the design is not: no equal accuracy.
    """
    chosen: dict[str, Comparison] = {}
    for row in result.comparison:
        old = chosen.get(row.baseline)
        if not _unequal(result, row) and (old is None or _rank(row, best) < _rank(old, best)):
            chosen[row.baseline] = row
    return sorted(chosen.values(), key=lambda row: -row.edp_ratio)


def _rank(row: Comparison, best: Design) -> tuple[bool, bool, float]:
    return row.design != best.id, row.non_inferior is False, row.edp_ratio


def _unequal(result: Result, row: Comparison) -> bool:
    verdicts = {one.id: one.validation.non_inferior for one in result.designs if one.validation is not None}
    return verdicts.get(row.baseline) is False and verdicts.get(row.design) is True


def _against(result: Result, best: Design) -> Iterator[str]:
    rows = against(result, best)
    used = {row.baseline for row in rows}
    left_out = dict.fromkeys(name_of(result, row.baseline) for row in result.comparison if row.baseline not in used)
    if not rows:
        reason = f" that is accurate enough itself (left out: {', '.join(left_out)})" if left_out else ""
        yield f"There is no comparison with a baseline{reason}."
        return
    strongest = rows[0]
    name = name_of(result, strongest.baseline)
    it = "it" if strongest.design == best.id else name_of(result, strongest.design)
    one = "the only baseline" if len(rows) == 1 else f"the strongest of {len(rows)} baselines"
    one += f" that are accurate enough (not: {', '.join(left_out)})" if left_out else ""
    if strongest.edp_ratio < 1:
        yield f"Against {name}, {one}, {it} needs {percent(1 - strongest.edp_ratio)} less EDP{_accurate(strongest)}."
    else:
        more = "the same EDP" if strongest.edp_ratio == 1 else f"{percent(strongest.edp_ratio - 1)} more EDP"
        yield f"It is no gain over {name}, {one}: {it} needs {more}{_accurate(strongest)}."
    if len(rows) > 1:
        listed = ", ".join(f"{name_of(result, row.baseline)} {row.edp_ratio:.2f}" for row in rows[1:4])
        rest = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
        yield f"EDP divided by that of the others: {listed}{rest}."


def _accurate(row: Comparison) -> str:
    if row.accuracy_change is None:
        return " (accuracy not compared)"
    verdict = {None: "", True: ": not inferior", False: ": inferior or not shown to be as good"}[row.non_inferior]
    return f" at {_points(row.accuracy_change)} of accuracy{_interval(row.low, row.high)}{verdict}"


def _bound(bound: Bound | None) -> str:
    if bound is None:
        return "No bound was computed for it."
    least = si(bound.edp_bound_pj_s * JOULES_PER_PJ, "J·s")
    return (
        f"On its hardware no plan and mapping of the same predicted loss has an EDP below {least}, so it is at most "
        f"{percent(bound.gap)} above the optimum there; this bounds the predicted loss, not the accuracy."
    )


def figures(result: Result) -> list[Figure]:
    """The tiles at the head of the page."""
    best = best_design(result)
    shown = []
    if best is not None:
        rows, bound = against(result, best), bound_of(result, best)
        shown.append(
            Figure("EDP of the best design", si(best.edp_pj_s * JOULES_PER_PJ, "J·s"), name_of(result, best.id))
        )
        if rows:
            note = f"than {name_of(result, rows[0].baseline)}"
            shown.append(Figure("EDP against the best baseline", _less_or_more(rows[0].edp_ratio), note))
        measured = best.test or best.validation
        if measured is not None:
            note = "not measured against float" if measured.change is None else _points(measured.change)
            shown.append(Figure("top-1 accuracy", percent(measured.top1), note))
        elif best.predicted_loss is not None:
            shown.append(Figure("predicted loss", f"{digits(best.predicted_loss)} nats", "accuracy was not measured"))
        if bound is not None:
            shown.append(Figure("gap to the bound of EDP", percent(bound.gap), "on its hardware, at most"))
    if result.cloud:
        shown.append(
            Figure("designs looked at", f"{len(result.cloud):,}", f"{len(result.designs)} kept with all figures")
        )
    total = (result.seconds or {}).get("total")
    if isinstance(total, int | float):
        shown.append(Figure("time of the study", seconds_text(float(total))))
    return shown


def _less_or_more(ratio: float) -> str:
    return f"{percent(abs(1 - ratio))} {'less' if ratio < 1 else 'more'}"


def missing(result: Result, simulated: int) -> list[str]:
    """What the study does not have, one sentence each."""
    checks = (
        (not any(one.validation or one.test for one in result.designs), "No accuracy was measured (no data)."),
        (not result.cloud, "The designs that the search looked at are not in the study."),
        (not any(one.rows for one in result.history), "There is no history of the search."),
        (not result.bounds, "There are no bounds."),
        (not result.table_error, "There is no comparison of the cost table with exact simulation."),
        (not result.comparison, "There is no comparison with baselines."),
        (simulated == 0, "No design has its files, so there are no plans, timelines and energies."),
    )
    return [text for absent, text in checks if absent]
