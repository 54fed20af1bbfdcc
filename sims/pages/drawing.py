"""Draw a figure for a page, which shows its panels beside each other or, on a narrow screen, one below the other.

A panel is a window onto the one drawing, and so is each entry of its legend: nothing is drawn twice.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.ticker import FixedFormatter, FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox

from sims.pages.page import Picture, Window
from sims.pages.style import SAVED, STYLE, to_svg

# Points around a window.
MARGIN = 2.0
# Words of rows take at most this share of a panel; where they are longer, the figure stays whole.
WORDS = 0.45
# Share by which letters of a browser may be wider than those that were laid out.
SPARE = 0.2
# Intervals between ticks that are tried where their numbers overlap.
FEWER = (5, 4, 3, 2, 1)


def drawn(figure: Figure, caption: str = "", name: str = "") -> Picture:
    """Return the figure as a page shows it, and close it; it keeps its layout for other files.

    Every panel is given the labels that it shares with others, so that it can stand alone.
    """
    with plt.rc_context(STYLE):
        grid = _grid(figure)
        if grid is not None:
            for axes in grid.flat:
                _complete(axes, grid)
        # Laying out takes longer than drawing: once for all files.
        _lay_out(figure)
        panels = () if grid is None else _windows(figure, grid)
        # A figure with an engine, even with one that does nothing, is drawn twice for each file.
        with plt.rc_context(SAVED):
            figure.set_layout_engine(None)
        key, words = (_key(figure) if panels else ()), _words(figure)
    svg = to_svg(figure)
    columns = 1 if grid is None or not panels else grid.shape[1]
    return Picture(svg, caption, name, panels, columns, key, words)


def _lay_out(figure: Figure) -> None:
    """Place the axes, and the entries of legends, which get their places where they are drawn."""
    # A closed figure has no renderer of its own, and would make one at each question.
    renderer = FigureCanvasAgg(figure).get_renderer()
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        if sum(_thinned(axes) for axes in figure.axes):
            engine.execute(figure)
    for legend in figure.legends:
        legend.draw(renderer)


def _thinned(axes: Axes) -> bool:
    """Take fewer ticks of an x axis whose numbers would touch; return whether there are fewer now."""
    if not (isinstance(axes.xaxis.get_major_locator(), MaxNLocator) and axes.axison):
        return False
    fewer = False
    for most in FEWER:
        boxes = [text.get_window_extent() for text in axes.get_xticklabels() if text.get_text()]
        if all(a.x1 + SPARE * a.width < b.x0 for a, b in pairwise(boxes)):
            break
        axes.locator_params("x", nbins=most)
        fewer = True
    return fewer


def _grid(figure: Figure) -> np.ndarray | None:
    """Return the axes as (rows, columns) if each can stand alone; None where the figure must stay whole."""
    places: list[tuple[Axes, Any]] = [(axes, axes.get_subplotspec()) for axes in figure.axes]
    if len(places) < 2 or any(spec is None or axes.child_axes for axes, spec in places):
        return None
    specs = [spec for _, spec in places]
    shape = specs[0].get_gridspec().get_geometry()
    if any(s.get_gridspec() is not specs[0].get_gridspec() or s.num1 != s.num2 for s in specs):
        return None
    if len(places) != shape[0] * shape[1]:
        return None
    grid = np.empty(shape, dtype=object)
    for axes, spec in places:
        grid.flat[spec.num1] = axes
    return None if any(_words_beside(axes, grid) for axes in grid.flat) else grid


def _words_beside(axes: Axes, grid: np.ndarray) -> bool:
    """Return whether a panel has words for rows that stand at another panel, and has no room for them."""
    row, column = _place(axes, grid)
    named = isinstance(axes.yaxis.get_major_formatter(), (FixedFormatter, FuncFormatter))
    if not named or column == 0 or axes.yaxis.get_tick_params().get("labelleft", True):
        return False
    left = grid[row, 0]
    if not axes.get_shared_y_axes().joined(axes, left):
        return True
    longest = max((text.get_window_extent().width for text in left.get_yticklabels()), default=0.0)
    return longest > WORDS * axes.figure.bbox.width / grid.shape[1]


def _place(axes: Axes, grid: np.ndarray) -> tuple[int, int]:
    row, column = np.argwhere(grid == axes)[0]
    return int(row), int(column)


def _complete(axes: Axes, grid: np.ndarray) -> None:
    """Give a panel the labels and the title that stand at the first of its row, the last or first of its column."""
    if not axes.axison:
        return
    row, column = _place(axes, grid)
    left = grid[row, 0]
    below = [other for other in grid[row:, column] if other.axison][-1]
    if axes.get_shared_y_axes().joined(axes, left):
        axes.tick_params(axis="y", which="both", labelleft=True)
    if axes.get_shared_x_axes().joined(axes, below):
        axes.tick_params(axis="x", which="both", labelbottom=True)
    axes.set_ylabel(axes.get_ylabel() or left.get_ylabel())
    axes.set_xlabel(axes.get_xlabel() or below.get_xlabel())
    axes.set_title(axes.get_title(loc="left") or grid[0, column].get_title(loc="left"))


def _windows(figure: Figure, grid: np.ndarray) -> tuple[Window, ...]:
    """Return a window for each panel, all of one width; none where the panels differ in size."""
    shown = [axes for axes in grid.flat if axes.axison]
    rows, columns = zip(*(_place(axes, grid) for axes in shown), strict=True)
    margin = MARGIN * figure.dpi / 72
    for spread in (True, False):
        inner = [axes.get_window_extent() for axes in shown]
        if np.ptp([box.width for box in inner]) > 0.02 * inner[0].width:
            return ()
        outer = [axes.get_tightbbox() or box for axes, box in zip(shown, inner, strict=True)]
        left = max(i.x0 - o.x0 for i, o in zip(inner, outer, strict=True)) + margin
        # A title that is too wide is cut, and shows nothing of the panel beside it.
        gaps = [b.x0 - a.x1 for a, b, c in zip(inner, inner[1:], columns[1:], strict=False) if c]
        # The last number of an axis may reach beyond it.
        over = max(_last_tick(axes) - i.x1 for axes, i in zip(shown, inner, strict=True))
        needed = left + max(0.0, over)
        missing = needed - min(gaps, default=needed)
        if missing <= 0:
            break
        if spread:
            _move_apart(figure, missing + margin)
    right = max(o.x1 - i.x1 for i, o in zip(inner, outer, strict=True)) + margin
    right = max(min([right, *(gap - left for gap in gaps)]), 0.0)
    found = []
    for own, row in zip(inner, rows, strict=True):
        level = [o for o, r in zip(outer, rows, strict=True) if r == row]
        low, high = min(o.y0 for o in level) - margin, max(o.y1 for o in level) + margin
        found.append(_window(figure, Bbox([[own.x0 - left, low], [own.x1 + right, high]])))
    return tuple(found)


def _last_tick(axes: Axes) -> float:
    """Return where the numbers of an x axis end."""
    low, high = sorted(axes.get_xlim())
    shown = [t.get_window_extent().x1 for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
    return max(shown, default=0.0)


def _move_apart(figure: Figure, pixels: float) -> None:
    """Lay the figure out again with so much more space between its columns."""
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=engine.get()["w_pad"] + pixels / 2 / figure.dpi)
        _lay_out(figure)


def _key(figure: Figure) -> tuple[Window, ...]:
    """Return a window for each entry of the legends of the figure."""
    return tuple(_window(figure, box) for legend in figure.legends for box in _entries(legend))


def _entries(legend: Legend) -> list[Bbox]:
    size = legend._fontsize * legend.get_figure(root=True).dpi / 72  # pyright: ignore
    before = (legend.handlelength + legend.handletextpad) * size
    boxes = [text.get_window_extent() for text in legend.get_texts()]
    title = legend.get_title()
    named = [title.get_window_extent()] if title.get_text() else []
    return [*named, *(Bbox([[b.x0 - before - 3, b.y0 - 2], [b.x1 + 3, b.y1 + 2]]) for b in boxes)]


def _words(figure: Figure) -> str:
    texts = [text.get_text().replace("\n", " ") for legend in figure.legends for text in legend.get_texts()]
    return ", ".join(texts)


def _window(figure: Figure, box: Bbox) -> Window:
    """Return a part of the figure, in pixels from the bottom, as points from the top."""
    scale = 72 / figure.dpi
    x, y = box.x0 * scale, (figure.bbox.height - box.y1) * scale
    return (round(x, 1), round(y, 1), round(box.width * scale, 1), round(box.height * scale, 1))
