"""The documentation as a site: no warning, every page in its navigation, every command on the page of commands."""

import importlib.util
import re
from pathlib import Path

import pytest
from sphinx.cmd.build import build_main

from codesign.cli import main

# Sphinx announces what a later version of it removes from its extensions: their matter.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"


def build(source, folder):
    """Exit status of the build of `make docs`, into `folder`."""
    return build_main(["-q", "-Q", "-n", "-W", "-b", "html", "-d", f"{folder}/trees", str(source), f"{folder}/site"])


def navigation(text):
    spec = importlib.util.spec_from_file_location("docs_conf", DOCS / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.navigation(text)


def test_the_site_builds_without_a_warning(tmp_path):
    assert build(DOCS, tmp_path) == 0
    assert "Meaning of the numbers" in (tmp_path / "site" / "contract.html").read_text(encoding="utf-8")


def small_site(folder, text, *, listed=True):
    """Exit status of the build of an index and one page with `text`, under the settings of the documentation."""
    source = folder / "docs"
    source.mkdir()
    (source / "conf.py").write_text((DOCS / "conf.py").read_text(encoding="utf-8"), encoding="utf-8")
    (source / "page.md").write_text(f"# Page\n{text}\n", encoding="utf-8")
    (source / "index.md").write_text(f"# Index\n## Use\n{'[page](page.md)' if listed else 'page'}\n", encoding="utf-8")
    return build(source, folder)


@pytest.mark.parametrize("text", ["[no page](nothing.md)", "[no anchor](page.md#nothing)", "![no picture](none.png)"])
def test_a_broken_link_is_an_error(tmp_path, text):
    assert small_site(tmp_path, text) != 0


def test_a_page_outside_the_navigation_is_an_error(tmp_path):
    assert small_site(tmp_path, "text", listed=False) != 0


def test_a_small_site_without_faults_builds(tmp_path):
    assert small_site(tmp_path, "[title](page.md#page) and [home](index.md#use)") == 0


def test_every_page_is_listed_in_the_index_once():
    listed = re.findall(r"^([\w/-]+)$", navigation((DOCS / "index.md").read_text(encoding="utf-8")), re.MULTILINE)
    pages = [str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted(set(pages) - {"index"})


def test_navigation_has_a_section_for_every_heading_and_a_page_only_where_it_is_first_linked():
    text = "# Title\n[a](a.md)\n## One\n* [b](b.md#part), [c](d/c.md)\n## None\nplain\n## Two\n[b](b.md) [e](e.md)\n"
    assert [tree.split("\n") for tree in navigation(text).split("\n\n```{toctree}") if tree] == [
        ["```{toctree}", ":hidden:", ":caption: One", "", "b", "d/c", "```"],
        ["", ":hidden:", ":caption: Two", "", "e", "```"],
    ]


def test_the_page_of_commands_lists_those_that_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    found = re.findall(r"^    (\w+)(?:  |$)", capsys.readouterr().out, re.MULTILINE)
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert len(found) > 20
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(found)
