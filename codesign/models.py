"""Models that the commands can load: trained reference models, a user's checkpoint, a user's own module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem

if TYPE_CHECKING:
    from torch import Tensor, nn

    from quant.data.dataset import Preprocess
    from quant.network import Network


def load_model(name: str, weights: str | None = None) -> tuple[Network, Preprocess | None]:
    """The float network of a model name and the preprocessing it was trained with (None: the data's own).

    A reference model has committed weights; another built-in needs `weights`; ``MODULE:FUNCTION`` (a module or a .py
    file) returns a torch module, or a pair of it and a `Preprocess`.  Raises AccelsimError otherwise.
    """
    require_torch()
    from quant.capture import capture
    from quant.models.registry import REFERENCE_NAMES, load_reference

    if ":" in name:
        module, preprocess = _own(name)
        return capture(module, _shape(preprocess)), preprocess
    if weights is not None:
        from quant.models.load_state import load_model as load_weights

        module, preprocess = load_weights(name, weights)
        return capture(module, _shape(preprocess), name), preprocess
    if name not in REFERENCE_NAMES:
        expected = f"one of {', '.join(REFERENCE_NAMES)}; a built-in model with --weights FILE; MODULE:FUNCTION"
        raise AccelsimError(Problem(f"model {name}", "has no trained weights here", expected))
    return capture(load_reference(name), (1, 32, 32), name), None


def _shape(preprocess: Preprocess | None) -> tuple[int, int, int]:
    """Shape of an image; without preprocessing that of ImageNet models."""
    return (3, 224, 224) if preprocess is None else (preprocess.channels, preprocess.resolution, preprocess.resolution)


def load_any(name: str) -> tuple[Callable[[Tensor], Tensor], Preprocess | None]:
    """A model that can be called on images: a checkpoint folder of `quantize`, or what `load_model` takes."""
    require_torch()
    if (Path(name) / "checkpoint.json").exists():
        from quant.checkpoint import load
        from quant.data.dataset import Preprocess

        model = load(name)
        stored = model.checkpoint.about.get("preprocess")
        return model, None if stored is None else Preprocess(**stored)
    if Path(name).is_dir():
        expected = "a folder of `accelsim quantize`"
        raise AccelsimError(Problem(name, "is no checkpoint: it has no checkpoint.json", expected))
    from quant.network import forward

    network, preprocess = load_model(name)
    return lambda images: forward(network, images), preprocess


def data_of(name: str) -> str:
    """The data of a model when none is named: what a checkpoint was calibrated on, or a reference model trained on."""
    path = Path(name) / "checkpoint.json"
    if path.exists():
        from quant.checkpoint import read_about

        return str(read_about(name).get("data", "glyphs"))
    from quant.models.train import data_of as trained_on

    return trained_on(name)


def require_torch() -> None:
    """Raise AccelsimError when torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        levers = ("pip install 'hybrid-vit-codesign[quant]'",)
        raise AccelsimError(Problem("torch", "is not installed", "the extra quant", levers))


def _own(name: str) -> tuple[nn.Module, Preprocess | None]:
    """What a user's function returns."""
    from torch import nn

    place, _, function = name.rpartition(":")
    try:
        module: Any = _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        make = getattr(module, function)
    except (ImportError, AttributeError, OSError, SyntaxError) as error:
        expected = "MODULE:FUNCTION or FILE.py:FUNCTION"
        raise AccelsimError(Problem(name, f"cannot be loaded ({error})", expected)) from error
    made = make()  # an error in the user's own code keeps its traceback
    network, preprocess = made if isinstance(made, tuple) else (made, None)
    if not isinstance(network, nn.Module):
        found = type(network).__name__
        raise AccelsimError(Problem(name, f"returns {found}", "a torch module, or a pair of it and a Preprocess"))
    return network.eval(), preprocess


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no Python file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
