"""Mapping: which ops run as one chain, along which axis in tiles of what size, on which engines, what stays on chip."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from accelsim.arch import Accelerator
from accelsim.ir import digest
from accelsim.kernels.mapper import C_AXIS, C_FIRST, CHAIN_COLUMNS, N_PART, reads_whole_views, widest_weight_bits
from accelsim.kernels.systolic_forms import FORM_TREE
from accelsim.kernels.tiling import used_blocks
from accelsim.mapping_checks import HALOS, halo_problems, sub_array_problems
from accelsim.optable import (
    AXIS_GROUPS,
    AXIS_ROWS,
    E_FORM,
    KIND_CONV,
    KIND_VECTOR,
    M_MODE,
    O_AXES,
    O_GROUP_EXTENT,
    O_IN0_ROOT0,
    O_IN1_ROOT1,
    O_IN_H,
    O_KERNEL_H,
    O_KIND,
    O_OUT,
    O_ROWS_H,
    O_SLICES,
    O_STRIDE,
    O_UNIT_WEIGHTS,
    O_UNITS,
    OFF_CHIP,
    S_COMBO,
    S_UNITS,
    T_INPUT,
    T_LAST,
    T_OUTPUT,
    T_TWIN,
    EngineTable,
    OpTable,
)  # fmt: skip
from accelsim.problems import AccelsimError, Problem
from accelsim.program import Int64

MAPPING_FORMAT = "accelsim.mapping/1"


@dataclass(frozen=True)
class Part:
    """A share of an op: `units` output channels (groups of a grouped op; groups per tile of a matmul) on an engine.

    `slice` is the index of the weight format in the plan's rule.  The last three choose a sub-array of an adder-tree
    engine (its first lanes, lane inputs, pixel groups); 0 is all of them.
    """

    engine: str
    slice: int
    units: int
    lanes: int = 0
    lane_width: int = 0
    pixel_groups: int = 0

    def to_json(self) -> list[Any]:
        """[engine, slice, units], and the three sizes unless the engine is whole."""
        sizes = [self.lanes, self.lane_width, self.pixel_groups]
        return [self.engine, self.slice, self.units, *(sizes if any(sizes) else [])]


@dataclass(frozen=True)
class ChainMapping:
    """Consecutive ops that run tile by tile together.

    `axis` is "rows" or "groups", `tile` the units of the axis per tile.  A chain of one op may cut its weights into
    `weight_blocks`; `weight_outer` says that all tiles pass for each block (else all blocks pass for each tile).
    `halo` says whether input rows that two tiles of the first convolution share are loaded twice ("reload") or stay on
    chip ("keep").
    """

    ops: tuple[str, ...]
    axis: str
    tile: int
    parts: tuple[tuple[Part, ...], ...]
    weight_blocks: int = 1
    weight_outer: bool = False
    halo: str = "reload"

    def to_json(self) -> dict[str, Any]:
        """Plain data; `halo` only where it is not "reload"."""
        return {
            "ops": list(self.ops),
            "axis": self.axis,
            "tile": self.tile,
            "weight_blocks": self.weight_blocks,
            "weight_outer": self.weight_outer,
            "parts": [[part.to_json() for part in parts] for parts in self.parts],
            **({} if self.halo == "reload" else {"halo": self.halo}),
        }


@dataclass(frozen=True)
class Mapping:
    """A complete mapping.  `resident` names the tensors that stay in the activation buffer for their whole life."""

    chains: tuple[ChainMapping, ...]
    resident: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data in the mapping file's format."""
        return {
            "format": MAPPING_FORMAT,
            "resident": list(self.resident),
            "chains": [chain.to_json() for chain in self.chains],
        }

    def fingerprint(self) -> str:
        """Hash of every decision."""
        return digest(self.to_json())


@dataclass(frozen=True, eq=False)
class MappingArrays:
    """The array form that lowering reads: chains, parts by op, resident flag by tensor."""

    chains: Int64
    parts: Int64
    n_parts: Int64
    resident: Int64


def max_parts(accelerator: Accelerator, table: OpTable) -> int:
    """Most parts that an op can have: every engine with every weight format."""
    return len(accelerator.engines) * int(table.slices.shape[1])


