import itertools
from pathlib import Path

import pytest

from accelsim.problems import AccelsimError
from codesign.catalog import default_catalog
from codesign.space import load_space
from tests.support.design_fakes import CATALOG

HEAD = """\
format: accelsim.space/1
base: {arch: two, plan: eight, model: small, resolution: 32}
"""


def space_of(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return load_space(path, CATALOG)


def faults_of(tmp_path, text):
    with pytest.raises(AccelsimError) as caught:
        space_of(tmp_path, text)
    return [str(problem).replace(str(tmp_path) + "/", "") for problem in caught.value.problems]


def test_grid_is_the_product_and_the_last_axis_varies_fastest(tmp_path):
    space = space_of(
        tmp_path,
        HEAD
        + "axes:\n  plan: [eight, mixed]\n  resolution: [32, 64]\n  accelerator.engines.mult.pixel_groups: [8, 16]\n",
    )
    points = list(space.points())
    expected = list(itertools.product(["eight", "mixed"], [32, 64], [8, 16]))
    assert [tuple(point.values.values()) for point in points] == expected
    assert [(point.plan, point.resolution) for point in points] == [e[:2] for e in expected]
    assert [point.index for point in points] == list(range(8))
    assert space.size == space.grid_size == 8


@pytest.mark.parametrize("engine", ["mult", "0"])
def test_engines_are_addressed_by_name_or_index(tmp_path, engine):
    field = f"accelerator.engines.{engine}.output_stage.outputs_per_cycle"
    (point,) = space_of(tmp_path, HEAD + f"axes: {{{field}: [32]}}\n").points()
    design = point.accelerator(CATALOG)
    assert design.engines[0].output_stage.outputs_per_cycle == 32
    assert design.engines[1].output_stage.outputs_per_cycle == 8


def test_numbers_in_scientific_notation_are_bits(tmp_path):
    (point,) = space_of(tmp_path, HEAD + "axes: {accelerator.dram.bandwidth_bits_per_s: [25.6e9]}\n").points()
    bandwidth = point.accelerator(CATALOG).dram.bandwidth_bits_per_s
    assert bandwidth == 25_600_000_000
    assert isinstance(bandwidth, int)


def test_a_field_that_only_one_accelerator_has_does_not_apply_to_the_other(tmp_path):
    space = space_of(
        tmp_path, HEAD + "axes: {arch: [one, two], accelerator.engines.shift.pixel_groups: [default, 4]}\n"
    )
    designs = {
        (p.arch, p.values["accelerator.engines.shift.pixel_groups"]): p.accelerator(CATALOG) for p in space.points()
    }
    assert designs["one", 4] is None
    assert [engine.name for engine in designs["one", "default"].engines] == ["mult"]
    assert designs["two", "default"].engines[1].pixel_groups == 8
    assert designs["two", 4].engines[1].pixel_groups == 4


RANDOM = "sampling: {method: random, samples: 20, seed: %d}\naxes:\n"
AXES = """\
  accelerator.engines.mult.pixel_groups: [1, 2, 3, 4, 5, 6, 7, 8]
  plan: [eight, mixed]
  resolution: [32, 64]
"""


def test_random_samples_do_not_repeat_and_follow_the_seed(tmp_path):
    first = [point.index for point in space_of(tmp_path, HEAD + RANDOM % 1 + AXES).points()]
    again = [point.index for point in space_of(tmp_path, HEAD + RANDOM % 1 + AXES).points()]
    other = [point.index for point in space_of(tmp_path, HEAD + RANDOM % 2 + AXES).points()]
    assert first == again != other
    assert len(set(first)) == len(first) == 20
    assert max(first) < 32


def test_random_sampling_of_a_small_space_is_all_of_it(tmp_path):
    space = space_of(tmp_path, HEAD + RANDOM % 1 + "  plan: [eight, mixed]\n")
    assert sorted(point.index for point in space.points()) == [0, 1]
    assert space.size == 2


def test_fingerprint_knows_the_points_but_not_the_layout(tmp_path):
    one = space_of(tmp_path, HEAD + "axes: {plan: [eight, mixed]}\n").fingerprint()
    assert space_of(tmp_path, HEAD + "\n# a comment\naxes:\n  plan:\n  - eight\n  - mixed\n").fingerprint() == one
    assert space_of(tmp_path, HEAD + "axes: {plan: [mixed, eight]}\n").fingerprint() != one
    assert space_of(tmp_path, HEAD.replace("32", "64") + "axes: {plan: [eight, mixed]}\n").fingerprint() != one


def test_the_mapper_is_the_heuristic_one_unless_named(tmp_path):
    (plain,) = space_of(tmp_path, HEAD + "axes: {plan: [eight]}\n").points()
    assert (plain.mapper, plain.values) == ("heuristic", {"plan": "eight"})
    (named,) = space_of(tmp_path, HEAD.replace("32}", "32, mapper: exhaustive}") + "axes: {plan: [eight]}\n").points()
    # Tables and pictures are made of the values, so they tell whose mappings these are.
    assert (named.mapper, named.values) == ("exhaustive:latency", {"plan": "eight", "mapper": "exhaustive:latency"})
    axis = "axes: {mapper: [heuristic, 'exhaustive:edp', 'exhaustive:steady']}\n"
    space = space_of(tmp_path, HEAD.replace("32}", "32, mapper: 'exhaustive:energy'}") + axis)
    names = ["heuristic", "exhaustive:edp", "exhaustive:latency:steady"]
    assert [point.mapper for point in space.points()] == [point.values["mapper"] for point in space.points()] == names
    assert space.choices("mapper") == tuple(names)


def test_one_mapper_has_one_fingerprint_however_it_is_written(tmp_path):
    axes = "axes: {plan: [eight, mixed]}\n"

    def identity(mapper):
        return space_of(tmp_path, HEAD.replace("32}", f"32{mapper}}}") + axes).fingerprint()

    assert identity("") == identity(", mapper: heuristic") == identity(", mapper: null")
    assert identity(", mapper: exhaustive") == identity(", mapper: 'exhaustive:latency'") != identity("")
    # Studies of older files go on.
    assert identity("") == "f5e2cae62387c8d5"


@pytest.mark.parametrize(
    ("base", "axes", "words"),
    [
        (
            ", mapper: exhaustiv",
            "plan: [eight]",
            "space.yaml:2: base.mapper: unknown mapper 'exhaustiv'; expected",
        ),
        (
            ", mapper: 3",
            "plan: [eight]",
            "space.yaml:2: base.mapper: 3 is not a name; expected heuristic |",
        ),
        ("", "mapper: ['exhaustive:edq']", "space.yaml:3: axes.mapper[0]: unknown mapper 'exhaustive:edq'"),
        ("", "mapper: ['heuristic:steady']", "axes.mapper[0]: unknown mapper 'heuristic:steady'"),
        ("", "mapper: [exhaustive, 'exhaustive:latency']", "axes.mapper[1]: 'exhaustive:latency' is given twice"),
        ("", "mapper: [null]", "axes.mapper[0]: None is not a name"),
    ],
)
def test_a_wrong_mapper_is_one_problem_at_its_line(tmp_path, base, axes, words):
    (fault,) = faults_of(tmp_path, HEAD.replace("32}", f"32{base}}}") + f"axes: {{{axes}}}\n")
    assert words in fault


def test_all_faults_at_once_with_line_field_and_suggestion(tmp_path):
    faults = faults_of(
        tmp_path,
        "format: accelsim.space/2\nbase: {arch: two, pln: eight, model: small}\nsampling: {method: rndom}\n"
        "axes:\n  reslution: [32]\n  resolution: [0, x, 32, 32]\n  model: small\ncolour: red\n",
    )
    expected = [
        ("space.yaml:1: format:", "accelsim.space/1"),
        ("space.yaml:2: base: plan is missing", ""),
        ("space.yaml:2: base.pln: unknown field", "try: plan"),
        ("space.yaml:3: sampling.method: unknown method 'rndom'", "try: random"),
        ("space.yaml:5: axes.reslution: unknown axis", "try: resolution"),
        ("space.yaml:6: axes.resolution[0]: 0 is not a resolution", ""),
        ("space.yaml:6: axes.resolution[1]: 'x' is not a resolution", ""),
        ("space.yaml:6: axes.resolution[3]: 32 is given twice", ""),
        ("space.yaml:7: axes.model: has no list of values", ""),
        ("space.yaml:8: colour: unknown field", ""),
    ]
    assert len(faults) == len(expected)
    for start, part in expected:
        assert any(fault.startswith(start) and part in fault for fault in faults), (start, faults)


def test_unknown_names_and_useless_values_are_found_together(tmp_path):
    faults = faults_of(
        tmp_path,
        HEAD.replace("arch: two", "arch: one")
        + "axes:\n  plan: [eigth]\n  model: [small, huge]\n  resolution: [32, 48]\n"
        + "  accelerator.engines.mlt.lanes: [8]\n  accelerator.activation_buffer.capacity_bit: [8]\n"
        + "  accelerator.engines.mult.lanes: [0, 8]\n  accelerator.name: [x]\n",
    )
    starts = [
        "space.yaml:4: axes.plan: eigth: no such plan",
        "space.yaml:5: axes.model: huge: no such workload",
        "space.yaml:6: axes.resolution: small: no such workload at 48",
        "space.yaml:7: axes.accelerator.engines.mlt.lanes: no accelerator of the space has 'mlt' (one)",
        "space.yaml:8: axes.accelerator.activation_buffer.capacity_bit: no accelerator of the space has 'capacity_bit'",
        "space.yaml:9: axes.accelerator.engines.mult.lanes",
        "space.yaml:10: axes.accelerator.name: is a label and changes no result",
    ]
    assert len(faults) == len(starts)
    assert [fault[: len(start)] for fault, start in zip(faults, starts, strict=True)] == starts
    assert "try: mult" in faults[3]
    assert "try: capacity_bits" in faults[4]


def test_a_value_that_only_works_with_another_axis_is_no_fault(tmp_path):
    # 98,304 bits are no multiple of the default macro, but are one of the smaller macros of the other axis.
    buffer = "accelerator.weight_buffer"
    text = HEAD + f"axes:\n  {buffer}.capacity_bits: [%s]\n  {buffer}.macro_bits: [32768, 65536]\n"
    assert space_of(tmp_path, text % "98304, 131072").size == 4
    assert "capacity_bits" in faults_of(tmp_path, text % "98305, 131072")[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("[1, 2]", "not a design space"),
        (HEAD, "axes: is missing"),
        (HEAD + "axes: {}\n", "axes: is not a mapping with entries"),
        (HEAD + "axes: {plan: [eight]\n", "not valid YAML"),
        (HEAD + "axes: {plan: [eight], plan: [mixed]}\n", "given twice"),
        (HEAD + "axes: {plan: [1]}\n", "1 is not a name"),
        (HEAD + "axes: {plan: [eight]}\nsampling: {method: random}\n", "samples: is None"),
        (HEAD + "axes: {plan: [eight]}\nsampling: {method: random, samples: 3, seed: x}\n", "seed: is 'x'"),
        (HEAD + "axes: {plan: [eight]}\nsampling: {method: [grid]}\n", "unknown method"),
        (HEAD + "axes: {plan: [eight]}\nsampling: 3\n", "sampling: is not a mapping"),
    ],
)
def test_faults_of_form(tmp_path, text, words):
    assert any(words in fault for fault in faults_of(tmp_path, text))


def test_too_many_designs_are_refused_before_anything_is_counted_out(tmp_path):
    values = ", ".join(str(value) for value in range(1, 60))
    axes = "".join(
        f"  accelerator.engines.{e}.{f}: [{values}]\n"
        for e in ("mult", "shift", "0", "1")
        for f in ("lanes", "lane_width", "pixel_groups")
    )
    assert any("fewer than 2^63" in fault for fault in faults_of(tmp_path, HEAD + "axes:\n" + axes))


def test_a_missing_file_is_an_error_of_ours(tmp_path):
    with pytest.raises(AccelsimError, match="cannot be read"):
        load_space(tmp_path / "none.yaml", CATALOG)


def test_the_example_is_a_space_of_the_real_program():
    space = load_space(Path(__file__).parents[2] / "examples" / "sweep_b1.yaml")
    catalog = default_catalog()
    designs = {point.accelerator(catalog).fingerprint() for point in space.points()}
    # Plans do not change the accelerator; every other axis does.
    assert len(designs) * len(space.choices("plan")) == space.size
