"""Export a module with torch.export at a free batch size."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from accelsim.problems import AccelsimError, Problem

EXAMPLE_IMAGES = 2


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares parameters and buffers: export may leave marks in the module it reads."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared).eval()


def export(model: nn.Module, image_shape: tuple[int, ...], name: str) -> ExportedProgram:
    """The program of a module (evaluation mode) for images of `image_shape`, any number of them.

    Raises AccelsimError with the message of torch.export when it cannot follow the module.
    """
    first = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), None)
    dtype = torch.get_default_dtype() if first is None else first.dtype
    device = torch.device("cpu") if first is None else first.device
    images = torch.zeros((EXAMPLE_IMAGES, *image_shape), dtype=dtype, device=device)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(model, (images,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
    except Exception as error:  # torch.export raises errors of many kinds, the module's own among them
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise AccelsimError(
            Problem(
                f"capture {name}",
                f"torch.export cannot follow the model: {reason}",
                "one path for every image and every number of images",
                ("no branches on values of tensors", f"images of another shape than {image_shape}"),
            )
        ) from error
