"""Sensitivity metrics of single products: what each costs in passes and seconds, and how well it ranks the losses.

    python benchmarks/quality/pmq_metrics.py [--results FILE] [--work DIR] [--seeds N ...] [--report]

Products of the glyph ViT at 8 … 2 bits, one rounded at a time.  What is measured is the rise of the cross-entropy and
the loss of top-1 on test images; metrics see training images only.  A line of the results (JSON lines) is a checkpoint
and a metric; finished work inside of one is in --work.  Kill it and run it again, it goes on.  It prints the tables;
--report prints those of the results that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from cells import HERE, read_results
from glyph_models import BATCH, NATURAL, networks
from mptq_greedy import LOSS_IMAGES
from mptq_greedy import RESULTS as GREEDY_RESULTS
from torch import Tensor

from quant.data import load_data
from quant.data.small import GREY_32
from quant.network import Network
from quant.sensitivity.measure import Settings, sensitivity
from quant.sensitivity.metrics import metric_names, metrics_named
from quant.sensitivity.metrics.base import VALIDATION
from quant.sensitivity.table import MEASURED, PROBES, PRODUCT, SensitivityTable
from quant.statistics import Interval, kendall

RESULTS = HERE / "pmq_metrics.jsonl"
WIDTHS = (8, 6, 5, 4, 3, 2)
IMAGES, FEW_IMAGES, MEASURED_IMAGES = 256, 32, 512
TOP1 = "top1_loss"
Images = list[tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Arm:
    """Metrics on `images` training images; `against` is the split of the measured ones, "" for proxies alone."""

    name: str
    metrics: tuple[str, ...]
    images: int = IMAGES
    probes: int = PROBES
    against: str = ""


TRUTH = "measured"
PROXIES = tuple(one.name for one in metrics_named(metric_names()) if one.split != VALIDATION)
ARMS = (
    Arm(TRUTH, (MEASURED, TOP1), against="test"),
    Arm("", tuple(name for name in PROXIES if name != "logit_sqnr_db")),  # it ranks as logit_l2 does
    Arm(f"{FEW_IMAGES} images", ("logit_l2", "kl", "fisher", "gradient"), images=FEW_IMAGES),
    Arm(f"{PROBES} probes", ("hessian_trace",)),
    Arm("1 probe", ("hessian_trace",), probes=1),
    Arm("validation images", (MEASURED, TOP1), against="val"),
    Arm("", ("nuclear_norm",)),
)


def main() -> int:
    """Run what is not in the results yet and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--work", default="pmq_metrics_work", help="folder of finished work")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="run nothing, print the tables")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.report:
        _run(Path(arguments.results), Path(arguments.work), arguments.seeds)
    rows = read_results(arguments.results)
    print(f"{cost_table(rows, read_results(GREEDY_RESULTS))}\n\n{width_table(rows)}\n\n{worst_table(rows)}")
    return 0


def _run(results: Path, work: Path, seeds: list[int]) -> None:
    done = {(row["seed"], row["arm"], row["metric"]) for row in read_results(results)}
    for path in (work, results.parent):
        path.mkdir(parents=True, exist_ok=True)
    trained = list(networks([NATURAL], seeds))
    for arm in ARMS:  # a cache each: what arms share is charged to each of them
        for _, seed, network in trained:
            if all((seed, arm.name, name) in done for name in arm.metrics):
                continue
            table = _measured(network, arm, seed, work / f"seed{seed}_arm{ARMS.index(arm)}.cache")
            with results.open("a", encoding="utf-8") as file:
                for row in _rows(table, arm, seed):
                    if (seed, arm.name, row["metric"]) not in done:
                        file.write(json.dumps(row) + "\n")


def _measured(network: Network, arm: Arm, seed: int, cache: Path) -> SensitivityTable:
    counts = {"test": MEASURED_IMAGES, "val": IMAGES}
    calibration = _spread("train", arm.images, seed)
    validation = _spread(arm.against, counts[arm.against]) if arm.against else []
    settings = Settings(WIDTHS, kinds=(PRODUCT,), metrics=arm.metrics, probes=arm.probes)

    def progress(split: str, done: int, total: int) -> None:
        if not done % 100 or done == total:
            print(f"seed {seed} {arm.name or 'proxies'} {split}: {done} of {total}", file=sys.stderr, flush=True)

    return sensitivity(network, calibration, validation, settings, cache, progress)


def _spread(split: str, count: int, start: int = 0) -> Images:
    """`count` labelled images of the glyphs, evenly spread, in batches."""
    data = load_data("glyphs", split, GREY_32)
    step = len(data) // count
    return list(data.every(start % step, step).first(count).batches(BATCH))


def _rows(table: SensitivityTable, arm: Arm, seed: int) -> Iterator[dict[str, Any]]:
    for one in table.metrics:
        assert one.passes is not None
        chosen = [(row, row.values[one.name]) for row in table.rows]
        yield {
            "model": NATURAL, "seed": seed, "arm": arm.name, "metric": one.name, "rising": one.rising,
            "images": table.images[one.split], "seconds": round(one.seconds, 2),
            "passes": {name: round(value, 3) for name, value in vars(one.passes).items()},
            "reference": dict(table.reference),
            "values": {f"{row.component.name} {row.bits}": float(f"{value:.6g}") for row, value in chosen},
        }  # fmt: skip


