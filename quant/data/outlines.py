"""Masks of the 62 classes in the text faces shipped with matplotlib, rasterized from their outlines.

The outlines are read as integers from the font files and filled here, so that neither the version of FreeType nor its
hinting decides a byte: only the font files do.  Float64 is used for +, −, ×, ÷ of single elements only, which IEEE 754
defines exactly.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from fontTools.pens.basePen import BasePen  # type: ignore[import-untyped]
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from numpy.typing import NDArray

from accelsim.problems import AccelsimError, Problem

CLASSES = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Face:
    """One font file and the family that it belongs to."""

    file: str
    family: str


# Every text face in matplotlib's ttf folder.  Left out although they claim these characters: LastResortHE (boxes that
# stand for missing glyphs), cmex10 and cmsy10 (mathematical symbols under the codes of letters).
FACES: tuple[Face, ...] = (
    Face("DejaVuSans.ttf", "DejaVu Sans"),
    Face("DejaVuSans-Bold.ttf", "DejaVu Sans"),
    Face("DejaVuSans-Oblique.ttf", "DejaVu Sans"),
    Face("DejaVuSans-BoldOblique.ttf", "DejaVu Sans"),
    Face("DejaVuSansMono.ttf", "DejaVu Sans Mono"),
    Face("DejaVuSansMono-Bold.ttf", "DejaVu Sans Mono"),
    Face("DejaVuSansMono-Oblique.ttf", "DejaVu Sans Mono"),
    Face("DejaVuSansMono-BoldOblique.ttf", "DejaVu Sans Mono"),
    Face("DejaVuSerif.ttf", "DejaVu Serif"),
    Face("DejaVuSerif-Bold.ttf", "DejaVu Serif"),
    Face("DejaVuSerif-Italic.ttf", "DejaVu Serif"),
    Face("DejaVuSerif-BoldItalic.ttf", "DejaVu Serif"),
    Face("cmr10.ttf", "Computer Modern Roman"),
    Face("cmb10.ttf", "Computer Modern Roman"),
    Face("cmti10.ttf", "Computer Modern Roman"),
    Face("cmmi10.ttf", "Computer Modern Roman"),
    Face("STIXGeneral.ttf", "STIX General"),
    Face("STIXGeneralBol.ttf", "STIX General"),
    Face("STIXGeneralItalic.ttf", "STIX General"),
    Face("STIXGeneralBolIta.ttf", "STIX General"),
    Face("cmss10.ttf", "Computer Modern Sans and Typewriter"),
    Face("cmtt10.ttf", "Computer Modern Sans and Typewriter"),
)
UNSEEN_FAMILIES = ("STIX General", "Computer Modern Sans and Typewriter")

EM_PX = 48  # one em in a mask
SIDE_PX = 80  # side of a mask; the widest glyph is 1.2 em
MIDDLE_EM = 0.32  # height above the baseline of the mask's middle: half way between descenders and ascenders
OVERSAMPLE = 4  # sub-pixel samples along each axis
CURVE_STEPS = 8  # straight pieces of one quadratic curve

Uint8 = NDArray[np.uint8]
Float64 = NDArray[np.float64]


def font_file(name: str) -> Path:
    """Where matplotlib keeps the font file.  Raises AccelsimError when this matplotlib does not ship it."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    if not path.is_file():
        raise AccelsimError(
            Problem("data glyphs", f"matplotlib {matplotlib.__version__} does not ship {name}", "matplotlib ≥ 3.9")
        )
    return path


def face_masks(face: Face) -> Uint8:
    """Coverage [62, side, side], 0 … 255, of every class: em size and baseline kept, advance width centred."""
    # The Computer Modern files carry creation dates before 1970, which fontTools would report for each of them.
    logging.getLogger("fontTools.ttLib.tables._h_e_a_d").setLevel(logging.ERROR)
    font = TTFont(font_file(face.file), lazy=True)
    glyphs, names, em = font.getGlyphSet(), font.getBestCmap(), font["head"].unitsPerEm
    masks = np.zeros((len(CLASSES), SIDE_PX, SIDE_PX), np.uint8)
    for k, character in enumerate(CLASSES):
        glyph = glyphs[names[ord(character)]]
        pen = _StraightPen(glyphs)
        glyph.draw(pen)
        middle = np.array([glyph.width / 2, MIDDLE_EM * em])
        pieces = (np.array(pen.pieces) - middle) * (EM_PX / em) * np.array([1.0, -1.0]) + SIDE_PX / 2
        masks[k] = _fill(pieces * OVERSAMPLE)
    return masks


def all_masks() -> Uint8:
    """Masks [22, 62, side, side] of all faces, in the order of `FACES`."""
    return np.stack([face_masks(face) for face in FACES])


class _StraightPen(BasePen):  # type: ignore[misc]
    """Collects the straight pieces of an outline in font units, curves cut into `CURVE_STEPS` pieces."""

    def __init__(self, glyphs: Any) -> None:
        super().__init__(glyphs)
        self.points: list[tuple[float, float]] = []
        self.pieces: list[tuple[tuple[float, float], tuple[float, float]]] = []

    def _moveTo(self, pt: tuple[float, float]) -> None:  # noqa: N802
        self.points = [pt]

    def _lineTo(self, pt: tuple[float, float]) -> None:  # noqa: N802
        self.pieces.append((self.points[-1], pt))
        self.points.append(pt)

    def _qCurveToOne(self, pt1: tuple[float, float], pt2: tuple[float, float]) -> None:  # noqa: N802
        (x0, y0), (x1, y1), (x2, y2), steps = self.points[-1], pt1, pt2, CURVE_STEPS
        for k in range(1, steps + 1):
            p, q, r = (steps - k) * (steps - k), 2 * (steps - k) * k, k * k
            area = steps * steps
            self._lineTo(((p * x0 + q * x1 + r * x2) / area, (p * y0 + q * y1 + r * y2) / area))

    def _closePath(self) -> None:  # noqa: N802
        self._lineTo(self.points[0])


def _fill(pieces: Float64) -> Uint8:
    """Coverage of a mask by the non-zero winding rule at the middles of `OVERSAMPLE`² sub-pixels per pixel."""
    size = SIDE_PX * OVERSAMPLE
    (x0, y0), (x1, y1) = pieces[:, 0].T[:, :, None], pieces[:, 1].T[:, :, None]
    row_middles = np.arange(size, dtype=np.float64)[None, :] + 0.5
    crosses = (y0 <= row_middles) != (y1 <= row_middles)
    piece, row = np.nonzero(crosses)
    share = (row_middles[0, row] - y0[piece, 0]) / (y1[piece, 0] - y0[piece, 0])
    at = x0[piece, 0] + share * (x1[piece, 0] - x0[piece, 0])
    column = np.clip(np.ceil(at - 0.5).astype(np.int64), 0, size)
    turns = np.zeros((size, size + 1), np.int32)
    np.add.at(turns, (row, column), np.where(y1[piece, 0] > y0[piece, 0], 1, -1))
    inside = np.cumsum(turns, axis=1)[:, :size] != 0
    covered = inside.reshape(SIDE_PX, OVERSAMPLE, SIDE_PX, OVERSAMPLE).sum(axis=(1, 3))
    return np.asarray(covered * 255 // (OVERSAMPLE * OVERSAMPLE), np.uint8)
