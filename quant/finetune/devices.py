"""Networks and checkpoints on a torch device.  Only the CPU is tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from accelsim.nonlinear.methods import TABLE, named_method
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
    """The checkpoint with its tensors on a device.

    Raises AccelsimError for another device than the CPU where the plan names integer methods: their tables and factors
    are on the host.
    """
    _check_methods(checkpoint, device)

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


def _check_methods(checkpoint: Checkpoint, device: torch.device) -> None:
    """Raise AccelsimError for an integer method on another device than the CPU."""
    if device.type == "cpu":
        return
    for node in checkpoint.network.nodes:
        name = named_method(checkpoint.plan, node.op)
        if name not in ("", TABLE):
            what = f"op {node.name} has the integer method {name!r}, which computes on the CPU only"
            levers = ("device cpu", "a plan without `nonlinear`")
            raise AccelsimError(Problem(f"device {device}", what, "the device cpu", levers))


def _on(value: Tensor | None, device: torch.device) -> Tensor | None:
    return None if value is None else value.to(device)
