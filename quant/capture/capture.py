"""From a torch module to a Network: export, trace, fuse, build."""

from __future__ import annotations

from torch import nn

from accelsim.ir import Workload
from accelsim.problems import AccelsimError, Problem
from quant.capture import arithmetic_ops, compute_ops, view_ops  # noqa: F401  (they register what they handle)
from quant.capture.build import NetworkBuilder, leftovers
from quant.capture.exported import evaluation_copy, export
from quant.capture.fuse import fuse
from quant.capture.tracer import Tracer
from quant.network import Network

SHOWN_DIFFERENCES = 8


def capture(
    model: nn.Module,
    image_shape: tuple[int, int, int] = (3, 224, 224),
    name: str | None = None,
    workload: Workload | None = None,
) -> Network:
    """The Network of a module in evaluation mode for images [channels, h, w] with h = w.

    `name` is the workload's (default: that of `workload`, else the class).  `workload`, from a torch-free builder, must
    be what is captured, ops, names, shapes and counts; its meta data are taken over.  The module keeps its own state.
    Raises AccelsimError with every op that has no meaning here, with the reason of torch.export if it cannot follow the
    module, and with the differences to `workload`.
    """
    label = name or (workload.name if workload else type(model).__name__.lower())
    if len(image_shape) != 3 or image_shape[1] != image_shape[2]:
        raise AccelsimError(Problem(f"capture {label}", f"image shape {image_shape}", "[channels, h, w] with h = w"))
    copied = evaluation_copy(model)
    graph = Tracer(export(copied, image_shape, label), copied, label).trace()
    fuse(graph)
    problems = leftovers(graph, label)
    if problems:
        raise AccelsimError(problems)
    params = {path: parameter.numel() for path, parameter in model.named_parameters(remove_duplicate=False)}
    source = f"{type(model).__module__}.{type(model).__qualname__}"
    meta = workload.meta if workload else (("family", "captured"), ("source", source))
    network = NetworkBuilder(graph, label, params).build(meta)
    if workload is not None and network.workload != workload:
        raise AccelsimError(differences(network.workload, workload))
    return network


def differences(found: Workload, expected: Workload) -> list[Problem]:
    """Where two workloads differ, op by op, at most eight places."""
    where = f"capture {found.name}"
    result = []
    names = [op.name for op in found.ops], [op.name for op in expected.ops]
    for side, own, other in (("more", *names), ("missing", names[1], names[0])):
        extra = [name for name in own if name not in set(other)]
        if extra:
            result.append(Problem(where, f"{side} ops than the builder: {', '.join(extra[:SHOWN_DIFFERENCES])}"))
    for op in found.ops:
        twin = expected.op_by_name.get(op.name)
        if twin is not None and (op, found.tensor_by_name[op.output]) != (twin, expected.tensor_by_name[twin.output]):
            made, wanted = (op, found.tensor_by_name[op.output]), (twin, expected.tensor_by_name[twin.output])
            result.append(Problem(f"{where}: {op.name}", f"{made}", f"{wanted}"))
    return result[:SHOWN_DIFFERENCES] or [Problem(where, "order, name, resolution or graph output differ")]
