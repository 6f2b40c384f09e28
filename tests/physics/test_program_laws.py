"""Laws of whole programs on random designs: hazards, capacity, conservation, bounds, agreement with the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from accelsim.arch import Accelerator
from accelsim.config import load_accelerator, load_plan
from accelsim.kernels.mapper import C_HALO
from accelsim.mappers.heuristic import map_and_lower
from accelsim.optable import T_BITS, T_FIRST, T_LAST, op_table
from accelsim.problems import InfeasibleError
from accelsim.program import CAUSES
from accelsim.reference import simulate_by_stepping
from accelsim.result import run_program
from accelsim.workloads.registry import build_workload
from tests.support.designs import accelerators
from tests.support.halos import lower_with_halos
from tests.support.program_laws import PLANS, SLOW, assert_laws, lowered_or_skip, table_of


@given(accelerators(), st.integers(0, 2), st.sampled_from(PLANS), st.booleans())
@SLOW
def test_random_designs_obey_the_laws(accelerator: Accelerator, case: int, plan: str, fuse: bool) -> None:
    table = table_of(case, plan)
    chains, lowered, engines = lowered_or_skip(table, accelerator, fuse)
    assert_laws(table, accelerator, chains, lowered, engines)


@given(accelerators(), st.integers(0, 2), st.sampled_from(PLANS), st.booleans())
@SLOW
def test_random_designs_that_keep_halos_obey_the_laws(
    accelerator: Accelerator, case: int, plan: str, fuse: bool
) -> None:
    table = table_of(case, plan)
    try:
        arrays, engines, _ = map_and_lower(table, accelerator, fuse)
    except InfeasibleError:
        assume(False)
        return
    chains, roomy, lowered = lower_with_halos(table, engines, accelerator, arrays)
    assume(chains[:, C_HALO].any())
    assert_laws(table, roomy, chains, lowered, engines)


@given(accelerators(), st.integers(0, 2), st.sampled_from(PLANS))
@SLOW
def test_an_output_stage_takes_results_in_order(accelerator: Accelerator, case: int, plan: str) -> None:
    """A tile's first result comes when the engine's previous tile has left its output stage, and not a tick before."""
    _, lowered, _ = lowered_or_skip(table_of(case, plan), accelerator)
    times = run_program(lowered, record=True).rows
    before: dict[int, int] = {}
    for row, (start, _, finish, cause, blocker, _) in zip(lowered.program.expand(), times.tolist(), strict=True):
        if row.lead_ticks > 0:
            assert start + row.lead_ticks >= before.get(row.unit, 0)
            assert finish > before.get(row.unit, 0)
            if cause == CAUSES.index("output"):
                assert start + row.lead_ticks == before[row.unit] == times[blocker, 2]
            before[row.unit] = finish


@given(accelerators(), st.integers(0, 2), st.sampled_from(PLANS))
@SLOW
def test_dram_writes_are_the_output_and_the_spilled_tensors(accelerator: Accelerator, case: int, plan: str) -> None:
    table = table_of(case, plan)
    try:
        arrays, _, lowered = map_and_lower(table, accelerator)
    except InfeasibleError:
        assume(False)
        return
    stored = 0
    chain_of = np.repeat(np.arange(len(arrays.chains)), arrays.chains[:, 1])
    for t, tensor in enumerate(table.tensors):
        internal = chain_of[tensor[T_FIRST]] == chain_of[tensor[T_LAST]] and not tensor[5]
        if not arrays.resident[t] and not tensor[4] and not internal:
            stored += int(tensor[T_BITS])
    payload = 0
    for row in lowered.program.expand():
        if row.unit == len(lowered.program.units) - 1 and row.write < 0:
            payload += row.run_bits * row.runs
    assert stored <= payload <= stored * 1.02 + 4096 * len(arrays.chains)


def test_lowered_program_equals_the_oracle() -> None:
    from accelsim.arch import Buffer, Dram

    base = load_accelerator("m2vit")
    buffers = {"activation_buffer": Buffer(12 * 8192), "weight_buffer": Buffer(24 * 8192)}
    # 2 and 2/3 cycles a burst.
    for plan, images, bandwidth in (("uniform8", 2, 51_200_000_000), ("m2q", 1, 153_600_000_000)):
        small = base.replace(dram=Dram(bandwidth, 512, 3e-8), **buffers)
        table = op_table(build_workload("efficientvit_b0", 64), load_plan(plan))
        _, _, lowered = map_and_lower(table, small)
        rows = run_program(lowered, images, record=True).rows
        oracle = simulate_by_stepping(lowered.program, images)
        assert rows[:, :3].tolist() == [[row.start, row.free, row.finish] for row in oracle]


@given(accelerators(shift=False), st.sampled_from([2, 3]))
@SLOW
def test_faster_dram_never_slows_a_fixed_program(accelerator: Accelerator, factor: int) -> None:
    from dataclasses import replace

    table = table_of(0, "uniform8")
    _, lowered, _ = lowered_or_skip(table, accelerator)
    before = run_program(lowered).total_ticks
    bus = len(lowered.program.units) - 1
    templates = lowered.program.templates.copy()
    transfers = templates[:, 0] == bus
    latency = templates[transfers, 3] - templates[transfers, 2]
    templates[transfers, 2] = -(-templates[transfers, 2] // factor)
    templates[transfers, 3] = templates[transfers, 2] + latency
    faster = replace(lowered, program=replace(lowered.program, templates=templates))
    assert run_program(faster).total_ticks <= before


@pytest.mark.parametrize("model", ["efficientvit_b1", "deit_small"])
def test_w8_on_a_heterogeneous_design_equals_the_multiplier_alone(model: str) -> None:
    both = load_accelerator("m2vit")
    alone = both.replace(engines=both.engines[:1])
    table = op_table(build_workload(model), load_plan("uniform8"))
    cycles = [run_program(map_and_lower(table, design)[2]).cycles_total for design in (both, alone)]
    assert cycles[0] == cycles[1]


def test_infeasible_says_what_is_missing() -> None:
    from accelsim.arch import Buffer

    tiny = load_accelerator("trio_vit").replace(activation_buffer=Buffer(8192, 8192))
    with pytest.raises(InfeasibleError) as caught:
        map_and_lower(op_table(build_workload("efficientvit_b1"), load_plan("uniform8")), tiny)
    problem = caught.value.problems[0]
    assert problem.gap is not None
    assert problem.gap > 0
    # The lever is true: with exactly the bits it asks for, this chain no longer fails first.
    enough = tiny.replace(activation_buffer=Buffer(problem.demand or 0, 8192))
    later = ""
    try:
        map_and_lower(op_table(build_workload("efficientvit_b1"), load_plan("uniform8")), enough)
    except InfeasibleError as error:
        later = error.problems[0].where
    assert later != problem.where