def mapping_from_json(data: Any, where: str) -> Mapping:
    """Mapping from plain data; raises AccelsimError that names the chain and field at fault."""
    if not isinstance(data, dict) or data.get("format") != MAPPING_FORMAT:
        raise AccelsimError(
            Problem(
                where, "not a mapping", f"an object with format: {MAPPING_FORMAT!r}", ("accelsim run --save-mapping",)
            )
        )
    items = data.get("chains")
    if not isinstance(items, list):
        raise AccelsimError(Problem(f"{where}: chains", "not a list", "a list of chains"))
    chains = []
    for number, item in enumerate(items):
        try:
            chains.append(
                ChainMapping(
                    ops=tuple(str(name) for name in item["ops"]),
                    axis=str(item["axis"]),
                    tile=_whole(item["tile"]),
                    parts=tuple(tuple(_part(part) for part in parts) for parts in item["parts"]),
                    weight_blocks=_whole(item["weight_blocks"]),
                    weight_outer=_flag(item["weight_outer"]),
                    halo=str(item.get("halo", "reload")),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            expected = (
                "ops, axis, tile, weight_blocks, weight_outer, parts [[engine, slice, units], …] per op; "
                "a part on a sub-array has lanes, lane width and pixel groups behind its units; maybe a halo"
            )
            raise AccelsimError(Problem(f"{where}: chains[{number}]", _fault(error), expected)) from error
    resident = data.get("resident", [])
    if not isinstance(resident, list) or not all(isinstance(name, str) for name in resident):
        raise AccelsimError(Problem(f"{where}: resident", "not a list of tensor names", "a list of strings"))
    return Mapping(tuple(chains), tuple(resident))


def _part(data: Any) -> Part:
    engine, *numbers = data
    if len(numbers) not in (2, 5):
        raise ValueError(f"a part of {len(data)} values")
    return Part(str(engine), *(_whole(number) for number in numbers))


def _fault(error: Exception) -> str:
    return f"has no {error}" if isinstance(error, KeyError) else f"malformed chain: {error}"


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 40:
        raise ValueError(f"{value!r} is not a whole number from 0 to 2^40")
    return value


def arrays_to_mapping(arrays: MappingArrays, table: OpTable, accelerator: Accelerator) -> Mapping:
    """The user's form of array decisions."""
    chains = []
    for first, n, axis, tile, blocks, outer, halo in arrays.chains.tolist():
        parts = tuple(
            tuple(
                Part(accelerator.engines[e].name, *rest) for e, *rest in arrays.parts[k, : arrays.n_parts[k]].tolist()
            )
            for k in range(first, first + n)
        )
        name = "rows" if axis == AXIS_ROWS else "groups"
        names = table.op_names[first : first + n]
        chains.append(ChainMapping(names, name, tile, parts, blocks, bool(outer), HALOS[halo]))
    resident = tuple(table.tensor_names[t] for t in np.flatnonzero(arrays.resident))
    return Mapping(tuple(chains), resident)


def mapping_to_arrays(
    mapping: Mapping, table: OpTable, engines: EngineTable, accelerator: Accelerator, where: str = "mapping"
) -> MappingArrays:
    """Array form of a mapping, after checking that it is legal for this workload, plan and accelerator.

    Raises AccelsimError with every fault found: ops missing or out of order, wrong axis or tile, parts that do not add
    up, engines that cannot execute a slice, chains whose intermediates are needed later, weight blocks of long chains.
    """
    _check_order(where, mapping, table)
    problems: list[Problem] = []
    arrays = MappingArrays(
        np.zeros((len(mapping.chains), len(CHAIN_COLUMNS)), np.int64),
        np.zeros((len(table.op_names), max_parts(accelerator, table), N_PART), np.int64),
        np.zeros(len(table.op_names), np.int64),
        np.zeros(len(table.tensor_names), np.int64),
    )
    first = 0
    for number, chain in enumerate(mapping.chains):
        axis = {"rows": AXIS_ROWS, "groups": AXIS_GROUPS}.get(chain.axis, 0)
        keep = chain.halo == "keep"
        arrays.chains[number] = (first, len(chain.ops), axis, chain.tile, chain.weight_blocks, chain.weight_outer, keep)
        problems += _check_chain(f"{where}: chains[{number}]", chain, first, axis, table, accelerator)
        for offset, parts in enumerate(chain.parts[: len(chain.ops)]):
            k = first + offset
            problems += _fill_parts(
                f"{where}: chains[{number}].parts[{offset}]", parts, k, chain, table, engines, accelerator, arrays
            )
            if not problems and chain.weight_blocks > 1 and len(chain.ops) == 1:
                used = used_blocks(
                    table.ops, engines.engines, engines.modes, table.slices, k, arrays.parts[k], arrays.n_parts[k],
                    chain.weight_blocks,
                )  # fmt: skip
                if used != chain.weight_blocks:
                    what = f"{chain.weight_blocks} blocks, but rounding to lanes leaves {used}"
                    problems.append(Problem(f"{where}: chains[{number}].weight_blocks", what, f"{used}"))
        first += len(chain.ops)
    _fill_residents(where, mapping, table, arrays, problems)
    for number, chain in enumerate(() if problems else mapping.chains):
        place = (int(arrays.chains[number, C_FIRST]), int(arrays.chains[number, C_AXIS]), chain.tile)
        problems += halo_problems(f"{where}: chains[{number}]", chain.halo, place, table, arrays.resident)
    if problems:
        raise AccelsimError(problems[:20])
    return arrays


def _check_order(where: str, mapping: Mapping, table: OpTable) -> None:
    """Raise AccelsimError unless the chains have every op once, in order."""
    order = [name for chain in mapping.chains for name in chain.ops]
    for k, (found, expected) in enumerate(zip_longest(order, table.op_names)):
        if found != expected:
            what = f"op {k} of the chains is {found or 'the end'!r}"
            raise AccelsimError(Problem(where, what, f"{expected or 'no further op'!r}: every op once, in order"))


def _check_chain(
    where: str, chain: ChainMapping, first: int, axis: int, table: OpTable, accelerator: Accelerator
) -> list[Problem]:
    problems = []
    ops = table.ops
    if axis == 0:
        return [Problem(f"{where}.axis", f"unknown axis {chain.axis!r}", "'rows' or 'groups'")]
    column = O_ROWS_H if axis == AXIS_ROWS else O_GROUP_EXTENT
    extent = int(ops[first, column])
    if not 1 <= chain.tile <= extent:
        problems.append(Problem(f"{where}.tile", f"{chain.tile} units", f"1 … {extent}"))
    if len(chain.parts) != len(chain.ops):
        problems.append(
            Problem(f"{where}.parts", f"{len(chain.parts)} lists for {len(chain.ops)} ops", "one list per op")
        )
    problems += _check_chain_ops(where, chain, first, axis, table)
    if chain.weight_blocks > 1 and not ops[first, O_UNIT_WEIGHTS]:
        problems.append(Problem(f"{where}.weight_blocks", f"{table.op_names[first]} has no weights to cut", "1"))
    if chain.weight_blocks > 1 and axis == AXIS_GROUPS:
        problems.append(Problem(f"{where}.weight_blocks", "weights are not cut along the axis groups", "1"))
    if chain.weight_blocks > max(1, int(ops[first, O_UNITS])):
        problems.append(Problem(f"{where}.weight_blocks", f"{chain.weight_blocks}", f"at most {ops[first, O_UNITS]}"))
    if chain.weight_blocks < 1 or (chain.weight_blocks > 1 and len(chain.ops) > 1):
        problems.append(Problem(f"{where}.weight_blocks", f"{chain.weight_blocks}", "1, or more for a chain of one op"))
    if len(chain.ops) > 1:
        capacity = accelerator.weight_buffer.capacity_bits
        need = sum(int(widest_weight_bits(ops, table.slices, k)) for k in range(first, first + len(chain.ops)))
        if need > capacity:
            problems.append(Problem(where, "weights of the chain", demand=need, bound=capacity, unit="bits"))
    return problems


def _check_chain_ops(where: str, chain: ChainMapping, first: int, axis: int, table: OpTable) -> list[Problem]:
    """Faults of the ops of a chain: axes, windows, views, outputs that are needed elsewhere."""
    problems: list[Problem] = []
    ops, stop = table.ops, first + len(chain.ops)
    column = O_ROWS_H if axis == AXIS_ROWS else O_GROUP_EXTENT
    for k in range(first, stop):
        name = table.op_names[k]
        if not ops[k, O_AXES] & axis:
            problems.append(
                Problem(where, f"op {name} cannot be cut along {chain.axis}", "the other axis or its own chain")
            )
        elif axis == AXIS_GROUPS and ops[k, O_KIND] == KIND_CONV and len(chain.ops) > 1:
            problems.append(Problem(where, f"op {name} is cut along its channels", "a chain of its own, or axis rows"))
        elif ops[k, column] != ops[first, column]:
            expected = f"{ops[first, column]} as the first op"
            problems.append(Problem(where, f"op {name} has {ops[k, column]} {chain.axis}", expected))
        tall = ops[k, O_KERNEL_H] != 1 or ops[k, O_STRIDE] != 1 or ops[k, O_IN_H] != ops[k, O_ROWS_H]
        if k > first and axis == AXIS_ROWS and tall:
            problems.append(
                Problem(where, f"op {name} needs rows of other tiles", "windows larger than 1 only in the first op")
            )
        if not reads_whole_views(ops, first, k):
            what = f"op {name} reads as one a tensor made in the chain and one from outside"
            problems.append(Problem(where, what, "both or none made in the chain"))
        out = int(ops[k, O_OUT])
        ends = "a chain that ends there"
        if k < stop - 1 and (table.tensors[out, T_LAST] >= stop or table.tensors[out, T_OUTPUT]):
            problems.append(Problem(where, f"the output of {name} is needed after the chain", ends))
        if k < stop - 1 and out not in ops[k + 1 : stop, O_IN0_ROOT0 : O_IN1_ROOT1 + 1]:
            problems.append(Problem(where, f"no later op of the chain reads the output of {name}", ends))
    return problems


def _fill_parts(
    where: str, parts: tuple[Part, ...], k: int, chain: ChainMapping, table: OpTable, engines: EngineTable,
    accelerator: Accelerator, arrays: MappingArrays,
) -> list[Problem]:  # fmt: skip
    problems = []
    op = table.ops[k]
    if op[O_KIND] == KIND_VECTOR:
        return [Problem(where, "a vector op has parts", "an empty list")] if parts else []
    names = [engine.name for engine in accelerator.engines]
    n_slices = int(op[O_SLICES])
    totals = [0] * n_slices
    limit = max_parts(accelerator, table)
    if len(parts) > limit:
        return [Problem(where, f"{len(parts)} parts", f"at most {limit}: one per engine and weight format")]
    for number, part in enumerate(parts):
        if part.engine not in names:
            problems.append(Problem(where, f"unknown engine {part.engine!r}", " or ".join(names)))
        elif not 0 <= part.slice < n_slices:
            problems.append(Problem(where, f"slice {part.slice}", f"0 … {n_slices - 1}"))
        elif part.units < 1:
            problems.append(Problem(where, f"{part.units} units", "at least 1"))
        elif engines.modes[table.slices[k, part.slice, S_COMBO], names.index(part.engine), M_MODE] < 0:
            problems.append(Problem(where, f"{part.engine} cannot execute slice {part.slice} of {table.op_names[k]}"))
        else:
            e, sizes = names.index(part.engine), (part.lanes, part.lane_width, part.pixel_groups)
            problems += sub_array_problems(
                where, accelerator.engines[e], bool(engines.engines[e, E_FORM] == FORM_TREE), sizes
            )
            totals[part.slice] += part.units
            arrays.parts[k, number] = (e, part.slice, part.units, *sizes)
    arrays.n_parts[k] = len(parts)
    grouped = chain.axis == "groups"
    wanted = chain.tile if grouped else int(op[O_UNITS])
    if not problems and sum(totals) != wanted:
        problems.append(Problem(where, f"parts add up to {sum(totals)} units", f"{wanted}"))
    for s in range(n_slices):
        fixed = int(table.slices[k, s, S_UNITS])
        if not problems and not grouped and fixed >= 0 and totals[s] != fixed:
            problems.append(Problem(where, f"slice {s} has {totals[s]} units", f"{fixed}, as the plan says"))
    return problems


def _fill_residents(
    where: str, mapping: Mapping, table: OpTable, arrays: MappingArrays, problems: list[Problem]
) -> None:
    for name in mapping.resident:
        if name not in table.tensor_names:
            problems.append(
                Problem(f"{where}: resident", f"unknown tensor {name!r}", "a stored tensor of the workload")
            )
            continue
        t = table.tensor_names.index(name)
        if table.tensors[t, T_INPUT] or table.tensors[t, T_OUTPUT]:
            problems.append(Problem(f"{where}: resident", f"{name} is a graph input or output", "it lives in DRAM"))
        elif table.tensors[t, T_TWIN] == OFF_CHIP:
            what = f"a view reads {name} together with a graph input or output, or with more than one other tensor"
            problems.append(Problem(f"{where}: resident", what, "a tensor that no such view reads"))
        arrays.resident[t] = 1
    for t in range(len(table.tensor_names)):
        twin = int(table.tensors[t, T_TWIN])
        if twin >= 0 and arrays.resident[t] != arrays.resident[twin]:
            a, b = table.tensor_names[t], table.tensor_names[twin]
            problems.append(
                Problem(f"{where}: resident", f"only one of {a} and {b}", "both or none: a view reads them together")
            )
