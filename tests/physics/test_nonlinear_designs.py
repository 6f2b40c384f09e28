"""Random designs with dynamic shifts and modes of two passes: whole networks obey the laws and the bounds."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator, Engine, EngineKind, Mode
from accelsim.counts import MAX_TERMS, count_columns
from accelsim.formats import Format
from accelsim.ir import VectorKind, VectorPass
from accelsim.nonlinear import methods
from accelsim.nonlinear.methods import Method
from accelsim.optable import OpTable, op_table
from accelsim.plan import QuantPlan, Rule
from accelsim.problems import InfeasibleError
from accelsim.workloads import build_workload
from tests.fuzz.laws import check_laws
from tests.support.designs import accelerators

SLOW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
SHARES = Method("softmax", "fqvit", (VectorPass(((VectorKind.ADD, 1),)),), 8)
# Two passes, dynamic shifts, the format of the shares; nothing executes the last one.
CASES = [(True, False, "log4"), (True, True, "log4"), (False, True, "log4"), (True, False, "u16"), (False, True, "u16")]
PASSES = (Mode(8, 8), Mode(8, 16, 1, 2))


def table_of(shares: str) -> OpTable:
    """A small vision transformer whose softmax stores its results in this format."""
    methods.method_names()
    rule = Rule("class:softmax", nonlinear="fqvit" if shares.startswith("log") else "", output=Format.parse(shares))
    with patch.dict(methods._METHODS, {("softmax", "fqvit"): SHARES}):
        return op_table(build_workload("deit_tiny", 32), QuantPlan("shares of tests", (rule, Rule("*"))))


def able(engine: Engine, two_passes: bool, dynamic: bool) -> Engine:
    if engine.kind == EngineKind.MAC_ARRAY and two_passes:
        return replace(engine, modes=PASSES)
    return replace(engine, dynamic_shift=dynamic) if engine.kind == EngineKind.SHIFT_ARRAY else engine


def issued(design: Accelerator, counts: np.ndarray, two_passes: bool, dynamic: bool) -> int:
    """Products in the columns of the two modes."""
    columns = count_columns(design)
    names = [f"{e.name}.products_1" for e in design.engines if e.kind == EngineKind.MAC_ARRAY] * two_passes
    names += [f"{e.name}.products_{MAX_TERMS}" for e in design.engines if e.kind == EngineKind.SHIFT_ARRAY] * dynamic
    return sum(int(counts[columns.index(name)]) for name in names)


def outcome(table: OpTable, design: Accelerator) -> Report | InfeasibleError:
    try:
        return simulate(table, design)
    except InfeasibleError as error:
        return error


@given(accelerators(shift=True), st.sampled_from(CASES))
@SLOW
def test_laws_and_bounds(design: Accelerator, case: tuple[bool, bool, str]) -> None:
    two_passes, dynamic, shares = case
    table = table_of(shares)
    engines = tuple(able(engine, two_passes, dynamic) for engine in design.engines)
    large = replace(design.weight_buffer, capacity_bits=1 << 23)
    design = replace(design, engines=engines, activation_buffer=large, weight_buffer=large)
    found = outcome(table, design)
    if case == CASES[-1]:
        assert isinstance(found, InfeasibleError)
        return
    assert isinstance(found, Report), found
    check_laws(found)
    workload = table.quantized.workload
    wide = sum(op.macs for op in workload.ops if op.op_class == "attn_values")
    assert issued(design, found.result.counts.sum(axis=0), two_passes, dynamic) == wide
