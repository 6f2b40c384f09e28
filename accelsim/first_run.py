"""The first run compiles the kernels: the two largest side by side, so that it takes little more than one of them."""

from __future__ import annotations

import numpy as np

from accelsim.arch import Accelerator
from accelsim.config import load_accelerator, load_plan
from accelsim.kernels.warm import start_compiling_lowering
from accelsim.mappers.heuristic import choose_mapping, fused_chains
from accelsim.optable import OpTable, engine_table, op_table
from accelsim.workloads.registry import build_workload


def compile_kernels(exhaustive: bool) -> None:
    """Fill numba's cache: lowering in a second process, the mappers in this one.  Nothing depends on its success."""
    lowering = start_compiling_lowering()
    table = op_table(build_workload("efficientvit_b0", 32), load_plan("uniform8"))
    accelerator = load_accelerator("trio_vit")
    chains = fused_chains(table, accelerator)
    choose_mapping(
        table, engine_table(accelerator, table), accelerator, chains, np.zeros(len(table.tensor_names), np.int64)
    )
    if exhaustive:
        compile_chains(table, accelerator)
    if lowering is not None:
        lowering.wait()


def compile_chains(table: OpTable, accelerator: Accelerator) -> None:
    """Fill numba's cache with the kernels of the exhaustive mapper."""
    from accelsim.mappers.chain_ways import prepare, ways_of
    from accelsim.mappers.memo import Memo

    search = prepare(table, engine_table(accelerator, table), accelerator, False, Memo())
    for start in search.space.starts[:1]:
        ways_of(search, start)
