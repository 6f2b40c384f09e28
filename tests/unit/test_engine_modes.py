"""Dynamic shifts and modes of two passes in accelerator files: round trip, fingerprints, faults, the preset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accelsim import config
from accelsim.arch import Mode
from accelsim.config import load_accelerator
from tests.support.config_files import problems_of, write


def mode(weight_bits: int, activation_bits: int, products: int = 1, passes: int = 1) -> dict[str, int]:
    fields = {"weight_bits": weight_bits, "activation_bits": activation_bits, "products": products, "passes": passes}
    return fields


def modes(*listed: dict[str, int]) -> dict[str, Any]:
    return {"modes": list(listed)}


SECOND = "modes[1].passes"
DYNAMIC = {"dynamic_shift": True}
FAULTS: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("tiny", DYNAMIC, "dynamic_shift", "a mac_array has no `dynamic_shift`", ""),
    ("systolic_ws", DYNAMIC, "dynamic_shift", "a systolic_array has no `dynamic_shift`", ""),
    ("tiny", modes(mode(8, 8), mode(8, 12, 1, 2)), SECOND, "passes of 8x12", "activation_bits: 16, products: 1"),
    ("tiny", modes(mode(4, 8, 2), mode(8, 16, 1, 2)), SECOND, "two passes of 8x16", "passes: 1"),
    (
        "tiny",
        modes(mode(4, 8, 2), mode(4, 16, 1, 2), mode(8, 8)),
        SECOND,
        "1 products",
        "activation_bits: 16, products: 2",
    ),
    ("tiny", modes(mode(8, 8), mode(8, 16, 1, 3)), SECOND, "found 3", ""),
    ("systolic_ws", modes(mode(8, 8), mode(8, 16, 1, 2)), SECOND, "a systolic_array has no modes of 2", "1"),
    ("bitfusion_edge", modes(mode(8, 4, 2), mode(8, 8, 1, 2)), SECOND, "a composable_array has no modes of 2", "1"),
]


@pytest.mark.parametrize(("preset", "changes", "field", "what", "lever"), FAULTS)
def test_fault_of_a_field(preset: str, changes: dict[str, Any], field: str, what: str, lever: str) -> None:
    data = load_accelerator(preset).to_json()
    data["engines"] = [data["engines"][0] | changes]
    (problem,) = problems_of(config.accelerator_from_data, data, "here")
    assert problem.where == f"here: engines[0].{field}"
    assert what in problem.what
    assert problem.expected
    assert problem.levers == ((lever,) if lever else ())


def test_a_misspelt_field_of_a_mode_has_its_line(tmp_path: Path) -> None:
    text = config.dump_accelerator(load_accelerator("m2vit_nonlinear")).replace("passes: 2", "pases: 2")
    path = write(tmp_path, text)
    (problem,) = problems_of(config.load_accelerator, path)
    line = next(number for number, row in enumerate(text.splitlines(), start=1) if "pases" in row)
    assert problem.where == f"{path}:{line}: engines[0].modes[2].pases"
    assert problem.levers == ("passes",)


def test_fingerprints_count_the_new_fields_only_where_they_are_set() -> None:
    assert load_accelerator("m2vit").fingerprint() == "99ba8c72120409a7"  # of the version before these fields
    design = load_accelerator("m2vit_nonlinear")
    mult, shift = design.engines
    others = [
        design,
        design.replace(engines=(mult, replace(shift, dynamic_shift=False))),
        design.replace(engines=(replace(mult, modes=(*mult.modes[:2], Mode(8, 16))), shift)),
        design.replace(engines=(replace(mult, modes=mult.modes[:2]), shift)),
    ]
    assert len({one.fingerprint() for one in others}) == len(others)


def test_the_preset_is_m2vit_with_these_modes(tmp_path: Path) -> None:
    base, design = load_accelerator("m2vit"), load_accelerator("m2vit_nonlinear")
    mult, shift = design.engines
    assert mult == replace(base.engines[0], modes=(*base.engines[0].modes, Mode(8, 16, 1, 2)))
    assert shift == replace(base.engines[1], dynamic_shift=True)
    assert design.replace(engines=base.engines, vector=base.vector, name=base.name) == base
    assert config.load_accelerator(write(tmp_path, config.dump_accelerator(design))) == design
