"""The answer of a study: the best design of every arm at equal accuracy, paired comparisons, bounds, `result.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelsim.config import load_accelerator
from codesign.allocate.bounds import plan_bounds
from codesign.loop.bench import TEST, VALIDATION, Bench, measured, unpacked
from codesign.loop.designs import PlanMaker, prepared
from codesign.loop.final import DESIGN
from codesign.loop.folder import StudyFolder
from codesign.loop.outer import LOOP, looked_at, searches
from codesign.loop.spec import CodesignSpec
from codesign.search import Found
from codesign.store import program_version

FORMAT = "codesign.result/1"
NUMBERS = ("predicted_loss", "edp_pj_s", "latency_s", "energy_pj", "area_mm2")


def best_design(records: Iterable[Mapping[str, Any]]) -> Any:
    """The record of least EDP among those within the limits and of equal accuracy (if measured); None without any."""
    able = [one for one in records if _is_equal(one) and not one["over_limits"]]
    return min(able, key=lambda one: (one["edp_pj_s"], one["id"]), default=None)


def _is_equal(record: Mapping[str, Any]) -> bool:
    return record["validation"] is None or bool(record["validation"]["non_inferior"])


def conclude(
    spec: CodesignSpec, folder: StudyFolder, maker: PlanMaker, bench: Bench | None, found: Mapping[str, Found],
    records: Sequence[dict[str, Any]], refusals: Mapping[str, str],
) -> dict[str, Any]:  # fmt: skip
    """Bounds, test accuracy of the chosen designs, comparisons: the study's result but for its seconds."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        arms.setdefault(record["origin"], []).append(record)
    chosen = {origin: best_design(ones) for origin, ones in arms.items()}
    if bench is not None and spec.final.test_images != 0:
        for record in chosen.values():
            if record is not None and record["test"] is None:
                place = folder.design(record["id"])
                record["test"] = bench.measure(place, TEST)
                folder.write(place / DESIGN, record)
    bounds = [_bound(folder, maker, record) for record in arms.get(LOOP, [])]
    front = front_of(records)
    margin = spec.final.margin_points / 100
    comparison = [_compared(origin, ones, chosen.get(LOOP), margin) for origin, ones in arms.items() if origin != LOOP]
    return {
        "format": FORMAT, "name": spec.name, "model": spec.model, "resolution": spec.resolution, "data": spec.data,
        "program": program_version(), "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": spec.seed, "spec": spec.to_json(), "spec_text": _text_of(spec.where),
        "penalties": {"metric": maker.penalties.metric, "fingerprint": maker.penalties.fingerprint(),
                      "images": maker.penalties.settings.get("images")},
        "searches": [{"search": name, "looked_at": one.looked_at, "over_area": one.over_limit, "failed": one.failed}
                     for name, one in found.items()],
        "limits": dict(spec.limits), "best": None if chosen.get(LOOP) is None else chosen[LOOP]["id"],
        "chosen": {origin: None if one is None else one["id"] for origin, one in chosen.items()},
        "designs": [_shown(one, front) for one in records], "refusals": dict(refusals), "cloud": _cloud(spec, folder),
        "history": [{"search": name, "searcher": spec.search.searcher, "reference": one.reference, "rows": one.history}
                    for name, one in found.items()],
        "bounds": bounds, "table_error": _table_errors(arms.get(LOOP, [])), "comparison": comparison,
        "findings": findings(chosen, comparison, bounds),
    }  # fmt: skip


def _text_of(where: str) -> str:
    try:
        return Path(where).read_text(encoding="utf-8")
    except OSError:
        return ""


def _shown(record: Mapping[str, Any], front: set[str]) -> dict[str, Any]:
    """A record as the result holds it: no bit strings."""
    shown = {key: value for key, value in record.items() if key not in ("rounds", "busy_cycles")}
    for split in ("validation", "test"):
        if record[split] is not None:
            shown[split] = {key: value for key, value in record[split].items() if key != "correct"}
    return {**shown, "on_front": record["id"] in front}


def front_of(records: Sequence[Mapping[str, Any]]) -> set[str]:
    """Designs that no other beats in EDP and accuracy (predicted loss without measurements)."""

    def loss(one: Mapping[str, Any]) -> float:
        if one["validation"] is not None:
            return -float(one["validation"]["top1"])
        return float("inf") if one["predicted_loss"] is None else float(one["predicted_loss"])

    front: set[str] = set()
    least = float("inf")
    for one in sorted(records, key=lambda one: (one["edp_pj_s"], loss(one), one["id"])):
        if loss(one) < least:
            least = loss(one)
            front.add(one["id"])
    return front


