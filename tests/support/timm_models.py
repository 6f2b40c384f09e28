"""timm, a development-only dependency, beside a torch build for which torchvision's registry build does not load."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
import torch

# Operators of torchvision that its Python files look up when they are imported; held here so that they stay.
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_LIBRARIES: list[Any] = []


def timm_or_skip() -> Any:
    """The timm package; the calling test is skipped when it is not installed."""
    if not _torchvision_loads():
        _register()
    return pytest.importorskip("timm")


def _torchvision_loads() -> bool:
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return True
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False
    return True


def _register() -> None:
    if not _LIBRARIES:
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _LIBRARIES.append(library)


def random_model(timm: Any, name: str, seed: int) -> torch.nn.Module:
    """A timm model without its weights: every tensor random, variances positive, float64, evaluation mode."""
    torch.manual_seed(seed)
    model: torch.nn.Module = timm.create_model(name).double().eval()
    randomize(model)
    return model


def randomize(model: torch.nn.Module) -> None:
    """Random parameters and running statistics, small enough for the signal to survive."""
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point():
                value.add_(0.05 * torch.randn_like(value))