def _of(rows: Iterable[dict[str, Any]], arm: str, metric: str) -> dict[int, dict[str, Any]]:
    """Rows of an arm and a metric, by the checkpoint's seed."""
    return {row["seed"]: row for row in rows if (row["arm"], row["metric"]) == (arm, metric)}


def taus(rows: Sequence[dict[str, Any]], arm: str, metric: str, truth: str, bits: int | None) -> list[Interval]:
    """τ-b with what was measured on the test images, one per checkpoint; 1 is the same order.  None: all widths."""
    found = []
    against = _of(rows, TRUTH, truth)
    for seed, row in _of(rows, arm, metric).items():
        if seed not in against:
            continue
        keys = [key for key in row["values"] if bits is None or key.endswith(f" {bits}")]
        sign = 1.0 if row["rising"] else -1.0
        pair = [sign * row["values"][key] for key in keys], [against[seed]["values"][key] for key in keys]
        found.append(kendall(*pair))
    return found


def tau_text(found: Sequence[Interval]) -> str:
    """Mean over the checkpoints, in brackets the lowest and the highest end of their 95 % intervals."""
    if not found:
        return ""
    low, high = min(one.low for one in found), max(one.high for one in found)
    return f"{mean(one.estimate for one in found):.2f} ({low:.2f} … {high:.2f})"


def _names(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["arm"], row["metric"]) for row in rows))


def _title(arm: str, metric: str) -> str:
    return f"{metric}, {arm}" if arm else metric


def cost_table(rows: Sequence[dict[str, Any]], greedy: Sequence[dict[str, Any]]) -> str:
    """Seconds and passes of every metric, means over the checkpoints, with τ over all widths; and greedy searches."""
    lines = [
        "| metric | checkpoints | images | CPU s | runs | forward passes | backward | Hessian-vector "
        "| τ, cross-entropy | τ, top-1 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, metric in _names(rows):
        found = list(_of(rows, arm, metric).values())
        cells = [f"{mean(row['seconds'] for row in found):.0f}"]
        for kind in ("runs", "forward", "backward", "hessian"):
            cells.append(f"{mean(row['passes'][kind] for row in found):.4g}")
        for truth in (MEASURED, TOP1):
            same = arm == TRUTH and metric == truth
            cells.append("" if same else tau_text(taus(rows, arm, metric, truth, None)))
        lines.append(f"| {_title(arm, metric)} | {len(found)} | {found[0]['images']} | {' | '.join(cells)} |")
    for row in greedy:
        if row["arm"].startswith("search/"):
            name, losses = row["arm"].removeprefix("search/"), row["evaluations"]
            cells = (
                f"greedy search, {name}",
                1,
                LOSS_IMAGES,
                f"{row['wall_s']:.0f} (wall)",
                losses,
                f"≤ {losses}",
                0,
                0,
                "",
                "",
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def width_table(rows: Sequence[dict[str, Any]]) -> str:
    """τ with the measured cross-entropy among the products at one width, and the mean rise at that width."""
    means = [mean(_rises(rows, bits)) for bits in WIDTHS]
    lines = [
        f"| metric | {' | '.join(f'{bits} bits' for bits in WIDTHS)} |",
        "|---" * (len(WIDTHS) + 1) + "|",
        f"| mean rise, nats | {' | '.join(f'{value:.4f}' for value in means)} |",
    ]
    for arm, metric in _names(rows):
        if (arm, metric) != (TRUTH, MEASURED):
            cells = [tau_text(taus(rows, arm, metric, MEASURED, bits)) for bits in WIDTHS]
            lines.append(f"| {_title(arm, metric)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rises(rows: Sequence[dict[str, Any]], bits: int) -> list[float]:
    found = _of(rows, TRUTH, MEASURED).values()
    return [value for row in found for key, value in row["values"].items() if key.endswith(f" {bits}")]


def worst_table(rows: Sequence[dict[str, Any]], count: int = 8, bits: int = 3) -> str:
    """The products that raise the cross-entropy most at a width, means over the checkpoints."""
    found = list(_of(rows, TRUTH, MEASURED).values())
    drops = list(_of(rows, TRUTH, TOP1).values())
    keys = [key for key in found[0]["values"] if key.endswith(f" {bits}")]
    rise = {key: mean(row["values"][key] for row in found) for key in keys}
    lines = [f"| product, {bits} bits | rise of the cross-entropy, nats | loss of top-1, points |", "|---|---|---|"]
    for key in sorted(keys, key=lambda key: -rise[key])[:count]:
        drop = 100 * mean(row["values"][key] for row in drops)
        lines.append(f"| {key.split()[0]} | {rise[key]:.3f} | {drop:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
