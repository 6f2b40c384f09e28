"""Kept halos: every input row is loaded once, both loads are waited for, nothing is overwritten while it is read."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import pytest

from accelsim.api import Report, simulate
from accelsim.arch import Buffer
from accelsim.config import load_accelerator, load_plan
from accelsim.counts import count_columns
from accelsim.kernels.mapper import C_AXIS, C_BLOCKS, C_FIRST, C_HALO, C_N, C_TILE, C_WEIGHT_OUTER, working_bits
from accelsim.mapping import Mapping, arrays_to_mapping, mapping_from_json
from accelsim.optable import (
    O_ABITS,
    O_IN0,
    O_IN0_ROOT0,
    O_IN_H,
    O_KERNEL_H,
    O_PADDING,
    O_ROWS_H,
    O_STRIDE,
    op_table,
)
from accelsim.problems import AccelsimError
from accelsim.program import REGION_BITS, REGION_BUFFER, Row
from accelsim.reference import simulate_by_stepping
from accelsim.workloads.registry import build_workload
from tests.support.halos import keep_halos


@lru_cache
def reports(model: str, resolution: int | None, design: str, kib: int, record: bool = False) -> tuple[Report, Report]:
    """The heuristic's mapping, and the same with halos kept on a design with the same larger buffer."""
    base = load_accelerator(design)
    table = op_table(build_workload(model, resolution), load_plan("uniform8"))
    small = base.replace(activation_buffer=Buffer(kib * 8192)) if kib else base
    reload = simulate(table, small)
    mapping = arrays_to_mapping(keep_halos(table, reload.arrays), table, small)
    roomy = small.replace(activation_buffer=Buffer(4 * small.activation_buffer.capacity_bits))
    return simulate(table, roomy, reload.mapping, record=record), simulate(table, roomy, mapping, record=record)


CASES = [
    ("efficientvit_b1", None, "trio_vit", 0),
    ("mobilevit_s", None, "trio_vit", 0),
    ("efficientvit_b0", 64, "m2vit", 12),
]


def loads_of(report: Report, k: int) -> list[Row]:
    """Rows of the bus that bring tiles of op k's input."""
    program = report.result.program
    dram = len(program.units) - 1
    rows = (row for row in program.expand() if row.unit == dram and row.op == k and row.write >= 0)
    return [row for row in rows if program.regions[row.write, REGION_BUFFER] == 0]


def tile_rows(report: Report, chain: Any) -> list[int]:
    """Input rows that the tiles of a kept halo load, in order, by the formula of the contract."""
    op = report.table.ops[chain[C_FIRST]]
    extent, tile = int(op[O_ROWS_H]), int(chain[C_TILE])
    sizes = [min(tile, extent - start) for start in range(0, extent, tile)]
    rows = [size * int(op[O_STRIDE]) for size in sizes]
    rows[0] += int(op[O_KERNEL_H] - op[O_STRIDE])
    return rows * (int(chain[C_BLOCKS]) if chain[C_WEIGHT_OUTER] else 1)


