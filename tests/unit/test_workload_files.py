"""Workload files: round trip, every fault at once, and every command that takes a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accelsim.ir import OpKind
from accelsim.problems import AccelsimError
from accelsim.workloads import build_workload, model_names
from accelsim.workloads.from_json import dump_workload, load_workload, workload_from_json, workload_to_json
from codesign.cli import main
from codesign.space import load_space
from tests.support.config_files import problems_of, set_path, write


def b0_data() -> dict[str, Any]:
    """EfficientViT-B0 at 32 pixels as a file has it."""
    data: dict[str, Any] = json.loads(dump_workload(build_workload("efficientvit_b0", 32)))
    return data


def test_the_file_of_every_network_gives_it_back() -> None:
    for name in model_names():
        workload = build_workload(name)
        again = workload_from_json(json.loads(json.dumps(workload_to_json(workload))))
        assert again == workload
        assert again.fingerprint() == workload.fingerprint()
    assert workload_from_json(workload.to_json()) == workload


@pytest.mark.parametrize("name", ["efficientvit_b0", "glyph_vit", "levit_128", "swin_tiny"])
def test_readers_are_the_ops_whose_inputs_are_stored_there(name: str) -> None:
    workload = build_workload(name)
    assert set(workload.readers) == {tensor.name for tensor in workload.tensors if not tensor.aliases}
    for stored, readers in workload.readers.items():
        expected = [
            op
            for op in workload.ops
            if op.kind is not OpKind.VIEW and any(stored in workload.storage_of(one) for one in op.inputs)
        ]
        assert list(readers) == expected
        # What nothing reads is the output.
        assert readers or stored in workload.storage_of(workload.output)


@pytest.mark.parametrize(
    ("path", "value", "where", "what", "lever"),
    [
        ("format", "accelsim.workload/2", "format", "found the text", "accelsim.workload/1"),
        ("resolution", 32.0, "resolution", "found the number 32.0", ""),
        ("resolution", True, "resolution", "found true", ""),
        ("ops[0].loop.cols", -1, "ops[0].loop.cols", "found -1", ""),
        ("ops[0].loop.cols", 10**30, "ops[0].loop.cols", "found 1000", ""),
        ("ops[0].loop.strid", 1, "ops[0].loop.strid", "unknown field", ""),
        ("ops[0].kind", "convolution", "ops[0].kind", "found the text 'convolution'", ""),
        ("ops[0].kind", "matmull", "ops[0].kind", "found the text 'matmull'", "matmul"),
        ("ops[0].activation", "hardswsh", "ops[0].activation", "unknown function 'hardswsh'", "hardswish"),
        ("ops[0].inputs", "image", "ops[0].inputs", "found the text 'image'", ""),
        ("ops[0].inputs[0]", 3, "ops[0].inputs[0]", "found 3", ""),
        ("ops[0].loop", [], "ops[0].loop", "found a list of 0", ""),
        ("meta", [["a"]], "meta[0]", "found a list of 1", ""),
        ("tensors[0]", None, "tensors[0]", "found nothing", ""),
    ],
)  # fmt: skip
def test_one_fault_of_a_field(path: str, value: Any, where: str, what: str, lever: str) -> None:
    data = b0_data()
    set_path(data, path, value)
    (problem,) = problems_of(workload_from_json, data, "here")
    assert problem.where == f"here: {where}"
    assert problem.what.startswith(what)
    assert problem.expected
    assert problem.levers == ((lever,) if lever else ())


def test_every_fault_of_the_fields_at_once() -> None:
    data = b0_data()
    del data["name"]
    del data["ops"][0]["op_class"]
    data["ops"][1]["weihgts"] = data["ops"][1].pop("weights")
    data["tensors"][2]["h"] = "8"
    found = problems_of(workload_from_json, data, "here")
    places = {problem.where.removeprefix("here: "): problem.levers for problem in found}
    assert places == {"name": (), "ops[0].op_class": (), "ops[1].weihgts": ("weights",), "tensors[2].h": ()}


def test_every_fault_of_the_network_at_once() -> None:
    data = b0_data()
    data["ops"][0]["weights"] += 1
    data["ops"][3]["inputs"] = ["nobody"]
    data["output"] = "nothing"
    found = problems_of(workload_from_json, data, "here")
    assert len(found) == 3
    assert all(problem.where.startswith("here: workload efficientvit_b0") for problem in found)
    assert "'nobody' is not produced earlier" in found[1].what


@pytest.mark.parametrize("data", [None, [], 3, "text", {}])
def test_data_that_is_no_workload(data: Any) -> None:
    assert problems_of(workload_from_json, data, "here")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "not JSON"), ("[" * 100_000, "not JSON"), ("9" * 5000, "not JSON"), (b"\xff\xfe", "not JSON"),
        ("{}", "the field is missing"), ("[]", "found a list of 0"), ("", "not JSON"),
    ],
)  # fmt: skip
def test_files_that_are_no_workload(text: str | bytes, what: str, tmp_path: Path) -> None:
    (problem,) = problems_of(load_workload, write(tmp_path, text, "a.json"))
    assert problem.what.startswith(what)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    path = write(tmp_path, dump_workload(build_workload("efficientvit_b0", 32)), "network.json")
    (problem,) = problems_of(build_workload, str(tmp_path / "netwrk.json"))
    assert problem.levers == (str(path),)


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path = str(write(tmp_path, dump_workload(build_workload("efficientvit_b0", 32)), "net.json"))
    first = build_workload(path)
    assert build_workload(path, 32) is first
    (problem,) = problems_of(build_workload, path, 64)
    assert "the file holds the network at 32" in problem.what
    write(tmp_path, dump_workload(build_workload("efficientvit_b0", 64)), "net.json")
    assert build_workload(path).resolution == 64


# --- commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write(tmp_path, dump_workload(build_workload("efficientvit_b0", 64)), "net.json")


def test_run_gives_what_the_built_in_network_gives(network: Path, tmp_path: Path) -> None:
    reports = []
    for number, model in enumerate(([str(network)], ["efficientvit_b0", "--resolution", "64"])):
        output = tmp_path / f"report{number}.json"
        assert main(["run", *model, "--json", str(output)]) == 0
        reports.append(json.loads(output.read_text(encoding="utf-8")))
    assert reports[0] == reports[1]


def test_explain_and_front_take_a_file(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(network)]) == 0
    assert "efficientvit_b0 at 64" in capsys.readouterr().out
    assert main(["front", str(network), "--arch", "tiny", "--plan", "uniform8", "-o", str(tmp_path / "f.png")]) == 0
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_check_knows_the_file(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(network)]) == 0
    data = json.loads(network.read_text(encoding="utf-8"))
    data["ops"][0]["kind"], data["ops"][1]["activation"] = "cnv", "swish"
    assert main(["check", str(write(tmp_path, json.dumps(data), "bad.json"))]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[3] for line in lines] == ["ops[0].kind", "ops[1].activation"]


def test_a_command_does_not_write_over_its_network(network: Path) -> None:
    before = network.read_bytes()
    assert main(["run", str(network), "--json", str(network)]) == 2
    assert network.read_bytes() == before


def test_a_sweep_takes_a_file(network: Path, tmp_path: Path) -> None:
    text = "format: accelsim.space/1\nbase: {arch: tiny, plan: uniform8}\naxes: {model: ['NET', 'NONE']}\n"
    text = text.replace("NET", str(network)).replace("NONE", str(tmp_path / "none.json"))
    (problem,) = problems_of(load_space, write(tmp_path, text, "space.yaml"))
    assert "axes.model" in problem.where
    space = write(tmp_path, text.replace(f", '{tmp_path / 'none.json'}'", ""), "space.yaml")
    assert main(["sweep", str(space), "-o", str(tmp_path / "study.sqlite"), "--workers", "1"]) == 0
    assert main(["export", str(tmp_path / "study.sqlite"), "--csv", str(tmp_path / "t.csv")]) == 0
    assert ",ok," in (tmp_path / "t.csv").read_text(encoding="utf-8")


def test_errors_are_problems() -> None:
    with pytest.raises(AccelsimError, match=r"or a file that ends in \.json"):
        build_workload("nobody")
