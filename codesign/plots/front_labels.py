"""Texts inside a panel of designs: labels of a few points, and lines of equal energy-delay product."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from codesign.labels import Box, place_labels
from codesign.plots.frame import DPI, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Half the length of an EDP label, and a margin.
EDP_LABEL_PIXELS = 0.55 * DPI


def edp_lines(axis: Axes, points: Any, unit: str) -> None:
    """Lines of equal energy-delay product, their value written in the line where the fewest designs are near.

    `points` [n, 2] are latency and energy in the units of the axes, whose product is written as `unit`.
    """
    (x_low, x_high), (y_low, y_high) = axis.get_xlim(), axis.get_ylim()
    products = points[:, 0] * points[:, 1]
    levels = np.geomspace(products.min(), products.max(), 4) if products.max() > products.min() else products[:1]
    spots = axis.transData.transform(points)
    for level in levels:
        first, last = max(x_low, level / y_high), min(x_high, level / y_low)
        if first >= last:
            continue
        axis.plot([first, last], [level / first, level / last], "--", color="0.6", lw=0.7, zorder=1)
        along = first * (last / first) ** np.linspace(0, 1, 101)
        places = axis.transData.transform(np.column_stack((along, level / along)))
        distances = np.array([np.linalg.norm(spots - place, axis=1).min() for place in places])
        to_ends = [np.linalg.norm(places - end, axis=1) for end in (places[0], places[-1])]
        fits = np.minimum(*to_ends) > EDP_LABEL_PIXELS
        if not fits.any():
            continue
        at = along[int(np.argmax(np.where(fits, distances, -1.0)))]
        # With both axes logarithmic the lines are straight, so one angle holds along the whole line.
        angle = math.degrees(math.atan2(*(places[-1] - places[0])[::-1]))
        axis.text(
            at,
            level / at,
            f"EDP {number_text(level)} {unit}",
            fontsize=7,
            color="0.4",
            rotation=angle,
            rotation_mode="anchor",
            ha="center",
            va="center",
            bbox={"fc": "white", "ec": "none", "pad": 0.8},
            zorder=1.5,
        )


def write_labels(axis: Axes, texts: Mapping[int, str], points: Any, line: Any = ()) -> None:
    """Write `texts` (by row of `points` [n, 2]) where they hide least; at most five.

    `line` are rows joined by a drawn line.  The layout must be final: places are found in pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = axis.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    pixels_per_point = DPI / 72
    spots = axis.transData.transform(points)
    # Designs may be covered at need, the front only when nothing else is left: its line counts as many points.
    steps = np.linspace(0.0, 1.0, 12)[:, None]
    drawn = [spots[a] + steps * (spots[b] - spots[a]) for a, b in pairwise(line)]
    hidden = np.concatenate((spots, spots[list(line)], *drawn))
    weights = np.where(np.arange(len(hidden)) < len(spots), 5.0, 60.0)
    obstacles = [Box(*text.get_window_extent(renderer).extents) for text in axis.texts]
    labels = [
        axis.annotate(
            text,
            points[index],
            textcoords="offset points",
            xytext=(0, 0),
            fontsize=8,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.25", "lw": 0.7, "shrinkB": 3},
            bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": "0.6", "lw": 0.6, "alpha": 0.95},
            zorder=6,
        )
        for index, text in texts.items()
    ]
    # The extent of the text alone, without its line; the frame around it adds some points on every side.
    sizes = [Text.get_window_extent(label, renderer).padded(4 * pixels_per_point).size for label in labels]
    inside = Box(*axis.get_window_extent(renderer).extents)
    anchors = spots[list(texts)]
    centres = place_labels(anchors, np.array(sizes), inside, obstacles, hidden, weights, pixels_per_point)
    for label, anchor, centre in zip(labels, anchors, centres, strict=True):
        label.set_position(tuple((np.array(centre) - anchor) / pixels_per_point))
