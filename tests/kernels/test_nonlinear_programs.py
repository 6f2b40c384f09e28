"""Programs of the non-linear methods on the stepped vector unit: values against a twin, cycles and counts closed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import simulate
from accelsim.arch import VectorUnit
from accelsim.area import vector_area_mm2
from accelsim.config import load_accelerator, load_plan
from accelsim.engines.vector_unit import MicroOp, OpCode, Operand, operations_cost, recipe_cost, walk_program
from accelsim.ir import VECTOR_KINDS, Recipe, VectorKind, Workload
from accelsim.nonlinear.methods import method_of, method_recipe, methods_of
from accelsim.nonlinear.program import Builder, Program, Requantize, constant_quotient, run_program
from accelsim.nonlinear.programs_gelu import IBertGelu, IVitGelu, ibert_gelu, ivit_gelu, table_gelu
from accelsim.nonlinear.programs_layernorm import Norm, exact_root, ibert_layernorm, ivit_layernorm
from accelsim.nonlinear.programs_ptf import FqvitNorm, fqvit_layernorm
from accelsim.nonlinear.programs_softmax import (
    FqvitSoftmax,
    IBertSoftmax,
    IExp,
    IVitSoftmax,
    fqvit_softmax,
    ibert_softmax,
    ivit_softmax,
)
from accelsim.nonlinear.shift_exp import ShiftExp, shift_exp_of_either_sign
from accelsim.optable import op_table
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.workloads import build_workload
from tests.support import nonlinear_twin as twin

METHODS = [
    *(("softmax", name) for name in ("ibert", "ivit", "fqvit")),
    *(("gelu", name) for name in ("ibert", "ivit", "table")),
    *(("layernorm", name) for name in ("ibert", "ivit", "fqvit")),
]
FAST = VectorUnit(64, 64, 64, 64, 16, 8, leading_one_per_cycle=8)
# A program with its operands, the method's integers and the stored codes; the table that it reads.
Case = tuple[Program, dict[str, Any], list[list[int]], list[list[int]], Any]


def i_exp(scale: float) -> IExp:
    """I-BERT's constants, with the coefficients of its released code."""
    return IExp(30, math.floor(-0.6931 / scale), math.floor(2.70732 / scale), math.floor(2.79211 / scale**2))


def per_row(rows: Sequence[Sequence[int]], function: Callable[..., list[int]], *of: Any) -> list[list[int]]:
    return [function([int(x) for x in row], *of) for row in rows]


