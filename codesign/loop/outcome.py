"""The answer of a study: the best design of every arm at equal accuracy, paired comparisons, bounds, `result.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from accelsim.config import load_accelerator
from codesign.allocate.bounds import plan_bounds
from codesign.allocate.families import LEARNED
from codesign.loop.bench import TEST, Bench, measured, unpacked
from codesign.loop.designs import PlanMaker, level_of, prepared
from codesign.loop.final import DESIGN
from codesign.loop.folder import StudyFolder
from codesign.loop.outer import LOOP, WITHOUT, looked_at, searches
from codesign.loop.spec import CodesignSpec
from codesign.loop.spec_files import text_of
from codesign.search import Found
from codesign.store import program_version

FORMAT = "codesign.result/1"
# The loop at the loss of a uniform plan has a limit of four digits, a thousandth above that loss.
WRITTEN = 2e-3
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
    margin, table = spec.final.margin_points / 100, maker.plain.penalties
    best = best_design(arms[LOOP])
    rivals = [representative(ones) for origin, ones in arms.items() if origin != LOOP]
    pairs = [(rival, match_of(rival, opponents(rival, arms[LOOP]), margin)) for rival in rivals]
    final = {one["id"]: one for one in (best, *rivals, *(ours for _, ours in pairs)) if one is not None}
    if bench is not None and spec.final.test_images != 0:
        for record in final.values():
            if record["test"] is None:
                place = folder.design(record["id"])
                record["test"] = bench.measure(place, TEST)
                folder.write(place / DESIGN, record)
    bounds = [_bound(folder, maker, record) for record in arms[LOOP] if record["level"] is not None]
    front = front_of(records)
    rows = [compared(rival, ours, margin) for rival, ours in pairs]
    comparison = [row for row in rows if not row["baseline"].startswith(WITHOUT)]
    families = [{"family": row["baseline"].removeprefix(WITHOUT), **row} for row in rows if row not in comparison]
    return {
        "format": FORMAT, "name": spec.name, "model": spec.model, "resolution": spec.resolution, "data": spec.data,
        "program": program_version(), "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": spec.seed, "spec": spec.to_json(), "spec_text": text_of(spec.where),
        "penalties": {"metric": table.metric, "fingerprint": table.fingerprint(),
                      "images": table.settings.get("images")},
        "searches": [{"search": name, "looked_at": one.looked_at, "over_area": one.over_limit, "failed": one.failed}
                     for name, one in found.items()],
        "limits": dict(spec.limits), "best": None if best is None else best["id"], "final": list(final),
        "designs": [_shown(one, front) for one in records], "refusals": dict(refusals), "cloud": _cloud(spec, folder),
        "history": [{"search": name, "searcher": spec.search.searcher, "reference": one.reference, "rows": one.history}
                    for name, one in found.items()],
        "bounds": bounds, "table_error": _table_errors(arms[LOOP]), "comparison": comparison,
        "families": families, "findings": [*findings(best, comparison, bounds), *worth(families)],
    }  # fmt: skip


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
        space, _ = prepared(maker.variants[record["variant"]], accelerator)
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
            level = level_of(one.plan)
            numbers = {key: one.metrics[key] for key in NUMBERS}
            cloud.append({"origin": name, "level": level, **numbers, "values": dict(one.values), "within": one.within})
    return cloud


def _table_errors(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"design": one["id"], "round": number, **row}
        for one in records for number, row in enumerate(one.get("rounds", []))
    ]  # fmt: skip


def representative(records: Sequence[Any]) -> Any:
    """The design that stands for an arm: the best one of equal accuracy, else the most accurate one, within limits."""
    best = best_design(records)
    if best is None:
        best = max(records, key=lambda one: (not one["over_limits"], _top1(one), -one["edp_pj_s"]))
    return best


def match_of(rival: Mapping[str, Any], records: Sequence[Any], margin: float) -> Any:
    """The record of least EDP within the limits that is not inferior to a rival on the same validation images, or None.

    Without measurements: that loses no more by the table (but for the digits that a limit is written with); None when
    the table cannot price the rival.
    """
    able = []
    for one in (one for one in records if not one["over_limits"]):
        pair = paired(rival, one, "validation", margin)
        if pair is not None:
            able += [one] if pair["non_inferior"] else []
        elif rival["predicted_loss"] is not None and one["predicted_loss"] <= rival["predicted_loss"] * (1 + WRITTEN):
            able.append(one)
    return min(able, key=lambda one: (one["edp_pj_s"], one["id"]), default=None)


def opponents(rival: Mapping[str, Any], loop: Sequence[Any]) -> Sequence[Any]:
    """The loop's designs that a rival is compared with.

    All of them for a baseline.  An arm without a family has no networks with learned widths (what it lacks is in its
    choices), so it meets the allocated designs only, unless learned widths are the family; and if it is as accurate as
    the float network, only those that are so, too: else the loop would have the margin twice.
    """
    if not rival["origin"].startswith(WITHOUT):
        return loop
    learned = rival["origin"] == f"{WITHOUT}{LEARNED}"
    able = [one for one in loop if learned or one["level"] is not None]
    return [one for one in able if _is_equal(one)] if _is_equal(rival) else able


def paired(rival: Mapping[str, Any], ours: Mapping[str, Any], split: str, margin: float) -> dict[str, Any] | None:
    """A design against a rival, image by image; None unless both were measured on the split."""
    first, second = rival[split], ours[split]
    if first is None or second is None:
        return None
    from quant.statistics import compare

    images = first["images"]
    return measured(compare(unpacked(first["correct"], images), unpacked(second["correct"], images), margin))


def compared(rival: Mapping[str, Any], ours: Mapping[str, Any] | None, margin: float) -> dict[str, Any]:
    """A baseline's design beside the loop's match for it: ratio of EDPs, change of accuracy on both splits."""
    data: dict[str, Any] = {
        "baseline": rival["origin"], "design": rival["id"], "ours": None if ours is None else ours["id"],
        "equal_accuracy": _is_equal(rival), "over_limits": sorted(rival["over_limits"]),
        "edp_ratio": None if ours is None else ours["edp_pj_s"] / rival["edp_pj_s"], "accuracy_change": None,
        "low": None, "high": None, "non_inferior": None, "test": None,
    }  # fmt: skip
    if ours is None:
        return data
    names = {"accuracy_change": "change", "low": "low", "high": "high", "non_inferior": "non_inferior"}
    pair = paired(rival, ours, "validation", margin)
    data |= {} if pair is None else {name: pair[key] for name, key in names.items()}
    pair = paired(rival, ours, "test", margin)
    return data | {"test": None if pair is None else {key: pair[key] for key in names.values()}}


def _top1(record: Mapping[str, Any]) -> float:
    return 0.0 if record["validation"] is None else float(record["validation"]["top1"])


def findings(
    best: Mapping[str, Any] | None, comparison: Sequence[Mapping[str, Any]], bounds: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What the numbers say, also where the answer is no."""
    said = [] if best is None else _on_test(best)
    if best is None:
        said.append("No design of the loop is shown to be as accurate as the float network (non-inferiority).")
    for row in comparison:
        if row["ours"] is None:
            said.append(f"No design of the loop is shown to be as accurate as {row['design']}.")
            continue
        beside = ["which it is not inferior to" if row["non_inferior"] else "with no more predicted loss"]
        beside += [f"which is over the limit of {name}" for name in row["over_limits"]]
        said.append(f"{row['ours']} has {_change(row['edp_ratio'])} {row['design']}, {', '.join(beside)}.")
    if best is None:
        return said
    if best["shift_share"] == 0:
        said.append(f"{best['id']} computes nothing with powers of two: a shift engine does not pay here.")
    else:
        said.append(f"{best['shift_share']:.0%} of the MACs of {best['id']} have weights that are powers of two.")
    gap = next((row["gap"] for row in bounds if row["design"] == best["id"]), None)
    if gap is not None:
        said.append(
            f"On the hardware of {best['id']} no plan for its form of the network and within its limit of "
            f"predicted loss, in any mapping, has more than {gap:.1%} less EDP."
        )
    return said


def worth(families: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each family of options is worth, one sentence each."""
    said = []
    for row in families:
        if row["ours"] is None:
            said.append(
                f"Without {row['family']} the loop finds {row['design']}, which no design of the full loop matches."
            )
            continue
        beside = "which it is not inferior to" if row["non_inferior"] else "with no more predicted loss"
        said.append(f"{row['family']}: {row['ours']} has {_change(row['edp_ratio'])} {row['design']}, {beside}.")
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
        f"On the test images {best['id']} is not shown to be as accurate as the float network: "
        f"it may lose {100 * test['loss_bound']:.2f} points."
    ]
