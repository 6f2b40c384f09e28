"""Templates: they reproduce the presets, accept every value in range, and never let a port throttle an array."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import evaluate
from accelsim.area import accelerator_area
from accelsim.config import accelerator_from_data, load_accelerator, load_plan
from accelsim.engines.tile import can_execute, tile_cost
from accelsim.formats import Format
from accelsim.ir import Loop
from accelsim.problems import AccelsimError, InfeasibleError
from codesign.catalog import default_catalog
from codesign.cli import main
from codesign.reprice import reprice_study
from codesign.runner import run_sweep
from codesign.space import load_space
from codesign.store import read_study
from codesign.templates.registry import accelerator_of_template, templates

TINY = {
    "mult_groups": 8,
    "mult_bits": 8,
    "mult_outputs": 64,
    "second_groups": 0,
    "vector_lanes": 32,
    "clock_hz": 500_000_000,
    "activation_buffer_bits": 524_288,
    "weight_buffer_bits": 524_288,
    "bandwidth_bits_per_s": 76.8e9,
    "first_beat_latency_s": 33.2e-9,
    "dram_type": "LPDDR4",
}
PRESETS = [
    ("m2vit", "heterogeneous", {}, "m2q"),
    ("m2vit_iso_area", "heterogeneous", {"second_groups": 19}, "m2q"),
    ("trio_vit", "heterogeneous", {"mult_bits": "8", "second": 8}, "uniform8"),
    ("tiny", "heterogeneous", TINY, "uniform8"),
    ("bitfusion_edge", "composable", {}, "w4a8"),
]
FORMATS = [Format.parse(name) for name in ("u2", "u4", "u6", "u8", "pot3", "pot4", "apot8", "apot12")]
HUGE_BITS_PER_CYCLE = 1 << 40


@pytest.mark.parametrize(("preset", "name", "parameters", "plan"), PRESETS)
def test_the_presets_are_points_of_the_templates(preset, name, parameters, plan):
    made, published = accelerator_of_template({"template": name, **parameters}), load_accelerator(preset)
    runs = [evaluate("efficientvit_b0", 224, design, load_plan(plan)).metrics() for design in (made, published)]
    assert runs[0]["cycles_total"] == runs[1]["cycles_total"]
    assert runs[0]["area_mm2"] == runs[1]["area_mm2"]
    # The engines of trio_vit stand in the other order there, so odd numbers of channels are split the other way round.
    tolerance = 1e-3 if preset == "trio_vit" else 1e-12
    assert runs[0]["energy_pj"] == pytest.approx(runs[1]["energy_pj"], rel=tolerance)
    # And field by field, but for names and order.
    engines = [sorted((replace(e, name="") for e in design.engines), key=str) for design in (made, published)]
    assert engines[0] == engines[1]
    assert made.replace(name="", engines=()) == published.replace(name="", engines=())


def test_fields_of_a_kind_are_those_of_its_engines_only():
    mixed = {"template": "heterogeneous", "region_shift": 8, "dynamic_shift": True}
    mult, shift = accelerator_of_template(mixed).engines
    assert (mult.region_shift, mult.dynamic_shift, shift.region_shift, shift.dynamic_shift) == (8, False, 0, True)
    both = accelerator_of_template({**mixed, "second": 4}).engines
    assert [(one.region_shift, one.dynamic_shift) for one in both] == [(8, False), (8, False)]
    plain = accelerator_of_template({"template": "heterogeneous"})
    assert (
        accelerator_of_template({"template": "composable", "vector_leading_ones": 4}).vector.leading_one_per_cycle == 4
    )
    areas = [accelerator_area(one).total_mm2 for one in (plain, accelerator_of_template(mixed))]
    assert areas[0] < areas[1]
    log2 = Format.parse("log4"), Format.parse("u8")
    assert can_execute(shift, log2[1], log2[0], False)
    assert not can_execute(plain.engines[1], log2[1], log2[0], False)


def values_of(parameter):
    if parameter.choices:
        return st.sampled_from(parameter.choices)
    if isinstance(parameter.default, float):
        return st.floats(parameter.low, parameter.high)
    low, high = (int(edge) // parameter.step for edge in (parameter.low, parameter.high))
    # The ends as often as all that is between them.
    steps = st.one_of(st.sampled_from((low, high)), st.integers(low, high))
    return steps.map(lambda count: count * parameter.step)


def designs():
    def of(name):
        chosen = templates()[name].parameters
        return st.fixed_dictionaries(
            {"template": st.just(name)}, optional={key: values_of(parameter) for key, parameter in chosen.items()}
        )

    return st.sampled_from(sorted(templates())).flatmap(of)


@settings(deadline=None, max_examples=300)
@given(designs())
def test_every_value_in_range_makes_an_accelerator(data):
    made = accelerator_of_template(data)
    assert accelerator_from_data(made.to_json()) == made
    # Only an SRAM macro may be slower than the clock.
    with contextlib.suppress(InfeasibleError):
        assert accelerator_area(made).total_mm2 > 0


@settings(deadline=None, max_examples=300)
@given(
    designs(),
    st.builds(
        Loop,
        groups=st.integers(1, 3),
        rows_h=st.integers(1, 80),
        rows_w=st.just(1),
        cols=st.integers(1, 80),
        depth=st.integers(2, 200),
        kernel_h=st.sampled_from((1, 3)),
    ),
    st.booleans(),
)
def test_ports_never_throttle(data, loop, depthwise):
    if depthwise:
        loop = replace(loop, groups=loop.depth, cols=1, depth=1)
    ran = 0
    for engine in accelerator_of_template({**data, "accumulator_bits": 64}).engines:
        free = replace(
            engine,
            activation_port_bits_per_cycle=HUGE_BITS_PER_CYCLE,
            weight_port_bits_per_cycle=HUGE_BITS_PER_CYCLE,
        )
        for weight in FORMATS:
            for activation in (Format.parse("u4"), Format.parse("u8")):
                one_pass = weight.terms <= max(2, engine.terms)
                if one_pass and can_execute(engine, weight, activation, loop.depthwise):
                    ran += 1
                    assert tile_cost(engine, loop, weight, activation) == tile_cost(free, loop, weight, activation)
    assert ran or depthwise or data.get("mult_bits") == "4x4"


@pytest.mark.parametrize(
    ("terms", "index", "weight"), [(2, 0, "u4"), (2, 0, "u8"), (1, 1, "apot8"), (2, 1, "apot8"), (3, 1, "apot12")]
)
def test_ports_are_as_wide_as_needed(terms, index, weight):
    engine = accelerator_of_template({"template": "heterogeneous", "terms": terms}).engines[index]
    bits = engine.weight_port_bits_per_cycle
    less, same, more = (
        tile_cost(replace(engine, weight_port_bits_per_cycle=port), Loop(1, 128, 1, 16, 64), Format.parse(weight),
                  Format.parse("u8")).occupancy_cycles
        for port in (bits - 1, bits, HUGE_BITS_PER_CYCLE)
    )  # fmt: skip
    assert less > same == more


def test_all_faults_at_once():
    faulty = {"template": "heterogeneous", "mult_grops": 3, "second": "shft", "terms": 7, "clock_hz": 1.5}
    faulty |= {"mult_depthwise": 1, "activation_buffer_bits": 70_000, "first_beat_latency_s": True}
    with pytest.raises(AccelsimError) as caught:
        accelerator_of_template(faulty, "here")
    problems = {problem.where: problem for problem in caught.value.problems}
    assert len(problems) == 7
    assert problems["here: mult_grops"].levers == ("mult_groups",)
    assert problems["here: second"].levers == ("shift",)
    assert problems["here: activation_buffer_bits"].expected == "a multiple of 65,536 from 65,536 to 268,435,456"
    with pytest.raises(AccelsimError, match="try: composable"):
        default_catalog().accelerator("template:composble")


SPACE = """\
format: accelsim.space/1
base: {arch: "template:heterogeneous", model: efficientvit_b0, resolution: 64}
axes:
  plan: [uniform8, m2q]
  arch: ["template:heterogeneous", "template:composable", m2vit]
  accelerator.mult_groups: [4, 8]
  accelerator.mult_bits: [8, 8/4]
  accelerator.second_groups: [default, 0]
