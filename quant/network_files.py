"""A Network's structure as plain data: what a checkpoint holds beside its tensors, so that no model class is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from accelsim.workloads.from_json import workload_from_json
from quant.network import Network, Node, Operand
from quant.views import view_from_json


def structure_of(network: Network) -> dict[str, Any]:
    """Plain data: the workload, and of every node its function, operands and settings."""
    return {
        "workload": {"format": "accelsim.workload/1", **network.workload.to_json()},
        "image_shape": list(network.image_shape),
        "nodes": [
            {
                "function": node.function,
                "operands": [
                    {"source": one.source, "views": [view.to_json() for view in one.views]} for one in node.operands
                ],
                "settings": {name: list(x) if isinstance(x, tuple) else x for name, x in node.settings.items()},
            }
            for node in network.nodes
        ],
    }


def network_from(data: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> Network:
    """The Network of `structure_of` data; `tensors` has ``node/NAME/weight`` and ``node/NAME/bias``.

    Filters of convolutions and linear layers are left out: a checkpoint has them as integers.
    """
    workload = workload_from_json(data["workload"], where)
    nodes = []
    for op, row in zip(workload.ops, data["nodes"], strict=True):
        operands = tuple(
            Operand(one["source"], tuple(view_from_json(view) for view in one["views"])) for one in row["operands"]
        )
        settings = {name: tuple(x) if isinstance(x, list) else x for name, x in row["settings"].items()}
        weight, bias = tensors.get(f"node/{op.name}/weight"), tensors.get(f"node/{op.name}/bias")
        nodes.append(Node(op, row["function"], operands, weight, bias, settings))
    return Network(workload, tuple(nodes), tuple(data["image_shape"]))
