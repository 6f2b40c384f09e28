"""The ablation as text: Markdown tables (terminal and page), a CSV of its cells, and the tables of docs/ablation.md."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from accelsim.files import write_text_atomic
from accelsim.problems import AccelsimError, Problem
from codesign.ablation import BASELINE, BASES, LAST_STEP

# A generated table of a page stands between these two lines.
BLOCK = re.compile(r"(<!-- table: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
CONVENTIONS = ("", "_synthesized")
Data = Mapping[str, Any]
Row = Mapping[str, Any]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns are also aligned in a terminal."""
    body = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in body) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in body
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def designs_table(data: Data) -> str:
    """Geometry (lanes × lane width × pixel groups), slots and area of the designs."""
    rows = []
    for row in data["designs"]:
        group = "" if row["group_mm2"] is None else f"{row['group_mm2']:.4f}"
        size = [f"{row['slots']}", f"{row['engines_mm2']:.4f}", f"{row['remainder_mm2']:+.4f}", group]
        rows.append([row["design"], row["basis"], ", ".join(row["engines"]), *size])
    return markdown(
        ["design", "equal", "engines", "slots", "engines mm²", "left of baseline mm²", "one group mm²"], rows
    )


def savings_table(data: Data) -> str:
    """Mean EDP saving of every row, with DRAM and without, beside the published figure."""
    head = ["row", "plan", "fusion"]
    for basis in BASES:
        head += [f"equal {basis}, arithmetic", "synthesized", "without DRAM, arithmetic", "synthesized"]
    rows = []
    for step in data["steps"]:
        cells = [_bold(step["label"], step["ladder"]), step["plan"], "on" if step["fuse"] else "off"]
        for basis in BASES:
            mean = _mean(data, step["name"], basis)
            cells += [f"{mean[f'{kind}{suffix}']:+.1%}" for kind in ("saving", "free_saving") for suffix in CONVENTIONS]
        rows.append(cells)
    published = ["published by M²-ViT (abstract), average", "", "", f"{data['published_saving']:.0%}"]
    rows.append(published + [""] * (len(head) - len(published)))
    return markdown(head, rows)


def steps_table(data: Data) -> str:
    """What each step of the ladder changes against the step before it, mean of the networks."""
    head = [
        "step",
        "equal",
        "cycles",
        "energy, arithmetic",
        "energy, synthesized",
        "EDP, arithmetic",
        "EDP, synthesized",
    ]
    rows = []
    ladder = [step for step in data["steps"] if step["ladder"]]
    for basis in BASES:
        for before, step in pairwise(ladder):
            old, new = (_cells(data, one["name"], basis) for one in (before, step))
            keys = ("cycles", "energy_pj", "energy_pj_synthesized", "edp_pj_s", "edp_pj_s_synthesized")
            ratios = [sum(b[key] / a[key] for a, b in zip(old, new, strict=True)) / len(old) - 1 for key in keys]
            rows.append([step["label"], basis, *(f"{ratio:+.1%}" for ratio in ratios)])
    return markdown(head, rows)


def reasons_table(data: Data) -> str:
    """Shares of energy and time that explain the rows, equal area, mean of the networks."""
    head = ["row", "DRAM share of energy", "products' share of energy", "engines busy", "no work for the last engine"]
    head += ["cycles / compute bound", "cycles / traffic bound"]
    rows = []
    for step in data["steps"]:
        mean, cells = _mean(data, step["name"], "area"), _cells(data, step["name"], "area")
        busy = [f"{name} {sum(cell['busy'][name] for cell in cells) / len(cells):.0%}" for name in cells[0]["busy"]]
        shares = [f"{mean[part]:.1%} / {mean[part + '_synthesized']:.1%}" for part in ("dram_share", "products_share")]
        bounds = [
            f"{sum(cell['cycles'] / cell[key] for cell in cells) / len(cells):.2f}"
            for key in ("bound_compute_cycles", "bound_traffic_cycles")
        ]
        rows.append([step["label"], *shares, ", ".join(busy), f"{mean['last_engine_barred']:.0%}", *bounds])
    return markdown(head, rows)


