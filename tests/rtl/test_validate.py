"""The short run for users, what it says without verilator, and the lint of every module."""

import subprocess
from pathlib import Path

import pytest

from accelsim.problems import AccelsimError
from accelsim.rtl import build, engine, sequencer, system, validate
from accelsim.validation.registry import suite, suites


def test_quick_run_has_no_error(rtl_folder: Path) -> None:
    cases = validate.validate_rtl(quick=True, folder=rtl_folder)
    assert len(cases) == 3
    for case in cases:
        assert case.reference == case.ours > 1000
        assert case.error == 0


def test_suite_of_the_command(rtl_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELSIM_RTL_CACHE", str(rtl_folder))
    assert "rtl" not in [found.name for found in suites()]
    cases = suite("rtl").run()
    assert len(cases) == 6
    assert all(case.met for case in cases)


def test_without_verilator_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "verilator_path", lambda: None)
    with pytest.raises(AccelsimError, match="verilator is not installed"):
        validate.validate_rtl(folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("top", "modules"),
    [("program_top", sequencer.MODULES), ("array_engine", engine.MODULES), ("system_top", system.MODULES)],
)
def test_every_module_is_lint_clean(top: str, modules: tuple[str, ...], rtl_folder: Path) -> None:
    files = [str(build.SOURCES / f"{name}.sv") for name in modules]
    command = ["verilator", "--lint-only", "-Wall", "--unroll-count", "1", "--top-module", top, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_source_belongs_to_a_build() -> None:
    assert {path.stem for path in build.SOURCES.glob("*.sv")} == {*sequencer.MODULES, *system.MODULES}
