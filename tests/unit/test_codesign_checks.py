"""What a co-design refuses before it computes anything, and that it leaves no folder behind then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from accelsim.config import load_plan
from accelsim.problems import AccelsimError
from accelsim.workloads.registry import build_workload
from codesign.loop.run import run_codesign
from codesign.loop.spec import load_spec

GOOD = """\
format: accelsim.codesign/1
name: a study
model: digits_hybrid
losses: [0.1, 0.01]
hardware:
  arch: template:heterogeneous
  set: {clock_hz: 500_000_000}
  axes: {mult_groups: [4, 8]}
search: {searcher: random, evaluations: 2, population: 2}
"""


def spec_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("[0.1, 0.01]", "[0.1, 0.1]", "losses.*each once"),
        ("[0.1, 0.01]", "[0.12345678]", "at most six digits"),
        ("[4, 8]", "[4, 4]", "mult_groups: has a value twice"),
        ("model:", "baselines: {uniform: [8, 99]}\nmodel:", "2 … 16"),
        ("model:", "baselines: {uniform: [8, 8]}\nmodel:", "each once"),
        ("model:", "baselines: {uniform: [6]}\nmodel:", "sequential needs the search of uniform 8 bits"),
        ("model:", "options: {weight_formats: [u8, u8]}\nmodel:", "each once"),
        ("model:", "options: {activation_formats: [u8, apot8]}\nmodel:", "a uniform format"),
        ("model:", "options: {weight_formats: [u6]}\nbaselines: {without: all}\nmodel:", ":3: .*u8 among them"),
        ("model:", "options: {activation_formats: [u6]}\nmodel:", ":3: options.activation_formats.*u8 among them"),
        ("model:", "data: digits\noptions: {head_formats: [u8]}\nmodel:", ":4: options.head_formats.*narrower than u8"),
        ("model:", "data: digits\noptions: {head_formats: [u10]}\nmodel:", "narrower than u8"),
        ("model:", "options: {divisions: [log2_shift]}\nmodel:", "options.divisions.*divide among them"),
    ],
)
def test_the_file_is_refused(tmp_path: Path, old: str, new: str, found: str) -> None:
    with pytest.raises(AccelsimError, match=found):
        load_spec(spec_of(tmp_path, GOOD.replace(old, new)))


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    spec = load_spec(spec_of(tmp_path, GOOD.replace("500_000_000", "500e6").replace("[4, 8]", "[4, 8.0]")))
    assert spec.hardware.axes == {"accelerator.clock_hz": (500_000_000,), "accelerator.mult_groups": (4, 8)}
    assert all(type(one) is int for values in spec.hardware.axes.values() for one in values)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("digits_hybrid", "digits_hybird", "unknown model"),
        ("digits_hybrid", "efficientvit_b1\ndata: glyphs", "has no trained weights here"),
        ("digits_hybrid", "digits_hybrid\ndata: glyph", "unknown data"),
        ("digits_hybrid", "digits_hybrid\nresolution: 64\ndata: digits", "64 pixels"),
        ("digits_hybrid", "digits_hybrid\npenalties: {file: nosuch.json}", "cannot be read"),
        ("mult_groups: [4, 8]", "mult_groups: [4, -8]", "spec.yaml: hardware.mult_groups"),
        ("mult_groups: [4, 8]", "mult_group: [4, 8]", "mult_groups"),
        ("template:heterogeneous", "template:heterogenous", "heterogeneous"),
        ("set: {clock_hz: 500_000_000}", "set: {clock_hz: 5}", "clock_hz"),
        ("searcher: random", "searcher: bottlneck", "bottleneck"),
    ],
)
def test_what_does_not_fit_is_refused_without_a_folder(tmp_path: Path, old: str, new: str, found: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pymoo")
    spec = load_spec(spec_of(tmp_path, GOOD.replace(old, new)))
    with pytest.raises(AccelsimError, match=found):
        run_codesign(spec, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_splits_of_a_folder_have_no_image_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder has no splits of its own: calibration, validation and test must not see the same images."""
    pytest.importorskip("torch")
    from PIL import Image

    from codesign.loop.bench import Bench
    from quant.data.dataset import Preprocess

    for k, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        for n in range(6):
            Image.new("L", (4, 4), 100 * k + n).save(tmp_path / name / f"{n}.png")
    spec = load_spec(spec_of(tmp_path, GOOD + f"data: imagefolder:{tmp_path}\n"))
    bench = Bench(spec, f"imagefolder:{tmp_path}")
    monkeypatch.setattr(Bench, "_loaded", (None, Preprocess(4, 1, (0.0,), (1.0,))))
    seen = {}
    for split in ("train", "val", "test"):
        found = bench.images_of(split)
        assert found.labels is not None
        assert found.labels.tolist() == [0, 0, 1, 1]
        seen[split] = {int(found.images[k : k + 1][0, 0, 0, 0]) for k in range(len(found))}
    assert sorted(value for values in seen.values() for value in values) == [*range(6), *range(100, 106)]
    assert found.every(1, 2).first(1).images[:].shape[0] == 1
    drawn = {round(float(image[0, 0, 0]) * 255) for batch in bench.images(4) for image in batch}
    assert drawn == seen["train"]