@pytest.mark.parametrize("case", CASES)
def test_every_row_is_loaded_once(case: Any) -> None:
    reload, keep = reports(*case)
    columns = list(count_columns(keep.accelerator))
    read, written = columns.index("dram_read_bits"), columns.index("activation_write_bits")
    burst = keep.accelerator.dram.burst_bits
    expected = reload.result.counts.copy()
    kept = keep.arrays.chains[keep.arrays.chains[:, C_HALO] == 1]
    assert len(kept) >= 4
    assert case[0] != "mobilevit_s" or kept[:, C_WEIGHT_OUTER].any()
    for chain in kept:
        k = int(chain[C_FIRST])
        op = keep.table.ops[k]
        row_bits = int(op[O_IN0] // op[O_IN_H] * op[O_ABITS])
        rows, loads = tile_rows(keep, chain), loads_of(keep, k)
        assert [row.run_bits * row.runs for row in loads] == [row_bits * n for n in rows]
        passes = int(chain[C_BLOCKS]) if chain[C_WEIGHT_OUTER] else 1
        windows = int((op[O_ROWS_H] - 1) * op[O_STRIDE] + op[O_KERNEL_H])
        assert sum(rows) == passes * windows
        # One load begins where the one before ended, the first of a pass above the tensor by its padding.
        start = int(keep.lowered.tensor_address_bits[op[O_IN0_ROOT0]] - op[O_PADDING] * row_bits)
        for number, row in enumerate(loads):
            at = sum(rows[number - number % (len(rows) // passes) : number])
            assert row.dram_base_bits == start + at * row_bits
        before = [row.run_bits * row.runs for row in loads_of(reload, k)]
        assert sum(before) > sum(rows) * row_bits
        expected[k, written] += sum(rows) * row_bits - sum(before)
        expected[k, read] += burst * sum(-(-n * row_bits // burst) for n in rows)
        expected[k, read] -= burst * sum(-(-bits // burst) for bits in before)
    # Nothing else changes.
    assert np.array_equal(keep.result.counts, expected)
    assert keep.result.busy_cycles()["dram"] < reload.result.busy_cycles()["dram"]


def test_both_loads_are_waited_for_and_none_is_overwritten() -> None:
    _, keep = reports("efficientvit_b0", 64, "m2vit", 12, True)
    times = keep.result.rows[:, :3].tolist()
    rows = list(zip(keep.result.program.expand(), times, strict=True))
    dram = len(keep.result.program.units) - 1
    program, waited, held = keep.result.program, 0, 0
    for chain in keep.arrays.chains[keep.arrays.chains[:, C_HALO] == 1]:
        k = int(chain[C_FIRST])
        load_slots = {row.write for row in loads_of(keep, k)}
        tiles = -(-int(keep.table.ops[k, O_ROWS_H]) // int(chain[C_TILE]))
        assert len(load_slots) == min(3, tiles)
        loads = [(row, at) for row, at in rows if row.op == k and row.unit == dram and row.write in load_slots]
        computed: dict[int, list[int]] = {}  # by tile: start and free of the op's row
        for row, (start, free, _) in rows:
            if row.op == k and row.unit != dram:
                tile = row.iteration - 1
                needed = [loads[t] for t in ((tile, tile - 1) if tile else (tile,))]
                assert [region for region in row.reads if region in load_slots] == [load.write for load, _ in needed]
                usable = max(finish for _, (_, _, finish) in needed)
                assert start >= -(-usable // program.ticks_per_cycle) * program.ticks_per_cycle
                waited += start == -(-usable // program.ticks_per_cycle) * program.ticks_per_cycle
                computed[tile] = [start, free]
        for tile, (_, (start, _, _)) in enumerate(loads):
            if tile >= 3:
                released = max(computed[tile - 3][1], computed[tile - 2][1])
                assert start >= released
                held += start == released
    # The gates close: some tiles start when their rows come, some loads when a slot is free.
    assert waited > 0
    assert held > 0


def blocked(mapping: Mapping, outer: bool) -> Mapping:
    """The mapping with the stem in two weight blocks, on a sub-array that makes them possible, its halo kept."""
    chains = list(mapping.chains)
    stem = chains[0]
    part = replace(stem.parts[0][0], lanes=4)
    chains[0] = replace(stem, parts=((part,),), weight_blocks=2, weight_outer=outer, halo="keep")
    return replace(mapping, chains=tuple(chains))


@pytest.mark.parametrize("blocks", ["one", "inner", "outer"])
def test_programs_with_kept_halos_equal_the_oracle(blocks: str) -> None:
    _, keep = reports("efficientvit_b0", 32, "m2vit", 4, True)
    assert keep.arrays.chains[:, C_HALO].any()
    if blocks != "one":
        mapping = blocked(keep.mapping, blocks == "outer")
        keep = simulate(keep.table, keep.accelerator, mapping, record=True)
        rows = [row.run_bits for row in loads_of(keep, 0)]
        half = len(rows) // 2
        assert (rows[:half] == rows[half:]) == (blocks == "outer")
    oracle = simulate_by_stepping(keep.result.program)
    assert keep.result.rows[:, :3].tolist() == [[row.start, row.free, row.finish] for row in oracle]


@numba.njit
def bits_needed(ops: Any, tensors: Any, resident: Any, chain: Any) -> int:
    needed: int = working_bits(ops, tensors, resident, chain, chain[3])
    return needed


@pytest.mark.parametrize("case", CASES)
def test_working_bits_are_those_of_the_regions(case: Any) -> None:
    for report in reports(*case):
        table, lowered = report.table, report.lowered
        for number, chain in enumerate(report.arrays.chains):
            own = (lowered.region_life == number).all(axis=1)
            regions = lowered.program.regions[own]
            declared = int(regions[regions[:, REGION_BUFFER] == 0, REGION_BITS].sum())
            assert bits_needed(table.ops, table.tensors, report.arrays.resident, chain) == declared


def test_json_names_the_halo_only_where_it_is_kept() -> None:
    reload, keep = reports(*CASES[0])
    assert not any("halo" in chain for chain in reload.mapping.to_json()["chains"])
    data = json.loads(json.dumps(keep.mapping.to_json()))
    kept = [chain.get("halo") for chain in data["chains"]]
    assert kept.count("keep") == int(keep.arrays.chains[:, C_HALO].sum())
    assert set(kept) == {"keep", None}
    assert mapping_from_json(data, "m") == keep.mapping
    assert keep.mapping.fingerprint() != reload.mapping.fingerprint()


def refused(report: Report, op: str, problem: str, halo: str = "keep", **changes: Any) -> None:
    """The chain that starts with `op` cannot keep its halo, for one reason."""
    chains = [replace(chain, halo=halo, **changes) if chain.ops[0] == op else chain for chain in report.mapping.chains]
    assert tuple(chains) != report.mapping.chains
    with pytest.raises(AccelsimError, match=problem) as caught:
        simulate(report.table, report.accelerator, replace(report.mapping, chains=tuple(chains)))
    assert len(caught.value.problems) == 1
    assert "halo" in str(caught.value)


def test_illegal_halos_are_refused() -> None:
    report = reports(*CASES[0])[0]
    table, arrays = report.table, report.arrays
    refused(report, "stem.conv", "unknown policy 'ring'", halo="ring")
    refused(report, "stem.conv", "is a single tile", tile=int(table.ops[0, O_ROWS_H]))
    first_of = {table.op_names[int(chain[C_FIRST])]: chain for chain in arrays.chains}
    wide = {name for name, c in first_of.items() if table.ops[c[C_FIRST], O_KERNEL_H] > table.ops[c[C_FIRST], O_STRIDE]}
    on_chip = [n for n in wide if arrays.resident[table.ops[first_of[n][C_FIRST], O_IN0_ROOT0]]]
    refused(report, min(on_chip), "is resident")
    refused(report, min(set(first_of) - wide), "share no rows|not cut along rows")
    heads = next(name for name, c in first_of.items() if c[C_AXIS] != 1 and c[C_N] >= 1)
    refused(report, heads, "not cut along rows")


def test_an_overlap_longer_than_a_tile_is_refused() -> None:
    table = op_table(build_workload("fastvit_t8"), load_plan("uniform8"))
    report = simulate(table, load_accelerator("trio_vit"))
    chain = next(
        c for c in report.arrays.chains
        if table.ops[c[C_FIRST], O_KERNEL_H] == 7 and not report.arrays.resident[table.ops[c[C_FIRST], O_IN0_ROOT0]]
    )  # fmt: skip
    name = table.op_names[int(chain[C_FIRST])]
    refused(report, name, "share 6 rows, and one brings 5", tile=5)
    chains = tuple(replace(c, halo="keep", tile=6) if c.ops[0] == name else c for c in report.mapping.chains)
    roomy = report.accelerator.replace(activation_buffer=Buffer(1 << 24))
    kept = simulate(table, roomy, replace(report.mapping, chains=chains))
    loads = loads_of(kept, int(chain[C_FIRST]))
    # The first tile brings its six rows and the six around them, every other one six.
    assert [row.run_bits * 12 for row in loads[:3]] == [loads[0].run_bits * n for n in (12, 6, 6)]
