"""Exact builders of networks; importing the package registers every family."""

from __future__ import annotations

from accelsim.workloads import efficientformer, efficientvit, fastvit, levit, mobilevit, reference_models, swin, vit
from accelsim.workloads.registry import build_workload, describe, model_names, register

__all__ = [
    "build_workload",
    "describe",
    "efficientformer",
    "efficientvit",
    "fastvit",
    "levit",
    "mobilevit",
    "model_names",
    "reference_models",
    "register",
    "swin",
    "vit",
]
