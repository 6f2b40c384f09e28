"""Plans with token groups, and small quantized networks that rank their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch

from accelsim.config import load_plan
from accelsim.formats import Format
from accelsim.ir import Workload
from accelsim.plan import QuantPlan, Rule
from accelsim.token_groups import TokenGroups
from accelsim.token_rules import sliced_ops
from accelsim.workloads.rank import ranked_layers
from quant.calibrated import Checkpoint
from quant.capture import capture
from quant.data.small import small_data
from quant.methods.uniform import Uniform
from quant.models.registry import load_reference
from quant.network import Network
from quant.patchwise.network import ranked
from quant.patchwise.order import Fixed
from quant.patchwise.order import Rule as Counting
from quant.patchwise.plans import with_groups
from quant.quantize import calibrated, check_plan, gather, make_plan

LAYERS = ("b1", "b2", "b3")
TOKENS = 65


def grouped_plan(workload: Workload, high: Mapping[str, int], drop_bits: int) -> QuantPlan:
    """uniform8 of a ranked workload, with token groups wherever they can be."""
    rules = [Rule(one.rank, output=Format.parse(f"u{one.rank_bits}")) for one in ranked_layers(workload)]
    for layer, count in high.items():
        rules += [Rule(name, tokens=TokenGroups(layer, count, drop_bits)) for name in sliced_ops(workload, layer)]
    plan = load_plan("uniform8")
    return replace(plan, rules=(*rules, *plan.rules))


@cache
def trained() -> Network:
    """The trained glyph_vit."""
    return capture(load_reference("glyph_vit"), (1, 32, 32))


def labelled(count: int, part: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of the validation split of glyphs, [count, 1, 32, 32], from 64 · part on, and their labels."""
    data = small_data("glyphs", "val", None)
    assert data.labels is not None
    first = 64 * part
    images = data.preprocess.tensor(data.images[first : first + count])
    return images, torch.from_numpy(data.labels[first : first + count])


@cache
def seen(count: int, part: int) -> torch.Tensor:
    """The images of `labelled`."""
    return labelled(count, part)[0]


@cache
def patchwise(
    rule: Counting | None = None,
    high: int = 20,
    drop_bits: int = 4,
    order: str = "important",
    importance: str = "class",
    nonlinear: str = "",
    layers: Sequence[str] = LAYERS,
) -> Checkpoint:
    """glyph_vit in 8 bits with token groups in all layers that can be ranked."""
    network = ranked(trained(), layers, importance, Fixed() if rule is None else rule, order)
    images, method = [seen(32, 0)], Uniform()
    statistics = gather(network, images, method)
    plan = make_plan(network, method, statistics)
    if nonlinear:
        rules = tuple(
            replace(one, nonlinear=nonlinear) if one.match.endswith(("softmax", "norm", "norm1", "norm2")) else one
            for one in plan.rules
        )
        plan = replace(plan, rules=rules)
    plan = with_groups(network, plan, dict.fromkeys(layers, high), drop_bits)
    check_plan(network, plan)
    return calibrated(network, images, plan, statistics)


def without_groups(checkpoint: Checkpoint) -> Checkpoint:
    """The same quantizers under a plan without token groups."""
    rules = tuple(replace(rule, tokens=None) for rule in checkpoint.plan.rules)
    return replace(checkpoint, plan=replace(checkpoint.plan, rules=rules))
