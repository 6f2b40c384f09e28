"""Learned widths as pictures: of every site and head at the end, and over the steps of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.ir import OpKind, Workload
from codesign.plots.frame import COLOURS, new_figure, picture_path, save
from quant.learned.quantizer import HIGHEST_BITS, LOWEST_BITS
from quant.learned.sites import STORED, WEIGHTS, Site
from quant.learned.structure import attentions

if TYPE_CHECKING:
    from torch import Tensor

THIRDS = ("q", "k", "v")
FREEZE = "freeze"


def plot_bits(workload: Workload, sites: Mapping[str, Site], widths: Mapping[str, Tensor], path: str | Path) -> None:
    """Heat map of whole widths [tables, heads]: a row per kind of site, columns are the heads of every layer.

    A width of a whole tensor fills all heads of its layer; pinned sites are left out.
    """
    path = picture_path(path)
    found = attentions(workload)
    heads = max(one.heads for one in found)
    rows: dict[str, Any] = {}
    for block, names in enumerate(_blocks(workload)):
        for name in names:
            site = sites.get(name)
            if site is None or site.pinned:
                continue
            values = widths[name].detach().cpu().numpy()
            for table in range(site.tables):
                row = rows.setdefault(_label(workload, site, table), np.full((len(found), heads), np.nan))
                row[block] = np.repeat(values[table], heads // site.heads)
    cells = np.array([row.reshape(-1) for row in rows.values()])
    save(_heat_map(cells, list(rows), [one.name for one in found], heads, workload.name), path)


def _blocks(workload: Workload) -> list[list[str]]:
    """Names of the sites of every attention layer and what follows it, in the order of the ops."""
    starts = {one.qkv: one for one in attentions(workload)}
    found: list[list[str]] = []
    for op in workload.ops:
        if op.kind is not OpKind.CONV:
            continue
        one = starts.get(op.name)
        if one is not None:
            found.append([])
        if not found:
            continue
        found[-1] += [f"{STORED}/{workload.storage_of(op.inputs[0])[0]}", f"{WEIGHTS}/{op.name}"]
        if one is not None:
            found[-1] += [f"{STORED}/{workload.op_by_name[name].output}" for name in (one.qkv, one.softmax)]
    return [list(dict.fromkeys(names)) for names in found]


def _label(workload: Workload, site: Site, table: int) -> str:
    """What a row shows: filters of an op, or the tensor that it makes."""
    short = site.of.rpartition(".")[2]
    if site.tables > 1:
        return f"filters of {THIRDS[table]}" if site.kind == WEIGHTS else THIRDS[table]
    return f"filters of {short}" if site.kind == WEIGHTS else f"output of {short}"


def _heat_map(cells: Any, labels: Sequence[str], layers: Sequence[str], heads: int, title: str) -> Any:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    count = HIGHEST_BITS - LOWEST_BITS + 1
    figure = new_figure(3.2 + 0.27 * cells.shape[1], 1.9 + 0.3 * len(labels))
    axis = figure.add_subplot()
    import matplotlib

    colours = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.12, 1.0, count)))
    norm = BoundaryNorm(np.arange(LOWEST_BITS - 0.5, HIGHEST_BITS + 1), count)
    image = axis.imshow(cells, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            dark = value < LOWEST_BITS + count // 2
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7,
                      color="white" if dark else "black")  # fmt: skip
    for k in range(1, len(layers)):
        axis.axvline(k * heads - 0.5, color="white", lw=2.5)
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_xticks(range(cells.shape[1]), [str(k % heads) for k in range(cells.shape[1])], fontsize=7)
    axis.set_xlabel("head (number), by layer")
    axis.set_ylabel("site")
    above = axis.secondary_xaxis("top")
    above.set_xticks([(k + 0.5) * heads - 0.5 for k in range(len(layers))], layers, fontsize=8)
    above.tick_params(length=0)
    bar = figure.colorbar(image, ax=axis, ticks=range(LOWEST_BITS, HIGHEST_BITS + 1), pad=0.02)
    bar.set_label("width [bits]")
    figure.suptitle(f"{title}: learned widths (a width of a whole tensor fills its layer)", fontsize=10)
    return figure


def plot_bits_over_time(sites: Mapping[str, Site], log: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Mean widths of groups of sites over the steps, and below flips of widths and the share of the budget."""
    path = picture_path(path)
    steps = [entry["step"] for entry in log]
    figure = new_figure(8.5, 6.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for colour, (name, members) in zip(COLOURS, _groups(sites).items(), strict=False):
        means = [np.mean([np.mean(entry["widths"][site][t]) for site, t in members]) for entry in log]
        upper.plot(steps, means, color=colour, lw=1.6, marker=".", ms=3, label=name)
    upper.set_ylabel("mean width [bits]")
    upper.set_ylim(LOWEST_BITS - 0.2, HIGHEST_BITS + 0.2)
    upper.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    lower.bar(steps, [entry["flips"] for entry in log], width=0.8 * _spacing(steps), color="0.75", label="flips")
    lower.set_ylabel("flips since the last entry")
    lower.set_xlabel("step")
    handles, labels = lower.get_legend_handles_labels()
    share = lower.twinx()
    (line,) = share.plot(steps, [entry["spent"] for entry in log], color=COLOURS[1], lw=1.6)
    share.axhline(1.0, color=COLOURS[1], lw=0.8, ls=":")
    share.set_ylabel("cost / budget")
    handles, labels = [*handles, line], [*labels, "cost / budget"]
    share.legend(handles, labels, fontsize=8, loc="upper right", framealpha=0.9)
    for entry in log:
        if FREEZE in entry:
            for axis in (upper, lower):
                axis.axvline(entry["step"], color="black", lw=0.9, ls="--")
            upper.annotate("freeze", (entry["step"], HIGHEST_BITS), (-4, -4), textcoords="offset points", fontsize=8,
                           ha="right", va="center")  # fmt: skip
    for axis in (upper, lower):
        axis.grid(color="0.92", lw=0.6)
        axis.set_axisbelow(True)
    figure.suptitle("Widths over training", fontsize=11)
    save(figure, path)


def _spacing(steps: Sequence[int]) -> float:
    return float(np.min(np.diff(steps))) if len(steps) > 1 else 1.0


def _groups(sites: Mapping[str, Site]) -> dict[str, list[tuple[str, int]]]:
    """(site, table) of what a line shows: filters and tensors, those of the attention apart."""
    found: dict[str, list[tuple[str, int]]] = {}
    for name, site in sites.items():
        if site.pinned:
            continue
        for table in range(site.tables):
            if site.tables > 1:
                group = "filters of q, k, v" if site.kind == WEIGHTS else THIRDS[table]
            elif site.heads > 1:
                group = "filters of the projection" if site.kind == WEIGHTS else "attention, head outputs"
            else:
                group = "other filters" if site.kind == WEIGHTS else "other tensors"
            found.setdefault(group, []).append((name, table))
    return found
