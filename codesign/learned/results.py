"""What a run of learned widths leaves: figures of every stage, simulated cost, the log of widths, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.api import simulate
from accelsim.arch import Accelerator
from accelsim.files import write_text_atomic
from accelsim.optable import op_table
from accelsim.problems import InfeasibleError
from codesign.budgets import SIMULATED
from codesign.integer_eval import integer_figures
from codesign.learned.command import LOG, OVER_TIME, PICTURE
from codesign.learned.target import Limits
from codesign.plots.bits import plot_bits, plot_bits_over_time
from codesign.quantize_command import measure_on
from codesign.quantize_text import figures
from quant.checkpoint import Model
from quant.learned.budget import uniform_widths
from quant.learned.train import Learned

if TYPE_CHECKING:
    from quant.calibrated import Checkpoint
    from quant.data.dataset import DataSet


def noted(
    learned: Learned, checkpoint: Checkpoint, accelerator: Accelerator, limits: Limits, stages: dict[str, Any],
    validation: DataSet, images: int | None, folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """Write the log and the pictures; the note of the run: `budget`, `accuracy` by stage, `simulated`, `flips`."""
    import json

    log = [_start(learned, limits), *learned.state.log]
    write_text_atomic(folder / LOG, "".join(json.dumps(entry) + "\n" for entry in log))
    sites = {name: one.site for name, one in learned.model.quantizers.items()}
    widths = learned.widths()
    workload = checkpoint.network.workload
    plot_bits(workload, sites, widths, folder / PICTURE)
    plot_bits_over_time(sites, log, folder / OVER_TIME)
    model = Model(checkpoint)
    fake = measure_on(model, validation, images)
    integers = integer_figures(model, lambda one: measure_on(one, validation, images), fake)
    simulated = _simulated(checkpoint, accelerator)
    budget = limits.budget
    spent = budget.cost.exact(widths) if limits.kind not in SIMULATED else simulated[limits.kind]
    learnable = [one for one in learned.model.quantizers.values() if not one.site.pinned]
    return {
        "budget": {"kind": limits.kind, "limit": budget.limit, "spent": spent,
                   "chosen": "learned widths" if learned.state.asked["learned bits"]["learned"] else "fixed widths"},
        "accuracy": {**stages, "fake_quantized": figures(fake), "integers": integers},
        "simulated": simulated, "target": limits.target, "flips": sum(entry["flips"] for entry in log),
        "parts": sum(one.bits.numel() for one in learnable),
        "mean_bits": {kind: _mean([one.width() for one in learnable if one.site.kind == kind])
                      for kind in ("weights", "stored")},
    }  # fmt: skip


def _start(learned: Learned, limits: Limits) -> dict[str, Any]:
    """The entry of the log before the first step."""
    sites = {name: one.site for name, one in learned.model.quantizers.items()}
    widths = uniform_widths(sites, learned.state.asked["learned bits"]["start_bits"])
    found = {name: one.int().tolist() for name, one in widths.items()}
    return {"step": 0, "flips": 0, "spent": round(limits.budget.spent(widths), 5), "widths": found}


def _simulated(checkpoint: Checkpoint, accelerator: Accelerator) -> dict[str, Any]:
    """Cycles, seconds, pJ and pJ·s of the plan, or why the accelerator cannot run it."""
    try:
        report = simulate(op_table(checkpoint.network.workload, checkpoint.plan), accelerator)
    except InfeasibleError as error:
        return {"arch": accelerator.name, "problem": str(error.problems[0])}
    metrics = report.metrics()
    return {"arch": accelerator.name, **{name: metrics[name] for name in ("cycles_total", *SIMULATED)}}


def _mean(widths: list[Any]) -> float:
    """Mean width of a part, each part counted once."""
    values: list[float] = [value for one in widths for value in one.flatten().tolist()]
    return round(sum(values) / max(len(values), 1), 4)
