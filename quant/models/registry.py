"""Torch models by the names of the torch-free builders, and the committed weights of the reference models."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from accelsim.problems import AccelsimError, Problem
from accelsim.workloads.efficientvit import LARGE_VARIANTS, VARIANTS
from accelsim.workloads.reference_models import HYBRIDS, RESOLUTION, VITS
from accelsim.workloads.registry import resolve
from accelsim.workloads.vit import VARIANTS as VIT_VARIANTS
from quant.data.dataset import Preprocess
from quant.data.glyphs import cache_folder
from quant.data.small import GREY_32
from quant.models.families import FAMILIES
from quant.models.hybrid import efficientvit, efficientvit_large, reference_hybrid
from quant.models.vit import VisionTransformer

# Preprocessing of the released checkpoints.  EfficientViT: mit-han-lab/efficientvit@de7d773 (crop ratio 0.95 for B0 and
# B1, no border for the others); DeiT and ViT: timm@aa4b585 (crop ratio 0.9; ViT centres every channel at one half).
CROPPED = ("efficientvit_b0", "efficientvit_b1")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5)
REFERENCE_NAMES: tuple[str, ...] = (*HYBRIDS, *VITS)
TORCH_NAMES: tuple[str, ...] = (*REFERENCE_NAMES, *VARIANTS, *LARGE_VARIANTS, *VIT_VARIANTS, *FAMILIES)
WEIGHTS = Path(__file__).with_name("weights")


def build_torch(name: str, seed: int = 0, resolution: int | None = None) -> nn.Module:
    """The network `name` (one of `TORCH_NAMES`) with random weights of a seed, in eval mode.

    `resolution` in pixels matters to models with position embeddings or relative biases only; None: the usual one.
    The state of torch's global generator is left as it was.  Raises AccelsimError for an unknown name or resolution.
    """
    if name not in TORCH_NAMES:
        raise AccelsimError(Problem("model", f"no torch model {name!r}", f"one of {', '.join(TORCH_NAMES)}"))
    pixels = resolve(name, resolution)[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(name, pixels).eval()


def _build(name: str, resolution: int) -> nn.Module:
    if name in FAMILIES:
        return FAMILIES[name](name, resolution)
    if name in HYBRIDS:
        return reference_hybrid(HYBRIDS[name])
    if name in VARIANTS:
        return efficientvit(VARIANTS[name])
    if name in LARGE_VARIANTS:
        return efficientvit_large(LARGE_VARIANTS[name])
    return VisionTransformer(VITS[name] if name in VITS else VIT_VARIANTS[name], resolution)


def preprocess_of(name: str, resolution: int | None = None) -> Preprocess:
    """What the released checkpoint of a network (one of `TORCH_NAMES`) was trained to see, at a resolution in pixels.

    Raises AccelsimError for an unknown name or resolution.
    """
    if name in REFERENCE_NAMES:
        return GREY_32
    if name not in TORCH_NAMES:
        raise AccelsimError(Problem("model", f"no torch model {name!r}", f"one of {', '.join(TORCH_NAMES)}"))
    pixels = resolve(name, resolution)[1]
    if name in VIT_VARIANTS:
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if name.startswith("deit") else (HALVES, HALVES)
        return Preprocess(pixels, 3, mean, std, resize_px=math.floor(pixels / 0.9))
    return Preprocess(
        pixels, 3, IMAGENET_MEAN, IMAGENET_STD, resize_px=math.ceil(pixels / 0.95) if name in CROPPED else None
    )


def weights_file(name: str, seed: int) -> Path:
    """Where the trained weights of a reference model are: seed 0 in the package, others in the cache folder."""
    if seed == 0:
        return WEIGHTS / f"{name}.safetensors"
    return cache_folder() / "weights" / f"{name}_seed{seed}.safetensors"


def load_reference(name: str, seed: int = 0) -> nn.Module:
    """A trained reference model in eval mode, float32; weights stored as fp16 are the model, not its approximation.

    Raises AccelsimError for another name, and for a seed that was not trained on this machine (only 0 is committed).
    """
    if name not in REFERENCE_NAMES:
        raise AccelsimError(Problem("model", f"no reference model {name!r}", f"one of {', '.join(REFERENCE_NAMES)}"))
    path = weights_file(name, seed)
    if not path.is_file():
        lever = f"python -m quant.models.train {name} --seed {seed}"
        raise AccelsimError(Problem(f"model {name}", f"there are no weights of seed {seed}", str(path), (lever,)))
    model = build_torch(name, seed, RESOLUTION)
    state = {key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()}
    model.load_state_dict(state)
    return model.eval()
