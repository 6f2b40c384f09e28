"""`imagefolder:PATH`: a user's own images, one folder per class or all of them in one folder, read when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from accelsim.problems import AccelsimError, Problem
from quant.data.dataset import DataSet, Preprocess

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Uint8 = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageFiles:
    """Image files in order; a slice of them is read, resized and cropped when it is asked for."""

    files: tuple[Path, ...]
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, part: slice) -> Uint8:
        """Images of a slice, uint8 [n, channels, h, w].  Raises AccelsimError that names every unreadable file."""
        images: list[Uint8] = []
        faults: list[Problem] = []
        for file in self.files[part]:
            try:
                images.append(read_image(file, self.preprocess))
            except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                faults.append(Problem(f"data imagefolder: {file}", f"cannot be read as an image: {error}"))
        if faults:
            raise AccelsimError(faults)
        side = self.preprocess.resolution
        return np.stack(images) if images else np.zeros((0, self.preprocess.channels, side, side), np.uint8)


def image_folder(path: str, split: str, preprocess: Preprocess | None) -> DataSet:
    """All images below a folder: labelled by its sub-folders in order of their names, or unlabelled when it has none.

    Raises AccelsimError without a preprocessing, without a folder, and when there are no images.
    """
    name, root = f"imagefolder:{path}", Path(path)
    if preprocess is None:
        raise AccelsimError(Problem(f"data {name}", "a folder of images needs the preprocessing of a model"))
    if not root.is_dir():
        raise AccelsimError(Problem(f"data {name}", "there is no such folder", "a folder per class, or of images"))
    classes = tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir() and _images_below(folder)))
    if classes:
        groups = [_images_below(root / folder) for folder in classes]
        labels = np.concatenate([np.full(len(group), k, np.int64) for k, group in enumerate(groups)])
        files = tuple(file for group in groups for file in group)
        return DataSet(name, split, ImageFiles(files, preprocess), labels, classes, preprocess)
    files = _images_below(root)
    if not files:
        raise AccelsimError(Problem(f"data {name}", "there are no images in it", f"files {', '.join(SUFFIXES)}"))
    return DataSet(name, split, ImageFiles(files, preprocess), None, (), preprocess)


def _images_below(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()))


def read_image(file: Path, preprocess: Preprocess) -> Uint8:
    """One image as uint8 [channels, resolution, resolution]: shorter side to `resize_px`, then the middle."""
    with Image.open(file) as stored:
        image = stored.convert("L" if preprocess.channels == 1 else "RGB")
    side = preprocess.resolution
    shorter = preprocess.resize_px or side
    width, height = image.size
    # The longer side keeps the proportions, truncated, as torchvision does.
    size = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    image = image.resize(size, _FILTERS[preprocess.interpolation])
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    array = np.asarray(image.crop((left, top, left + side, top + side)), np.uint8)
    return array[None] if preprocess.channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))
