"""Mappings whose chains keep the rows that tiles of a first convolution share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from accelsim.arch import Accelerator, Buffer
from accelsim.kernels.mapper import C_AXIS, C_FIRST, C_HALO, C_TILE
from accelsim.lowering import Lowered, lower
from accelsim.mapping import MappingArrays
from accelsim.mapping_checks import halo_problems
from accelsim.optable import EngineTable, OpTable


def keep_halos(table: OpTable, arrays: MappingArrays) -> MappingArrays:
    """The same decisions with every halo kept that can be."""
    chains = arrays.chains.copy()
    for chain in chains:
        place = (int(chain[C_FIRST]), int(chain[C_AXIS]), int(chain[C_TILE]))
        chain[C_HALO] = not halo_problems("chain", "keep", place, table, arrays.resident)
    return replace(arrays, chains=chains)


def lower_with_halos(
    table: OpTable, engines: EngineTable, accelerator: Accelerator, arrays: MappingArrays
) -> tuple[np.ndarray, Accelerator, Lowered]:
    """Chains and program with every halo kept that can be, on a design with four times the activation buffer."""
    roomy = accelerator.replace(activation_buffer=Buffer(4 * accelerator.activation_buffer.capacity_bits))
    kept = keep_halos(table, arrays)
    return kept.chains, roomy, lower(table, engines, roomy, kept)
