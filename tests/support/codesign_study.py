"""A small co-design study: designs are simulated, accuracies, bounds and what was searched are made up around them."""

import json
import random
from dataclasses import replace
from pathlib import Path

from accelsim.api import simulate
from accelsim.config import dump_accelerator, dump_plan, load_accelerator, load_plan
from accelsim.optable import op_table
from accelsim.trace import write_json
from accelsim.workloads.from_json import dump_workload
from accelsim.workloads.registry import build_workload

MODEL = "glyph_hybrid_narrow"
# id, origin, preset, plan, pixel groups × this, predicted loss, top-1 on the validation set
DESIGNS = (
    ("cd-0", "codesign", "m2vit", "w4a8", 1, 0.021, 0.941),
    ("cd-1", "codesign", "m2vit", "m2q:0.25", 2, 0.008, 0.9465),
    ("cd-2", "codesign", "m2vit", "w4a8", 2, 0.052, 0.9325),
    ("u8", "uniform8", "m2vit", "uniform8", 2, 0.002, 0.9475),
    ("u4", "uniform4", "m2vit", "uniform4", 1, 0.31, 0.861),
    ("seq", "sequential", "trio_vit", "w4a8", 1, 0.024, 0.94),
    ("m2", "m2vit_rule", "m2vit", "m2q", 1, 0.013, 0.939),
    ("rnd", "random", "m2vit", "m2q:0.75", 1, 0.09, None),
    ("ws", "without_schemes", "m2vit", "w4a8", 2, 0.03, 0.9405),
)
WITHOUT = "without_"
FLOAT_TOP1 = 0.948
IMAGES = 2000


def make_study(folder, model=MODEL, resolution=None, designs=DESIGNS, cloud=400, seed=0):
    """Write a study and return the data of its result.json."""
    workload = build_workload(model, resolution)
    found = [_design(Path(folder), workload, *item) for item in designs]
    data = {
        "format": "codesign.result/1",
        "name": f"{model}, edp",
        "model": model,
        "resolution": workload.resolution,
        "data": "glyphs",
        "program": "0.1.0+made-up",
        "created_utc": "2026-01-02T03:04:05Z",
        "seed": seed,
        "spec": {"model": model},
        "spec_text": f"format: codesign.spec/1\nmodel: {model}\nlimits: {{area_mm2: 4.0}}\n",
        "penalties": {"metric": "hessian", "fingerprint": "0123456789abcdef", "images": 512},
        "limits": {"area_mm2": 4.0},
        "best": found[0]["id"],
        "refusals": {},
        "designs": found,
        "cloud": _cloud(found, cloud, random.Random(seed)),
        "history": [_history(found, name, seeded) for seeded, name in enumerate(("seed 0", "seed 1"))],
        "bounds": [_bound(one) for one in found if one["origin"] == "codesign"],
        "table_error": [_table_error(one, turn) for one in found[:3] for turn in range(3)],
        "comparison": [_comparison(found[0], one) for one in found if _is_baseline(one["origin"])],
        "families": [
            {"family": one["origin"].removeprefix(WITHOUT), **_comparison(found[0], one)}
            for one in found
            if one["origin"].startswith(WITHOUT)
        ],
        "findings": ["The loop chose 18 % shift engine area on the narrow hybrid."],
        "seconds": {"penalties": 41.2, "search": 260.5, "finalists": 75.0, "total": 376.7},
    }
    write_result(folder, data)
    return data


def write_result(folder, data):
    write_json(Path(folder) / "result.json", data, indent=1)


def read_result(folder):
    return json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))


