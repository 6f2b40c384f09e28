"""The exhaustive mapper finds the optimum of its declared space: brute force over the same space in plain Python."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from accelsim.arch import Accelerator, Buffer, Dram, Engine, EngineKind, Mode, OutputStage, VectorUnit
from accelsim.config import load_plan, plan_from_data
from accelsim.ir import Loop, Tensor, Workload
from accelsim.optable import OpTable, op_table
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder
from tests.support.brute_force import Brute
from tests.support.searches import network_of, search_of

SOME = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
W8, W4 = Mode(8, 8, 1), Mode(4, 8, 2)


@st.composite
def designs(draw: st.DrawFn) -> Accelerator:
    """One or two small arrays, some with ports that limit them, buffers of a few hundred bytes, a slow or fast bus."""
    size = st.sampled_from([1, 2, 3, 4])
    port = st.sampled_from([16, 40, 4096])
    engines = []
    for k in range(draw(st.integers(1, 2))):
        engines.append(
            Engine(
                f"mac{k}", EngineKind.MAC_ARRAY, draw(size), draw(size), draw(st.integers(1, 2)),
                OutputStage(draw(st.sampled_from([1, 3, 64])), draw(st.integers(0, 3))),
                modes=draw(st.sampled_from([(W8,), (W8, W4)])), depthwise=k == 0 or draw(st.booleans()),
                activation_port_bits_per_cycle=draw(port), weight_port_bits_per_cycle=draw(port),
            )
        )  # fmt: skip
    last = draw(st.sampled_from(["none", "none", "shift", "systolic"]))
    if last == "shift":
        engines[1:] = [Engine("shift", EngineKind.SHIFT_ARRAY, draw(size), draw(size), 1, OutputStage(16), terms=2)]
    if last == "systolic":
        engines[1:] = [
            Engine(
                "systolic", EngineKind.SYSTOLIC_ARRAY, draw(size), draw(size), 1, OutputStage(draw(size)), modes=(W8,),
                dataflow="ws", double_buffered=draw(st.booleans()), accumulator_rows=128,
            )
        ]  # fmt: skip
    activation, weight = (
        draw(st.sampled_from([512, 1024, 2048, 8192])),
        draw(st.sampled_from([256, 384, 512, 768, 1024, 8192])),
    )
    return Accelerator(
        name="tiny",
        clock_hz=100_000_000,
        node_nm=28,
        engines=tuple(engines),
        vector=VectorUnit(2, 2, 2, 2, 1, 1, draw(st.sampled_from([32, 256])), 8),
        activation_buffer=Buffer(activation, 8192, 64),
        weight_buffer=Buffer(weight, 8192, 64),
        dram=Dram(draw(st.sampled_from([1, 3, 40])) * 800_000_000, draw(st.sampled_from([32, 64])), 4.5e-8),
    )


def _conv(net: WorkloadBuilder, rng: Random, n: int, tip: str) -> str:
    kernel, shape = rng.choice([1, 1, 3]), net.tensor(tip)
    channels = rng.choice([2, 3, 5, 6])
    return net.conv(f"c{n}", rng.choice(["conv", "pw", "mlp"]), tip, channels, kernel=kernel,
                    stride=rng.choice([1, 1, 2]) if shape.h > 2 else 1, bias=rng.random() < 0.5)  # fmt: skip


def _depthwise(net: WorkloadBuilder, rng: Random, n: int, tip: str) -> str:
    return net.conv(f"d{n}", "dw", tip, net.tensor(tip).channels, kernel=3, groups=net.tensor(tip).channels, norm=True)


def _residual(net: WorkloadBuilder, rng: Random, n: int, tip: str) -> str:
    """Two layers behind the tip, and its sum with what came out."""
    shape = net.tensor(tip)
    inner = net.conv(f"r{n}", "pw", tip, rng.choice([2, 5]))
    outer = net.conv(f"s{n}", "mlp", inner, shape.channels, kernel=rng.choice([1, 3]))
    recipe = recipes.residual_add(1, shape.h, shape.w, shape.channels)
    return net.vector(f"a{n}", "add", (outer, tip), recipe, replace(shape, name=f"a{n}", aliases=()))


def _attention(net: WorkloadBuilder, rng: Random, n: int, tip: str) -> str:
    shape = net.tensor(tip)
    tokens, heads = shape.h * shape.w, rng.choice([d for d in (1, 2, 3, 5) if shape.channels % d == 0])
    width = shape.channels // heads
    scores = net.matmul(f"s{n}", "attn_scores", tip, tip, Loop(heads, tokens, 1, tokens, width))
    recipe = recipes.softmax(heads, tokens, 1, tokens)
    soft = net.vector(f"x{n}", "softmax", (scores,), recipe, Tensor(f"x{n}", tokens, 1, heads * tokens))
    return net.matmul(f"o{n}", "attn_values", soft, tip, Loop(heads, tokens, 1, width, tokens))


def _twins(net: WorkloadBuilder, rng: Random, n: int, tip: str) -> str:
    """Two layers whose outputs are read as one."""
    shape = net.tensor(tip)
    left, right = (net.conv(f"{name}{n}", "pw", tip, rng.choice([2, 3])) for name in ("l", "m"))
    channels = net.tensor(left).channels + net.tensor(right).channels
    view = net.view(f"v{n}", (left, right), shape.h, shape.w, channels)
    return net.conv(f"w{n}", "pw", view, rng.choice([2, 4]))


def _heads(net: WorkloadBuilder, rng: Random, n: int, tip: str) -> str:
    """Two products of activations, between them another layer, read as one by heads."""
    shape = net.tensor(tip)
    tokens, heads = shape.h * shape.w, rng.choice([d for d in (1, 2, 3) if shape.channels % d == 0])
    loop = Loop(heads, tokens, 1, tokens, shape.channels // heads)
    first = net.matmul(f"b{n}", "attn_scores", tip, tip, loop)
    other = net.conv(f"t{n}", "conv", tip, shape.channels, kernel=rng.choice([1, 3]))
    second = net.matmul(f"e{n}", "attn_scores", other, tip, loop)
    pair = rng.choice([(first, second), (second, first)])
    view = net.view(f"v{n}", pair, tokens, 1, 2 * heads * tokens)
    recipe = recipes.softmax(heads, tokens, 1, 2 * tokens)
    return net.vector(f"x{n}", "softmax", (view,), recipe, Tensor(f"x{n}", tokens, 1, 2 * heads * tokens))


def _heavy(net: WorkloadBuilder, rng: Random, n: int, tip: str) -> str:
    """A layer whose weights hardly fit."""
    return net.conv(f"h{n}", "pw", tip, rng.choice([8, 11, 14]), kernel=rng.choice([1, 3]), bias=True)


def _wide(net: WorkloadBuilder, rng: Random, n: int, tip: str) -> str:
    """Many channels, filtered one by one."""
    wide = net.conv(f"p{n}", "pw", tip, rng.choice([5, 7, 11]))
    return net.conv(f"d{n}", "dw", wide, net.tensor(wide).channels, kernel=3, groups=net.tensor(wide).channels)


MOVES = {"layer": _conv, "depthwise": _depthwise, "residual": _residual, "attention": _attention, "twins": _twins,
         "heads": _heads, "heavy": _heavy, "wide": _wide}  # fmt: skip


def tiny_network(rng: Random, move: str = "") -> Workload:
    """Two to six ops on a plane of 1 to 4 pixels a side, `move` among them."""
    net = WorkloadBuilder("tiny", rng.choice([1, 2, 3, 4]), rng.choice([1, 2, 3]))
    tip = MOVES[rng.choice(["layer", "heavy"])](net, rng, 0, net.input)
    tip = MOVES[move or rng.choice(sorted(MOVES))](net, rng, 1, tip)
    return net.build(_conv(net, rng, 2, tip) if rng.random() < 0.5 else tip)


MIXED = {
    "name": "mixed",
    "rules": [
        {
            "match": "class:pw", "activation": "u8", "output": "u8", "right": "u8",
            "weights": [{"format": "u8", "share": "balanced"}, {"format": "pot4", "share": "balanced"}],
        },
        {"match": "*", "weights": "u8", "activation": "u8", "output": "u8", "right": "u8"},
    ],
    "division": "log2_shift", "bias_bits": 32, "scale_bits": 16,
}  # fmt: skip


def plans() -> st.SearchStrategy[QuantPlan]:
    """Uniform ones, and those that divide channels between formats of equal and of unequal width."""
    return st.sampled_from([*(load_plan(name) for name in ("uniform8", "m2q", "w4a8")), plan_from_data(MIXED)])


def table_of(seed: int, plan: QuantPlan, move: str = "") -> OpTable:
    """Arrays of a tiny network; the example is dropped where the draw is not a legal one."""
    try:
        return op_table(tiny_network(Random(seed), move), plan)
    except AccelsimError:
        assume(False)
        raise


def optima(table: OpTable, accelerator: Accelerator, objective: str, fine: bool) -> tuple[float | None, float | None]:
    """(found, brute force): ticks, femtojoules, or their product; None where nothing fits."""
    try:
        network = network_of(search_of(table, accelerator, objective != "latency"))
    except InfeasibleError:
        assume(False)
        raise
    paths = network.least(objective, accelerator.activation_buffer.capacity_bits)
    found = None
    if paths:
        found = {"latency": paths[0].ticks, "energy": paths[0].energy_fj, "edp": paths[0].product}[objective]
    return found, Brute(table, accelerator, fine).least(objective)


@pytest.mark.parametrize("move", sorted(MOVES))
@SOME
@given(designs(), st.integers(0, 10**6), plans())
def test_least_latency_is_that_of_brute_force(move: str, accelerator: Accelerator, seed: int, plan: QuantPlan) -> None:
    found, best = optima(table_of(seed, plan, move), accelerator, "latency", False)
    assert found == best


@SOME
@given(designs(), st.integers(0, 10**6))
def test_finer_shares_gain_nothing(accelerator: Accelerator, seed: int) -> None:
    """Brute force over every number of units; weights of one width that fit uncut, adder trees."""
    assume(all(engine.dataflow == "none" for engine in accelerator.engines))
    roomy = replace(accelerator, weight_buffer=Buffer(1 << 16))
    found, best = optima(table_of(seed, load_plan("uniform8")), roomy, "latency", True)
    assert found == best


@SOME
@given(designs(), st.integers(0, 10**6), plans(), st.sampled_from(["energy", "edp"]))
def test_least_energy_and_product(accelerator: Accelerator, seed: int, plan: QuantPlan, objective: str) -> None:
    """Energies are rounded down by up to 1/256 of an op, and to whole femtojoules: the optimum is the lower end."""
    found, best = optima(table_of(seed, plan), accelerator, objective, False)
    assert (found is None) == (best is None)
    if found is not None and best is not None:
        assert found <= best * (1 + 1e-9)
        assert best <= found * (1 + 1 / 255) + 100
