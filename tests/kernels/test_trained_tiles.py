"""The cycle-stepped engines compute the codes of a trained, quantized network, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.engines import walk_tile
from tests.support.trained_tiles import METHODS, on_engines, tiles


def walked(engine, one, requant=None):
    values = one.requant if requant is None else requant
    return walk_tile(engine, one.tile, one.weight, one.activation, one.activations, one.codes, values, one.clamp)[1]


@pytest.mark.parametrize("method", METHODS)
def test_stepped_engines_give_the_codes_of_the_integer_network(method):
    found = tiles(method, 48)
    assert {"stem", "dw", "pw", "gconv", "ktv", "q_ktv"} <= {one.op_class for one in found}
    seen = 0
    for engine, members in on_engines(found).values():
        for one in members:
            assert np.array_equal(walked(engine, one), one.outputs), one.op
        seen += len(members)
    assert seen == len(found)


def test_both_engines_and_the_split_multiplier_are_used():
    found = on_engines(tiles("m2q", 48))
    assert {one.weight.name for one in found["mult"][1]} == {"u8", "u4"}
    assert {one.weight.name for one in found["shift"][1]} == {"apot8"}
    assert all(one.tile.depthwise for one in found["mult"][1] if one.weight.name == "u4")


def test_tiles_hold_padding_as_the_zero_point_and_outputs_that_differ():
    found = [one for one in tiles("m2q", 96) if one.op_class in ("stem", "dw")]
    assert any(len(np.unique(one.outputs)) > 8 for one in found)
    # A tap on padding reads the same code in every channel of the tile.
    assert any((one.activations == one.activations[:1, :, :, :1]).all(axis=(0, 3)).any() for one in found)


def test_another_shift_gives_other_codes():
    engine, members = on_engines(tiles("m2q", 48))["mult"]
    changed = [walked(engine, one, one.requant + np.array([0, 0, 1])) for one in members]
    assert any(not np.array_equal(values, one.outputs) for values, one in zip(changed, members, strict=True))
