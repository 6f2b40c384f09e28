"""Integer-only execution of a checkpoint beside its fake-quantized form, for `accelsim eval --integer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem

if TYPE_CHECKING:
    from quant.evaluate import Evaluation


def integer_figures(model: Any, measure: Any, fake: Evaluation) -> dict[str, Any]:
    """Top-1 of the integers, how often they choose as the fake-quantized model does, and what is still float.

    `measure` evaluates a callable on the same images.  Raises AccelsimError for a float model.
    """
    from quant.checkpoint import Model
    from quant.integer import IntegerModel, compile_integer
    from quant.statistics import compare

    if not isinstance(model, Model):
        raise AccelsimError(Problem("--integer", "a float model has no integers", "a folder of `accelsim quantize`"))
    network = compile_integer(model.checkpoint)
    found = measure(IntegerModel(network))
    return {
        "top1": found.top1,
        "agreement": found.agreement(fake),
        "non_inferior": compare(fake.correct, found.correct).non_inferior,
        "float_islands": list(network.float_islands),
    }
