"""How well does the sum of penalties predict the loss of a plan?  Random mixed plans, predicted and measured.

    python benchmarks/quality/additivity.py MODEL TABLE.json [--plans 30] [--images 500]
        [--methods ibert,fqvit] [-o FILE.json]

TABLE.json comes from `accelsim penalties MODEL`.  Every plan draws how coarse it is, then a choice for every activation
group, and for every op one format or two (the filters with the smallest extra penalty take the second).  Where the
table has methods, every softmax and LayerNorm has one; where it has parts, some (those that lose least) are narrower;
where it has tokens, the network ranks them and layers have token groups.  Measured on
images of the validation split: the increase over the base plan of KL(float network ‖ quantized) and of the
cross-entropy, both in nats.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from accelsim.channels import Channels
from accelsim.formats import Format
from accelsim.head_widths import HeadWidths
from accelsim.plan import QuantPlan, Rule, WeightShare
from codesign.models import data_of, load_model
from codesign.quantize_command import calibration_images
from quant.checkpoint import Model
from quant.data import load_data
from quant.network import Network, forward
from quant.patchwise.network import ranked
from quant.patchwise.plans import with_groups
from quant.penalties.changes import FULL
from quant.penalties.choices import METHOD_MARK, StoredChoice
from quant.penalties.table import PenaltyTable, load_penalties
from quant.quantize import quantize_plan
from quant.statistics import kendall


def random_plan(table: PenaltyTable, network: Network, random: np.random.Generator, number: int) -> QuantPlan:
    """The base plan with a random share of its choices made coarser."""
    coarse = random.random()
    outputs = {}
    for group in table.groups:
        names = _names(table, group.name)
        name = str(random.choice(names)) if random.random() < 0.5 * coarse else names[0]
        chosen = StoredChoice.parse(name)
        if group.name in table.parts and chosen.format.name == "u8" and random.random() < coarse:
            chosen = replace(chosen, heads=_narrow_parts(table.parts[group.name], random))
        outputs.update(dict.fromkeys(group.ops, chosen))
    rules = []
    for rule in table.base.rules:
        if rule.match in outputs:
            rule = outputs[rule.match].applied(rule)
        if rule.match in table.filters and random.random() < coarse:
            rule = replace(rule, weights=_mixed(table, network, rule, random))
        rules.append(rule)
    division = str(random.choice(list(table.divisions)))
    plan = replace(table.base, name=f"random {number}", rules=tuple(rules), division=division)
    counts = {layer: str(random.choice(list(of))) for layer, of in table.tokens.items() if random.random() < coarse}
    high = {layer: int(count) for layer, count in counts.items() if count != FULL}
    return with_groups(network, plan, high, table.drop_bits) if high else plan


def _names(table: PenaltyTable, group: str) -> list[str]:
    """Choices of a group, 8 bits first; only those with a method where there are some."""
    names = [name for name in table.activations[group] if METHOD_MARK in name]
    return names or list(table.activations[group])


def _with_methods(table: PenaltyTable, methods: Sequence[str]) -> PenaltyTable:
    """The table with the choices of these methods, and without a method, only."""
    kept = {
        group: {name: value for name, value in of.items() if StoredChoice.parse(name).method in ("", *methods)}
        for group, of in table.activations.items()
    }
    return replace(table, activations=kept)


def _narrow_parts(parts: Mapping[str, Sequence[float]], random: np.random.Generator) -> HeadWidths:
    """A random number of parts, those that lose least, in a random width; the others in 8 bits."""
    name = str(random.choice(list(parts)))
    order = np.argsort(parts[name], kind="stable")
    bits = np.full(len(order), 8)
    bits[order[: int(random.integers(1, len(order)))]] = Format.parse(name).bits
    return HeadWidths(tuple(bits.tolist()))


def _mixed(table: PenaltyTable, network: Network, rule: Rule, random: np.random.Generator) -> tuple[WeightShare, ...]:
    first, second = (str(name) for name in random.choice(table.formats, 2, replace=False))
    values = table.filters[rule.match]
    loop = network.node(rule.match).op.loop
    assert loop is not None
    if random.random() < 0.4 or (loop.groups > 1 and loop.cols > 1):
        return (WeightShare(Format.parse(second)),)
    extra = values[:, table.formats.index(second)] - values[:, table.formats.index(first)]
    order = np.argsort(extra, kind="stable")
    count = int(random.integers(1, len(order)))
    parts = ((second, order[:count]), (first, order[count:]))
    return tuple(WeightShare(Format.parse(name), len(part) / len(order), Channels.of(part)) for name, part in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("table")
    parser.add_argument("--plans", type=int, default=30)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--methods", help="of softmax and LayerNorm, in the plans (default: all of the table)")
    parser.add_argument("-o", "--output")
    arguments = parser.parse_args()
    table, (network, preprocess) = load_penalties(arguments.table), load_model(arguments.model)
    if table.tokens:
        network = ranked(network, list(table.tokens))
    if arguments.methods is not None:
        table = _with_methods(table, arguments.methods.split(","))
    data = data_of(arguments.model)
    fitted = calibration_images(data, preprocess, int(table.settings["calibration_images"]), 0)
    batches = list(load_data(data, "val", preprocess).first(arguments.images).batches(64))
    labels = torch.cat([part for _, part in batches if part is not None])

    def outputs(run: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([F.log_softmax(run(images).double(), 1) for images, _ in batches])

    exact = outputs(lambda images: forward(network, images))

    def losses(plan: QuantPlan) -> tuple[float, float]:
        found = outputs(Model(quantize_plan(network, fitted, plan)[1]))
        return float((exact.exp() * (exact - found)).sum(1).mean()), float(F.nll_loss(found, labels))

    base = losses(table.base)
    random = np.random.default_rng(0)
    rows = []
    for number in range(arguments.plans):
        plan = random_plan(table, network, random, number)
        kl, loss = losses(plan)
        rows.append({"predicted": table.loss_of(plan), "kl": kl - base[0], "cross_entropy": loss - base[1]})
        print(number, *(f"{name} {value:.4f}" for name, value in rows[-1].items()), flush=True)
    result = {
        "model": arguments.model,
        "table": table.fingerprint(),
        "images": len(labels),
        "base_kl": base[0],
        "plans": rows,
    }
    for name in ("kl", "cross_entropy"):
        measured, predicted = (np.array([row[one] for row in rows]) for one in (name, "predicted"))
        tau, ratio = kendall(predicted, measured), measured[predicted > 0] / predicted[predicted > 0]
        low, middle, high = np.quantile(ratio, (0.1, 0.5, 0.9))
        result[name] = {"tau": tau.estimate, "tau_interval": [tau.low, tau.high], "ratio": [low, middle, high]}
        print(f"{name}: tau {tau.estimate:.2f} ({tau.low:.2f} … {tau.high:.2f}), "
              f"measured / predicted {middle:.2f} (10 to 90 %: {low:.2f} … {high:.2f})")  # fmt: skip
    if arguments.output:
        with open(arguments.output, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
