"""The first run compiles the kernels: the two largest side by side, so that it takes little more than one of them."""

from __future__ import annotations

import numpy as np

from accelsim.config import load_accelerator, load_plan
from accelsim.kernels.warm import start_compiling_lowering
from accelsim.mappers.heuristic import choose_mapping, fused_chains
from accelsim.optable import engine_table, op_table
from accelsim.workloads.registry import build_workload


def compile_kernels() -> None:
    """Fill numba's cache: lowering in a second process, the mapper in this one.  Nothing depends on its success."""
    lowering = start_compiling_lowering()
    table = op_table(build_workload("efficientvit_b0", 32), load_plan("uniform8"))
    accelerator = load_accelerator("trio_vit")
    chains = fused_chains(table, accelerator)
    choose_mapping(
        table, engine_table(accelerator, table), accelerator, chains, np.zeros(len(table.tensor_names), np.int64)
    )
    if lowering is not None:
        lowering.wait()
