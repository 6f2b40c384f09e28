"""`glyphs`: 62 classes (0-9, A-Z, a-z) at 32 × 32 in grey, drawn from a seed; nothing is downloaded.

An image is a glyph of one text face under a random affine map, with a neighbouring glyph and bars as clutter, a random
contrast of either sign, and noise.  All pixel arithmetic is in integers.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from accelsim.problems import AccelsimError, Problem
from quant.data import outlines
from quant.data.outlines import CLASSES, EM_PX, FACES, SIDE_PX, UNSEEN_FAMILIES

SIDE = 32
SEED = 20241010
CHUNK = 1000
# Images of every split: from the families seen in training, from families seen nowhere else.
SIZES: dict[str, tuple[int, int]] = {"train": (40_000, 0), "val": (6_000, 0), "test": (20_000, 5_000)}
HASH_FILE = Path(__file__).with_name("glyphs_sha256.json")

Uint8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


def glyphs(split: str) -> tuple[Uint8, Int64]:
    """Images [n, 1, 32, 32] and labels [n] of a split; generated once, then read from the cache folder.

    Of `test`, the first 20,000 images have faces of the training families, the last 5,000 faces of unseen families.
    Raises AccelsimError for an unknown split and when the bytes differ from the committed SHA-256.
    """
    if split not in SIZES:
        raise AccelsimError(Problem("data glyphs", f"unknown split {split!r}", f"one of {', '.join(SIZES)}"))
    folder = cache_folder()
    images_file, labels_file = folder / f"glyphs_{split}_images.npy", folder / f"glyphs_{split}_labels.npy"
    if images_file.is_file() and labels_file.is_file():
        images, labels = np.load(images_file), np.load(labels_file)
        if digest(images, labels) == committed_digests()[split]:
            return images, labels
    images, labels = draw_split(split)
    _check(split, digest(images, labels))
    folder.mkdir(parents=True, exist_ok=True)
    for path, array in ((images_file, images), (labels_file, labels)):
        part = path.with_suffix(f".{os.getpid()}.tmp")
        with part.open("wb") as stream:
            np.save(stream, array)
        part.replace(path)
    return images, labels


def cache_folder() -> Path:
    """Where generated data are kept: HYBRID_VIT_CACHE, or ~/.cache/hybrid-vit-codesign."""
    given = os.environ.get("HYBRID_VIT_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "hybrid-vit-codesign"


def digest(images: Uint8, labels: Int64) -> str:
    """SHA-256 over the images' bytes, then the labels' (little-endian int64)."""
    return hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


def committed_digests() -> dict[str, str]:
    """SHA-256 of every split, as committed."""
    table: dict[str, str] = json.loads(HASH_FILE.read_text(encoding="utf-8"))["sha256"]
    return table


def _check(split: str, found: str) -> None:
    expected = committed_digests()[split]
    if found != expected:
        raise AccelsimError(
            Problem(
                f"data glyphs: {split}",
                f"the generated images have SHA-256 {found}, not the committed one; accuracies would not compare",
                expected,
                ("the font files of another matplotlib version", "a numpy whose PCG64 stream is unchanged"),
            )
        )


def draw_split(split: str) -> tuple[Uint8, Int64]:
    """Generate a split (see `glyphs`), classes as equally frequent as they can be, in random order."""
    rng = np.random.Generator(np.random.PCG64([SEED, list(SIZES).index(split)]))
    unseen = np.array([face.family in UNSEEN_FAMILIES for face in FACES])
    masks = outlines.all_masks()
    seen_part = _draw(rng, masks, np.flatnonzero(~unseen), SIZES[split][0])
    unseen_part = _draw(rng, masks, np.flatnonzero(unseen), SIZES[split][1])
    return np.concatenate([seen_part[0], unseen_part[0]]), np.concatenate([seen_part[1], unseen_part[1]])


def _draw(rng: np.random.Generator, masks: Uint8, faces: Int64, count: int) -> tuple[Uint8, Int64]:
    """`count` images of the given faces."""
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(CLASSES))
    images = np.zeros((count, 1, SIDE, SIDE), np.uint8)
    for start in tqdm(range(0, count, CHUNK), desc="glyphs", unit="k images", disable=count < 2 * CHUNK, leave=False):
        stop = min(start + CHUNK, count)
        images[start:stop, 0] = _chunk(rng, masks, faces, labels[start:stop])
    return images, labels


def _chunk(rng: np.random.Generator, masks: Uint8, faces: Int64, labels: Int64) -> Uint8:
    count = len(labels)
    face = faces[rng.integers(0, len(faces), count)]
    x, y = _positions(rng, count)
    ink = _sample(masks, face, labels, x, y)
    clutter = np.maximum(_neighbour(rng, masks, face, x, y), _bars(rng, count))
    cover = ink + clutter * (255 - ink) // 255
    paper = rng.integers(0, 256, (count, 1, 1))
    # The glyph is at least 56 grey levels away from the paper, on the side with more room.
    room = np.where(paper < 128, 255 - paper, paper)
    contrast = rng.integers(56, room + 1)
    grey = paper + np.where(paper < 128, contrast, -contrast) * cover // 255
    strength = rng.integers(6, 41, (count, 1, 1))
    noise = rng.integers(-128, 129, (3, count, SIDE, SIDE), dtype=np.int16).sum(axis=0, dtype=np.int32)
    return np.asarray(np.clip(grey + noise * strength // 128, 0, 255), np.uint8)


def _positions(rng: np.random.Generator, count: int) -> tuple[Int32, Int32]:
    """Where every output pixel lies in the mask, in 1/256 mask pixels: [count, 32, 32] each, a random affine map."""

    def between(low: float, high: float) -> NDArray[np.float64]:
        return low + (high - low) * (rng.integers(0, 1025, count) / 1024)

    half_tangent = between(-0.14, 0.14)  # ±15.9 degrees
    cosine = (1 - half_tangent * half_tangent) / (1 + half_tangent * half_tangent)
    sine = 2 * half_tangent / (1 + half_tangent * half_tangent)
    em_x, em_y = between(21, 29), between(21, 29)
    shear = between(-0.2, 0.2)
    step_x, step_y = EM_PX / em_x, EM_PX / em_y
    maps = (cosine * step_x, (sine + shear * cosine) * step_x, -sine * step_y, (cosine - shear * sine) * step_y)
    a, b, c, d = (np.rint(entry * 256).astype(np.int32)[:, None, None] for entry in maps)
    shift_x, shift_y = (rng.integers(-6, 7, (count, 1, 1)).astype(np.int32) for _ in range(2))  # in half pixels
    # In half output pixels from the middle, so that everything is an integer.
    places = 2 * np.arange(SIDE, dtype=np.int32) - (SIDE - 1)
    across, down = places[None, None, :] - shift_x, places[None, :, None] - shift_y
    middle = SIDE_PX * 128
    return (a * across + b * down) // 2 + middle, (c * across + d * down) // 2 + middle


def _sample(masks: Uint8, face: Int64, labels: Int64, x: Int32, y: Int32) -> Int32:
    """Bilinear coverage, 0 … 255, at positions in 1/256 mask pixels; outside a mask it is 0."""
    # The middle of mask pixel k is k + 1/2.
    left, top = (x - 128) >> 8, (y - 128) >> 8
    right_part, low_part = (x - 128) & 255, (y - 128) & 255
    flat = masks.reshape(-1)
    base = ((face * len(CLASSES) + labels) * (SIDE_PX * SIDE_PX)).astype(np.int32)[:, None, None]
    total = np.zeros(x.shape, np.int32)
    for down in (0, 1):
        for across in (0, 1):
            column, row = left + across, top + down
            valid = (column >= 0) & (column < SIDE_PX) & (row >= 0) & (row < SIDE_PX)
            at = base + np.clip(row, 0, SIDE_PX - 1) * SIDE_PX + np.clip(column, 0, SIDE_PX - 1)
            weight = (right_part if across else 256 - right_part) * (low_part if down else 256 - low_part)
            total += np.where(valid, flat[at], 0) * weight >> 8
    return total >> 8


def _neighbour(rng: np.random.Generator, masks: Uint8, face: Int64, x: Int32, y: Int32) -> Int32:
    """Coverage of another glyph of the same face beside the first, for three of four images."""
    count = len(face)
    label = rng.integers(0, len(CLASSES), count)
    distance = rng.integers(30 * 256, 50 * 256, (count, 1, 1)) * rng.choice(np.array([-1, 1]), (count, 1, 1))
    strength = rng.integers(100, 256, (count, 1, 1)) * (rng.integers(0, 4, (count, 1, 1)) > 0)
    beside = _sample(masks, face, label, (x + distance).astype(np.int32), y)
    return np.asarray(beside * strength >> 8, np.int32)


def _bars(rng: np.random.Generator, count: int) -> Int32:
    """Coverage of up to two straight bars of random direction, place, width and strength."""
    places = 2 * np.arange(SIDE, dtype=np.int32) - (SIDE - 1)
    cover = np.zeros((count, SIDE, SIDE), np.int32)
    for _ in range(2):
        a, b = rng.integers(-64, 65, (2, count, 1, 1))
        offset = rng.integers(-64 * 31, 64 * 31 + 1, (count, 1, 1))
        width = rng.integers(32, 160, (count, 1, 1))
        strength = rng.integers(30, 220, (count, 1, 1)) * (rng.integers(0, 3, (count, 1, 1)) == 0)
        distance = np.abs(a * places[None, None, :] + b * places[None, :, None] - offset)
        cover = np.maximum(cover, np.where(distance < width, strength, 0))
    return cover.astype(np.int32)
