"""A seeded thousand of the fuzz in every test run, the limits of int64, and the faults that it has found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from accelsim.api import simulate
from accelsim.bounds import design_bound
from accelsim.config import accelerator_from_data, load_accelerator, load_plan
from accelsim.ir import Tensor
from accelsim.limits import MAX_PRODUCT
from accelsim.mapping import mapping_from_json
from accelsim.optable import engine_table, op_table
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder, check_workload
from tests.fuzz import run
from tests.fuzz.inputs import random_accelerator
from tests.fuzz.laws import check_laws
from tests.fuzz.networks import huge_workload, random_workload

SEEDS = range(1_000_000, 1_001_000)


@pytest.mark.parametrize("part", range(4))
def test_a_thousand_cases(part: int) -> None:
    outcomes, faults = run.fuzz(SEEDS[part::4])
    assert not faults, faults[0]
    assert sum(outcomes.values()) == 250
    # The draw is worth something: every outcome is common.
    assert min(outcomes[name] for name in ("result", "infeasible", "problem")) > 30


def test_a_broken_law_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "check_laws", lambda report: check_laws(_without_a_cycle(report)))
    outcomes, faults = run.fuzz(range(40))
    assert outcomes["fault"] == len(faults) > 0
    assert "AssertionError" in faults[0]


def _without_a_cycle(report: object) -> object:
    result = report.result  # type: ignore[attr-defined]
    changed = replace(result, unit_busy_ticks=result.unit_busy_ticks - 1)
    return replace(report, result=changed)  # type: ignore[type-var]


def huge_conv(positions: int, inputs: int, outputs: int):
    net = WorkloadBuilder("huge", positions, inputs)
    return net.build(net.conv("c", "pw", net.input, outputs))


def roomy():
    buffer = {"capacity_bits": 2**40, "macro_bits": 2**16, "word_bits": 64}
    data = load_accelerator("trio_vit").to_json()
    return accelerator_from_data({**data, "activation_buffer": buffer, "weight_buffer": buffer})


def test_a_huge_layer_is_counted_exactly() -> None:
    """2^44 MACs: every count and time is right, far beyond 32 bits."""
    workload = huge_conv(2**10, 2**12, 2**12)
    report = simulate(op_table(workload, load_plan("uniform8")), roomy())
    check_laws(report)
    assert workload.macs == 2**44
    assert report.result.cycles_total >= 2**44 // 2048


@pytest.mark.parametrize(
    ("positions", "inputs", "outputs"),
    [(2**11, 2**12, 2**13), (2**20, 2, 1), (1, 2**40, 2), (1, 2**41, 1), (2**21, 1, 1)],
)
def test_layers_beyond_the_limits_are_refused(positions: int, inputs: int, outputs: int) -> None:
    with pytest.raises(AccelsimError) as caught:
        huge_conv(positions, inputs, outputs)
    assert "at most 2^" in str(caught.value) or "2^40" in str(caught.value)


def test_products_beyond_int64_are_refused() -> None:
    """Found by the fuzz: 2^39 elements cut into 2^31 channels made negative transfers."""
    net = WorkloadBuilder("wide", 16, 2**31)
    workload = net.build(net.conv("c", "dw", net.input, 2**31, kernel=3, groups=2**31))
    with pytest.raises(InfeasibleError, match="bits × parts below 2\\^62"):
        op_table(workload, load_plan("uniform8"))
    assert MAX_PRODUCT < 2**63


def test_times_beyond_int64_are_refused() -> None:
    data = load_accelerator("trio_vit").to_json()
    data["dram"] |= {"bandwidth_bits_per_s": 1_000_000, "burst_bits": 4096}
    data["clock_hz"] = 4_999_999_999
    slow = accelerator_from_data(data)
    with pytest.raises(InfeasibleError, match="ticks"):
        engine_table(slow, op_table(huge_conv(2**9, 2**16, 2**4), load_plan("uniform8")))


@pytest.mark.parametrize("seed", range(30))
def test_huge_layers_give_results_within_the_laws_or_problems(seed: int) -> None:
    rng = Random(seed)
    data = random_accelerator(rng)
    run.make_roomy(data)
    try:
        check_laws(simulate(op_table(huge_workload(rng), load_plan("uniform8")), accelerator_from_data(data)))
    except AccelsimError as error:
        run.check_problems(error)


def joined():
    """The input read again beside another tensor, through a view."""
    net = WorkloadBuilder("joined", 8, 8)
    first = net.conv("first", "pw", net.input, 8)
    both = net.view("both", (first, net.input), 8, 8, 16)
    second = net.conv("second", "pw", both, 8)
    pooled = net.vector("pooled", "pool", (second,), recipes.average_pool(8, 64), Tensor("pooled", 1, 1, 8))
    return net.build(net.conv("last", "fc", pooled, 4))


def test_an_input_read_through_a_view_is_loaded() -> None:
    """Found by the fuzz: it was kept on chip with its neighbour and never loaded."""
    workload = joined()
    table = op_table(workload, load_plan("uniform8"))
    report = simulate(table, load_accelerator("trio_vit"), fuse=False)
    check_laws(report)
    assert "image" not in report.mapping.resident
    assert report.totals[-2] >= 8 * (8 * 8 * 8)
    data = report.mapping.to_json()
    data["resident"] = ["first"]
    with pytest.raises(AccelsimError, match="together with a graph input"):
        simulate(table, load_accelerator("trio_vit"), mapping_from_json(data, "m"))


def test_three_tensors_tied_by_views_stay_off_chip() -> None:
    net = WorkloadBuilder("tied", 8, 8)
    a, b, c = (net.conv(name, "pw", net.input, 8) for name in "abc")
    tip = net.conv("ab", "pw", net.view("v", (a, b), 8, 8, 16), 8)
    tip = net.conv("abc", "pw", net.view("w", (a, c), 8, 8, 16), 8)
    report = simulate(op_table(net.build(tip), load_plan("uniform8")), load_accelerator("trio_vit"), fuse=False)
    check_laws(report)
    assert not {"a", "b", "c"} & set(report.mapping.resident)


@pytest.mark.parametrize(
    ("edge", "kernel", "stride", "padding"), [(8, 1, 3, 0), (8, 3, 3, 0), (9, 2, 4, 1), (16, 1, 2, 0)]
)
def test_input_rows_that_no_window_reads_are_not_in_the_bound(
    edge: int, kernel: int, stride: int, padding: int
) -> None:
    """Found by the fuzz: the traffic bound was above what a mapping moves."""
    net = WorkloadBuilder("strided", edge, 64)
    output = net.conv("c", "conv", net.input, 1, kernel=kernel, stride=stride, padding=padding)
    table = op_table(net.build(output), load_plan("uniform8"))
    data = load_accelerator("trio_vit").to_json()
    data["dram"]["bandwidth_bits_per_s"] = 1_000_000
    slow = accelerator_from_data(data)
    bound = design_bound(table, engine_table(slow, table), slow)
    read = {r * stride + k - padding for r in range((edge + 2 * padding - kernel) // stride + 1) for k in range(kernel)}
    rows = len([row for row in read if 0 <= row < edge])
    needed = rows * edge * 64 * 8
    assert bound.traffic_cycles <= (needed + 10_000) * 200
    check_laws(simulate(table, slow))


def test_broken_workloads_are_named() -> None:
    workload = random_workload(Random(3))
    first = workload.ops[0]
    for change in ({"inputs": ("nobody",)}, {"output": "nowhere"}, {"weights": -1}, {"inputs": first.inputs * 3}):
        with pytest.raises(AccelsimError, match="workload fuzz"):
            check_workload(replace(workload, ops=(replace(first, **change), *workload.ops[1:])))


def test_a_case_repeats(tmp_path: Path) -> None:
    assert [run.run_case(seed, tmp_path) for seed in range(20)] == [run.run_case(seed, tmp_path) for seed in range(20)]
