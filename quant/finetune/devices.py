"""Networks and checkpoints on a torch device.  Only the CPU is tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Checkpoint, Divisor, Filters
from quant.functional import Affine
from quant.network import Network


def check_device(name: str) -> torch.device:
    """The device of that name.  Raises AccelsimError when there is none."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise AccelsimError(
            Problem(f"device {name}", f"cannot be used ({reason})", "cpu, or cuda with a GPU")
        ) from error
    return device


def network_on(network: Network, device: torch.device) -> Network:
    """The network with its parameters on a device."""
    nodes = [replace(node, weight=_on(node.weight, device), bias=_on(node.bias, device)) for node in network.nodes]
    return replace(network, nodes=tuple(nodes))


def checkpoint_on(checkpoint: Checkpoint, device: torch.device) -> Checkpoint:
    """The checkpoint with its tensors on a device."""

    def affines(given: Mapping[str, Affine]) -> dict[str, Affine]:
        return {
            name: replace(one, scale=one.scale.to(device), zero_point=one.zero_point.to(device))
            for name, one in given.items()
        }

    filters = {
        name: Filters(one.integers.to(device), one.scale.to(device), _on(one.bias, device))
        for name, one in checkpoint.filters.items()
    }
    divisors = {
        name: Divisor(one.rows.to(device), one.unit.to(device), one.lowest.to(device), one.bits)
        for name, one in checkpoint.divisors.items()
    }
    return replace(
        checkpoint, network=network_on(checkpoint.network, device), filters=filters, divisors=divisors,
        stored=affines(checkpoint.stored), preactivation=affines(checkpoint.preactivation),
    )  # fmt: skip


def _on(value: Tensor | None, device: torch.device) -> Tensor | None:
    return None if value is None else value.to(device)
