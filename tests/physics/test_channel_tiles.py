"""Depthwise ops cut along their channels: legal, complete, equal to the oracle, and used only where rows do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from accelsim.api import simulate
from accelsim.arch import Accelerator, Buffer
from accelsim.config import load_accelerator, load_plan
from accelsim.counts import count_columns
from accelsim.mapping import ChainMapping, Mapping, Part
from accelsim.optable import OpTable, op_table
from accelsim.problems import AccelsimError
from accelsim.reference import simulate_by_stepping
from accelsim.workloads.registry import build_workload

CHANNELS = 5  # divides none of the channel counts: the last tile is shorter


def small_design() -> tuple[OpTable, Accelerator]:
    table = op_table(build_workload("efficientvit_b0", 64), load_plan("uniform8"))
    return table, load_accelerator("m2vit").replace(weight_buffer=Buffer(64 * 8192))


def by_channels(mapping: Mapping, table: OpTable) -> tuple[Mapping, list[str]]:
    """The mapping with every depthwise op cut into tiles of five channels, and their names."""
    classes = {item.op.name: item.op.op_class for item in table.quantized.ops}
    chains, changed = [], []
    for chain in mapping.chains:
        if len(chain.ops) == 1 and classes[chain.ops[0]] == "dw":
            chain = ChainMapping(chain.ops, "groups", CHANNELS, ((Part("mult", 0, CHANNELS),),))
            changed.append(chain.ops[0])
        chains.append(chain)
    return replace(mapping, chains=tuple(chains)), changed


def test_channel_tiles_do_the_same_work_and_equal_the_oracle() -> None:
    table, accelerator = small_design()
    rows = simulate(table, accelerator, fuse=False)
    mapping, changed = by_channels(rows.mapping, table)
    assert len(changed) > 5
    channels = simulate(table, accelerator, mapping, record=True)
    columns = list(count_columns(accelerator))
    same = [columns.index(name) for name in ("mult.products_1", "mult.outputs", "weight_write_bits")]
    assert np.array_equal(rows.result.counts[:, same], channels.result.counts[:, same])
    # Channel tiles read every input once: no halo rows twice.
    read = columns.index("activation_write_bits")
    names = [table.op_names.index(name) for name in changed]
    assert (channels.result.counts[names, read] <= rows.result.counts[names, read]).all()
    program = channels.lowered.program
    oracle = simulate_by_stepping(program)
    assert channels.result.rows[:, :3].tolist() == [[row.start, row.free, row.finish] for row in oracle]


def test_mapper_cuts_by_channels_only_where_rows_do_not_fit() -> None:
    table = op_table(build_workload("efficientvit_l1"), load_plan("uniform8"))
    report = simulate(table, load_accelerator("trio_vit"))
    classes = {item.op.name: item.op.op_class for item in table.quantized.ops}
    cut = [c.ops[0] for c in report.mapping.chains if c.axis == "groups" and classes[c.ops[0]] == "dw"]
    assert cut == ["s3.down.dw", "s4.down.dw"]
    roomy = load_accelerator("trio_vit").replace(activation_buffer=Buffer(1 << 24))
    assert all(c.axis == "rows" for c in simulate(table, roomy).mapping.chains if classes[c.ops[0]] == "dw")


@pytest.mark.parametrize(("blocks", "ops", "problem"), [(2, 1, "weights are not cut"), (1, 2, "a chain of its own")])
def test_illegal_channel_tiles_are_refused(blocks: int, ops: int, problem: str) -> None:
    table, accelerator = small_design()
    mapping, changed = by_channels(simulate(table, accelerator, fuse=False).mapping, table)
    at = next(k for k, chain in enumerate(mapping.chains) if chain.ops == (changed[0],))
    chains = list(mapping.chains)
    joined = chains[at : at + ops]
    names, parts = tuple(c.ops[0] for c in joined), tuple(c.parts[0] for c in joined)
    chains[at : at + ops] = [ChainMapping(names, "groups", CHANNELS, parts, blocks)]
    with pytest.raises(AccelsimError, match=problem):
        simulate(table, accelerator, replace(mapping, chains=tuple(chains)))
