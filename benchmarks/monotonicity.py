"""How often a larger design is slower: random pairs of designs, one no smaller than the other in anything.

    python benchmarks/monotonicity.py [--pairs N] [--seed S] [--model NAME] [--json FILE]

Simulated cycles of the heuristic mapping and of the one that the exhaustive mapper keeps, and the optimum of its
objective, on both designs of every pair; the optimum should never be worse (docs/decisions/0010).  Times per cycle
are equal: both designs have the same clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from dataclasses import replace
from pathlib import Path
from random import Random

# Before numpy is loaded: its libraries read it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from accelsim.arch import Accelerator, Buffer, Dram, Engine
from accelsim.config import load_accelerator, load_plan
from accelsim.mappers.exhaustive import Found, find_mapping
from accelsim.optable import OpTable, op_table
from accelsim.problems import InfeasibleError
from accelsim.workloads import build_workload

GROWTH = (1, 1, 1, 1.25, 1.5, 2)
MEASURES = ("heuristic", "kept", "optimum")


def _grown(rng: Random, value: int) -> int:
    return int(value * rng.choice(GROWTH))


def _fed(engine: Engine) -> Engine:
    """The engine with ports that keep up with it: a sub-array is never faster, which keeps the search short."""
    activations = engine.lane_width * engine.pixel_groups * 8 * (engine.lanes if engine.depthwise else 1)
    return replace(
        engine, activation_port_bits_per_cycle=activations,
        weight_port_bits_per_cycle=engine.lanes * engine.lane_width * 8,
    )  # fmt: skip


def random_design(rng: Random, base: Accelerator) -> Accelerator:
    """The base with random arrays, buffers and bandwidth."""
    engines = tuple(
        _fed(replace(engine, lanes=rng.randint(4, 24), lane_width=rng.randint(4, 24), pixel_groups=rng.randint(1, 6)))
        for engine in base.engines
    )
    dram = base.dram
    assert isinstance(dram, Dram)
    return base.replace(
        engines=engines,
        activation_buffer=Buffer(65536 * rng.choice([8, 16, 32, 64])),
        weight_buffer=Buffer(65536 * rng.choice([8, 16, 32, 64])),
        dram=replace(dram, bandwidth_bits_per_s=8_000_000_000 * rng.choice([1, 2, 4, 8, 16])),
    )


def _levels(engine: Engine) -> int:
    return engine.pipeline_cycles - engine.output_stage.latency_cycles


def _larger_engine(rng: Random, engine: Engine) -> Engine:
    """More slots, and a shorter output stage where the adder tree gets a level more."""
    grown = replace(
        engine, lanes=_grown(rng, engine.lanes), lane_width=_grown(rng, engine.lane_width),
        pixel_groups=_grown(rng, engine.pixel_groups),
    )  # fmt: skip
    stage = engine.output_stage
    latency = max(0, stage.latency_cycles - (_levels(grown) - _levels(engine)))
    return _fed(replace(grown, output_stage=replace(stage, latency_cycles=latency)))


def larger_design(rng: Random, small: Accelerator) -> Accelerator:
    """A design that is no smaller in lanes, lane width, pixel groups, buffers and bandwidth."""
    dram = small.dram
    assert isinstance(dram, Dram)
    activation, weight = small.activation_buffer, small.weight_buffer
    return small.replace(
        engines=tuple(_larger_engine(rng, engine) for engine in small.engines),
        activation_buffer=replace(activation, capacity_bits=activation.capacity_bits * rng.choice([1, 1, 2])),
        weight_buffer=replace(weight, capacity_bits=weight.capacity_bits * rng.choice([1, 1, 2])),
        dram=replace(dram, bandwidth_bits_per_s=dram.bandwidth_bits_per_s * rng.choice([1, 1, 2])),
    )


def cycles(found: Found) -> dict[str, float]:
    """Cycles by measure; those without a mapping are left out."""
    figures = {"kept": found.kept.cycles, "optimum": found.optimum}
    figures["heuristic"] = None if found.heuristic is None else found.heuristic.cycles
    return {name: value for name, value in figures.items() if value is not None}


def count(table: OpTable, base: Accelerator, n_pairs: int, seed: int) -> dict[str, dict[str, float]]:
    """By measure: pairs compared, how many are worse on the larger design, largest and median loss in percent."""
    rng = Random(seed)
    losses: dict[str, list[float]] = {name: [] for name in MEASURES}
    compared = dict.fromkeys(MEASURES, 0)
    for _ in range(n_pairs):
        small = random_design(rng, base)
        large = larger_design(rng, small)
        try:
            before, after = (cycles(find_mapping(table, design, "latency")) for design in (small, large))
        except InfeasibleError:
            continue
        for name in MEASURES:
            if name in before and name in after:
                compared[name] += 1
                if after[name] > before[name] * (1 + 1e-12):
                    losses[name].append(100 * (after[name] / before[name] - 1))
    return {
        name: {
            "pairs": compared[name],
            "worse": len(lost),
            "largest_loss_percent": max(lost, default=0.0),
            "median_loss_percent": statistics.median(lost) if lost else 0.0,
        }
        for name, lost in losses.items()
    }


def main() -> None:
    """Count and print what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="efficientvit_b1")
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--arch", default="trio_vit")
    parser.add_argument("--plan", default="uniform8")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    table = op_table(build_workload(arguments.model, arguments.resolution), load_plan(arguments.plan))
    figures = count(table, load_accelerator(arguments.arch), arguments.pairs, arguments.seed)
    print(f"{arguments.model} on {arguments.arch}, {arguments.plan}, seed {arguments.seed}")
    for name, row in figures.items():
        print(
            f"{name:9}  {row['worse']:4} of {row['pairs']} pairs worse, "
            f"by up to {row['largest_loss_percent']:.2f} %, median {row['median_loss_percent']:.2f} %"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
