"""Every built-in engine keeps the laws of the conformance kit; an engine that breaks one is told which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from accelsim.arch import Engine, EngineKind, Mode, OutputStage
from accelsim.config import load_accelerator, preset_names
from accelsim.engines import MacArray, Rate, Stepped, register_engine, rules_of
from accelsim.engines.conformance import check_engine
from accelsim.engines.registry import ENGINE_KINDS
from accelsim.problems import AccelsimError

ENGINES = {
    replace(engine, name="", output_stage=OutputStage(1), pixel_groups=1): engine
    for name in preset_names()
    for engine in load_accelerator(name).engines
}
MODES = (Mode(4, 8, 2), Mode(8, 8))


@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda engine: f"{engine.kind}-{engine.name}")
def test_engines_of_the_presets(engine: Engine) -> None:
    check_engine(engine)


@pytest.mark.parametrize("flow", ["ws", "os", "is"])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (3, 7), (16, 4)])
def test_systolic_arrays(flow: str, rows: int, cols: int) -> None:
    engine = Engine("a", EngineKind.SYSTOLIC_ARRAY, cols, rows, 1, OutputStage(3), modes=MODES, dataflow=flow,
                    activation_port_bits_per_cycle=40, weight_port_bits_per_cycle=24,
                    accumulator_rows=0 if flow == "os" else 128)  # fmt: skip
    for timing in ("pipelined", "scalesim"):
        check_engine(replace(engine, timing=timing))
    if flow != "os":
        check_engine(replace(engine, double_buffered=False))


class SlowerWhenWide(MacArray):
    def rate(self, engine, column):
        return Rate(passes=1 if engine.lanes < 9 else 2)


class NeverPositive(MacArray):
    def product_pj(self, engine, column, tech, clock_hz, convention):
        return -1.0


class WrongModel(MacArray):
    def stepped(self, engine, column):
        return Stepped(row_bits=7)


class TooFast(MacArray):
    def rate(self, engine, column):
        return Rate(products=1, inputs=1, passes=0)


class NothingRuns(MacArray):
    def column(self, engine, weight, activation):
        return None


BROKEN = [
    (SlowerWhenWide, "otherwise when it is larger"),
    (NeverPositive, "has the energies"),
    (WrongModel, "computes other values than numpy"),
    (TooFast, r"has the rate \(1, 0, 1\)"),
    (NothingRuns, "no pair of formats"),
]


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[None]:
    register_engine("broken")(request.param)
    yield
    del ENGINE_KINDS["broken"]


@pytest.mark.parametrize(("registered", "words"), BROKEN, indirect=["registered"])
def test_a_broken_law_is_named(registered: None, words: str) -> None:
    engine = Engine("mine", "broken", 4, 4, 2, OutputStage(8), modes=(Mode(8, 8),))
    with pytest.raises(AccelsimError, match=words):
        check_engine(engine)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(AccelsimError, match="is registered by accelsim"):
        register_engine("mac_array")(NothingRuns)
    register_engine("mac_array")(MacArray)  # the same class again, as when a module is loaded twice
    with pytest.raises(AccelsimError, match=r"unknown kind 'abacus'.*one of mac_array"):
        rules_of(Engine("mine", "abacus", 1, 1, 1, OutputStage(1)))
