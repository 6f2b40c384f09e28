"""Hand-worked tiles of the closed forms, the vector unit against its stepped model, the output stage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.arch import VectorUnit
from accelsim.engines import MicroOp, OpCode, Operand, recipe_cost, requantize, walk_program
from accelsim.engines.vector_unit import operations_cost, program_operations
from accelsim.ir import Recipe, VectorKind, VectorPass
from accelsim.kernels import engine_forms
from accelsim.kernels.jit import compiled_once_notice
from accelsim.problems import AccelsimError, InfeasibleError

IMMEDIATE, ROW = Operand.IMMEDIATE, Operand.ROW
RESIDUAL_ADD = (
    MicroOp(0, OpCode.MULTIPLY, 0, 0, 77, operand=IMMEDIATE),
    MicroOp(0, OpCode.ADD, 0, 0, 32, operand=IMMEDIATE),
    MicroOp(0, OpCode.SHIFT_RIGHT, 0, 0, 6, operand=IMMEDIATE),
    MicroOp(0, OpCode.MULTIPLY, 1, 1, 51, operand=IMMEDIATE),
    MicroOp(0, OpCode.ADD, 1, 1, 16, operand=IMMEDIATE),
    MicroOp(0, OpCode.SHIFT_RIGHT, 1, 1, 5, operand=IMMEDIATE),
    MicroOp(0, OpCode.ADD, 2, 0, 1),
    MicroOp(0, OpCode.MAX, 2, 2, -128, operand=IMMEDIATE),
    MicroOp(0, OpCode.MIN, 2, 2, 127, operand=IMMEDIATE),
)
# Row maximum; then subtract it, look up, sum; then scale by 2^8 and divide by the row's sum.
SOFTMAX = (
    MicroOp(0, OpCode.MAX_TO_ROW, 0, 0),
    MicroOp(1, OpCode.SUBTRACT_FROM, 1, 0, 0, operand=ROW),
    MicroOp(1, OpCode.TABLE, 1, 1),
    MicroOp(1, OpCode.SUM_TO_ROW, 1, 1),
    MicroOp(2, OpCode.MULTIPLY, 2, 1, 256, operand=IMMEDIATE),
    MicroOp(2, OpCode.MULTIPLY, 2, 1, 1, per_row=True, operand=IMMEDIATE, bits=32),
    MicroOp(2, OpCode.DIVIDE, 2, 2, 1, operand=ROW),
)
TABLE = (1 << 15) >> (np.arange(512) // 16)


def test_dense_tile_by_hand() -> None:
    """64 positions × 32 channels, 3×3 taps of 16 inputs, on 8 lanes × 8 inputs × 16 groups in 8x4 mode.

    Steps 9·2 = 18, blocks 4·2 = 8; a word of 8·16 activations of 8 bits (1,024) takes 2 cycles of a 512-bit port; a
    block has 16·16 = 256 results, 4 cycles at 64 per cycle; so pace = 36.
    """
    shape = (1, 64, 32, 9, 16, 8, 8, 16, 2, 1, 8, 4, 512, 512, 64)
    assert engine_forms.dense_tile(*shape) == (36, 8, 18, 36, 4)
    assert engine_forms.dense_cycles(*shape, 10) == (288, 7 * 36 + 36 + 4 + 10)
    assert engine_forms.dense_reads(1, 64, 32, 9, 16, 8, 2, 16, 8, 4) == (2 * 64 * 144 * 8, 4 * 32 * 144 * 4)
    assert engine_forms.dense_accumulates(1, 64, 32, 9, 16, 8, 1) == 64 * 32 * 18


def test_drain_bound_tile_by_hand() -> None:
    """A single-step block of 64 results at 4 per cycle: the output stage sets the pace (16), not the array (1)."""
    shape = (3, 8, 8, 1, 8, 8, 8, 8, 1, 1, 8, 8, 4096, 4096, 4)
    assert engine_forms.dense_tile(*shape) == (16, 3, 1, 1, 16)
    assert engine_forms.dense_cycles(*shape, 10) == (48, 2 * 16 + 1 + 16 + 10)


def test_depthwise_tile_by_hand() -> None:
    """64 channels × 196 positions, 3×3: 8 channel blocks × ⌈196/256⌉ = 1; 8·196·8 bits of activations per tap."""
    shape = (64, 196, 9, 8, 8, 16, 2, 8, 4, 4096, 4096, 64)
    assert engine_forms.depthwise_tile(*shape) == (36, 8, 9, 36, 25)
    assert engine_forms.depthwise_reads(64, 196, 9, 8, 2, 16, 8, 4) == (64 * 196 * 9 * 8, 64 * 9 * 4)
    assert engine_forms.depthwise_accumulates(64, 196, 9) == 64 * 196 * 9


@st.composite
def units(draw: st.DrawFn) -> VectorUnit:
    rate = st.integers(1, 9)
    rates = [draw(rate) for _ in range(6)]
    return VectorUnit(*rates, port_bits_per_cycle=draw(st.sampled_from([3, 64, 1024])), latency_cycles=draw(rate))


@given(units(), st.integers(1, 6), st.integers(1, 12), st.integers(0, 900), st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_vector_unit_residual_add(unit: VectorUnit, rows: int, width: int, bits: int, seed: int) -> None:
    registers = np.zeros((rows, width + 1, 3), np.int64)
    registers[:, :width, :2] = np.random.default_rng(seed).integers(-128, 128, (rows, width, 2))
    walked, after = walk_program(unit, RESIDUAL_ADD, [bits], registers)
    assert walked == operations_cost(unit, program_operations(RESIDUAL_ADD, rows, width), [bits], "add")
    left = (registers[:, :width, 0] * 77 + 32) >> 6
    right = (registers[:, :width, 1] * 51 + 16) >> 5
    assert (after[:, :width, 2] == np.clip(left + right, -128, 127)).all()


@given(units(), st.integers(1, 5), st.integers(1, 12), st.integers(0, 900), st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_vector_unit_softmax_by_table(unit: VectorUnit, rows: int, width: int, bits: int, seed: int) -> None:
    registers = np.zeros((rows, width + 1, 3), np.int64)
    scores = np.random.default_rng(seed).integers(-128, 128, (rows, width))
    registers[:, :width, 0] = scores
    registers[:, width, 0] = -128
    walked, after = walk_program(unit, SOFTMAX, [bits, bits // 2, 0], registers, TABLE)
    costs = operations_cost(unit, program_operations(SOFTMAX, rows, width), [bits, bits // 2, 0], "softmax")
    assert walked == costs
    exponentials = TABLE[scores.max(axis=1, keepdims=True) - scores]
    assert (after[:, :width, 2] == exponentials * 256 // exponentials.sum(axis=1, keepdims=True)).all()


def test_division_by_a_zero_row_gives_zero() -> None:
    unit = VectorUnit(1, 1, 1, 1, 1, 1)
    program = (MicroOp(0, OpCode.DIVIDE, 1, 0, 0, operand=ROW),)
    registers = np.full((1, 3, 2), 5, np.int64)
    registers[0, 2, 0] = 0
    _, after = walk_program(unit, program, [0], registers)
    assert (after[0, :2, 1] == 0).all()


def test_recipe_by_hand_and_missing_functional_units() -> None:
    """Two passes over 6 rows of 10: 60 adds at 8 per cycle are 8 cycles; 6 divisions at 1 beat 480 bits at 96 (5)."""
    steps = (VectorPass(((VectorKind.ADD, 1),)), VectorPass(per_row=((VectorKind.DIVISION, 1),)))
    recipe = Recipe("mean", steps, groups=2, rows_h=3, rows_w=1, width=10)
    unit = VectorUnit(4, 8, 4, 4, 4, 1, port_bits_per_cycle=96, latency_cycles=7)
    cost = recipe_cost(unit, recipe, [480, 480])
    assert (cost.occupancy_cycles, cost.latency_cycles) == (8 + 6, 8 + 6 + 7)
    assert cost.operations == (0, 60, 0, 0, 0, 6, 0)
    with pytest.raises(InfeasibleError, match="needs division"):
        recipe_cost(VectorUnit(4, 8, 4, 4, 4, 0), recipe, [480, 480])
    with pytest.raises(AccelsimError, match="expected 2 passes"):
        recipe_cost(unit, recipe, [480])


def test_requantize_rounds_ties_up_clamps_and_states_its_limits() -> None:
    assert requantize(np.array([-3, -1, 1, 3, 400]), 0, 1, 1, -128, 127).tolist() == [-1, 0, 1, 2, 127]
    assert requantize(np.array([-9]), 4, 3, 2, 0, 127).tolist() == [0]
    worst = np.array([-(1 << 31), (1 << 31) - 1])
    exact = [(int(value) * ((1 << 31) - 1) + (1 << 61)) >> 62 for value in worst]
    assert requantize(worst, 0, (1 << 31) - 1, 62, -9, 9).tolist() == exact
    with pytest.raises(AccelsimError, match=r"accumulator \+ bias"):
        requantize(worst, 1, 1, 1, -128, 127)
    with pytest.raises(AccelsimError, match="multiplier"):
        requantize(worst, 0, -1, 1, -128, 127)
    with pytest.raises(AccelsimError, match="shift"):
        requantize(worst, 0, 1, 0, -128, 127)


def test_notice_is_given_once(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert compiled_once_notice()
    (tmp_path / "kernels_0").mkdir()
    (tmp_path / "kernels_0" / "other.f-1.py311.nbi").touch()
    assert compiled_once_notice()
    (tmp_path / "kernels_0" / "engine_forms.f-1.py311.nbi").touch()
    assert not compiled_once_notice()
