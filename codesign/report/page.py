"""The page: data of a study as JSON inside one HTML file with its own style and script, no network access."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from codesign.report.details import design_details
from codesign.report.study import CloudPoint, Design, Study
from codesign.report.summary import ORIGINS, best_design, figures, missing, origin_text, shown_design, summary
from codesign.store import program_version

ASSETS = resources.files("codesign.report") / "assets"
SCRIPTS = ("base.js", "chart.js", "front.js", "design.js", "timeline.js", "progress.js", "tables.js", "main.js")
MOST_CLOUD = 4_000
MOST_SPEC_CHARACTERS = 100_000
DIGITS = 6


def page(study: Study) -> str:
    """The HTML of a study; the same study and program give the same text.

    Raises AccelsimError when a design of the study cannot be simulated again.
    """
    data = page_data(study)
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}\n}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": html.escape(f"{study.result.name}: co-design of {study.result.model}"),
        "name": html.escape(study.result.name),
        "summary": html.escape(data["summary"]),
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'",
        "style": (ASSETS / "page.css").read_text(encoding="utf-8"),
        "data": data_text(data),
        "script": script,
    }
    template = (ASSETS / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def data_text(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(_rounded(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page_data(study: Study) -> dict[str, Any]:
    """Everything that the page shows, as plain data.  Raises as `page` does."""
    result = study.result
    details = design_details(study)
    plain = asdict(result)
    text = result.spec_text
    return {
        "name": result.name,
        "model": result.model,
        "resolution": result.resolution,
        "data": result.data,
        "summary": summary(result),
        "figures": [asdict(figure) for figure in figures(result)],
        "missing": missing(result, len(details.designs)),
        "best": shown_design(result).id,
        "has_best": best_design(result) is not None,
        "origins": _origins(result.designs, result.cloud),
        "designs": plain["designs"],
        "cloud": cloud_columns(result.cloud),
        **{name: plain[name] for name in ("history", "bounds", "table_error", "comparison", "families", "findings")},
        "details": details.designs,
        "networks": details.networks,
        "provenance": {
            **{name: plain[name] for name in ("program", "created_utc", "seed", "penalties", "limits", "seconds")},
            "page_program": program_version(),
            "spec_text": text[:MOST_SPEC_CHARACTERS],
            "spec_left_out": max(0, len(text) - MOST_SPEC_CHARACTERS),
        },
    }


def _origins(designs: Sequence[Design], cloud: Sequence[CloudPoint]) -> list[list[str]]:
    """[origin, its words] in a fixed order; unknown ones last, by name."""
    found = {design.origin for design in designs} | {point.origin for point in cloud}
    known = [name for name in ORIGINS if name in found]
    return [[name, origin_text(name)] for name in [*known, *sorted(found - set(ORIGINS))]]


def cloud_columns(cloud: Sequence[CloudPoint]) -> dict[str, Any]:
    """The cloud by columns; of more than `MOST_CLOUD` designs an even part.

    Axis values are numbers into the list of an axis's different values, −1 where a design has none.
    """
    count = min(len(cloud), MOST_CLOUD)
    shown = [cloud[k * len(cloud) // count] for k in range(count)]
    origins = list(dict.fromkeys(point.origin for point in shown))
    axes = list(dict.fromkeys(axis for point in shown for axis in point.values))
    texts = {axis: [_text(point.values[axis]) if axis in point.values else None for point in shown] for axis in axes}
    choices = {axis: sorted({text for text in column if text is not None}) for axis, column in texts.items()}
    places = {axis: {text: k for k, text in enumerate(known)} for axis, known in choices.items()}
    return {
        "all": len(cloud),
        "origins": origins,
        "origin": [origins.index(point.origin) for point in shown],
        **{
            name: [getattr(point, name) for point in shown]
            for name in ("level", "within", "predicted_loss", "edp_pj_s", "latency_s", "energy_pj", "area_mm2")
        },
        "axes": [
            {
                "name": axis,
                "choices": choices[axis],
                "picks": [-1 if text is None else places[axis][text] for text in texts[axis]],
            }
            for axis in axes
        ],
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rounded(value: Any) -> Any:
    """Plain data with numbers of six significant digits: what a page can show, in few bytes."""
    if isinstance(value, float):
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short == int(short) and abs(short) < 1e15 else short
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
