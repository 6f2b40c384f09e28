"""Fuzz the simulator: `python -m tests.fuzz.run --count 10000` (a line of figures; exit status 1 on a fault).

A case is a seed: network, plan and accelerator are drawn from it, well formed or damaged.  It passes when it ends in a
result that obeys the laws or in problems that can be printed; anything else is a fault and is printed with its seed.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from accelsim.api import simulate
from accelsim.config import accelerator_from_data, load_accelerator, load_plan, plan_from_data
from accelsim.config_yaml import dump_yaml
from accelsim.optable import op_table
from accelsim.problems import AccelsimError, InfeasibleError
from tests.fuzz.inputs import damage, damage_text, preset_or_random
from tests.fuzz.laws import check_laws
from tests.fuzz.networks import broken_workload, huge_workload, random_workload

LIMIT_S = 120  # a case takes milliseconds; the first ones compile


def run_case(seed: int, folder: Path) -> str:
    """Outcome of a case: "result", "infeasible" or "problem".  Raises whatever else happens."""
    rng = Random(seed)
    try:
        table, accelerator, batch, fuse = _draw(rng, folder)
        check_laws(simulate(table, accelerator, batch=batch, fuse=fuse))
    except AccelsimError as error:
        check_problems(error)
        return "infeasible" if isinstance(error, InfeasibleError) else "problem"
    return "result"


def check_problems(error: AccelsimError) -> None:
    """Raise AssertionError when an error could not be shown to a user, a problem per line."""
    assert error.problems
    for problem in error.problems:
        assert problem.where
        assert problem.what
        assert "\n" not in str(problem)
        str(problem).encode()


def _draw(rng: Random, folder: Path) -> tuple[Any, Any, int, bool]:
    accelerator_data, plan_data = preset_or_random(rng)
    kind = rng.random()
    accelerator: Any
    if kind < 0.15:
        damage(rng, accelerator_data)
    elif kind < 0.25:
        damage(rng, plan_data)
    network = rng.random()
    make = broken_workload if network < 0.12 else huge_workload if network < 0.2 else random_workload
    if make is huge_workload:
        make_roomy(accelerator_data)
    workload = make(rng)
    if 0.25 <= kind < 0.35:
        kinds = (("accelerator", accelerator_data, load_accelerator), ("plan", plan_data, load_plan))
        name, data, load = rng.choice(kinds)
        path = folder / f"{name}.yaml"
        path.write_bytes(damage_text(rng, dump_yaml({"format": f"accelsim.{name}/1", **data})))
        load(path)
    accelerator, plan = accelerator_from_data(accelerator_data), plan_from_data(plan_data)
    return op_table(workload, plan), accelerator, rng.choice([1, 1, 1, 1, 2, 5, 10**9]), rng.random() < 0.8


def make_roomy(data: dict[str, Any]) -> None:
    """Buffers for huge layers, and no banked DRAM: it costs time for every burst, 10 s for 10⁹."""
    for name in ("activation_buffer", "weight_buffer"):
        data[name] = {"capacity_bits": 2**40, "macro_bits": 2**16, "word_bits": 64}
    if isinstance(data.get("dram"), dict) and "model" in data["dram"]:
        data["dram"] = {"bandwidth_bits_per_s": 8_000_000_000, "burst_bits": 64, "first_beat_latency_s": 0}


def fuzz(seeds: range, faults_shown: int = 20) -> tuple[Counter[str], list[str]]:
    """Outcomes of all cases, and the faults as text.  A case that hangs or crashes ends the process with its seed."""
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name, open(Path(name) / "seed", "w+", encoding="utf-8") as place:
        for seed in seeds:
            place.seek(0)
            place.write(f"{seed}\n")
            place.flush()
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            try:
                outcomes[run_case(seed, Path(name))] += 1
            except Exception:
                outcomes["fault"] += 1
                if len(faults) < faults_shown:
                    faults.append(f"seed {seed}\n{traceback.format_exc()}")
        faulthandler.cancel_dump_traceback_later()
    return outcomes, faults


def main() -> int:
    """Run the cases that the command line asks for."""
    parser = argparse.ArgumentParser(description="random networks, plans and accelerators, damaged ones included")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    arguments = parser.parse_args()
    faulthandler.enable()
    begin = time.perf_counter()
    outcomes, faults = fuzz(range(arguments.seed, arguments.seed + arguments.count))
    print("\n".join(faults))
    counts = ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items()))
    print(f"{sum(outcomes.values())} cases in {time.perf_counter() - begin:.0f} s: {counts}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
