"""The tutorials: every command of their `sh` blocks runs, in order, and prints what the pages show.

A block holds `accelsim` commands, which run in this process, or is a shell script without them.  A comment
`# exit status 2` is part of the test.  A ``text`` block shows output of the ``sh`` block before it: its lines occur in
this order, "…" stands for anything.  Numbers are exact; after a comment ``measured``, because they are accuracies, they
may be off by a tenth and 1.
"""

import contextlib
import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from codesign.cli import main

DOCS = Path(__file__).parent.parent.parent / "docs"
BLOCK = re.compile(r"^(<!-- measured -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STATUS = re.compile(r"# exit status (\d+)")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def accelsim(command):
    """What one command prints, on both streams; fails when its exit status is not the one that the page says."""
    printed = io.StringIO()
    expected = STATUS.search(command)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            status = main(shlex.split(command, comments=True)[1:])
        except SystemExit as stop:  # of argparse
            status = stop.code
    assert status == (int(expected[1]) if expected else 0), f"{command}\n{printed.getvalue()}"
    return printed.getvalue()


def run_block(text):
    """Standard output of a ``sh`` block, in the current folder."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    ours = [line.startswith("accelsim ") for line in lines]
    if not any(ours):
        return subprocess.run(["sh", "-e", "-c", text], check=True, capture_output=True, text=True).stdout
    assert all(ours), f"accelsim and other commands in one block:\n{text}"
    return "".join(map(accelsim, lines))


def alike(shown, printed, *, measured):
    """Whether a line of output is the one that the page shows."""
    if not measured:
        return re.fullmatch(re.escape(shown).replace("…", ".*"), printed) is not None
    pattern = NUMBER.sub("#", shown)
    found = re.fullmatch(re.escape(pattern).replace("…", ".*").replace(r"\#", f"({NUMBER.pattern})"), printed)
    numbers = [float(text.replace(",", "")) for text in NUMBER.findall(shown)]
    values = [] if found is None else [float(text.replace(",", "")) for text in found.groups()]
    return found is not None and all(
        abs(one - two) <= 0.1 * abs(two) + 1.0 for one, two in zip(values, numbers, strict=True)
    )


def check_output(shown, printed, *, measured=False):
    """Raise AssertionError for the first shown line that does not follow those before it in what was printed."""
    left = iter(printed.splitlines())
    for line in shown.splitlines():
        if line.strip() != "…":
            assert any(alike(line, one, measured=measured) for one in left), f"not printed:\n{line}\nin\n{printed}"


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("tutorial_*.md")))
def test_commands_of_a_tutorial_print_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = ""
    for measured, kind, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if kind == "sh":
            printed = run_block(text)
        elif kind == "text":
            check_output(text, printed, measured=bool(measured))


PRINTED = "a run\n  cycles  1,234   0.5 ms\n  top-1   94.70%\n"


@pytest.mark.parametrize(
    ("shown", "measured"),
    [("a run\n  cycles  1,234   0.5 ms", False), ("…\n  cycles  1,234   …", False), ("  top-1   94.65%", True)],
)
def test_output_that_is_shown_rightly(shown, measured):
    check_output(shown, PRINTED, measured=measured)


@pytest.mark.parametrize(
    ("shown", "measured"),
    [
        ("  cycles  1,235   0.5 ms", False),
        ("  cycles  1,234", False),
        ("  top-1   94.70%\na run", False),
        ("  top-1   54.65%", True),
        ("  top-five   94.70%", True),
    ],
)
def test_output_that_is_shown_wrongly(shown, measured):
    with pytest.raises(AssertionError):
        check_output(shown, PRINTED, measured=measured)