@st.composite
def cases(draw: st.DrawFn, function: str, name: str) -> Case:
    """Random constants within the widths, random rows: narrow and wide ones, equal numbers, only negative ones."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    shape = draw(st.integers(1, 4)), draw(st.integers(2, 24))
    bits = method_of(function, name).input_bits
    x = rng.integers(-1 << (bits - 1), 1 << (bits - 1), shape) >> draw(st.integers(0, bits - 1))
    if draw(st.booleans()):
        x = x - x.max() - draw(st.integers(0, 3)) if x.min() - x.max() > -100 else x
    # What is clamped is one word.
    shift = draw(st.integers(8, 31)) + (10 if (function, name) == ("gelu", "ibert") else 0)
    store = Requantize(int(rng.integers(-32768, 32768)), 1 << (shift - 1), shift)
    scale = math.exp(draw(st.floats(math.log(0.006), math.log(0.9))))
    if function == "layernorm":
        return norm_case(name, x, rng)
    if (function, name) == ("gelu", "table"):
        table = rng.integers(-128, 128, 256)
        codes = table[x % 256].tolist()
        return table_gelu(), {"x": x}, codes, codes, table
    if (function, name) == ("gelu", "ibert"):
        step = math.exp(draw(st.floats(math.log(8e-5), math.log(3e-3)))) / 1.4142
        erf = -0.2888 * step**2 * 2**14
        gelu = IBertGelu(14, math.floor(-1.769 / step), math.floor(1 / -0.2888 / step**2), math.floor(1 / erf), store)
        program, values = ibert_gelu(gelu), per_row(x, twin.ibert_gelu, gelu)
    elif function == "gelu":
        x0, n = math.floor(-1 / (1.702 * scale)), draw(st.integers(4, 23))
        shifted = IVitGelu(ShiftExp(n, x0), store)
        program, values = ivit_gelu(shifted), per_row(x, twin.ivit_gelu, shifted)
    elif name == "ibert":
        exp = i_exp(scale)
        fraction, exponent = math.frexp(32767 / (exp.c << exp.n))
        soft = IBertSoftmax(exp, math.floor(fraction * 2**31), 31 - exponent, store)
        program, values = ibert_softmax(soft), per_row(x, twin.ibert_softmax, soft)
    elif name == "ivit":
        shares = IVitSoftmax(ShiftExp(15, math.floor(-1 / scale)), store)
        program, values = ivit_softmax(shares), per_row(x, twin.ivit_softmax, shares)
    else:
        logs = FqvitSoftmax(i_exp(scale), draw(st.sampled_from([3, 15, 16])))
        codes = per_row(x, twin.fqvit_softmax, logs)
        return fqvit_softmax(logs), {"x": x}, codes, codes, None
    return program, {"x": x}, values, [[twin.stored(y, store) for y in row] for row in values], None


def norm_case(name: str, x: Any, rng: np.random.Generator) -> Case:
    width = x.shape[1]
    if name == "fqvit":
        gain = rng.integers(1 << 14, 1 << 15, width) * rng.choice([-1, 0, 1, 1], width)
        shifts = rng.integers(14, 24, width)
        multiplier, code_zero = int(rng.integers(1 << 14, 1 << 15)), int(rng.integers(0, 256))
        operands = {
            "x": x, "entry_addend": np.left_shift(1, shifts - 1), "entry_shift": shifts,
            "alpha": rng.integers(0, 4, width), "gain": gain,
            "places": np.where(gain == 0, 0, rng.integers(-4, 40, width)),
            "offset": rng.integers(-(1 << 31), 1 << 31, width) >> rng.integers(0, 20, width),
        }  # fmt: skip
        entry = [operands[key].tolist() for key in ("entry_addend", "entry_shift")]
        constants = [operands[key].tolist() for key in ("alpha", "gain", "places", "offset")]
        codes_in = per_row(x, twin.factor_codes, multiplier, code_zero, *entry)
        values = per_row(codes_in, twin.fqvit_layernorm, *constants)
        zero = int(rng.integers(-20, 20))
        codes = [[max(-128, min(127, y + zero)) for y in row] for row in values]
        norm = FqvitNorm(width, multiplier, 8, code_zero, zero)
        return fqvit_layernorm(norm), operands, values, codes, None
    shifts = rng.integers(20, 40, width)
    bias = rng.integers(-(1 << 30), 1 << 30, width)
    operands = {
        "x": x, "bias": bias, "multiplier": rng.integers(-32768, 32768, width), "shift": shifts,
        "addend": np.left_shift(1, shifts - 1),
    }  # fmt: skip
    values = per_row(x, twin.layernorm, bias.tolist(), name == "ivit")
    factors = operands["multiplier"].tolist()
    stores = [Requantize(m, 1 << (s - 1), s) for m, s in zip(factors, shifts.tolist(), strict=True)]
    codes = [[twin.stored(y, of) for y, of in zip(row, stores, strict=True)] for row in values]
    make = ivit_layernorm if name == "ivit" else ibert_layernorm
    return make(Norm(width)), operands, values, codes, None


@st.composite
def units(draw: st.DrawFn) -> VectorUnit:
    rates = [draw(st.integers(1, 9)) for _ in range(6)]
    return VectorUnit(*rates, draw(st.sampled_from([3, 64, 1024])), draw(st.integers(0, 9)), draw(st.integers(1, 4)))


@pytest.mark.parametrize(("function", "name"), METHODS)
@given(st.data(), units())
@settings(max_examples=25, deadline=None)
def test_program_equals_twin_and_its_recipe(function: str, name: str, data: Any, unit: VectorUnit) -> None:
    """Values and codes of the formulas; cycles and slots of the registered recipe, whatever the constants."""
    program, operands, values, codes, table = data.draw(cases(function, name))
    passes = method_of(function, name).passes
    bits = data.draw(st.lists(st.integers(0, 900), min_size=len(passes), max_size=len(passes)))
    walked, results = run_program(unit, program, operands, bits, table)
    assert results["value"].tolist() == values
    assert results["code"].tolist() == codes
    rows, width = results["code"].shape
    assert walked == recipe_cost(unit, Recipe(name, passes, 1, rows, 1, width), bits)


def test_a_recipe_with_one_slot_less_is_not_what_the_unit_does() -> None:
    program, unit = table_gelu(), VectorUnit(1, 1, 1, 1, 1, 1)
    walked, _ = run_program(unit, program, {"x": [[1, 2, 3]]}, [0], range(256))
    less = np.array([[0, 0, 0, 0, 2, 0, 0]])
    assert walked.operations == (0, 0, 0, 0, 3, 0, 0)
    assert walked != operations_cost(unit, less, [0], "gelu")


def test_all_methods_are_registered() -> None:
    assert [(of, name) for of in ("softmax", "gelu", "layernorm") for name in methods_of(of)] == METHODS


def test_i_gelu_counts_by_hand() -> None:
    """Two products of 16×16 and 16×19 bits and a requantization of 34×16 bits; words of 33, 34 and 50 bits take two.

    Multiplier: 1 + 2 + 3; shifters: 33 bits 2, 50 bits 2; comparators: |x| 1, min 1, sign of 33 bits 2, clamp 2;
    adders: + b, + c, + one, one join of 16×19, two of 34×16, 50 bits of rounding 2.
    """
    (only,) = method_of("gelu", "ibert").passes
    kinds = VectorKind
    assert dict(only.per_element) == {kinds.MUL: 6, kinds.ADD: 8, kinds.SHIFT: 4, kinds.COMPARE: 6}
    assert only.per_row == ()


@pytest.mark.parametrize(
    ("code", "bits", "right_bits", "slots", "joins"),
    [
        (OpCode.MULTIPLY, 0, 0, 1, 0),
        (OpCode.MULTIPLY, 32, 16, 2, 1),
        (OpCode.MULTIPLY, 16, 34, 3, 2),
        (OpCode.MULTIPLY, 17, 32, 4, 4),
        (OpCode.ADD, 33, 0, 2, 0),
        (OpCode.SHIFT_EVEN, 52, 0, 2, 2),
        (OpCode.LEADING_ONE, 48, 0, 2, 0),
        (OpCode.DIVIDE, 16, 24, 1, 0),
        (OpCode.DIVIDE, 17, 25, 4, 0),
        (OpCode.DIVIDE_INTO_EVEN, 16, 24, 2, 1),
        (OpCode.TABLE, 0, 0, 1, 0),
    ],
)
def test_slots_of_wide_operations(code: OpCode, bits: int, right_bits: int, slots: int, joins: int) -> None:
    item = MicroOp(0, code, 0, 0, bits=bits, right_bits=right_bits)
    assert (item.slots, item.joins) == (slots, joins)


@pytest.mark.parametrize(
    ("code", "value", "operand"),
    [
        (OpCode.MULTIPLY, 1 << 16, 1),
        (OpCode.MULTIPLY, 1, 1 << 16),
        (OpCode.ADD, 1 << 31, 1 << 31),
        (OpCode.SHIFT_LEFT, 3, 31),
        (OpCode.SHIFT_RIGHT, 3, -1),
        (OpCode.DIVIDE, 1 << 30, 1 << 24),
        (OpCode.DIVIDE_INTO, 1 << 24, 1 << 30),
        (OpCode.LEADING_ONE, 1 << 32, 0),
        (OpCode.MAX, -(1 << 31) - 1, 0),
    ],
)
def test_values_wider_than_declared_are_refused(code: OpCode, value: int, operand: int) -> None:
    registers = np.full((1, 2, 2), value, np.int64)
    program = (MicroOp(0, code, 1, 0, operand, operand=Operand.IMMEDIATE),)
    with pytest.raises(AccelsimError, match="do not fit their declared widths"):
        walk_program(FAST, program, [0], registers)


def test_division_saturates_at_its_quotient_bits_and_rounds_to_even() -> None:
    build = Builder()
    x = build.operand("x")
    code = build.op(OpCode.DIVIDE_INTO_EVEN, x, 1_000_000, 10)
    program = build.finish(code, build.op(OpCode.DIVIDE_INTO, x, 1_000_000, 10))
    # 1,000,000 / 400,000 = 2.5, / 285,714 = 3.500002, / 1,000 = 1,000, / 900 = 1,111 (11 bits).
    _, results = run_program(FAST, program, {"x": [[400_000, 285_714, 1_000, 900, 0]]}, [0])
    assert results["code"].tolist() == [[2, 4, 1_000, 1_023, 0]]
    assert results["value"].tolist() == [[2, 3, 1_000, 1_023, 0]]


@pytest.mark.parametrize("divisor", [*range(1, 40), 100, 127, 128, 129, 255, 256, 257, 511, 1000, 32767, 32768])
def test_constant_quotient_is_exact_for_all_inputs(divisor: int) -> None:
    build = Builder()
    x = build.operand("x")
    quotient = constant_quotient(build, x, -divisor, 9)
    x_values = np.arange(-511, 1)[None, :]
    _, results = run_program(FAST, build.finish(quotient, quotient), {"x": x_values}, [0])
    assert (results["value"] == x_values // -divisor).all()


@pytest.mark.parametrize("x0", [-1, -2, -3, -5, -7, -11, -12, -13, -37, -100, -255, -367])
def test_exponential_of_either_sign_is_exact_for_all_inputs(x0: int) -> None:
    """Row maxima may be negative; multiples of x0 are where a rounded reciprocal would be one off."""
    build, of = Builder(), ShiftExp(18, x0)
    e = shift_exp_of_either_sign(build, build.operand("x"), of, 8)
    x = range(-255, 256)
    _, results = run_program(FAST, build.finish(e, e), {"x": [list(x)]}, [0])
    assert results["value"].tolist() == [[min(twin.shift_exp(value, of), (1 << 31) - 1) for value in x]]


def test_a_row_of_equal_numbers_gives_the_offset_rounded_once() -> None:
    """32,769/2^16 is above one half; rounded to 13 places first it would be one half, and 0."""
    operands = {
        "x": [[5] * 4], "entry_addend": [1 << 15] * 4, "entry_shift": [16] * 4, "alpha": [0] * 4, "gain": [1 << 14] * 4,
        "places": [-10] * 4, "offset": [32_769, -32_769, 3 << 16, 0],
    }  # fmt: skip
    _, results = run_program(FAST, fqvit_layernorm(FqvitNorm(4)), operands, [0, 0])
    assert results["value"].tolist() == [[1, -1, 3, 0]]


@given(st.lists(st.integers(0, 1 << 22), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_six_newton_steps_give_the_exact_root_of_44_bits(roots: list[int]) -> None:
    build = Builder()
    x = build.operand("x")
    start = build.op(OpCode.ADD, build.op(OpCode.LEADING_ONE, x, 0, 44), 2)
    ones = build.op(OpCode.MIN, build.op(OpCode.MAX, x, 1, 44), 1, 44)
    start = build.op(OpCode.SHIFT_LEFT, ones, build.op(OpCode.SHIFT_RIGHT, start, 1))
    program = build.finish(start, exact_root(build, x, start, 23))
    values = [min(max(root**2 + near, 0), (1 << 44) - 1) for root in roots for near in (-1, 0, 1, root, 2 * root)]
    _, results = run_program(FAST, program, {"x": [values]}, [0])
    assert results["value"].tolist() == [[math.isqrt(value) for value in values]]


@pytest.mark.parametrize(("function", "name"), METHODS)
def test_a_unit_without_a_kind_cannot_run_the_method_and_more_of_any_is_never_slower(function: str, name: str) -> None:
    base = Recipe(function, (), 2, 5, 1, 31)
    recipe = method_recipe(base, name)
    bits = [2 * 5 * 31 * 8] * len(recipe.passes)
    unit = VectorUnit(3, 3, 3, 3, 3, 3, 64, 8, 3)
    operations = recipe_cost(unit, recipe, bits).operations
    for kind, count in zip(VECTOR_KINDS, operations, strict=True):
        more = replace(unit, **{f"{kind}_per_cycle": 7})
        assert recipe_cost(more, recipe, bits).occupancy_cycles <= recipe_cost(unit, recipe, bits).occupancy_cycles
        if count:
            with pytest.raises(InfeasibleError, match=f"{kind}_per_cycle"):
                recipe_cost(replace(unit, **{f"{kind}_per_cycle": 0}), recipe, bits)


def with_method(function: str, name: str) -> Workload:
    workload = build_workload("deit_tiny", 32)
    ops = tuple(
        replace(op, recipe=method_recipe(op.recipe, name)) if op.recipe and op.recipe.name == function else op
        for op in workload.ops
    )
    return replace(workload, ops=ops)


def test_a_design_without_leading_one_units_refuses_the_network_and_one_with_them_counts_and_pays_them() -> None:
    table, design = op_table(with_method("softmax", "fqvit"), load_plan("uniform8")), load_accelerator("m2vit")
    with pytest.raises(InfeasibleError, match=r"vector\.leading_one_per_cycle ≥ 1"):
        simulate(table, design)
    able = design.replace(vector=replace(design.vector, leading_one_per_cycle=16))
    report = simulate(table, able)
    recipes = [op.recipe for op in table.quantized.workload.ops if op.recipe and op.recipe.name == "softmax_fqvit"]
    elements = sum(recipe.elements for recipe in recipes)
    energies = report.prices.arithmetic.energy_by_component_pj
    assert report.to_json()["counts"]["vector_leading_one"] == elements
    # 0.0158 pJ and 64 register bits of 0.004563 pJ with 30 % clock, at 28 nm.
    assert energies["vector.leading_one"] == pytest.approx(elements * (0.0158184 + 64 * 0.004563 * 1.3))


def test_designs_without_leading_one_units_are_what_they_were() -> None:
    design = load_accelerator("trio_vit")
    with_units = design.replace(vector=replace(design.vector, leading_one_per_cycle=1))
    assert design.fingerprint() == "978bd81389363453"
    assert with_units.fingerprint() != design.fingerprint()
    register = 64 * 36.2 / 8
    added_mm2 = vector_area_mm2(with_units.vector, 45) - vector_area_mm2(design.vector, 45)
    assert added_mm2 == pytest.approx((57.7 + register) * 1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ibert_softmax(IBertSoftmax(i_exp(2e-5), 1 << 30, 60, Requantize(1, 0, 0))),
        lambda: ibert_softmax(IBertSoftmax(i_exp(0.1), 1 << 30, 30, Requantize(1, 0, 0))),
        lambda: ibert_softmax(IBertSoftmax(i_exp(2.0), 1 << 30, 54, Requantize(1, 0, 0))),
        lambda: ivit_softmax(IVitSoftmax(ShiftExp(15, -(1 << 16)), Requantize(1, 0, 0))),
        lambda: ivit_softmax(IVitSoftmax(ShiftExp(8, -10), Requantize(1, 0, 0))),
        lambda: fqvit_softmax(FqvitSoftmax(i_exp(0.003))),
        lambda: fqvit_softmax(FqvitSoftmax(i_exp(0.1), 31)),
        lambda: ibert_gelu(IBertGelu(14, -40_000, -9_000_000, -400, Requantize(1, 0, 0))),
        lambda: ivit_gelu(IVitGelu(ShiftExp(27, -20), Requantize(1, 0, 0))),
        lambda: ivit_gelu(IVitGelu(ShiftExp(20, -20), Requantize(1 << 15, 0, 0))),
        lambda: ivit_gelu(IVitGelu(ShiftExp(20, -20), Requantize(1, 1 << 31, 32))),
        lambda: ibert_layernorm(Norm(1)),
        lambda: fqvit_layernorm(FqvitNorm(5000)),
        lambda: fqvit_layernorm(FqvitNorm(64, 1 << 15)),
        lambda: fqvit_layernorm(FqvitNorm(64, entry_zero=256)),
    ],
)
def test_constants_that_do_not_fit_are_refused(make: Callable[[], Program]) -> None:
    with pytest.raises(AccelsimError, match="expected"):
        make()


def test_a_missing_operand_and_too_wide_a_row_are_refused() -> None:
    with pytest.raises(AccelsimError, match="no x"):
        run_program(FAST, table_gelu(), {}, [0])
    with pytest.raises(AccelsimError, match="at most 4,096"):
        run_program(FAST, table_gelu(), {"x": np.zeros((1, 4097), np.int64)}, [0])
