"""The test bench: the float network and its data, loaded once; designs are quantized and measured against it."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.ir import Workload
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, Problem
from codesign.loop.spec import CodesignSpec
from codesign.loop.variants import PLAIN

if TYPE_CHECKING:
    from torch import Tensor

    from quant.data.dataset import DataSet, Preprocess
    from quant.evaluate import Evaluation
    from quant.network import Network
    from quant.statistics import PairedResult

VALIDATION, TEST = "val", "test"
FOLDER = "imagefolder:"


class Bench:
    """A network, its calibration images, and the float network's answers on validation and test images."""

    def __init__(self, spec: CodesignSpec, data: str) -> None:
        self.spec, self.data = spec, data
        self._float: dict[str, Evaluation] = {}

    @cached_property
    def _loaded(self) -> tuple[Network, Preprocess | None]:
        from codesign.models import load_model

        return load_model(self.spec.model, self.spec.weights)

    @property
    def network(self) -> Network:
        """The float network."""
        return self._loaded[0]

    @cached_property
    def patchwise(self) -> Network:
        """The float network with its tokens ranked before every layer that can be.  Raises AccelsimError for none."""
        from accelsim.workloads.rank import ranked_layers
        from quant.patchwise.network import ranked

        layers = [one.name for one in ranked_layers(self.network.workload)]
        if not layers:
            what = f"{self.spec.model} has no layer that follows an attention of tokens: nothing ranks them"
            raise AccelsimError(Problem(f"{self.spec.where}: options.token_shares", what, "a vision transformer"))
        return ranked(self.network, layers)

    def form(self, variant: str) -> Network:
        """The float network in one of its forms."""
        return self.network if variant == PLAIN else self.patchwise

    def images_of(self, split: str) -> DataSet:
        """The images of a split; a folder has none, so every third of its images is in each."""
        from quant.data import SPLITS, load_data

        found = load_data(self.data, split, self._loaded[1])
        return found.every(SPLITS.index(split), len(SPLITS)) if self.data.startswith(FOLDER) else found

    def check(self) -> None:
        """Raise AccelsimError for a model without weights, unknown data, or images without labels."""
        if self.images_of(VALIDATION).labels is None:
            raise AccelsimError(Problem(self.data, "has no labels", "one folder per class to measure accuracy"))

    def check_margin(self) -> None:
        """Raise AccelsimError when the validation images are too few to show equal accuracy of any design."""
        from quant.statistics import compare

        correct, margin = self.reference(VALIDATION).correct, self.spec.final.margin_points
        least = 100 * compare(correct, correct).loss_bound
        if least > margin:
            what = f"{len(correct)} validation images cannot show that less than {least:.2f} points are lost"
            expected = f"more images, or margin_points of {least:.2f} or more (is {margin:g})"
            raise AccelsimError(Problem(f"{self.spec.where}: final", what, expected))

    @cached_property
    def calibration(self) -> list[Tensor]:
        """Calibration images of the training split, drawn by the seed."""
        return self.images(self.spec.final.calibration_images)

    def images(self, count: int) -> list[Tensor]:
        """Images of the training split, drawn by the seed: for calibration and penalties."""
        from codesign.quantize_command import drawn

        return drawn(self.images_of("train"), count, self.spec.seed)

    def quantize(self, plan: QuantPlan, folder: Path, variant: str = PLAIN) -> None:
        """Calibrate a form of the network under a plan and store the checkpoint."""
        from quant.checkpoint import save
        from quant.quantize import quantize_plan
        from quant.reconstruct import Reconstruction

        steps = self.spec.final.reconstruct_steps
        recipe = Reconstruction(steps=steps, seed=self.spec.seed) if steps else None
        preprocess = self._loaded[1]
        note = {"model": self.spec.model, "data": self.data, "seed": self.spec.seed}
        note |= {} if preprocess is None else {"preprocess": asdict(preprocess)}
        _, checkpoint = quantize_plan(self.form(variant), self.calibration, plan, reconstruction=recipe, about=note)
        save(checkpoint, folder)

    def loss(self, folder: Path) -> float:
        """KL(p ‖ p̂) in nats of a stored checkpoint from the float network: the mean over the images of penalties."""
        import torch

        from quant.checkpoint import load
        from quant.network import forward

        model, total, count = load(folder), 0.0, 0
        with torch.no_grad():
            for images in self.images(self.spec.penalties.images):
                exact, found = (
                    torch.log_softmax(logits.double(), 1) for logits in (forward(self.network, images), model(images))
                )
                total += float((exact.exp() * (exact - found)).sum())
                count += len(images)
        return total / count

    def measure(self, folder: Path, split: str) -> dict[str, Any]:
        """Accuracy of a stored checkpoint on a split, paired with the float network's, image by image."""
        from quant.checkpoint import load
        from quant.statistics import compare

        found = self._evaluate(load(folder), split)
        reference = self.reference(split)
        pair = compare(reference.correct, found.correct, self.spec.final.margin_points / 100)
        return {**measured(pair), "cross_entropy": found.cross_entropy, "correct": _packed(found)}

    def reference(self, split: str) -> Evaluation:
        """The float network's outputs on a split."""
        if split not in self._float:
            from quant.network import forward

            self._float[split] = self._evaluate(lambda images: forward(self.network, images), split)
        return self._float[split]

    def _evaluate(self, model: Any, split: str) -> Evaluation:
        from codesign.quantize_command import measure_on

        images = self.spec.final.images if split == VALIDATION else self.spec.final.test_images
        return measure_on(model, self.images_of(split), images)


def measured(pair: PairedResult) -> dict[str, Any]:
    """A paired comparison as the study keeps it: proportions, the change with its 95 % interval, non-inferiority."""
    low, high = pair.interval
    return {
        "top1": pair.candidate, "reference": pair.reference, "images": pair.images, "change": pair.difference,
        "low": low, "high": high, "p_value": pair.p_value, "loss_bound": pair.loss_bound,
        "non_inferior": pair.non_inferior,
    }  # fmt: skip


def _packed(found: Evaluation) -> str:
    """Which images are right, a bit each, as hexadecimal text: later comparisons need no second run."""
    import numpy as np

    return np.packbits(found.correct).tobytes().hex()


def unpacked(text: str, images: int) -> Any:
    """The inverse: an array of booleans."""
    import numpy as np

    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:images].astype(bool)


def workload_of(spec: CodesignSpec, bench: Bench | None) -> Workload:
    """The op list of the model: built in, or captured from the user's network.

    Raises AccelsimError for an unknown model or data, and where the network has another resolution than the file asks.
    """
    from accelsim.workloads.registry import build_workload, model_names

    if bench is None and spec.weights is None and ":" not in spec.model:
        return build_workload(spec.model, spec.resolution)
    if bench is None:
        from codesign.models import load_model

        network = load_model(spec.model, spec.weights)[0]
    else:
        bench.check()
        network = bench.network
    side = network.image_shape[-1]
    if spec.resolution not in (None, side):
        what = f"is {spec.resolution} pixels, the network takes images of {side}"
        raise AccelsimError(Problem(f"{spec.where}: resolution", what, f"{side}, or no resolution"))
    if spec.model in model_names() and spec.weights is None:
        return build_workload(spec.model, spec.resolution)
    return network.workload
