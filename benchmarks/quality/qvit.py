"""Q-ViT's learned widths against one width, one scale, layers, random widths and missing parts, at equal budgets.

    python benchmarks/quality/qvit.py [--results FILE] [--work DIR] [--bits 3 4 2] [--arms NAME ...] [--price]

Every cell is one training from the float checkpoint of a seed: equal steps, images and learning rates.  Arms
"latency_P" have a budget of simulated latency instead, P percent of that of one width on the bit-composable array.
--price simulates the widths of every row once more.  Cells go to the
results (JSON lines) as they finish, unfinished ones keep their state in --work: kill it and run it again, it goes on.
Checkpoints of other seeds than 0 come from `python -m quant.models.train glyph_vit_small --seed N`.  qvit_report.py
makes tables and pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from cells import HERE, keep, read_results, rewrite
from glyph_models import evaluated, figures_of, glyph_images
from torch import Tensor
from tqdm import tqdm

from accelsim.config import load_accelerator
from codesign.learned.costs import TargetCost
from quant.capture import capture
from quant.data import load_data
from quant.data.small import GREY_32
from quant.finetune.settings import FineTune
from quant.finetune.state import forget
from quant.learned.budget import BitOperations, Budget, uniform_widths
from quant.learned.network import LearnedNetwork
from quant.learned.settings import LearnBits
from quant.learned.settle import settle
from quant.learned.sites import GRANULARITIES, HEAD, LAYER, SiteOptions, sites_of
from quant.learned.train import learn_bits
from quant.models.registry import load_reference
from quant.network import Network, forward

RESULTS = HERE / "qvit.jsonl"
MODEL = "glyph_vit_small"
SEEDS, STUDY_SEED = (0, 1, 2), 0
BUDGETS = (3, 4, 2)
STEPS, RATE, BIT_RATE = 400, 1e-3, 120.0
TEST_IMAGES, LOSS_EVERY = 5000, 20
RANDOM = tuple(f"random_{k}" for k in range(10))
# Arms on every checkpoint, on the first one only, and those that leave a part out (fixed widths).
HEADLINE = ("lsq", "head", "one_scale")
SINGLE = ("layer", "code_axis")
PARTS = ("without_msa", "without_gelu", "gelu_signed", "gelu_unsigned")
# Shares of the simulated latency of 4 bits, in percent.
LATENCIES = ("latency_80", "latency_100", "latency_110", "latency_125")
PLAIN, COMPOSABLE = "trio_vit", "bitfusion_edge"
ARMS: Mapping[int, tuple[str, ...]] = {
    4: (*HEADLINE, *SINGLE, *RANDOM, *LATENCIES),
    3: (*HEADLINE, *SINGLE, *RANDOM, *PARTS),
    2: ("lsq", "head", *PARTS),
}


def main() -> int:
    """Train the cells that are not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--work", default="qvit_work", help="folder of states (default qvit_work)")
    parser.add_argument("--bits", nargs="+", type=int, default=list(BUDGETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--arms", nargs="+", default=None)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--price", action="store_true", help="simulate the widths of the rows again, train nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.price:
        price(given.results)
        return 0
    Path(given.work).mkdir(parents=True, exist_ok=True)
    done = {(row["seed"], row["bits"], row["arm"]) for row in read_results(given.results)}
    for seed, bits, arm in cells(given.bits, given.seeds, given.arms):
        if (seed, bits, arm) in done:
            continue
        network = capture(load_reference(MODEL, seed), (1, 32, 32))
        row = {"model": MODEL, "seed": seed, "bits": bits, "arm": arm}
        if arm == "float":
            found = evaluated(lambda batch, net=network: forward(net, batch), glyph_images(TEST_IMAGES))  # type: ignore[misc]
            row |= figures_of(found)
        else:
            row |= trained(network, bits, arm, seed, given.steps, Path(given.work))
        keep(given.results, row)
    return 0


def cells(budgets: list[int], seeds: list[int], arms: list[str] | None) -> list[tuple[int, int, str]]:
    """(seed, bits, arm), the headline arms of all checkpoints first."""
    found = [(seed, 32, "float") for seed in seeds]
    rest = []
    for bits in budgets:
        for arm in ARMS[bits]:
            if arm in (*HEADLINE, *LATENCIES[:2]) and bits != 2:
                found += [(seed, bits, arm) for seed in seeds]
            else:
                rest.append((STUDY_SEED, bits, arm))
    return [cell for cell in found + rest if arms is None or cell[2] in arms]


def options_of(arm: str, bits: int) -> LearnBits:
    """Options of an arm; learned widths start one bit above their budget, as the paper's 5 for 4."""
    if arm in ("head", "one_scale", "layer", "code_axis", *LATENCIES):
        sites = (
            SiteOptions("layer") if arm == "layer" else SiteOptions(head_axis="code" if arm == "code_axis" else "head")
        )
        return LearnBits(bits + 1, switchable=arm != "one_scale", bit_rate=BIT_RATE, sites=sites)
    kinds = {
        "gelu_signed": SiteOptions(gelu="signed"), "gelu_unsigned": SiteOptions(gelu="unsigned"),
        "without_msa": SiteOptions(floating=("msa",)), "without_gelu": SiteOptions(floating=("gelu",)),
    }  # fmt: skip
    return LearnBits(bits, learned=False, sites=kinds.get(arm, SiteOptions()))


def trained(network: Network, bits: int, arm: str, seed: int, steps: int, work: Path) -> dict[str, Any]:
    """Train an arm; figures of its network before the export to hardware formats."""
    options = options_of(arm, bits)
    cost = BitOperations(network.workload)
    limit = cost.exact(uniform_widths(sites_of(network.workload), bits))
    budget = latency_budget(network, bits, arm) if arm in LATENCIES else Budget(cost, limit)
    widths = random_widths(network, budget, int(arm.split("_")[1])) if arm in RANDOM else None
    settings = FineTune(steps=steps, rate=RATE, weight_decay=0.05, smoothing=0.1, augment=True, seed=seed)
    state = work / f"{bits}_{arm}_{seed}.state"
    start = time.process_time()
    bar = tqdm(total=steps, desc=f"{bits} {arm} {seed}", disable=not sys.stderr.isatty())
    training = load_data("glyphs", "train", GREY_32)
    learned = learn_bits(
        network, training, settings, options, budget, widths, state, lambda what, done, of: bar.update(done - bar.n)
    )
    bar.close()
    taken = time.process_time() - start
    row = figures_of(evaluated(learned.model.logits, glyph_images(TEST_IMAGES)))
    forget(state)
    found, losses = learned.widths(), learned.state.losses
    means = [sum(part) / len(part) for part in (losses[k : k + LOSS_EVERY] for k in range(0, len(losses), LOSS_EVERY))]
    return {
        **row, **mean_bits(learned.model, cost, found),
        "spent": None if options.sites.floating else round(budget.spent(found), 5),
        "bit_operations": cost.exact(found), "widths": {name: one.int().tolist() for name, one in found.items()},
        "flips": [entry["flips"] for entry in learned.state.log],
        "spent_over_time": [entry["spent"] for entry in learned.state.log],
        "losses": [round(one, 4) for one in means], "steps": steps, "rate": RATE, "cpu_s": round(taken, 1),
    }  # fmt: skip


def latency_budget(network: Network, bits: int, arm: str) -> Budget:
    """A share of the simulated latency of one width."""
    target = TargetCost("latency_s", network, load_accelerator(COMPOSABLE), SiteOptions())
    return Budget(target, target.uniform(bits) * int(arm.split("_")[1]) / 100)


def price(results: str) -> None:
    """Add to every row what its widths take on both arrays; rows that the hardware cannot run stay without."""
    network = capture(load_reference(MODEL, STUDY_SEED), (1, 32, 32))
    targets = {
        (arch, kind): TargetCost("latency_s", network, load_accelerator(arch), SiteOptions(kind))
        for arch in (PLAIN, COMPOSABLE)
        for kind in GRANULARITIES
    }
    rows = read_results(results)
    for row in tqdm(rows, desc="simulating", disable=not sys.stderr.isatty()):
        if "widths" in row and row["arm"] not in (*PARTS, "code_axis"):
            kind = LAYER if row["arm"] == "layer" else HEAD
            widths = {name: torch.tensor(one, dtype=torch.float32) for name, one in row["widths"].items()}
            row["simulated"] = {arch: targets[arch, kind].figures(widths) for arch in (PLAIN, COMPOSABLE)}
    rewrite(results, rows)


def random_widths(network: Network, budget: Budget, number: int) -> dict[str, Tensor]:
    """Widths drawn evenly from 2 … 8, then moved by equal amounts until they keep to the budget."""
    generator = torch.Generator().manual_seed(number)
    sites = sites_of(network.workload)
    first = uniform_widths(sites, 8)
    drawn = {
        name: one if sites[name].pinned else 2 + 6 * torch.rand(one.shape, generator=generator)
        for name, one in first.items()
    }
    return settle(drawn, budget, {name: site.pinned for name, site in sites.items()})


def mean_bits(model: LearnedNetwork, cost: BitOperations, widths: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean width by products (root of bit operations per MAC) and of a weight, without first and last layer."""
    pinned = {name for name, one in model.quantizers.items() if one.site.pinned}
    terms = [term for term in cost.terms if term.left in widths and term.right in widths and term.right not in pinned]
    if not terms:
        return {}
    operations = sum(float(cost.of_term(term, widths)) for term in terms)
    stored = [
        (node.weight.numel(), float(widths[f"weights/{node.name}"].mean()))
        for node in model.network.nodes
        if f"weights/{node.name}" in widths and f"weights/{node.name}" not in pinned and node.weight is not None
    ]
    return {
        "mean_bits_of_products": round((operations / sum(term.macs for term in terms)) ** 0.5, 4),
        "mean_bits_of_weights": round(sum(n * bits for n, bits in stored) / sum(n for n, _ in stored), 4),
    }


if __name__ == "__main__":
    raise SystemExit(main())
