"""The tables of docs/smoothing.md: skew of LayerNorm channels, and what the shift of values costs with rounded shares.

    python benchmarks/quality/smoothing.py

A few minutes.  Models are the vision transformer of the reference models and the positive controls made of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from statistics import mean, median

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor

from codesign.quantize_command import calibration_images
from quant.capture import capture
from quant.data.small import GREY_32
from quant.functional import fake_quantize
from quant.models.controls import CONTROL_NAMES, load_control
from quant.models.registry import load_reference
from quant.network import Network, Node, Numerics, run
from quant.observers import minmax
from quant.smooth import Smooth, channel_skew, smooth
from quant.smooth.sites import value_sites

NATURAL = "glyph_vit"
CALIBRATION_IMAGES, TEST_IMAGES = 128, 256
LAST_LOG2 = 15  # the 4-bit log2 code of zero
VALUE_OFFSET = 4.0


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    batches = calibration_images("glyphs", GREY_32, CALIBRATION_IMAGES, 0)
    print("| model | largest / median range | \\|middle\\| / half range, median | largest | gain of centring |")
    print("|---|---|---|---|---|")
    for name, network in networks():
        found = [one for one in channel_skew(network, batches) if one.smoothable]
        columns = ([getattr(one, field) for one in found] for field in SKEW_FIELDS)
        cells = (f"{median(column):.1f} ({min(column):.1f}-{max(column):.1f})" for column in columns)
        print(f"| `{name}` |", " | ".join(cells), "|")
    images = torch.cat(calibration_images("glyphs", GREY_32, TEST_IMAGES, 1, "test"))
    natural = next(networks())[1]
    print("\n| shares | \\|1 − row sum\\| | scaled | moved | values with offsets: scaled | moved |")
    print("|---|---|---|---|---|---|")
    models = (natural, with_value_offsets(natural, images[:64]))
    folded = [{name: smooth(one, batches, Smooth(values=name)) for name in ("no", "scale", "shift")} for one in models]
    for name in ("float", "u8", "u6", "u4", "log4"):
        cells, sums = [], Shares(name)
        for one, arms in zip(models, folded, strict=True):
            errors = {values: _error(one, arm, images, sums) for values, arm in arms.items()}
            cells += [f"{errors[values]:.2g}" for values in ("scale", "shift")]
            # The scale is exact whatever the shares are (up to float32).
            assert abs(errors["no"] - errors["scale"]) < 1e-3 * max(errors["no"], 1e-2)
        print(f"| {name} | {mean(sums.off):.2g} |", " | ".join(cells), "|")


SKEW_FIELDS = ("range_ratio", "offset_median", "offset_max", "centred_gain")


def networks() -> Iterator[tuple[str, Network]]:
    """The natural model, then the controls."""
    yield NATURAL, capture(load_reference(NATURAL), (1, 32, 32))
    for name in CONTROL_NAMES:
        yield name, capture(load_control(name), (1, 32, 32))


class Shares(Numerics):
    """Rounds softmax outputs and nothing else; `off` collects |1 − row sum|, a mean per softmax."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.off: list[float] = []

    def stored(self, node: Node, value: Tensor) -> Tensor:
        """Shares in uniform symmetric codes over their range, or as powers of two."""
        if node.function != "softmax":
            return value
        rounded = value
        if self.name.startswith("u"):
            rounded = fake_quantize(value, minmax(value, int(self.name[1:]), symmetric=True))
        elif self.name == "log4":
            code = (-torch.log2(value)).round()
            rounded = torch.where(code < LAST_LOG2, torch.exp2(-code), 0.0)
        self.off.append(float((1 - rounded.sum(-1)).abs().mean()))
        return rounded


def with_value_offsets(network: Network, images: Tensor) -> Network:
    """The same function with the values of attention moved per channel by ± 4 of their deviations; control."""
    nodes, random = {node.name: node for node in network.nodes}, torch.Generator().manual_seed(0)
    for one in value_sites(network):
        made = run(network, images, keep=[one.maker])[one.maker][..., one.rows]
        signs = torch.where(torch.rand(len(one.rows), generator=random) < 0.5, -1.0, 1.0)
        offset = VALUE_OFFSET * signs * made.flatten(0, -2).std(0)
        (reader,) = one.site.readers
        maker, last = nodes[one.maker], nodes[reader.name]
        assert maker.bias is not None
        assert last.weight is not None
        assert last.bias is not None
        bias = maker.bias.index_add(0, one.rows, offset)
        nodes[maker.name] = replace(maker, bias=bias)
        nodes[last.name] = replace(last, bias=last.bias - last.weight @ offset[reader.channels])
    return replace(network, nodes=tuple(nodes[node.name] for node in network.nodes))


def _error(network: Network, folded: Network, images: Tensor, numerics: Shares) -> float:
    """Relative change of the projections' outputs against the float network, the mean over the blocks.

    The shares of all blocks are rounded, so errors of earlier blocks count.
    """
    names = [node.op.output for node in network.nodes if node.name.endswith(".proj")]
    with torch.no_grad():
        exact, found = run(network, images, keep=names), run(folded, images, numerics, keep=names)
    return mean(float((found[name] - exact[name]).norm() / exact[name].norm()) for name in names)


if __name__ == "__main__":
    main()
