"""Images: reproducible to the byte, well posed, and read as each model's preprocessing says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import get_data_path
from PIL import Image

from accelsim.problems import AccelsimError
from quant.data import glyphs as glyphs_module
from quant.data import load_data, outlines
from quant.data.dataset import DataSet, Preprocess
from quant.data.folder import read_image
from quant.data.glyphs import digest, glyphs
from quant.data.small import GREY_32

RGB = Preprocess(32, 3, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5), resize_px=40)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A cache folder of its own and splits of a few images with their own committed digests."""
    monkeypatch.setenv("HYBRID_VIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(glyphs_module, "SIZES", {"train": (130, 0), "val": (70, 0), "test": (80, 40)})
    table = tmp_path / "digests.json"
    monkeypatch.setattr(glyphs_module, "HASH_FILE", table)
    drawn = {split: glyphs_module.draw_split(split) for split in ("train", "val", "test")}
    table.write_text(json.dumps({"sha256": {split: digest(*pair) for split, pair in drawn.items()}}))
    return drawn


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_glyphs_are_the_committed_bytes(split):
    images, labels = glyphs(split)
    seen, unseen = glyphs_module.SIZES[split]
    assert images.shape == (seen + unseen, 1, 32, 32)
    assert digest(images, labels) == json.loads(glyphs_module.HASH_FILE.read_text())["sha256"][split]
    for part in (labels[:seen], labels[seen:]):
        counts = np.bincount(part, minlength=62)
        assert not len(part) or counts.max() - counts.min() <= 1


def test_no_image_is_in_two_splits():
    seen = [{image.tobytes() for image in glyphs(split)[0]} for split in ("train", "val", "test")]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert [len(part) for part in seen] == [40_000, 6_000, 25_000]


def test_a_second_call_reads_the_cache_and_a_damaged_cache_is_drawn_again(small, monkeypatch):
    first = glyphs("train")
    assert np.array_equal(first[0], small["train"][0])
    file = glyphs_module.cache_folder() / "glyphs_train_images.npy"
    damaged = first[0].copy()
    damaged[0, 0, 0, 0] ^= 1
    np.save(file, damaged)
    assert np.array_equal(glyphs("train")[0], first[0])
    monkeypatch.setattr(glyphs_module, "draw_split", lambda split: pytest.fail("the cache was not read"))
    assert np.array_equal(glyphs("train")[0], first[0])


def test_other_bytes_than_committed_are_an_error(small):
    table = json.loads(glyphs_module.HASH_FILE.read_text())
    table["sha256"]["val"] = "0" * 64
    glyphs_module.HASH_FILE.write_text(json.dumps(table))
    with pytest.raises(AccelsimError, match="SHA-256"):
        glyphs("val")


def test_test_ends_with_the_unseen_families(small, monkeypatch):
    """Without the other families' masks the first part of every split is blank, the second one is not."""
    masks = outlines.all_masks()
    unseen = [face.family in outlines.UNSEEN_FAMILIES for face in outlines.FACES]
    masks[[k for k, flag in enumerate(unseen) if not flag]] = 0
    monkeypatch.setattr(outlines, "all_masks", lambda: masks)
    monkeypatch.setattr(glyphs_module, "_bars", lambda rng, count: np.zeros((count, 32, 32), np.int32))
    images, _ = glyphs_module.draw_split("test")
    # Local means are level without a glyph, noise aside.
    blocks = images.reshape(-1, 4, 8, 4, 8).mean(axis=(2, 4)).reshape(len(images), -1)
    spread = blocks.max(axis=1) - blocks.min(axis=1)
    assert np.median(spread[:80]) < 15
    assert np.median(spread[80:]) > 30


def test_every_text_face_of_matplotlib_is_used_or_known_to_be_unfit():
    shipped = {path.name for path in (Path(get_data_path()) / "fonts" / "ttf").glob("*.ttf")}
    used = {face.file for face in outlines.FACES}
    assert len(used) == 22
    assert used <= shipped
    assert len({face.family for face in outlines.FACES}) == 6
    for name in shipped - used:
        font = outlines.TTFont(outlines.font_file(name), lazy=True)
        drawable = all(ord(character) in font.getBestCmap() for character in outlines.CLASSES)
        assert not drawable or name in ("LastResortHE-Regular.ttf", "cmex10.ttf", "cmsy10.ttf")


def test_size_and_baseline_tell_small_letters_from_capitals():
    for face, masks in zip(outlines.FACES, outlines.all_masks(), strict=True):
        assert all(mask.any() for mask in masks), face
        heights = {
            letter: np.flatnonzero(mask.any(axis=1)) for letter, mask in zip(outlines.CLASSES, masks, strict=True)
        }
        for letter in "cosvwxz":
            small, capital = heights[letter], heights[letter.upper()]
            assert len(capital) >= 1.2 * len(small), (face, letter)
            assert abs(int(capital[-1]) - int(small[-1])) <= 5, (face, letter)  # some italics have tails


def test_an_outline_is_filled_by_the_winding_rule():
    """A clockwise square with a counter-clockwise hole, and one whose inner square turns the same way."""

    def square(low, high, turn):
        corners = np.array([[low, low], [high, low], [high, high], [low, high]], float)[::turn]
        return np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)

    size = outlines.SIDE_PX * outlines.OVERSAMPLE
    outer, inner = square(0.25 * size, 0.75 * size, 1), (0.375 * size, 0.625 * size)
    hole = outlines._fill(np.concatenate([outer, square(*inner, -1)]))
    full = outlines._fill(np.concatenate([outer, square(*inner, 1)]))
    assert (full == 255).sum() == 40 * 40
    assert (hole == 255).sum() == 40 * 40 - 20 * 20
    assert set(np.unique(full)) == {0, 255}


