"""What `accelsim quantize --method mnq` prints: the map layer by layer, and every map with its accuracy and cost."""

from __future__ import annotations

from statistics import mean
from typing import Any

from codesign.nonlinear.arms import RANDOM

COLUMNS = ("16.1f", "11.2f", "12.4f", "13.1f")  # see `_figures`


def lines(note: dict[str, Any]) -> list[str]:
    """What `quantize` prints of a comparison."""
    found = note["nonlinear"]
    arms = {arm["name"]: arm for arm in found["arms"]}
    methods = arms[found["chosen"]]["methods"]
    rows = [f"  map ({found['chosen']})"]
    width = max(len(slot["op"]) for slot in found["sqnr"]["slots"])
    for slot in found["sqnr"]["slots"]:
        values = ", ".join(
            f"{name} {value:.1f}" for name, value in zip(found["sqnr"]["methods"], slot["difference_db"], strict=True)
        )
        rows.append(f"    {slot['op']:{width}}  {methods.get(slot['op'], 'float'):6}  difference, dB: {values}")
    rows += [
        f"  {'':16}{'top-1 %':>7}{'vector kcycles':>16}{'vector µJ':>11}{'latency ms':>12}{'EDP pJ·s':>13}   "
        f"validation; {found['arch']}"
    ]
    drawn = []
    for name, arm in arms.items():
        if name.startswith(RANDOM):
            drawn.append(arm)
        else:
            rows.append(_row(name, arm))
    return rows + _random_rows(drawn)


def _random_rows(arms: list[dict[str, Any]]) -> list[str]:
    """Mean, least and greatest of every figure of the random maps; costs of those that the accelerator runs."""
    if not arms:
        return []
    top1 = [100 * arm["top1"] for arm in arms]
    costs = [_figures(arm["cost"]) for arm in arms if arm["cost"] is not None]
    columns = [[one[k] for one in costs] for k in range(len(COLUMNS))] if costs else []
    counted = f"{len(arms)} maps" if len(costs) == len(arms) else f"{len(arms)} maps, of which {len(costs)} can run"
    rows = []
    for name, pick in (("mean", mean), ("least", min), ("greatest", max)):
        cells = "".join(f"{pick(values):{style}}" for values, style in zip(columns, COLUMNS, strict=False))
        note = f"   {counted}" if name == "mean" else ""
        rows.append(f"  {f'random {name}':16}{pick(top1):7.2f}{cells}{note}")
    return rows


def _row(name: str, arm: dict[str, Any]) -> str:
    cost = arm["cost"]
    head = f"  {name:16}{100 * arm['top1']:7.2f}"
    if cost is None:
        return f"{head}   cannot run: {arm['reason']}"
    return head + "".join(f"{value:{style}}" for value, style in zip(_figures(cost), COLUMNS, strict=True))


def _figures(cost: dict[str, Any]) -> tuple[float, ...]:
    """Kilocycles and µJ of the vector unit, latency in ms and EDP in pJ·s of the network."""
    latency_ms = 1e3 * cost["latency_cycles"] / cost["clock_hz"]
    return cost["vector_cycles"] / 1e3, cost["vector_energy_pj"] / 1e6, latency_ms, cost["edp_pj_s"]