def _bound(folder: StudyFolder, maker: PlanMaker, record: Mapping[str, Any]) -> dict[str, Any]:
    """The bound of a design's hardware at its limit, kept beside the design."""
    path = folder.design(record["id"]) / "bound.json"
    found = folder.read(path)
    if found is None:
        accelerator = load_accelerator(folder.design(record["id"]) / "accelerator.yaml")
        space, _ = prepared(maker, accelerator)
        bound = plan_bounds(space, accelerator, record["level"], record["edp_pj_s"])
        found = {
            "design": record["id"], "level": record["level"], "edp_pj_s": record["edp_pj_s"],
            "edp_bound_pj_s": bound.edp_pj_s, "gap": 1.0 - bound.edp_pj_s / record["edp_pj_s"],
            "latency_cycles": record["cycles"], "latency_bound_cycles": bound.latency_cycles,
            "energy_pj": record["energy_pj"], "energy_bound_pj": bound.energy_pj,
        }  # fmt: skip
        folder.write(path, found)
    return dict(found)


def _cloud(spec: CodesignSpec, folder: StudyFolder) -> list[dict[str, Any]]:
    """All designs that the searches looked at, in few numbers."""
    cloud = []
    for name in searches(spec):
        for one in looked_at(spec, folder, name):
            level = float(one.plan.partition("@")[2]) if "@" in one.plan else None
            numbers = {key: one.metrics[key] for key in NUMBERS}
            cloud.append({"origin": name, "level": level, **numbers, "values": dict(one.values), "within": one.within})
    return cloud


def _table_errors(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"design": one["id"], "round": number, **row}
        for one in records for number, row in enumerate(one.get("rounds", []))
    ]  # fmt: skip


def _compared(
    origin: str, records: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None, margin: float
) -> dict[str, Any]:
    """The loop's best design against a baseline's best one, or its most accurate one where none is as good.

    Paired on the validation images, by which both were chosen.
    """
    rival = best_design(records)
    if rival is None:
        rival = max(records, key=lambda one: (not one["over_limits"], _top1(one), -one["edp_pj_s"]))
    data = {
        "baseline": origin, "design": rival["id"], "edp_pj_s": rival["edp_pj_s"],
        "equal_accuracy": _is_equal(rival), "over_limits": sorted(rival["over_limits"]), "split": VALIDATION,
        "edp_ratio": None if best is None else best["edp_pj_s"] / rival["edp_pj_s"], "accuracy_change": None,
        "low": None, "high": None, "non_inferior": None,
    }  # fmt: skip
    if best is None or best["validation"] is None or rival["validation"] is None:
        return data
    from quant.statistics import compare

    images = best["validation"]["images"]
    pair = measured(
        compare(
            unpacked(rival["validation"]["correct"], images), unpacked(best["validation"]["correct"], images), margin
        )
    )
    names = {"accuracy_change": "change", "low": "low", "high": "high", "non_inferior": "non_inferior"}
    return {**data, **{name: pair[key] for name, key in names.items()}}


def _top1(record: Mapping[str, Any]) -> float:
    return 0.0 if record["validation"] is None else float(record["validation"]["top1"])


def findings(
    chosen: Mapping[str, Mapping[str, Any] | None], comparison: Sequence[Mapping[str, Any]],
    bounds: Sequence[Mapping[str, Any]],
) -> list[str]:  # fmt: skip
    """What the numbers say, also where the answer is no."""
    best = chosen.get(LOOP)
    if best is None:
        return ["No design of the loop has equal accuracy within the limits."]
    said = _on_test(best)
    for row in comparison:
        if row["edp_ratio"] is None:
            continue
        faults = [] if row["equal_accuracy"] else ["whose accuracy is not equal to the float network's"]
        faults += [f"which is over the limit of {name}" for name in row["over_limits"]]
        said.append(f"The best design has {_change(row['edp_ratio'])} {', '.join([row['design'], *faults])}.")
    if best["shift_share"] == 0:
        said.append("The best design computes nothing with powers of two: a shift engine does not pay here.")
    else:
        said.append(f"{best['shift_share']:.0%} of the best design's MACs have weights that are powers of two.")
    gap = next((row["gap"] for row in bounds if row["design"] == best["id"]), None)
    if gap is not None:
        said.append(
            f"On its hardware no plan within the predicted loss, in any mapping, has more than {gap:.1%} less EDP."
        )
    return said


def _change(ratio: float) -> str:
    share = f"{abs(1 - ratio):.1%}"
    return "the EDP of" if share == "0.0%" else f"{share} {'less' if ratio < 1 else 'more'} EDP than"


def _on_test(best: Mapping[str, Any]) -> list[str]:
    """What the test images say when they do not confirm the validation images."""
    test = best["test"]
    if test is None or test["non_inferior"]:
        return []
    return [
        f"On the test images the best design is not shown to be as accurate as the float network: "
        f"it may lose {100 * test['loss_bound']:.2f} points."
    ]
