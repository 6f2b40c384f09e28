"""What the pages say is there: commands are read by the real parser, links, paths, names, models and presets exist.

Only the names of things: that commands run, and that numbers are right, is for other tests.
"""

import argparse
import ast
import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from accelsim.config import plan_names, preset_names
from accelsim.workloads.registry import model_names
from codesign.cli import _parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ENVIRONMENT = r"(?:\w+=\S+ )*"
# Parts of a command that stand for something: [optional], A | B, …, FILE.
STANDS_FOR = re.compile(r"[\[\]…|]|\b[A-Z]{3,}\b|\b[A-Z]\b")
FOLDERS = ("accelsim", "quant", "codesign", "tests", "benchmarks", "docs", "examples")
ENDINGS = ("py", "yaml", "sv", "csv")
PATH = re.compile(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w./*-]*\w)")
NAME = re.compile(r"(?<![\w./])((?:accelsim|quant|codesign)(?:\.[A-Za-z_]\w*)+)(?![\w/])")
# Paths that look like ours: a file of another project, one that a test makes.
ELSEWHERE = {"examples/nangate45_typ.lib.gz", "quant/sub/b.py"}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def prose(text: str) -> str:
    return FENCE.sub("", text)


@cache
def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    found = set()
    for action in parser._actions:
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(options_of(one) for one in action.choices.values()))
    return found


def typed(text: str) -> Iterator[str]:
    """What stands behind `accelsim` in the lines of fenced blocks, without comments."""
    for _, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(rf"\s*(?:\$ )?{ENVIRONMENT}accelsim (?!#)(\S.*)$", line)
            if found:
                yield found[1].partition(" #")[0].strip()


def mentioned(text: str) -> Iterator[str]:
    """What stands behind `accelsim` in code within a sentence."""
    yield from re.findall(rf"`{ENVIRONMENT}accelsim ([^`]+)`", prose(text))


def check_command(line: str) -> None:
    """The subcommand and its options exist."""
    name = line.split()[0]
    if name.startswith("-"):
        assert name in options_of(_parser()), line
        return
    assert name in commands(), line
    known = options_of(commands()[name])
    assert [one for one in re.findall(r"(?<!\S)\[?(--?[A-Za-z][\w-]*)", line) if one not in known] == [], line


def check_typed(line: str) -> None:
    """A line without words that stand for others is read whole; its model and presets exist."""
    if STANDS_FOR.search(line):
        return
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = vars(_parser().parse_args(shlex.split(line)))
    except SystemExit:
        raise AssertionError(f"accelsim {line}: {said.getvalue().splitlines()[-1]}") from None
    for field, names in (("arch", preset_names()), ("plan", plan_names()), ("model", model_names())):
        value = found.get(field)
        if isinstance(value, str) and not {"/", "."} & set(value):
            assert value.partition(":")[0] in names, f"accelsim {line}: no {field} {value}"


@pages
def test_commands_are_read_by_the_parser(page):
    text = page.read_text(encoding="utf-8")
    for line in (*typed(text), *mentioned(text)):
        check_command(line)
    for line in typed(text):
        check_typed(line)


def test_every_option_is_on_a_page():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    written = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
    # The examples have -o.
    unsaid = {"--help", "--output"}
    options = {one for parser in commands().values() for one in options_of(parser) if one.startswith("--")}
    assert len(options) > 100
    assert sorted(options - written - unsaid) == []


def test_every_example_is_on_a_page():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    braces = re.findall(r"(\w+)\{([\w,]+)\}_\{([\w,]+)\}\.yaml", text)
    named = {f"{a}{b}_{c}.yaml" for a, first, last in braces for b in first.split(",") for c in last.split(",")}
    named |= set(re.findall(r"\w+\.yaml", text))
    assert sorted({file.name for file in (ROOT / "examples").glob("*.yaml")} - named) == []


@pages
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(file: Path) -> set[str]:
    """Anchors of a page's headings, as they are shown on GitHub."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.strip().lower()).replace(" ", "-") for one in headings}


@pages
def test_paths_of_pages_exist(page):
    assert missing_paths(page.read_text(encoding="utf-8")) == []


def test_paths_in_comments_of_the_sources_exist():
    sources = [file for folder in FOLDERS for end in ENDINGS for file in (ROOT / folder).rglob(f"*.{end}")]
    assert len(sources) > 500
    wrong = {file: found for file in sources if (found := missing_paths(file.read_text(encoding="utf-8")))}
    assert wrong == {}


def missing_paths(text: str) -> list[str]:
    return [
        one
        for one in PATH.findall(text)
        # A decision may be named by its number, and many files by a pattern.
        if one not in ELSEWHERE
        and not (ROOT / one).exists()
        and not any(ROOT.glob(one if "*" in one else f"{one}-*.md"))
    ]


@pages
def test_names_can_be_imported(page):
    text = page.read_text(encoding="utf-8")
    for name in NAME.findall(text):
        if not name.endswith((".yaml", ".json", ".md")):
            assert exists(name), name
    for language, block in FENCE.findall(text):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and NAME.match(f"{node.module}.x"):
                assert [alias.name for alias in node.names if not exists(f"{node.module}.{alias.name}")] == []


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one; fields of a dataclass count."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return part in getattr(found, "__dataclass_fields__", {}) and part == parts[-1]
            found = getattr(found, part)
        return True
    return False


def test_wrong_pages_are_found():
    wrong = "```\naccelsim run deit_tiny --archy m2vit\n```\n"
    (line,) = typed(wrong)
    with pytest.raises(AssertionError, match="--archy"):
        check_command(line)
    with pytest.raises(AssertionError, match="no arch m3vit"):
        check_typed("run deit_tiny --arch m3vit")
    with pytest.raises(AssertionError, match="required"):
        check_typed("run")
    with pytest.raises(AssertionError, match="gallop"):
        check_command("gallop deit_tiny")
    assert missing_paths(f"see {FOLDERS[5]}/nowhere.md and docs/contract.md") == ["docs" + "/nowhere.md"]
    assert exists("accelsim.arch.Engine.lanes")
    assert not exists("accelsim.arch.Engin")
    assert not exists("accelsim.nowhere")
