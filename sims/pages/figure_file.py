"""One figure in a file of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from sims.pages.style import to_png, to_svg
from sims.system.errors import QueryError
from sims.system.files import check_file, write_atomic


def save_figure(path: Path, draw: Callable[[], Figure]) -> None:
    """Draw a figure into an .svg or .png file and print its path on stderr.

    Raises:
        QueryError: another ending; nothing is drawn.
        StoreError: the file cannot be written.
    """
    check_figure_file(path)
    if path.suffix == ".svg":
        write_atomic(path, lambda file: file.write(to_svg(draw()).encode()))
    else:
        write_atomic(path, lambda file: to_png(draw(), file))
    print(f"figure: {path}", file=sys.stderr)


def check_figure_file(path: Path) -> None:
    """Refuse a file that `save_figure` would refuse, before the work that is drawn.

    Raises:
        QueryError: it is no .svg or .png.
        StoreError: it cannot be written.
    """
    if path.suffix not in (".svg", ".png"):
        raise QueryError(f"{path} ends in {path.suffix!r}; a figure is an .svg or .png file")
    check_file(path)
