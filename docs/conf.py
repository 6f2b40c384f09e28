"""Sphinx settings of the documentation site: `make docs` builds it into site/ with warnings as errors.

The pages are plain Markdown as GitHub shows it, without directives. The navigation comes from the lists of index.md:
a page is listed once, and a page that is in no list is a warning of Sphinx, hence an error.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx

project = "hybrid-vit-codesign"
author = "hybrid-vit-codesign contributors"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = "accelsim"
html_copy_source = False
html_show_sphinx = False
# Most blocks are commands and their output, which have no grammar.
highlight_language = "none"
# Anchors of headings as GitHub makes them, for links such as `codesign.md#results`.
myst_heading_anchors = 4

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_PAGE = re.compile(r"\]\(([\w/-]+)\.md(?:#[\w-]+)?\)")


def navigation(index: str) -> str:
    """Hidden toctrees, one per section of the text of index.md, of the pages that the section is the first to link."""
    _, *parts = _SECTION.split(index)
    seen: set[str] = set()
    trees = []
    for caption, text in zip(parts[::2], parts[1::2], strict=True):
        pages = [page for page in dict.fromkeys(_PAGE.findall(text)) if page not in seen]
        seen.update(pages)
        if pages:
            trees.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]))
    return "\n\n".join(trees)


def _add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    if name == app.config.root_doc:
        source[0] += "\n" + navigation(source[0]) + "\n"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _add_navigation)
    return {"parallel_read_safe": True}
