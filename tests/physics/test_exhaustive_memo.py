"""The memo of the exhaustive mapper changes nothing but time: shared or fresh, equal results; equal layers once."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelsim.arch import Accelerator, Buffer, Dram
from accelsim.config import load_accelerator, load_plan
from accelsim.ir import Workload
from accelsim.mappers.exhaustive import find_mapping
from accelsim.mappers.memo import Memo
from accelsim.optable import OpTable, op_table
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder
from tests.physics.test_exhaustive import designs, plans, table_of

SOME = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def relatives(accelerator: Accelerator) -> list[Accelerator]:
    """Designs that share some of what a memo may keep: other buffers, bus, clock, engines."""
    first, dram = accelerator.engines[0], accelerator.dram
    assert isinstance(dram, Dram)
    weights, activations = (
        buffer.capacity_bits for buffer in (accelerator.weight_buffer, accelerator.activation_buffer)
    )
    wider = replace(first, lanes=first.lanes + 1)
    narrow = replace(first, activation_port_bits_per_cycle=24)
    return [
        accelerator,
        replace(accelerator, weight_buffer=Buffer(weights * 2, 8192, 64)),
        replace(accelerator, weight_buffer=Buffer(weights * 3, 8192, 64)),
        replace(accelerator, activation_buffer=Buffer(activations * 2, 8192, 64)),
        replace(accelerator, dram=replace(dram, bandwidth_bits_per_s=dram.bandwidth_bits_per_s * 3)),
        replace(accelerator, dram=replace(dram, burst_bits=128)),
        replace(accelerator, clock_hz=accelerator.clock_hz * 2),
        replace(accelerator, engines=(wider, *accelerator.engines[1:])),
        replace(accelerator, engines=(narrow, *accelerator.engines[1:])),
    ]


def outcome(table: OpTable, accelerator: Accelerator, objective: str, memo: Memo) -> object:
    try:
        return find_mapping(table, accelerator, objective, memo=memo).to_json()
    except AccelsimError as error:
        return str(error)


@SOME
@given(designs(), st.lists(st.tuples(st.integers(0, 10**6), plans()), min_size=2, max_size=3), st.randoms())
def test_a_shared_memo_gives_what_a_fresh_one_gives(
    accelerator: Accelerator, networks: list[tuple[int, QuantPlan]], rng: Random
) -> None:
    tables = [table_of(seed, plan) for seed, plan in networks]
    cases = [(t, a, o) for t in tables for a in relatives(accelerator) for o in ("latency", "energy", "edp")]
    shared = Memo()
    for table, design, objective in rng.sample(cases, min(12, len(cases))):
        assert outcome(table, design, objective, shared) == outcome(table, design, objective, Memo())


def blocks_of_layers(n: int, channels: int = 8) -> Workload:
    """n equal residual blocks behind one layer."""
    net = WorkloadBuilder("blocks", 8, 3)
    tip = net.conv("stem", "conv", net.input, channels, kernel=3)
    for k in range(n):
        shape = net.tensor(tip)
        inner = net.conv(f"up{k}", "pw", tip, 3 * channels, bias=True, activation="hardswish")
        inner = net.conv(f"dw{k}", "dw", inner, 3 * channels, kernel=3, groups=3 * channels)
        inner = net.conv(f"down{k}", "pw", inner, channels)
        recipe = recipes.residual_add(1, shape.h, shape.w, shape.channels)
        tip = net.vector(f"add{k}", "add", (inner, tip), recipe, replace(shape, name=f"add{k}", aliases=()))
    return net.build(net.conv("head", "pw", tip, 2))


def misses(blocks: int, memo: Memo) -> int:
    before = memo.misses
    find_mapping(op_table(blocks_of_layers(blocks), load_plan("uniform8")), load_accelerator("tiny"), memo=memo)
    return memo.misses - before


def test_equal_layers_are_searched_once() -> None:
    alone = [misses(blocks, Memo()) for blocks in (3, 4, 12)]
    # Parts are looked for along the path, whose chains may differ with the place of the block.
    assert alone[2] <= alone[0] + 8
    memo = Memo()
    misses(12, memo)
    assert misses(12, memo) == 0


def test_a_full_memo_forgets_the_oldest_and_stays_right() -> None:
    table, design = op_table(blocks_of_layers(2), load_plan("uniform8")), load_accelerator("tiny")
    small = Memo(limit_bytes=10_000)
    for _ in range(2):
        assert outcome(table, design, "edp", small) == outcome(table, design, "edp", Memo())
    assert small.bytes <= 10_000
    assert small.misses > misses(2, Memo())
