"""Tiles of a trained reference model for the engines that compute values; the model is quantized once per test run."""

from __future__ import annotations

from functools import cache

from accelsim.arch import Engine
from accelsim.config import load_accelerator
from accelsim.engines import can_execute
from quant.capture import capture
from quant.data import load_data
from quant.integer import IntegerNetwork, compile_integer
from quant.integer.tiles import SampledTile, sample_tiles
from quant.methods.base import Method
from quant.methods.m2q import M2Q
from quant.methods.power_of_two import PowerOfTwo
from quant.models.registry import load_reference
from quant.quantize import quantize

MODEL = "glyph_hybrid_narrow"
METHODS: dict[str, Method] = {"m2q": M2Q(), "pot4": PowerOfTwo(terms=1), "apot12": PowerOfTwo(terms=3)}


@cache
def trained(method: str) -> IntegerNetwork:
    """The trained narrow hybrid in integers."""
    images = [images for images, _ in load_data("digits", "train").first(64).batches(32)]
    network = capture(load_reference(MODEL), (1, 32, 32))
    return compile_integer(quantize(network, images, METHODS[method])[1])


def tiles(method: str, count: int, seed: int = 0) -> list[SampledTile]:
    """Sampled tiles for a few images."""
    images, _ = next(iter(load_data("digits", "val").first(4).batches(4)))
    return sample_tiles(trained(method), images, count, seed)


def on_engines(found: list[SampledTile]) -> dict[str, tuple[Engine, list[SampledTile]]]:
    """The engines of the heterogeneous design with the tiles that each can execute."""
    engines = load_accelerator("m2vit").engines
    return {
        engine.name: (
            engine,
            [one for one in found if can_execute(engine, one.weight, one.activation, one.tile.depthwise)],
        )
        for engine in engines
    }
