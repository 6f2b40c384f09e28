"""Functions of the output stage as ops of the vector unit, as a user asks for them on the command line."""

from __future__ import annotations

import pytest

from tests.support.commands import cli, complaints, read_json

SMALL = ("deit_tiny", "--resolution", "32")


@pytest.fixture(scope="module")
def separated(tmp_path_factory):
    """Folder with the reports of one network, GELU in the output stage and on its own."""
    folder = tmp_path_factory.mktemp("separated")
    cli(folder, "run", *SMALL, "--plan", "uniform8", "--json", "fused.json")
    cli(folder, "run", *SMALL, "--plan", "uniform8", "--separate", "gelu", "--json", "separate.json")
    return folder


def test_run_with_separate_gelu_moves_the_table_look_ups_to_the_vector_unit(separated):
    fused, separate = (read_json(separated / f"{name}.json") for name in ("fused", "separate"))
    gelus = [op for op in separate["ops"] if op["name"].endswith(".gelu")]
    assert len(gelus) == 12
    assert len(separate["ops"]) == len(fused["ops"]) + 12
    totals = [
        {
            name: sum(op["counts"].get(name, 0) for op in report["ops"])
            for name in ("mult.table_lookups", "vector_table")
        }
        for report in (fused, separate)
    ]
    assert totals[0]["mult.table_lookups"] > 0
    assert totals[1]["mult.table_lookups"] == 0
    assert sum(totals[0].values()) == sum(totals[1].values())
    assert fused["macs"] == separate["macs"]


def test_explain_reads_the_same_network(separated):
    found = cli(separated, "explain", *SMALL, "--plan", "uniform8", "--separate", "gelu")
    assert f"{read_json(separated / 'separate.json')['cycles_total']:,} cycles" in found.stdout.splitlines()[0]


def test_a_network_without_the_function_is_refused(tmp_path):
    (line,) = complaints(tmp_path, "run", "efficientvit_b0", "--separate", "gelu")
    assert "no output stage of efficientvit_b0 has a gelu" in line


def test_a_plan_with_methods(separated):
    """The methods run where the GELUs are ops; without --separate, and with a misspelt name, they are refused."""
    plan = "format: accelsim.plan/2\nname: x\nrules:\n  - match: '*'\n    nonlinear: NAME\n"
    for name in ("ibert", "ibrt"):
        (separated / f"{name}.yaml").write_text(plan.replace("NAME", name), encoding="utf-8")
    design = ("--arch", "m2vit_nonlinear", "--separate", "gelu", "--plan", "ibert.yaml", "--json", "ibert.json")
    cli(separated, "run", *SMALL, *design)
    counts = [op["counts"] for op in read_json(separated / "ibert.json")["ops"]]
    assert sum(row.get("vector_leading_one", 0) for row in counts) > 0
    assert sum(row.get("vector_table", 0) + row.get("mult.table_lookups", 0) for row in counts) == 0
    lines = complaints(separated, "run", *SMALL, "--plan", "ibert.yaml")
    assert "b0.fc1: ibert for its GELU, which is a table of the output stage" in lines[0]
    assert "try: --separate gelu" in lines[0]
    (line,) = complaints(separated, "run", *SMALL, "--plan", "ibrt.yaml", "--separate", "gelu")
    assert "ibrt.yaml:5: rules[0].nonlinear: found the text 'ibrt'" in line
    assert "try: ibert" in line
