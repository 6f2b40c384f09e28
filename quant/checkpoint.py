"""Files of a quantized network: a folder with the plan, the checkpoint's JSON and its tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accelsim.config import dump_plan, load_plan
from accelsim.files import write_text_atomic
from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Checkpoint, Divisor, Filters, PtfFactors
from quant.fake import FakeQuantized
from quant.functional import Affine
from quant.head_parts import check_parts
from quant.network import Node, forward
from quant.network_files import network_from, structure_of
from quant.regions.untied import UntiedSteps

FORMAT = "quant.checkpoint/1"
PLAN, WORKLOAD, DATA, TENSORS = "plan.yaml", "workload.json", "checkpoint.json", "checkpoint.safetensors"


class Model:
    """A loaded checkpoint that can be called: images [n, channels, h, w] → logits [n, classes], fake-quantized."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._numerics = FakeQuantized(checkpoint)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of the quantized network."""
        with torch.no_grad():
            return forward(self.checkpoint.network, images, self._numerics)


def save(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write plan.yaml, workload.json, checkpoint.json and checkpoint.safetensors into a folder (made if needed).

    The first two are what `accelsim run workload.json --plan plan.yaml` takes.  The JSON is written last: a folder
    without it is not a checkpoint.
    """
    from safetensors.torch import save_file

    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / DATA).unlink(missing_ok=True)
    structure = structure_of(checkpoint.network)
    write_text_atomic(place / PLAN, dump_plan(checkpoint.plan))
    write_text_atomic(place / WORKLOAD, json.dumps(structure["workload"], indent=1) + "\n")
    save_file(checkpoint.tensors(), str(place / TENSORS))
    data = {
        "format": FORMAT,
        "plan_fingerprint": checkpoint.plan.fingerprint(),
        "about": dict(checkpoint.about),
        "network": structure,
        "stored": _ranges(checkpoint.stored),
        "preactivation": _ranges(checkpoint.preactivation),
        "divisors": {name: {"bits": one.bits} for name, one in checkpoint.divisors.items()},
        "factors": {name: {"bits": one.bits, "zero_point": one.zero_point} for name, one in checkpoint.factors.items()},
        "untied": {name: [one.bits, one.low_negative] for name, one in checkpoint.untied.items()},
    }
    write_text_atomic(place / DATA, json.dumps(data, indent=1) + "\n")


def load(folder: str | Path) -> Model:
    """The model of a folder that `save` wrote; its outputs equal those of the model that was saved.

    Raises AccelsimError when a file is missing or damaged, when the plan is not the one that was calibrated, or when
    numbers are not those of its head widths.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    place = Path(folder)
    data = _read(place)
    plan = load_plan(place / PLAN)
    if plan.fingerprint() != data.get("plan_fingerprint"):
        raise AccelsimError(
            Problem(
                str(place / PLAN), f"is not the plan of this checkpoint ({plan.fingerprint()})",
                f"the plan {data.get('plan_fingerprint')}", ("quantize again with the changed plan",),
            )
        )  # fmt: skip
    try:
        tensors = load_file(str(place / TENSORS))
        checkpoint = _assemble(data, tensors, plan, str(place / DATA))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise AccelsimError(
            Problem(str(place), f"cannot be read ({error})", "a folder of `accelsim quantize`")
        ) from error
    check_parts(checkpoint)
    return Model(checkpoint)


def read_about(folder: str | Path) -> dict[str, Any]:
    """How a checkpoint was made.  Raises AccelsimError when the folder has none."""
    return dict(_read(Path(folder))["about"])


def _read(place: Path) -> dict[str, Any]:
    path = place / DATA
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AccelsimError(
            Problem(str(path), f"cannot be read ({error})", "a folder of `accelsim quantize`")
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise AccelsimError(Problem(str(path), f"has the format {found!r}", FORMAT))
    return data


def _ranges(quantizers: Mapping[str, Affine]) -> dict[str, list[int]]:
    return {name: [one.low, one.high] for name, one in quantizers.items()}


def _assemble(data: dict[str, Any], tensors: dict[str, Tensor], plan: Any, where: str) -> Checkpoint:
    network = network_from(data["network"], tensors, where)

    def affine(kind: str) -> dict[str, Affine]:
        return {
            name: Affine(tensors[f"{kind}/{name}/scale"], tensors[f"{kind}/{name}/zero_point"], low, high)
            for name, (low, high) in data[kind].items()
        }

    filters = {
        node.name: Filters(
            tensors[f"filters/{node.name}/integers"].to(torch.int32),
            tensors[f"filters/{node.name}/scale"],
            tensors.get(f"filters/{node.name}/bias"),
        )
        for node in network.nodes
        if node.has_filters
    }
    network = replace(network, nodes=tuple(_with_values(node, filters) for node in network.nodes))
    divisors = {
        name: Divisor(
            tensors[f"divisors/{name}/rows"].bool(),
            tensors[f"divisors/{name}/unit"],
            tensors[f"divisors/{name}/lowest"],
            int(one["bits"]),
        )
        for name, one in data["divisors"].items()
    }
    factors = {
        name: PtfFactors(
            float(tensors[f"factors/{name}/scale"]), int(one["zero_point"]), tensors[f"factors/{name}/alpha_pow2"],
            int(one["bits"]),
        )
        for name, one in data.get("factors", {}).items()
    }  # fmt: skip
    untied = {}
    for name, (bits, low_negative) in data.get("untied", {}).items():
        low, high, split = tensors[f"untied/{name}"].tolist()
        untied[name] = UntiedSteps(low, high, split, int(bits), bool(low_negative))
    before = affine("preactivation")
    return Checkpoint(network, plan, filters, affine("stored"), before, divisors, data["about"], factors, untied)


def _with_values(node: Node, filters: Mapping[str, Filters]) -> Node:
    """The node with its integer filters as real numbers, which is all a loaded checkpoint knows of them."""
    if node.name not in filters:
        return node
    return replace(node, weight=filters[node.name].values(), bias=filters[node.name].bias)
