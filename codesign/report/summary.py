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
_WITHOUT = "without_"  # and a family of options: a run of the loop that lacks it
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
    return ORIGINS.get(origin, origin.replace(_WITHOUT, "without ", 1) if origin.startswith(_WITHOUT) else origin)


def name_of(result: Result, design: str) -> str:
    """A design (its label, else its name, in quotation marks) or an origin in words."""
    found = next((one for one in result.designs if one.id == design), None)
    return f"“{found.label or found.id}”" if found is not None else origin_text(design)


def percent(share: float, places: int = 1) -> str:
    """A share as ``94.1 %``."""
    return f"{100 * share:.{places}f} %".replace("-", "−")


def is_equal(design: Design) -> bool:
    """True when a design is not less accurate than the float network by validation, or was not measured."""
    return design.validation is None or bool(design.validation.non_inferior)


def best_design(result: Result) -> Design | None:
    """What the study names its best design; else the co-designed one of least EDP at equal accuracy, if there is one.

    Choosing is by validation: the test set must not choose.
    """
    if result.best is not None:
        return next(design for design in result.designs if design.id == result.best)
    designs = (design for design in result.designs if design.origin == "codesign" and is_equal(design))
    return min(designs, key=lambda design: design.edp_pj_s, default=None)


def shown_design(result: Result) -> Design:
    """The design that the page shows first: the best one, else the co-designed one of least EDP, else any such."""
    best = best_design(result)
    designs = [one for one in result.designs if one.origin == "codesign"] or result.designs
    return best or min(designs, key=lambda design: design.edp_pj_s)


def bound_of(result: Result, design: Design) -> Bound | None:
    """The bound of a design."""
    return next((bound for bound in result.bounds if bound.design == design.id), None)


def summary(result: Result) -> str:
    """The study in one paragraph."""
    return " ".join(_sentences(result))


def _sentences(result: Result) -> Iterator[str]:
    best, shown = best_design(result), shown_design(result)
    looked = f"{len(result.cloud):,} designs were looked at"
    if not result.cloud:
        looked = "what was searched is not in the study"
    size = f" at {result.resolution}×{result.resolution}" if result.resolution else ""
    yield f"Accelerator, mapping and quantization plan chosen together for {result.model}{size}; {looked}."
    name, costs = name_of(result, shown.id), _costs(shown)
    if shown.origin != "codesign":
        yield f"The study holds no co-designed design; of its others {name} has the least EDP: {costs}."
        return
    if best is None:
        yield "No co-designed design is shown to be as accurate as the float network."
        yield f"Of these {name} costs least: {costs}."
    else:
        yield f"The best design{'' if best.validation is None else ' of equal accuracy'} is {name}: {costs}."
    yield _accuracy(shown)
    yield from _against(result, best)
    yield _bound(bound_of(result, shown))


def _costs(design: Design) -> str:
    edp, energy = si(design.edp_pj_s * JOULES_PER_PJ, "J·s"), si(design.energy_pj * JOULES_PER_PJ, "J")
    return f"EDP {edp}, {si(design.latency_s, 's')}, {energy}, {digits(design.area_mm2)} mm²"


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


def against(result: Result) -> list[tuple[Comparison, float]]:
    """Comparisons with their EDP ratios, the strongest baseline first."""
    rows = [(row, row.edp_ratio) for row in result.comparison if row.edp_ratio is not None]
    return sorted(rows, key=lambda pair: -pair[1])


def _against(result: Result, best: Design | None) -> Iterator[str]:
    rows = against(result)
    unequal = dict.fromkeys(origin_text(row.baseline) for row in result.comparison if not row.equal_accuracy)
    if unequal:
        yield f"Not shown to be as accurate as the float network: {', '.join(unequal)}."
    if not rows:
        yield "There is no comparison with a baseline."
        return
    strongest, ratio = rows[0]
    one = "the only baseline" if len(rows) == 1 else f"the strongest of {len(rows)} baselines"
    own = strongest.ours is None or (best is not None and strongest.ours == best.id)
    who = "it" if own else f"the study's {strongest.ours}"
    if ratio < 1:
        found = f"Against {origin_text(strongest.baseline)}, {one}, {who} needs {percent(1 - ratio)} less EDP"
    else:
        more = "the same EDP" if ratio == 1 else f"{percent(ratio - 1)} more EDP"
        found = f"There is no gain over {origin_text(strongest.baseline)}, {one}: {who} needs {more}"
    yield f"{found}{_accurate(strongest)}."
    if len(rows) > 1:
        yield f"EDP divided by that of {', '.join(f'{origin_text(row.baseline)}: {own:.2f}' for row, own in rows[1:])}."


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
        f"On its hardware no plan and mapping of the same predicted loss has an EDP below {least}, "
        f"{percent(bound.gap)} less; this bounds the predicted loss, not the accuracy."
    )


def figures(result: Result) -> list[Figure]:
    """The tiles at the head of the page."""
    shown, found = shown_design(result), []
    if shown.origin == "codesign":
        rows, bound, measured = against(result), bound_of(result, shown), shown.test or shown.validation
        least = si(shown.edp_pj_s * JOULES_PER_PJ, "J·s")
        equal = best_design(result) is not None
        found.append(Figure("EDP of the best design" if equal else "least EDP, accuracy not equal", least, shown.label))
        if rows:
            note = f"than {origin_text(rows[0][0].baseline)}"
            found.append(Figure("EDP against the best baseline", _less_or_more(rows[0][1]), note))
        if measured is not None:
            note = "not measured against float" if measured.change is None else f"{_points(measured.change)} to float"
            found.append(Figure("top-1 accuracy", percent(measured.top1), note))
        elif shown.predicted_loss is not None:
            found.append(Figure("predicted loss", f"{digits(shown.predicted_loss)} nats", "accuracy was not measured"))
        if bound is not None:
            found.append(Figure("gap to the bound of EDP", percent(bound.gap), "on its hardware, at most"))
    if result.cloud:
        note = f"{len(result.designs)} kept with all figures"
        found.append(Figure("designs looked at", f"{len(result.cloud):,}", note))
    total = (result.seconds or {}).get("total")
    if isinstance(total, int | float):
        found.append(Figure("time of the study", seconds_text(float(total))))
    return found


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
    refused = [f"{origin_text(name)}: {reason}" for name, reason in result.refusals.items()]
    return [text for absent, text in checks if absent] + refused