"""


def test_parameters_are_axes_of_a_space(tmp_path, capsys):
    (tmp_path / "space.yaml").write_text(SPACE)
    assert main(["check", str(tmp_path / "space.yaml")]) == 0
    space = load_space(tmp_path / "space.yaml")
    summary = run_sweep(space, tmp_path / "study", workers=1)
    # The parameters are those of one of the three accelerators only.
    assert (summary.evaluated, summary.not_applicable) == (16, 32)
    assert summary.by_status == {"ok": 16}
    reprice_study(tmp_path / "study", tmp_path / "study45", 45)
    with read_study(tmp_path / "study45") as study:
        assert sum(row["status"] == "ok" for row in study.rows()) == 16

    (tmp_path / "space.yaml").write_text(SPACE.replace("mult_groups", "mult_grups").replace("8/4]", "8/5]"))
    capsys.readouterr()
    assert main(["check", str(tmp_path / "space.yaml")]) == 2
    said = capsys.readouterr().err
    assert "try: mult_groups" in said
    assert "mult_bits: found the text '8/5'" in said


def test_the_command_writes_what_the_template_makes(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    sets = ["--set", "mult_groups=8", "--set", "second=4", "--set", "mult_depthwise=false", "--set", "clock_hz=3e8"]
    assert main(["template", "heterogeneous", *sets, "-o", str(path)]) == 0
    data = {"mult_groups": 8, "second": "4", "mult_depthwise": False, "clock_hz": 300_000_000}
    assert load_accelerator(path) == accelerator_of_template({"template": "heterogeneous", **data})
    assert "#   mult_groups: 8\n" in path.read_text()
    assert main(["template", "heterogeneous", *sets]) == 0
    assert capsys.readouterr().out == path.read_text()
    assert main(["template"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for chosen in templates().values() for name in chosen.parameters)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["heterogenous"], "try: heterogeneous"),
        (["composable", "--set", "fusion_groups"], "PARAMETER=VALUE"),
        (["composable", "--set", "fusion_groups=1", "--set", "fusion_groups=2"], "given twice"),
        (["composable", "--set", "fusion_groups=0"], "from 1 to 64"),
        (["--set", "fusion_groups=1"], "no name"),
    ],
)
def test_the_command_refuses(arguments, said, capsys):
    assert main(["template", *arguments]) == 2
    assert said in capsys.readouterr().err
