"""Load released weights into our torch EfficientViT, DeiT and ViT: tables of names, strict checks, preprocessing.

Names and numerical settings: EfficientViT mit-han-lab/efficientvit@de7d773 (models/efficientvit, models/nn/ops.py,
cls_model_zoo.py); timm 1.0.31 (models/efficientvit_mit.py, models/vision_transformer.py), whose names DeiT's own
checkpoints share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from accelsim.problems import AccelsimError, Problem
from accelsim.workloads.efficientvit import LARGE_VARIANTS, VARIANTS
from accelsim.workloads.vit import PATCH
from accelsim.workloads.vit import VARIANTS as VIT_VARIANTS
from quant.data.dataset import Preprocess
from quant.models.blocks import DivideByLast, NormalizeRows
from quant.models.registry import HALVES, IMAGENET_MEAN, IMAGENET_STD, build_torch, preprocess_of

LOADABLE: tuple[str, ...] = (*VARIANTS, *LARGE_VARIANTS, *VIT_VARIANTS)
# Counters that BatchNorm keeps while it is trained; nothing reads them afterwards.
IGNORED = "num_batches_tracked"
# Checkpoints of training scripts hold the state under one of these names.
CONTAINERS = ("state_dict", "model")
# timm's crop ratio by resolution: EfficientViT B0-B3 at 224, DeiT and ViT at 224; every other one is 1.
TIMM_CROP = {"efficientvit_b": 0.95, "deit": 0.9, "vit": 0.9}


@dataclass(frozen=True)
class Names:
    """How another library names an EfficientViT: path templates with {k}, {next} = k + 1, {stage}, {before}."""

    stem: str
    stem_block: str
    block: str
    head: Mapping[str, str]


_LAYERS = {
    "expand": "inverted_conv", "dw": "depth_conv", "proj": "point_conv", "pw": "point_conv",
    "spatial": "spatial_conv", "conv1": "conv1", "conv2": "conv2",
}  # fmt: skip
_ATTENTION = {
    "qkv.conv": "qkv.conv", "aggr.dw5.conv": "aggreg.0.0", "aggr.pwg.conv": "aggreg.0.1",
    "attn_proj.conv": "proj.conv", "attn_proj.norm": "proj.norm",
}  # fmt: skip
_MIT_HEAD = {
    "conv.conv": "head.op_list.0.conv", "conv.norm": "head.op_list.0.norm", "fc1.linear": "head.op_list.2.linear",
    "norm.norm": "head.op_list.2.norm", "fc2.linear": "head.op_list.3.linear",
}  # fmt: skip
_TIMM_HEAD = {
    "conv.conv": "head.in_conv.conv", "conv.norm": "head.in_conv.norm", "fc1.linear": "head.classifier.0",
    "norm.norm": "head.classifier.1", "fc2.linear": "head.classifier.4",
}  # fmt: skip
_STEM = "backbone.input_stem.op_list."
_STAGE = "backbone.stages."
MIT = Names(f"{_STEM}0", f"{_STEM}{{next}}.main", f"{_STAGE}{{before}}.op_list.{{k}}", _MIT_HEAD)
MIT_LARGE = Names(
    f"{_STAGE}0.op_list.0", f"{_STAGE}0.op_list.{{next}}.main", f"{_STAGE}{{stage}}.op_list.{{k}}", _MIT_HEAD
)
TIMM = Names("stem.in_conv", "stem.res{k}.main", "stages.{before}.blocks.{k}", _TIMM_HEAD)


def efficientvit_key(own: str, names: Names, attending: tuple[int, ...]) -> str:
    """The other library's name of one of our EfficientViT's parameters or buffers.

    `attending` are the stages whose blocks hold attention: the MBConv of such a block has another path.
    """
    path, leaf = own.rsplit(".", 1)
    if path.startswith("head."):
        return f"{names.head[path.removeprefix('head.')]}.{leaf}"
    if path.startswith("stem.conv."):
        return f"{names.stem}.{path.removeprefix('stem.conv.')}.{leaf}"
    stem = re.fullmatch(r"stem\.(?:ds|res)(\d+)\.(\w+)\.(conv|norm)", path)
    if stem:
        k = int(stem[1])
        return f"{names.stem_block.format(k=k, next=k + 1)}.{_LAYERS[stem[2]]}.{stem[3]}.{leaf}"
    found = re.fullmatch(r"s(\d)\.(mb|b|down)(\d*)\.(.+)", path)
    assert found, own
    stage, kind, rest = int(found[1]), found[2], found[4]
    # Stages that begin with "down" count it as their first block.
    k = int(found[3] or 0) + (kind == "b")
    block = names.block.format(stage=stage, before=stage - 1, k=k)
    if rest in _ATTENTION:
        return f"{block}.context_module.main.{_ATTENTION[rest]}.{leaf}"
    layer, part = rest.removeprefix("mb.").split(".")
    main = "local_module.main" if kind == "b" and stage in attending else "main"
    return f"{block}.{main}.{_LAYERS[layer]}.{part}.{leaf}"


def vit_key(own: str) -> str:
    """The name in timm, and in DeiT's own checkpoints, of one of our vision transformer's parameters."""
    own = re.sub(r"\.(conv|linear|norm)(?=\.(weight|bias)$)", "", own.removeprefix("embed."))
    own = own.replace("patch_embed.", "patch_embed.proj.")
    own = re.sub(r"^b(\d+)\.(qkv|proj)\.", r"blocks.\1.attn.\2.", own)
    own = re.sub(r"^b(\d+)\.(fc1|fc2)\.", r"blocks.\1.mlp.\2.", own)
    return re.sub(r"^b(\d+)\.", r"blocks.\1.", own)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file or in a file of torch.save (only tensors are unpickled).

    Raises AccelsimError when the file is neither.
    """
    file = Path(path)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        held = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise errors of many kinds
        reason = " ".join(str(error).split())[:200]
        raise AccelsimError(
            Problem(str(file), f"cannot be read: {reason}", "a state dict as .safetensors or .pt")
        ) from error
    for name in CONTAINERS:
        if isinstance(held, dict) and isinstance(held.get(name), dict):
            held = held[name]
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise AccelsimError(Problem(str(file), "holds something else than tensors by name", "a state dict"))
    return held