def _design(folder, workload, name, origin, preset, plan_name, factor, loss, top1):
    accelerator = load_accelerator(preset)
    first = accelerator.engines[0]
    wider = replace(
        first,
        pixel_groups=factor * first.pixel_groups,
        activation_port_bits_per_cycle=factor * first.activation_port_bits_per_cycle,
    )
    accelerator = accelerator.replace(engines=(wider, *accelerator.engines[1:]))
    plan = load_plan(plan_name)
    report = simulate(op_table(workload, plan), accelerator)
    place = folder / "designs" / name
    place.mkdir(parents=True)
    (place / "plan.yaml").write_text(dump_plan(plan), encoding="utf-8")
    (place / "accelerator.yaml").write_text(dump_accelerator(accelerator), encoding="utf-8")
    (place / "workload.json").write_text(dump_workload(workload), encoding="utf-8")
    write_json(place / "mapping.json", report.mapping.to_json())
    measured = None if top1 is None else _measured(top1)
    metrics = report.metrics()
    return {
        "id": name, "origin": origin, "label": f"{preset} ×{factor}, {plan_name}", "arch": preset,
        "values": {"arch": preset, "plan": plan_name, "accelerator.engines.mult.pixel_groups": wider.pixel_groups,
                   "accelerator.activation_buffer.capacity_bits": accelerator.activation_buffer.capacity_bits},
        "level": 0.05 if origin == "codesign" else None, "predicted_loss": loss,
        "cycles": metrics["cycles_total"], "clock_hz": metrics["clock_hz"],
        **{key: metrics[key] for key in ("latency_s", "energy_pj", "edp_pj_s", "area_mm2")},
        "power_w": report.prices.arithmetic.power_w, "mapper": "heuristic", "folder": f"designs/{name}",
        "on_front": origin == "codesign", "validation": measured, "test": measured if name == "cd-0" else None,
        "integer_agreement": 1.0 if measured else None,
    }  # fmt: skip


def _measured(top1):
    change = top1 - FLOAT_TOP1
    return {
        "top1": top1, "images": IMAGES, "change": change, "low": change - 0.006, "high": change + 0.005,
        "non_inferior": change > -0.01,
    }  # fmt: skip


def _cloud(designs, count, chosen):
    points = []
    for _ in range(count):
        one = chosen.choice(designs)
        slower, dearer = (1 + chosen.expovariate(2.0) for _ in range(2))
        points.append(
            {
                "origin": one["origin"], "level": one["level"],
                "predicted_loss": one["predicted_loss"] * chosen.lognormvariate(0.1, 0.5),
                "latency_s": one["latency_s"] * slower, "energy_pj": one["energy_pj"] * dearer,
                "edp_pj_s": one["edp_pj_s"] * slower * dearer,
                "area_mm2": one["area_mm2"] * chosen.uniform(0.8, 1.6),
                "within": chosen.random() < 0.8, "values": {**one["values"], "lanes": chosen.choice([4, 8, 16])},
            }
        )  # fmt: skip
    return points


def _history(designs, name, seed):
    chosen, rows, volume = random.Random(seed), [], 0.2
    best = 3 * designs[0]["edp_pj_s"]
    for step in range(1, 21):
        volume += (0.9 - volume) * chosen.uniform(0, 0.3)
        best += (designs[0]["edp_pj_s"] - best) * chosen.uniform(0, 0.4)
        rows.append(
            {
                "evaluations": 20 * step, "elapsed_s": 6.0 * step + chosen.uniform(0, 3), "hypervolume": volume,
                "front_size": 3 + step // 3, "least": best,
            }
        )  # fmt: skip
    return {"search": name, "searcher": ("nsga2", "bottleneck")[seed % 2], "rows": rows}


def _bound(one):
    share = 0.93
    return {
        "design": one["id"], "level": one["level"], "edp_pj_s": one["edp_pj_s"],
        "edp_bound_pj_s": share * one["edp_pj_s"], "gap": 1 - share, "latency_cycles": one["cycles"],
        "latency_bound_cycles": 0.96 * one["cycles"], "energy_pj": one["energy_pj"],
        "energy_bound_pj": 0.97 * one["energy_pj"],
    }  # fmt: skip


def _table_error(one, turn):
    off = 1 + (0.2 if one["id"] == "cd-0" else 0.11) / (1 + 3 * turn)
    return {
        "design": one["id"], "round": turn, "predicted_cycles": one["cycles"] / off, "simulated_cycles": one["cycles"],
        "predicted_energy_pj": one["energy_pj"] / (1 + (off - 1) / 4), "simulated_energy_pj": one["energy_pj"],
    }  # fmt: skip


def _is_baseline(origin):
    return origin not in ("codesign", "random") and not origin.startswith(WITHOUT)


def _comparison(design, baseline):
    change = design["validation"]["top1"] - baseline["validation"]["top1"]
    return {
        "baseline": baseline["origin"], "design": baseline["id"], 
        "equal_accuracy": baseline["validation"]["non_inferior"],
        "edp_ratio": design["edp_pj_s"] / baseline["edp_pj_s"],
        "accuracy_change": change, "low": change - 0.007, "high": change + 0.006, "non_inferior": change > -0.01,
    }  # fmt: skip
