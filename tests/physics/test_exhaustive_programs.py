"""What the exhaustive mapper adds up is what the program of its mapping does: chain by chain, and in the sum."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from accelsim.api import simulate
from accelsim.arch import Accelerator, Buffer
from accelsim.config import load_accelerator, load_plan
from accelsim.energy import static_pj_per_cycle, unit_energies
from accelsim.ir import Loop, Tensor
from accelsim.kernels.chain_cost import W_BITS, W_TICKS
from accelsim.kernels.mapper import C_FIRST, C_N, C_TILE, working_bits
from accelsim.lowering import DoesNotFitError, Lowered, lower
from accelsim.mappers.chain_ways import FJ_PER_PJ, Search, mapping_of
from accelsim.mappers.exhaustive import find_mapping
from accelsim.mappers.memo import Memo
from accelsim.mappers.paths import Network, Path
from accelsim.mapping import MappingArrays, arrays_to_mapping, mapping_to_arrays
from accelsim.optable import T_BITS, T_FIRST, T_LAST, op_table
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.program import OP, RUN_BITS, RUNS, UNIT
from accelsim.result import run_program
from accelsim.token_forms import worst_case
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.registry import build_workload, model_names
from tests.fuzz.laws import check_laws
from tests.support.designs import accelerators
from tests.support.searches import chain_figures, network_of, random_table, search_of
from tests.support.token_plans import grouped_table

SOME = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
OBJECTIVES = st.sampled_from(["latency", "energy", "edp"])
working = numba.njit(lambda ops, tensors, resident, chain, size: working_bits(ops, tensors, resident, chain, size))


def drawn(seed: int, accelerator: Accelerator) -> Search:
    """The search of a random network; the example is dropped where network and design do not go together."""
    table = random_table(seed)
    assume(table is not None)
    assert table is not None
    try:
        return search_of(table, accelerator)
    except AccelsimError:
        assume(False)
        raise


def lowered_path(network: Network, path: Path) -> tuple[MappingArrays, Lowered]:
    search = network.search
    arrays = mapping_of(search, network.found, path.steps)
    try:
        return arrays, lower(search.table, search.engines, search.accelerator, arrays)
    except DoesNotFitError:
        assume(False)
        raise


def best(network: Network, objective: str) -> Path:
    paths = network.least(objective, network.search.accelerator.activation_buffer.capacity_bits)
    assume(paths)
    return paths[0]


@SOME
@given(accelerators(), st.integers(0, 10**6), OBJECTIVES)
def test_ticks_of_every_chain_are_those_of_its_rows(accelerator: Accelerator, seed: int, objective: str) -> None:
    network = network_of(drawn(seed, accelerator))
    path = best(network, objective)
    arrays, lowered = lowered_path(network, path)
    figures = chain_figures(lowered, arrays, network.search)
    ticks = [int(network.ways[network.first_way[step] + way, W_TICKS]) for step, way, _ in path.steps]
    assert ticks == [figure.objective for figure in figures]
    assert path.ticks == sum(ticks)
    busy = run_program(lowered).unit_busy_ticks
    assert np.sum([figure.busy for figure in figures], axis=0).tolist() == busy.tolist()


@SOME
@given(accelerators(), st.integers(0, 10**6), OBJECTIVES)
def test_energy_is_that_of_the_counts(accelerator: Accelerator, seed: int, objective: str) -> None:
    """Within the rounding of shares, and a femtojoule per number that the kernels cut to whole ones."""
    network = network_of(drawn(seed, accelerator))
    path = best(network, objective)
    _, lowered = lowered_path(network, path)
    ticks = accelerator.bus_ticks().per_cycle
    idle, leakage = static_pj_per_cycle(accelerator)
    busy = dict(zip(lowered.program.units, run_program(lowered).unit_busy_ticks.tolist(), strict=True))
    exact = float(lowered.counts.sum(axis=0) @ unit_energies(accelerator)) * FJ_PER_PJ
    for unit, rate in [*idle.items(), ("", 0.0)]:
        exact += rate * FJ_PER_PJ * (path.ticks - busy[unit]) / ticks if unit else 0.0
    exact += leakage * FJ_PER_PJ * path.ticks / ticks
    slack = 40.0 * len(lowered.program.op_names)
    assert path.energy_fj <= exact + slack
    assert exact <= path.energy_fj * (1 + 1 / 255) + slack


@SOME
@given(accelerators(), st.integers(0, 10**6), OBJECTIVES)
def test_chains_and_residents_fit_the_buffer(accelerator: Accelerator, seed: int, objective: str) -> None:
    network = network_of(drawn(seed, accelerator))
    path = best(network, objective)
    table, capacity = network.search.table, accelerator.activation_buffer.capacity_bits
    arrays = mapping_of(network.search, network.found, path.steps)
    for (step, way, _), chain in zip(path.steps, arrays.chains, strict=True):
        need = int(working(table.ops, table.tensors, arrays.resident, chain, int(chain[C_TILE])))
        assert need == int(network.ways[network.first_way[step] + way, W_BITS])
        first, last = int(chain[C_FIRST]), int(chain[C_FIRST] + chain[C_N] - 1)
        alive = (table.tensors[:, T_FIRST] <= last) & (table.tensors[:, T_LAST] >= first) & (arrays.resident == 1)
        assert need + int(table.tensors[alive, T_BITS].sum()) <= capacity


@SOME
@given(accelerators(), st.integers(0, 10**6), OBJECTIVES)
def test_found_mappings_are_legal_and_kept_is_no_worse(accelerator: Accelerator, seed: int, objective: str) -> None:
    search = drawn(seed, accelerator)
    table = search.table
    try:
        found = find_mapping(table, accelerator, objective, memo=Memo())
    except AccelsimError:
        assume(False)
        raise
    kept = found.kept
    again = mapping_to_arrays(arrays_to_mapping(kept.arrays, table, accelerator), table, search.engines, accelerator)
    for name in ("chains", "n_parts", "resident"):
        assert (getattr(again, name) == getattr(kept.arrays, name)).all()
    report = simulate(table, accelerator, arrays_to_mapping(kept.arrays, table, accelerator))
    assert report.result.cycles_total == kept.cycles
    check_laws(report)
    for other in (found.heuristic, found.exhaustive):
        assert other is None or kept.value(objective) <= other.value(objective)


DESIGNS = (
    ("trio_vit", "uniform8"), ("m2vit", "m2q"), ("tiny", "uniform8"), ("systolic_ws", "uniform8"),
    ("bitfusion_edge", "uniform4"),
)  # fmt: skip
RESOLUTION = {"swin_tiny": 224, "swin_small": 224}


@pytest.mark.parametrize("model", model_names())
@pytest.mark.parametrize(("arch", "plan"), DESIGNS)
def test_built_in_networks(model: str, arch: str, plan: str) -> None:
    """At a low resolution: runs, keeps the better one, and no program of one image beats its design bound."""
    table, accelerator = (
        op_table(build_workload(model, RESOLUTION.get(model, 64)), load_plan(plan)),
        load_accelerator(arch),
    )
    try:
        found = find_mapping(table, accelerator)
    except InfeasibleError as refusal:
        pytest.skip(str(refusal)[:100])
    assert found.optimum is not None
    assert found.exhaustive is not None
    assert found.kept.cycles <= min(one.cycles for one in (found.exhaustive, found.heuristic) if one is not None)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
def test_a_view_of_two_products_is_made_in_one_place(swapped: bool, objective: str) -> None:
    """A softmax reads as one what two matrix products wrote before and after a convolution, by heads."""
    heads, tokens = 8, 32
    net = WorkloadBuilder("pair", heads, 4)
    tip = net.conv("q", "pw", net.input, 4)
    loop = Loop(heads, tokens, 1, tokens, 1)
    early = net.matmul("b", "attn_scores", tip, tip, loop)
    late = net.matmul("a", "attn_scores", net.conv("c", "conv", tip, 8, kernel=3), tip, loop)
    pair = net.view("v", (late, early) if swapped else (early, late), tokens, 1, 2 * heads * tokens)
    soft = Tensor("x", tokens, 1, 2 * heads * tokens)
    net.vector("x", "softmax", (pair,), recipes.softmax(heads, tokens, 1, 2 * tokens), soft)
    table = op_table(net.build(net.conv("o", "pw", "x", 4)), load_plan("uniform8"))
    tiny = load_accelerator("tiny")
    slow = replace(tiny.dram, bandwidth_bits_per_s=1_000_000_000)
    accelerator = tiny.replace(activation_buffer=Buffer(1 << 17, 8192, 64), dram=slow)
    found = find_mapping(table, accelerator, objective, memo=Memo())
    for one in (found.exhaustive, found.heuristic):
        assert one is not None
        mapping = arrays_to_mapping(one.arrays, table, accelerator)
        assert simulate(table, accelerator, mapping).result.cycles_total == one.cycles


def test_a_product_with_one_row_loads_that_row() -> None:
    """Ranking reads the class token's queries alone, in one run; the mapper counts it so, too."""
    table = worst_case(grouped_table({"b1": 17, "b2": 17}))
    bits = 16 << 10  # queries, keys and values of a layer do not stay
    small = replace(
        load_accelerator("tiny"), activation_buffer=Buffer(capacity_bits=bits, macro_bits=bits, word_bits=64)
    )
    network = network_of(search_of(table, small))
    path = network.least("latency", small.activation_buffer.capacity_bits)[0]
    arrays, lowered = lowered_path(network, path)
    ticks = [int(network.ways[network.first_way[step] + way, W_TICKS]) for step, way, _ in path.steps]
    assert ticks == [figure.objective for figure in chain_figures(lowered, arrays, network.search)]
    ranks = [k for k, name in enumerate(table.op_names) if name.endswith("rank_scores")]
    loads = [row for row in lowered.program.templates if row[UNIT] == len(small.engines) + 1 and row[OP] in ranks]
    # The queries of one token, one to three heads of 8 channels of 8 bits, and the keys of all 17.
    queries = [row for row in loads if row[RUN_BITS] * row[RUNS] <= 3 * 64]
    assert queries
    assert all(row[RUNS] == 1 for row in queries)
