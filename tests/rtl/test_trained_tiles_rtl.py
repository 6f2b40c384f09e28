"""The RTL engines compute the codes of a trained, quantized network, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from accelsim.arch import Engine
from accelsim.engines import can_execute
from accelsim.rtl import validate
from accelsim.rtl.engine import TileJob, build_engine, run_tiles
from tests.support.trained_tiles import tiles

MULTIPLIERS, SHIFTERS = validate.SMALL_ENGINES


def jobs(engine: Engine, method: str) -> tuple[list, list[TileJob]]:
    found = [one for one in tiles(method, 120) if can_execute(engine, one.weight, one.activation, one.tile.depthwise)]
    return found, [TileJob(one.tile, one.weight, one.activations, one.codes, one.requant, one.clamp) for one in found]


@pytest.mark.parametrize(
    ("engine", "method", "formats"),
    [
        (MULTIPLIERS, "m2q", ("u4", "u8")),
        (SHIFTERS, "m2q", ("apot8",)),
        (SHIFTERS, "pot4", ("pot4",)),
        (SHIFTERS, "apot12", ("apot12",)),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_rtl_gives_the_codes_of_the_integer_network(engine, method, formats, rtl_folder: Path) -> None:
    found, work = jobs(engine, method)
    assert {one.weight.name for one in found} == set(formats)
    made = run_tiles(engine, [[job] for job in work], build_engine(engine, folder=rtl_folder))
    for one, (seen,) in zip(found, made.jobs, strict=True):
        assert np.array_equal(seen.outputs, one.outputs), one.op


def test_another_bias_gives_other_codes(rtl_folder: Path) -> None:
    found, work = jobs(MULTIPLIERS, "m2q")
    moved = [replace(job, requant=job.requant + np.array([1 << 12, 0, 0])) for job in work]
    made = run_tiles(MULTIPLIERS, [[job] for job in moved], build_engine(MULTIPLIERS, folder=rtl_folder))
    assert any(not np.array_equal(seen.outputs, one.outputs) for one, (seen,) in zip(found, made.jobs, strict=True))
