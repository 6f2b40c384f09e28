"""What tests ask of a figure: its texts, which of them overlap, and made-up studies to draw."""

import random
from itertools import combinations

from matplotlib.text import Text

from codesign.labels import Box


def visible_texts(figure):
    """Every text that is drawn; lines of equal EDP carry slanted ones, whose upright boxes say little."""
    figure.draw_without_rendering()
    shown = [item for item in figure.findobj(Text) if item.get_visible() and item.get_text().strip()]
    ticks = {id(tick) for axis in axes_of(figure) for tick in hidden_ticks(axis)}
    return [item for item in shown if item.get_rotation() % 90 == 0 and id(item) not in ticks]


def axes_of(figure):
    return [*figure.axes, *(axis for part in figure.subfigs for axis in part.axes)]


def hidden_ticks(axis):
    """Labels that matplotlib keeps for ticks outside the limits, or of an axis that is off."""
    for line, (low, high) in ((axis.xaxis, sorted(axis.get_xlim())), (axis.yaxis, sorted(axis.get_ylim()))):
        for tick in [*line.get_major_ticks(), *line.get_minor_ticks()]:
            if not (low <= tick.get_loc() <= high) or not axis.axison:
                yield from (tick.label1, tick.label2)
    if not axis.axison:
        yield from (axis.xaxis.label, axis.yaxis.label)


def texts_in(figure):
    return [item.get_text() for item in visible_texts(figure)]


def overlapping_texts(figure):
    """Pairs of texts whose boxes share an area."""
    boxes = [(item.get_text(), Box(*Text.get_window_extent(item).extents)) for item in visible_texts(figure)]
    assert len(boxes) > 3
    return [(one[0], other[0]) for one, other in combinations(boxes, 2) if one[1].overlaps(other[1])]


def thousands_of_rows(count, workloads=1, seed=0):
    """A made-up study over five axes in which 1 design of 13 is infeasible."""
    chosen = random.Random(seed)
    rows = []
    for point in range(count):
        groups, kib = chosen.choice([2, 4, 8, 16]), chosen.choice([128, 256, 1024])
        axes = {
            "accelerator.engines.mult.pixel_groups": groups,
            "accelerator.activation_buffer.capacity_bits": kib * 8192,
            "accelerator.dram.bandwidth_bits_per_s": chosen.choice(["default", 51.2e9, 102.4e9]),
        }
        design = {"arch": chosen.choice(["m2vit", "trio_vit"]), "plan": chosen.choice(["uniform8", "m2q", "w4a8"])}
        row = {
            "point": point, "status": "infeasible", "model": "efficientvit_b1",
            "resolution": 224 + 32 * (point % workloads), **design, **axes,
            "latency_s": None, "energy_pj": None, "edp_pj_s": None, "area_mm2": None, "power_w": None,
        }  # fmt: skip
        if point % 13:
            latency_s, energy_pj = (
                4e-3 / groups**0.5 * chosen.uniform(0.8, 1.2),
                3e9 / kib**0.2 * chosen.uniform(0.9, 1.1),
            )
            row |= {
                "status": "ok", "latency_s": latency_s, "energy_pj": energy_pj, "edp_pj_s": latency_s * energy_pj,
                "area_mm2": 1 + groups / 8 + kib / 256, "power_w": energy_pj * 1e-12 / latency_s,
                "utilization": {"mult": {"spatial": 0.5}},
            }  # fmt: skip
        rows.append(row)
    return rows