def networks_table(data: Data) -> str:
    """Cycles, energy and EDP of every network at equal area; arithmetic / synthesized."""
    names = [f"{model} {resolution}" for model, resolution in data["networks"]]
    rows = []
    for step in data["steps"]:
        cells = _cells(data, step["name"], "area")
        texts = [
            f"{cell['cycles']:,}; {cell['energy_pj'] / 1e6:,.0f} / {cell['energy_pj_synthesized'] / 1e6:,.0f} µJ; "
            f"{cell['edp_pj_s'] / 1e3:,.0f} / {cell['edp_pj_s_synthesized'] / 1e3:,.0f} nJ·s; "
            f"{cell['saving']:+.1%} / {cell['saving_synthesized']:+.1%}"
            for cell in cells
        ]
        rows.append([step["label"] + (", fused" if step["fuse"] and not step["ladder"] else ""), *texts])
    return markdown(["cycles; energy; EDP; EDP saved", *names], rows)


def bounds_table(data: Data) -> str:
    """What arithmetic alone can save, by the prices used."""
    rows = [
        [row["prices"], f"{row['energy_ratio']:.3f}", f"{row['area_ratio']:.3f}", f"{row['saving']:.1%}"]
        for row in data["bounds"]
    ]
    return markdown(["prices", "energy ratio", "area ratio", "1 − 1 / (energy · area)"], rows)


def groups_table(data: Data) -> str:
    """The last step with other numbers of pixel groups in the shift engine: how much rounding decides."""
    rows = [
        [f"{row['groups']}", f"{row['area_ratio']:.3f}", f"{row['saving']:+.1%}", f"{row['saving_synthesized']:+.1%}"]
        for row in data["groups"]
    ]
    head = ["pixel groups of the shift engine", "engine area / baseline", "mean EDP saved, arithmetic", "synthesized"]
    return markdown(head, rows)


MAKERS: Mapping[str, Callable[[Data], str]] = {
    "designs": designs_table,
    "savings": savings_table,
    "steps": steps_table,
    "reasons": reasons_table,
    "networks": networks_table,
    "groups": groups_table,
    "bounds": bounds_table,
}


def tables(data: Data) -> dict[str, str]:
    """Every table of the page, by name."""
    return {name: make(data) for name, make in MAKERS.items()}


def summary(data: Data) -> str:
    """One sentence: the total of the ladder beside the published figure."""
    base, last = ({basis: _mean(data, name, basis) for basis in BASES} for name in (BASELINE, LAST_STEP))
    assert all(mean["saving"] == 0 for mean in base.values())
    parts = [
        f"{last[basis]['saving']:+.1%} / {last[basis]['saving_synthesized']:+.1%} at equal {basis}" for basis in BASES
    ]
    return (
        f"All steps together save {' and '.join(parts)} (arithmetic / synthesized); M²-ViT reports "
        f"{data['published_saving']:.0%}, which this model does not reproduce."
    )


def csv_text(data: Data) -> str:
    """All cells, a row each; `busy` becomes a column per engine name."""
    engines = sorted({name for cell in data["cells"] for name in cell["busy"]})
    columns = [key for key in data["cells"][0] if key != "busy"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *(f"busy_{name}" for name in engines)])
    for cell in data["cells"]:
        writer.writerow([*(cell[key] for key in columns), *(cell["busy"].get(name, "") for name in engines)])
    return text.getvalue()


def with_tables(page: str, data: Data) -> str:
    """The text of a page with every generated table made anew; the rest is untouched."""
    made = tables(data)
    return BLOCK.sub(lambda found: found[1] + made[found["name"]] + found[3], page)


def refresh_page(path: str, data: Data) -> None:
    """Make the tables of a page anew.  Raises AccelsimError when it cannot be read or has none."""
    page = read_page(path)
    write_text_atomic(path, with_tables(page, data))


def read_page(path: str) -> str:
    """Text of a page with tables between marks.  Raises AccelsimError when it cannot be read, has none, or others."""
    try:
        page = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AccelsimError(Problem(path, f"cannot be read ({error})", "a page such as docs/ablation.md")) from error
    names = [found["name"] for found in BLOCK.finditer(page)]
    known = tuple(MAKERS)
    if not names or set(names) - set(known):
        what = f"has tables {', '.join(names) or 'nowhere'}"
        raise AccelsimError(Problem(path, what, f"marks <!-- table: NAME -->, NAME one of {', '.join(known)}"))
    return page


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _cells(data: Data, step: str, basis: str) -> list[Row]:
    return [cell for cell in data["cells"] if (cell["step"], cell["basis"]) == (step, basis)]


def _mean(data: Data, step: str, basis: str) -> Row:
    return next(mean for mean in data["means"] if (mean["step"], mean["basis"]) == (step, basis))
