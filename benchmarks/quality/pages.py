"""From results to a page: tables between its markers, and a picture beside it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cells import read_results


def make_page(
    about: str | None,
    results: Mapping[str, Path],
    tables: Callable[..., dict[str, str]],
    draw: Callable[..., None],
) -> int:
    """The command of a report: read results (an option and its default each), make tables of them, draw a picture.

    `tables(*rows)` and `draw(*rows, path)` get the rows of every file in the order of `results`.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, path in results.items():
        parser.add_argument(f"--{name}", default=str(path))
    add_outputs(parser)
    arguments = parser.parse_args()
    rows = [read_results(getattr(arguments, name)) for name in results]
    show(tables(*rows), arguments.page)
    if arguments.picture:
        draw(*rows, arguments.picture)
    return 0


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where tables and the picture go."""
    parser.add_argument("--page", help="replace the tables between the page's markers")
    parser.add_argument("--picture", help="draw the picture of the page (.png or .svg)")


def show(text: Mapping[str, str], page: str | None) -> None:
    """Write tables into a page (`write_page`), or print them without one."""
    if page:
        write_page(Path(page), text)
    else:
        print("\n\n".join(text.values()))


def write_page(path: Path, text: Mapping[str, str]) -> None:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; every marker must be there."""
    page = path.read_text(encoding="utf-8")
    for name, table in text.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if start not in page or end not in page:
            raise SystemExit(f"{path}: no place for {name!r} (<!-- {name} --> … <!-- /{name} -->)")
        before, after = page.split(start)[0], page.split(end)[1]
        page = f"{before}{start}\n{table}\n{end}{after}"
    path.write_text(page, encoding="utf-8")


@contextmanager
def picture(
    path: str, rows: int, columns: int, size: tuple[float, float], dpi: int = 110, sharey: bool = False
) -> Iterator[tuple[Any, Any]]:
    """A figure of `size` inches and its axes [rows, columns], written to `path` at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=sharey)
    yield figure, axes
    figure.savefig(path, dpi=dpi)
    plt.close(figure)


def legend_below(figure: Any, axis: Any, columns: int, share: float) -> None:
    """The legend of an axis under all axes of a figure, on a `share` of its height."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=columns, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, share, 1, 1))