def sources(name: str) -> dict[str, Callable[[str], str]]:
    """Where the weights of a network may come from, and our key → its key.

    Raises AccelsimError for a network without released weights.
    """
    if name in VIT_VARIANTS:
        return {"own": str, "timm": vit_key}
    if name not in LOADABLE:
        raise AccelsimError(
            Problem("model", f"no names of weights are known for {name!r}", f"one of {', '.join(LOADABLE)}")
        )
    mit, attending = (MIT, (3, 4)) if name in VARIANTS else (MIT_LARGE, (4,))
    return {
        "own": str,
        "mit-han-lab": lambda key: efficientvit_key(key, mit, attending),
        "timm": lambda key: efficientvit_key(key, TIMM, attending),
    }


def load_state(model: nn.Module, name: str, state: Mapping[str, Tensor]) -> str:
    """Copy the weights of `state` into our torch model of network `name`; returns where the names come from.

    Every key is used once and has the model's shape.  The epsilons of that library are set too.  Raises AccelsimError
    with every key that is missing, left over or of another shape.
    """
    own = {key: value for key, value in model.state_dict().items() if not key.endswith(IGNORED)}
    given = {key: value for key, value in state.items() if not key.endswith(IGNORED)}
    source, rename = max(sources(name).items(), key=lambda item: sum(item[1](key) in given for key in own))
    table = {key: rename(key) for key in own}
    where = f"weights of {name} ({source})"
    faults = [Problem(where, f"{theirs} is missing") for theirs in table.values() if theirs not in given]
    faults += [Problem(where, f"{theirs} is not used") for theirs in given if theirs not in set(table.values())]
    faults += [
        Problem(where, f"{theirs} has the shape {tuple(given[theirs].shape)}", f"{tuple(own[key].shape)}")
        for key, theirs in table.items()
        if theirs in given and given[theirs].shape != own[key].shape
    ]
    if faults:
        raise AccelsimError(faults)
    model.load_state_dict({key: given[theirs] for key, theirs in table.items()}, strict=False)
    _set_epsilons(model, name, source)
    return source


def _set_epsilons(model: nn.Module, name: str, source: str) -> None:
    """Attention's divisor: mit-han-lab 1e-15, timm 1e-5.  timm's L series keeps 1e-5 in the head's BatchNorm."""
    if source != "timm" or name in VIT_VARIANTS:
        return
    for path, module in model.named_modules():
        if isinstance(module, DivideByLast | NormalizeRows) or path == "head.conv.norm":
            module.eps = 1e-5


def preprocess_for(name: str, source: str, resolution: int) -> Preprocess:
    """What a checkpoint of network `name` from `source` was evaluated with at a resolution in pixels."""
    if source != "timm":
        return preprocess_of(name, resolution)
    crop = next((ratio for prefix, ratio in TIMM_CROP.items() if name.startswith(prefix)), 1.0)
    resize_px = math.floor(resolution / crop) if resolution == 224 else None
    mean, std = (HALVES, HALVES) if name.startswith("vit") else (IMAGENET_MEAN, IMAGENET_STD)
    return Preprocess(resolution, 3, mean, std, resize_px=resize_px)


def load_model(name: str, path: str | Path, resolution: int | None = None) -> tuple[nn.Module, Preprocess]:
    """Our torch model of network `name` with the weights of a file, in eval mode, and its preprocessing.

    `resolution` in pixels: None is the one of the position embedding, or 224.  Raises AccelsimError as `read_state`,
    `load_state` and `build_torch` do.
    """
    sources(name)
    state = read_state(path)
    if resolution is None and name in VIT_VARIANTS:
        held = state.get("pos_embed", state.get("embed.pos_embed"))
        resolution = None if held is None else PATCH * math.isqrt(held.shape[1] - 1)
    pixels = resolution or 224
    model = build_torch(name, resolution=pixels)
    source = load_state(model, name, state)
    return model.eval(), preprocess_for(name, source, pixels)