@pytest.mark.parametrize(
    "changed", ["codesign.loop/a.py", "codesign.searchers/sub/b.py", "quant/sub/b.py", "codesign/search.py"]
)
def test_a_study_knows_the_sources_that_decide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """A folder made by other sources of the loop, the searchers or the quantizer must not be gone on with."""
    from codesign.loop import designs

    def files(package: str) -> Path:
        folder = tmp_path / package
        if not folder.exists():
            (folder / "sub").mkdir(parents=True)
            for name in ("a.py", "search.py", "space.py", "sub/b.py"):
                (folder / name).write_text("1")
        return folder

    monkeypatch.setattr(designs.resources, "files", files)
    before = designs.loop_version.__wrapped__()
    assert designs.loop_version.__wrapped__() == before
    (tmp_path / changed).write_text("2")
    assert designs.loop_version.__wrapped__() != before


def test_penalties_of_other_weights_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pymoo")
    from codesign.models import load_model
    from quant.penalties.weights_only import network_penalties

    table = network_penalties(load_model("digits_hybrid")[0], ("u8", "u6", "u4", "apot8"))
    table = replace(table, fingerprints={**table.fingerprints, "network": "0123456789abcdef"})
    table.save(tmp_path / "penalties.json")
    text = GOOD + f"data: digits\npenalties: {{file: {tmp_path / 'penalties.json'}}}\nfinal: {{margin_points: 3}}\n"
    with pytest.raises(AccelsimError, match="other weights"):
        run_codesign(load_spec(spec_of(tmp_path, text)), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_table_without_a_uniform_width_is_refused(tmp_path: Path) -> None:
    """Otherwise no design of that width could be priced, and the baseline would be missing for no visible reason."""
    pytest.importorskip("torch")
    pytest.importorskip("pymoo")
    from quant.penalties.weights_only import workload_penalties

    workload_penalties(build_workload("digits_hybrid"), ("u8", "u6", "apot8")).save(tmp_path / "penalties.json")
    text = GOOD + f"penalties: {{file: {tmp_path / 'penalties.json'}}}\noptions: {{weight_formats: [u8, apot8]}}\n"
    with pytest.raises(AccelsimError, match=r"lacks u4; expected all of baselines\.uniform"):
        run_codesign(load_spec(spec_of(tmp_path, text)), tmp_path / "study")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("name", ["", "plan.yaml", "workload.json", "checkpoint.json", "checkpoint.safetensors"])
def test_a_damaged_learned_network_is_refused_before_anything_is_measured(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    from codesign.loop.learned_networks import check_learned
    from quant.checkpoint import save
    from quant.quantize import quantize_plan
    from tests.support.networks import images_of, tiny_vit

    network = tiny_vit(depth=1)
    _, checkpoint = quantize_plan(network, [images_of(network, 2)], load_plan("uniform8"), about={"method": "qvit"})
    save(checkpoint, tmp_path / "trained")
    spec = load_spec(spec_of(tmp_path, GOOD + f"data: digits\nlearned: ['{tmp_path / 'trained'}']\n"))
    check_learned(spec, network.workload)
    if name:
        (tmp_path / "trained" / name).write_bytes(b"{")
        with pytest.raises(AccelsimError, match="trained"):
            check_learned(spec, network.workload)