def test_an_affine_map_without_change_keeps_the_mask():
    """At one mask pixel per output pixel the middle 32 × 32 of the mask come out."""
    mask = np.random.default_rng(0).integers(0, 256, (1, 1, 80, 80)).astype(np.uint8)
    places = (2 * np.arange(32) - 31) * 128 + 80 * 128
    x = np.broadcast_to(places[None, None, :], (1, 32, 32)).astype(np.int32)
    y = np.broadcast_to(places[None, :, None], (1, 32, 32)).astype(np.int32)
    out = glyphs_module._sample(mask, np.zeros(1, np.int64), np.zeros(1, np.int64), x, y)
    # (255 · 256 · 256 >> 8) >> 8 is exact.
    assert np.array_equal(out[0], mask[0, 0, 24:56, 24:56])


def test_digits_are_split_without_overlap():
    parts = [load_data("digits", split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [1097, 250, 450]
    assert parts[0].classes == tuple("0123456789")
    assert all(part.images[:1].shape == (1, 1, 32, 32) for part in parts)
    assert sum(len({image.tobytes() for image in part.images}) for part in parts) == 1797
    assert int(np.max(parts[0].images)) == 255


def test_batches_are_normalized_in_order_and_complete():
    data = load_data("digits", "val").first(70)
    batches = list(data.batches(32))
    assert [len(images) for images, _ in batches] == [32, 32, 6]
    assert batches[0][0].dtype == torch.float32
    assert torch.equal(torch.cat([labels for _, labels in batches]), torch.from_numpy(data.labels))
    expected = (np.asarray(data.images[:]).astype(np.float32) / 255 - 0.5) / 0.25
    assert np.allclose(torch.cat([images for images, _ in batches]).numpy(), expected, rtol=0, atol=1e-6)
    with pytest.raises(AccelsimError, match="a batch of 0"):
        next(data.batches(0))


def folder_of(root: Path, classes: dict[str, int]) -> Path:
    rng = np.random.default_rng(1)
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            Image.fromarray(rng.integers(0, 256, (48, 60, 3)).astype(np.uint8)).save(root / name / f"{k}.png")
    return root


def test_a_folder_per_class_gives_labels(tmp_path):
    data = load_data(f"imagefolder:{folder_of(tmp_path, {'dog': 2, 'cat': 3})}", "val", RGB)
    assert isinstance(data, DataSet)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    images, labels = next(data.batches(4))
    assert images.shape == (4, 3, 32, 32)
    assert labels.tolist() == [0, 0, 0, 1]


def test_a_folder_of_images_is_unlabelled(tmp_path):
    data = load_data(f"imagefolder:{folder_of(tmp_path, {'.': 3})}", "val", RGB)
    assert (data.labels, len(data)) == (None, 3)
    assert next(data.batches(3))[1] is None


@pytest.mark.parametrize("size", [(60, 48), (48, 60), (40, 40), (333, 41)])
def test_images_are_resized_and_cut_as_said(tmp_path, size):
    """A picture whose grey level is its place: the middle of the crop is the middle of the picture."""
    across = np.linspace(0, 255, size[0])[None, :].repeat(size[1], axis=0)
    down = np.linspace(0, 255, size[1])[:, None].repeat(size[0], axis=1)
    picture = np.stack([across, down, np.zeros_like(down)], axis=2).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", RGB).astype(float)
    assert image.shape == (3, 32, 32)
    longer = max(size) * 40 // min(size)
    spans = (255 * 31 / (longer if size[0] >= size[1] else 40), 255 * 31 / (longer if size[1] > size[0] else 40))
    for channel, axis, span in ((0, 1, spans[0]), (1, 0, spans[1])):
        line = image[channel].mean(axis=1 - axis)
        assert abs(line.mean() - 127.5) < 6
        assert abs((line[-1] - line[0]) - span) < 6


def test_channels_are_normalized_each_by_its_own_numbers(tmp_path):
    Image.new("RGB", (40, 40), (51, 102, 204)).save(tmp_path / "a.png")
    images, _ = next(load_data(f"imagefolder:{tmp_path}", "test", RGB).batches(1))
    expected = torch.tensor([(0.2 - 0.5) / 0.2, (0.4 - 0.4) / 0.25, (0.8 - 0.3) / 0.5])
    assert torch.allclose(images[0, :, 5, 5], expected, atol=1e-6)


def test_unreadable_images_are_named_in_one_error(tmp_path):
    folder_of(tmp_path, {"a": 2})
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    (tmp_path / "a" / "cut.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:200])
    data = load_data(f"imagefolder:{tmp_path}", "val", RGB)
    with pytest.raises(AccelsimError) as caught:
        list(data.batches(10))
    assert [problem.where.rpartition("/")[2] for problem in caught.value.problems] == ["broken.png", "cut.png"]


@pytest.mark.parametrize(
    ("name", "split", "preprocess", "words"),
    [
        ("gliphs", "val", None, "unknown data"),
        ("imagefolder:", "val", RGB, "unknown data"),
        ("glyphs", "dev", None, "unknown split"),
        ("digits", "val", RGB, "3 × 32 × 32"),
        ("imagefolder:/nowhere/at/all", "val", RGB, "no such folder"),
        ("imagefolder:/", "val", None, "needs the preprocessing"),
    ],
)
def test_bad_requests_say_what_is_possible(name, split, preprocess, words):
    with pytest.raises(AccelsimError, match=words):
        load_data(name, split, preprocess)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(AccelsimError, match="no images"):
        load_data(f"imagefolder:{tmp_path}", "val", RGB)


@pytest.mark.parametrize(
    "change",
    [{"channels": 2}, {"mean": (0.5,)}, {"interpolation": "lanczos"}, {"resize_px": 31}, {"std": (0.1, 0.0, 0.1)}],
)
def test_preprocessing_is_checked(change):
    given = {"resolution": 32, "channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    Preprocess(**given)
    with pytest.raises(AccelsimError):
        Preprocess(**(given | change))


def test_the_default_preprocessing_is_grey():
    assert load_data("digits", "test").preprocess == GREY_32
