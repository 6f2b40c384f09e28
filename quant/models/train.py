"""Train a reference model on its data: `python -m quant.models.train NAME --seed N [-o FILE]`.

One thread.  A checkpoint is kept after every epoch; the same command goes on from it after a kill, and ends with the
same weights as a run that was not interrupted, because everything random comes from (seed, epoch).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

from accelsim.problems import AccelsimError, Problem
from quant.data import load_data
from quant.data.dataset import DataSet
from quant.data.glyphs import SIZES, cache_folder, committed_digests
from quant.models.controls import hold_outlier_biases
from quant.models.registry import REFERENCE_NAMES, build_torch, load_reference, weights_file


@dataclass(frozen=True)
class Settings:
    """How a model is trained: AdamW, linear warm-up over a tenth of the steps, cosine to zero.

    `muon`: the matrices of the blocks by Muon instead (orthogonalized momentum, steps as large as AdamW's).
    `bfloat16`: forward passes in that format (the weights stay float32).  `half`: the result is rounded to fp16.
    `start`: the reference model whose trained weights of the same seed it starts from ("": random weights).
    """

    epochs: int
    rate: float
    batch: int = 128
    weight_decay: float = 0.02
    smoothing: float = 0.05
    shift_px: int = 1
    clip: float = 1.0
    muon: bool = False
    bfloat16: bool = False
    half: bool = False
    start: str = ""


SETTINGS: dict[str, Settings] = {
    "glyph_hybrid_narrow": Settings(epochs=25, rate=6e-3),
    "glyph_hybrid_wide": Settings(epochs=16, rate=4e-3),
    "glyph_vit": Settings(epochs=10, rate=2e-3, weight_decay=0.05, muon=True, bfloat16=True, half=True),
    "glyph_vit_small": Settings(epochs=20, rate=3e-3, weight_decay=0.05, muon=True, bfloat16=True, half=True),
    "digits_hybrid": Settings(epochs=60, rate=6e-3, batch=64),
    "glyph_vit_outlier": Settings(
        epochs=1, rate=1e-3, weight_decay=0.05, muon=True, bfloat16=True, half=True, start="glyph_vit"
    ),
}


def data_of(name: str) -> str:
    """The data that a reference model is trained on."""
    return "digits" if name == "digits_hybrid" else "glyphs"


def rate_at(step: int, steps: int, peak: float) -> float:
    """Learning rate of a step: linear over the first tenth, then a cosine to zero."""
    warm = max(steps // 10, 1)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def augment(images: Tensor, shift_px: int, generator: torch.Generator) -> Tensor:
    """Move every image by up to `shift_px` pixels (edges repeat) and invert the contrast of half of them."""
    count, _, height, width = images.shape
    moves = torch.randint(-shift_px, shift_px + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(height) + moves[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + moves[1]).clamp(0, width - 1)
    moved = images[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    signs = torch.randint(0, 2, (count, 1, 1, 1), generator=generator) * 2 - 1
    return moved * signs


def right_answers(model: nn.Module, data: DataSet, batch: int = 250) -> NDArray[np.bool_]:
    """Whether the top-1 answer to every labelled image is right, the model in eval mode."""
    model.eval()
    right = []
    with torch.inference_mode():
        for images, labels in data.batches(batch):
            if labels is None:
                raise AccelsimError(Problem(f"data {data.name}", "accuracy needs labels"))
            right.append((model(images).argmax(dim=1) == labels).numpy())
    return np.concatenate(right)


def accuracy(model: nn.Module, data: DataSet, batch: int = 250) -> float:
    """Share of right top-1 answers on labelled data, the model in eval mode."""
    return float(right_answers(model, data, batch).mean())


@dataclass
class Run:
    """What a checkpoint holds: the model, its optimizers, the settings, and one entry per finished epoch."""

    model: nn.Module
    optimizers: tuple[torch.optim.Optimizer, ...]
    settings: Settings
    log: list[dict[str, Any]]

    def save(self, path: Path) -> None:
        """Write the checkpoint in one step, so that a kill leaves the old or the new one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".tmp")
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        facts = {"settings": asdict(self.settings), "log": self.log}
        torch.save({"model": self.model.state_dict(), "optimizers": states} | facts, part)
        part.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one.  Raises AccelsimError when it was made with other settings."""
        if path.is_file():
            state = torch.load(path, weights_only=True)
            if state["settings"] != asdict(self.settings):
                what = "this checkpoint was made with other settings"
                raise AccelsimError(Problem(str(path), what, str(asdict(self.settings)), ("delete it",)))
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.log = state["log"]


def train(name: str, seed: int, settings: Settings, training: DataSet, validation: DataSet, checkpoint: Path) -> Run:
    """Train to the end of the last epoch, from `checkpoint` if it exists; returns model (eval mode) and log."""
    model = load_reference(settings.start, seed) if settings.start else build_torch(name, seed)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    release = hold_outlier_biases(model, seed) if name == "glyph_vit_outlier" else None
    run = Run(model, _optimizers(model, settings), settings, [])
    run.restore(checkpoint)
    for epoch in range(len(run.log), settings.epochs):
        start = time.process_time()
        loss = _epoch(run, training, (seed, epoch))
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            score = accuracy(model, validation)
        run.log.append({"epoch": epoch + 1, "loss": round(loss, 4), "val_accuracy": round(score, 4),
                        "cpu_s": round(time.process_time() - start, 1)})  # fmt: skip
        run.save(checkpoint)
        print(json.dumps(run.log[-1]), flush=True)
    if release is not None:
        release()
    if settings.half:
        model.half().float()
    model.eval()
    return run


def _optimizers(model: nn.Module, settings: Settings) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW for everything, without weight decay for vectors; with `muon`, Muon for the matrices of the blocks."""
    named = dict(model.named_parameters())
    blocks = [key for key, value in named.items() if settings.muon and value.ndim == 2 and key[0] == "b"]
    rest = [value for key, value in named.items() if key not in blocks]
    decay = settings.weight_decay
    groups = [
        {"params": [value for value in rest if value.ndim > 1], "weight_decay": decay},
        {"params": [value for value in rest if value.ndim <= 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=settings.rate)
    if not blocks:
        return (adam,)
    matrices = [named[key] for key in blocks]
    return adam, torch.optim.Muon(matrices, settings.rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")


def _epoch(run: Run, training: DataSet, key: tuple[int, int]) -> float:
    """One pass over the training images in an order given by `key` = (seed, epoch); returns the mean loss."""
    generator = torch.Generator().manual_seed(key[0] * 100_003 + key[1])
    order = torch.randperm(len(training), generator=generator).numpy()
    settings, images, labels = run.settings, np.asarray(training.images), training.labels
    if labels is None:
        raise AccelsimError(Problem(f"data {training.name}", "training needs labels"))
    run.model.train()
    steps = len(order) // settings.batch
    total = 0.0
    for k in tqdm(range(steps), desc=f"epoch {key[1] + 1} of {settings.epochs}", leave=False):
        rate = rate_at(key[1] * steps + k, settings.epochs * steps, settings.rate)
        for group in [group for optimizer in run.optimizers for group in optimizer.param_groups]:
            group["lr"] = rate
        chosen = order[k * settings.batch : (k + 1) * settings.batch]
        batch = augment(training.preprocess.tensor(images[chosen]), settings.shift_px, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            logits = run.model(batch)
        target = torch.from_numpy(labels[chosen])
        loss = F.cross_entropy(logits.float(), target, label_smoothing=settings.smoothing)
        run.model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(run.model.parameters(), settings.clip)
        for optimizer in run.optimizers:
            optimizer.step()
        total += float(loss)
    return total / max(steps, 1)


def store(name: str, seed: int, run: Run, output: Path) -> dict[str, Any]:
    """Write weights (safetensors) and the facts about them (JSON beside); returns the facts."""
    settings, data = SETTINGS[name], data_of(name)
    test = right_answers(run.model, load_data(data, "test"))
    facts: dict[str, Any] = {
        "model": name,
        "seed": seed,
        "command": f"python -m quant.models.train {name} --seed {seed}",
        "parameters": sum(value.numel() for value in run.model.parameters()),
        "stored_as": "float16 (these values are the model)" if settings.half else "float32",
        "val_accuracy": round(accuracy(run.model, load_data(data, "val")), 5),
        "test_accuracy": round(float(test.mean()), 5),
        "settings": asdict(settings),
        "torch": torch.__version__,
        "cpu_s": round(sum(entry["cpu_s"] for entry in run.log), 1),
        "epochs": run.log,
    }
    if data == "glyphs":
        facts["test_accuracy_seen_families"] = round(float(test[: SIZES["test"][0]].mean()), 5)
        facts["data_sha256"] = committed_digests()
    output.parent.mkdir(parents=True, exist_ok=True)
    state = {
        key: (value.half() if settings.half and value.is_floating_point() else value).contiguous()
        for key, value in run.model.state_dict().items()
    }
    save_file(state, output)
    output.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when the model is trained and stored, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m quant.models.train", description=__doc__)
    parser.add_argument("name", choices=REFERENCE_NAMES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="safetensors file (default: where load_reference looks)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    output = given.output or weights_file(given.name, given.seed)
    checkpoint = cache_folder() / "training" / f"{given.name}_seed{given.seed}.pt"
    try:
        training, validation = (load_data(data_of(given.name), split) for split in ("train", "val"))
        run = train(given.name, given.seed, SETTINGS[given.name], training, validation, checkpoint)
        facts = store(given.name, given.seed, run, output)
    except AccelsimError as error:
        print(error)
        return 2
    checkpoint.unlink(missing_ok=True)
    print(json.dumps({key: value for key, value in facts.items() if key.endswith("accuracy") or key == "cpu_s"}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
