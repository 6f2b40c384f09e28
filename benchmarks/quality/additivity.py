"""How well does the sum of penalties predict the loss of a plan?  Random mixed plans, predicted and measured.

    python benchmarks/quality/additivity.py MODEL TABLE.json [--plans 30] [--images 500] [-o FILE.json]

TABLE.json comes from `accelsim penalties MODEL`.  Every plan draws how coarse it is, then a format for every activation
group, and for every op one format or two (the filters with the smallest extra penalty take the second).  Measured on
images of the validation split: the increase over the base plan of KL(float network ‖ quantized) and of the
cross-entropy, both in nats.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from accelsim.channels import Channels
from accelsim.formats import Format
from accelsim.plan import QuantPlan, Rule, WeightShare
from codesign.models import data_of, load_model
from codesign.quantize_command import calibration_images
from quant.checkpoint import Model
from quant.data import load_data
from quant.network import Network, forward
from quant.penalties.table import PenaltyTable, load_penalties
from quant.quantize import quantize_plan
from quant.statistics import kendall


def random_plan(table: PenaltyTable, network: Network, random: np.random.Generator, number: int) -> QuantPlan:
    """The base plan with a random share of its choices made coarser."""
    coarse = random.random()
    outputs = {}
    for group in table.groups:
        names = list(table.activations[group.name])
        name = str(random.choice(names)) if random.random() < 0.5 * coarse else names[0]
        outputs.update(dict.fromkeys(group.ops, Format.parse(name)))
    rules = []
    for rule in table.base.rules:
        if rule.match in outputs:
            rule = replace(rule, output=outputs[rule.match], right=outputs[rule.match])
        if rule.match in table.filters and random.random() < coarse:
            rule = replace(rule, weights=_mixed(table, network, rule, random))
        rules.append(rule)
    division = str(random.choice(list(table.divisions)))
    return replace(table.base, name=f"random {number}", rules=tuple(rules), division=division)


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
    parser.add_argument("-o", "--output")
    arguments = parser.parse_args()
    table, (network, preprocess) = load_penalties(arguments.table), load_model(arguments.model)
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
