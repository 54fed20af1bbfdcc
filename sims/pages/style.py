"""The style of all figures: one colour for each stage, one line style for each batch size."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, Literal, ParamSpec

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

from sims.pages.svg import compact
from sims.system.errors import MeasureError

P = ParamSpec("P")

# The core chain in Okabe and Ito's palette, distinct under every common colour blindness; the later stages in Tol's
# muted one.
COLOURS = {
    "baseline": "#0072B2",
    "rope": "#E69F00",
    "muon": "#009E73",
    "untied": "#D55E00",
    "value_mix": "#332288",
    "unet": "#88CCEE",
    "fixed_window": "#44AA99",
    "flex_window": "#117733",
    "value_embed": "#999933",
    "sparse_embed": "#DDCC77",
    "truncated_rope": "#CC6677",
    "softcap": "#882255",
    "long_short": "#AA4499",
    "attn_scale": "#000000",
}
# For stages that are not in the chain: hues of Brewer's Set 1 and Dark 2 that differ from those above.
OTHERS = ("#A65628", "#F781BF", "#1B9E77", "#7570B3", "#E7298A", "#66A61E", "#A6761D", "#666666")
# No stage and no batch size is drawn like this.
NOISE: Any = {"color": "0.6", "linestyle": "solid", "linewidth": 1.6}
FLOOR: Any = {"color": "0.45", "linestyle": "dashed", "linewidth": 1.0}
# Curves keep at least this share of the axis of the loss; a floor farther away is named at the edge, and not drawn.
FLOOR_SHARE = {"y": 0.3, "x": 0.5}
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (8, 3)))
MARKERS = "osD^v"

# Lines of one style with more points, and more markers, are drawn as an image, whose size has a bound.
# A point takes 7 bytes, a marker 100, the image of a panel ten to forty thousand.
MANY_POINTS, MANY_MARKERS = 1000, 50
# Sharp on a screen with two pixels for each of CSS, which has 96 an inch.
IMAGE_DPI = 192
UNSIGNED: Any = {"Date": None, "Creator": None}

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    # Right above the axes: where it would be found to belong, after a look at all ticks for each drawing.
    "axes.titley": 1.0,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    # In points: lines of many runs lose the points that lie so close to the line between their neighbours.
    "path.simplify_threshold": 0.25,
    # Glyphs as paths: a page looks the same whatever fonts its reader has.
    "svg.fonttype": "path",
    # Ids follow from the content, so that equal figures are equal files.
    "svg.hashsalt": "spectral-lens",
    "figure.constrained_layout.use": True,
}
# While it is saved, a figure without a layout engine must not be given one.
SAVED: Any = STYLE | {"figure.constrained_layout.use": False}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw a figure in this style; neither the global style nor pyplot's list of open figures changes.

    Legends of panels become one above all panels, where it hides no curve.
    """

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with plt.rc_context(STYLE):
            figure = draw(*args, **kwargs)
            _share_legends(figure)
        plt.close(figure)
        return figure

    return drawn


def colour(stage: str) -> str:
    """Return the colour of a stage; one that is not in the chain gets a colour that follows from its name."""
    return COLOURS.get(stage) or OTHERS[zlib.crc32(stage.encode()) % len(OTHERS)]


def in_order(stages: Iterable[str]) -> list[str]:
    """Return every stage once: those of the chain in its order, then all others as they come."""
    found = dict.fromkeys(stages)
    return [*(s for s in COLOURS if s in found), *(s for s in found if s not in COLOURS)]


def dashes(batch_size: float, all_sizes: Iterable[float]) -> Any:
    """Return the line style of a batch size among those of a figure."""
    return _among(DASHES, batch_size, all_sizes)


def marker(batch_size: float, all_sizes: Iterable[float]) -> str:
    """Return the marker of a batch size among those of a figure."""
    return _among(MARKERS, batch_size, all_sizes)


def _among(choices: Sequence[Any], size: float, all_sizes: Iterable[float]) -> Any:
    return choices[sorted({*all_sizes, size}).index(size) % len(choices)]


def panels(
    rows: int, columns: int, *, width: float | None = None, height: float = 2.6, **options: Any
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its (rows, columns) array of axes.

    Args:
        width, height: of a panel in inches; by default two are as wide as a page, and each fits a telephone.
    """
    width = width or (4.0 if columns == 2 else 3.3)
    return plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **options)


def panel_grid(
    count: int, columns: int = 3, xlabel: str = "", ylabel: str = "", **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a number of panels in rows, and their axes.

    Args:
        count: of the panels.
        columns: at most so many stand in a row.
        xlabel, ylabel: of the lowest panel of each column, and of the first of each row.
        options: of `panels`.

    Raises:
        MeasureError: no panel, where runs have nothing to draw.
    """
    if not count:
        raise MeasureError("there is nothing to draw")
    columns = min(columns, count)
    figure, grid = panels(-(-count // columns), columns, **options)
    axes = list(grid.flat[:count])
    for ax in grid.flat[count:]:
        ax.set_visible(False)
    for ax in axes[-columns:]:
        # A shared axis has its numbers in the last row alone, which may be short.
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(xlabel)
    for ax in axes[::columns]:
        ax.set_ylabel(ylabel)
    return figure, axes


def seed_band(
    axes: Axes, table: pd.DataFrame, x: str, *, color: str, linestyle: Any, label: str | None = None
) -> None:
    """Draw the mean over seeds as a line, every seed as a thin one, and shade the range over seeds.

    Args:
        table: columns x, value and seed.
    """
    if table.empty:
        # A band without points would set the limits of the axes, below zero.
        return
    seeds = lines_of(table, "seed", x, "value")
    many_lines(axes, seeds, color=color, linestyle=linestyle, linewidth=0.5, alpha=0.5)
    over = table.groupby(x)["value"]
    mean, low, high = over.mean(), over.min(), over.max()
    # A line of one point shows nothing.
    mark: dict[str, Any] = {"marker": "o", "markersize": 3} if len(mean) == 1 else {}
    axes.plot(mean.index, mean, color=color, linestyle=linestyle, linewidth=1.6, label=label, **mark)
    axes.fill_between(mean.index, low, high, color=color, alpha=0.15, linewidth=0)


def lines_of(table: pd.DataFrame, by: str, x: str, y: str) -> list[np.ndarray]:
    """Return the points (x, y), each (points, 2), of every group of rows that are equal in a column."""
    which = table.groupby(by, sort=False).ngroup().to_numpy()
    order = np.argsort(which, kind="stable")
    points = table[[x, y]].to_numpy(float)[order]
    return np.split(points, np.flatnonzero(np.diff(which[order])) + 1)


def many_lines(axes: Axes, lines: Sequence[np.ndarray], **style: Any) -> None:
    """Draw lines of one style as one element, with a gap between them, or as an image where they have many points.

    Args:
        lines: (points, 2) each, x and y.
        style: of `Axes.plot`.
    """
    if lines:
        gap = np.full((1, 2), np.nan)
        x, y = np.concatenate([part for line in lines for part in (line, gap)]).T
        axes.plot(x, y, **_as_image(len(x) > MANY_POINTS), **style)


def markers(axes: Axes, x: ArrayLike, y: ArrayLike, **style: Any) -> None:
    """Draw circles of one style, as an image where they are many.

    Args:
        x, y: (points,) each.
        style: of `Axes.plot`.
    """
    axes.plot(x, y, "o", **_as_image(np.size(x) > MANY_MARKERS), **style)


def _as_image(many: bool) -> dict[str, Any]:
    """Return the options of what is drawn as an image: below all lines (order 2), so that a panel has one image."""
    return {"rasterized": True, "zorder": 1.9} if many else {}


def outside_legend(
    figure: Figure, axes: Axes, stages: Sequence[str], sizes: Sequence[int], noise: bool = False
) -> None:
    """Explain colours and, where there are several batch sizes, line styles above all panels."""
    legend_above(figure, _handles(axes, stages, sizes, noise))


def legend_above(figure: Figure, handles: Sequence[Artist]) -> None:
    """Explain lines and marks above all panels, where the legend hides no curve, in as many lines as it takes."""
    if not handles:
        return
    longest = max(len(line) for h in handles for line in str(h.get_label()).split("\n"))
    # In points: a letter takes half its size, the sample and the space around it five times its size.
    size = STYLE["legend.fontsize"]
    columns = int(72 * figure.get_figwidth() / (size * (0.5 * longest + 5)))
    figure.legend(handles=list(handles), loc="outside upper left", ncols=min(max(columns, 1), len(handles)))


def _share_legends(figure: Figure) -> None:
    """Put the entries of the legends of panels, each once, into one legend above all panels."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is not None:
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
                if handle is not None:
                    handle.set_label(text.get_text())
                    entries.setdefault(text.get_text(), handle)
            legend.remove()
    legend_above(figure, list(entries.values()))


def _handles(axes: Axes, stages: Sequence[str], sizes: Sequence[int], noise: bool) -> list[Any]:
    handles = [axes.plot([], [], color=colour(s), label=s)[0] for s in stages]
    handles += [
        axes.plot([], [], color="0.4", linestyle=dashes(b, sizes), label=f"B = {b}")[0]
        for b in (sorted(set(sizes)) if len(set(sizes)) > 1 else ())
    ]
    return handles + ([axes.plot([], [], **NOISE, label="noise")[0]] if noise else [])


def noise_level(axes: Axes, level: float) -> None:
    """Draw a horizontal line at the value of pure noise."""
    axes.axhline(level, **NOISE)


def loss_floor(axes: Axes, floor: float | None, axis: Literal["x", "y"] = "y") -> None:
    """Draw a dashed line at the lowest loss that is possible, once the curves are drawn and the scales are set.

    Args:
        floor: in nats; None where it is not known.
        axis: the one of the loss.
    """
    if floor is None:
        return
    scale = np.log if getattr(axes, f"get_{axis}scale")() == "log" else np.asarray
    low, high = np.sort(scale(getattr(axes, f"get_{axis}lim")()))
    upright = axis == "x"
    place = axes.get_xaxis_transform() if upright else axes.get_yaxis_transform()
    label: dict[str, Any] = {"color": FLOOR["color"], "fontsize": 7}
    # ln 0 is −∞, below every axis: a floor of 0 is that of a task whose tokens are certain.
    with np.errstate(divide="ignore"):
        below = high - scale(floor)
    if high - low < FLOOR_SHARE[axis] * below:
        end = {"xy": (0.98, 0.02), "xycoords": "axes fraction", "ha": "right", "va": "bottom"}
        axes.annotate(f"floor {floor:.2g} {'→' if upright else '↓'}", **end, **label)
        return
    if scale is np.log:
        # The axis now spans more than a decade.
        plain_log(axes, axis)
    if upright:
        axes.axvline(floor, **FLOOR)
        axes.text(floor, 0.97, "floor ", transform=place, rotation=90, ha="right", va="top", **label)
    else:
        axes.axhline(floor, **FLOOR)
        axes.text(0.02, floor, "floor", transform=place, va="bottom", **label)


def plain_log(axes: Axes, which: Literal["x", "y", "both"]) -> None:
    """Make axes of a few decades logarithmic, labelled 1, 2, 5, 10 … instead of powers of ten."""
    for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y")):
        if which in (name, "both"):
            axes.set(**{f"{name}scale": "log"})
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG element and close it."""
    buffer = io.StringIO()
    with plt.rc_context(SAVED):
        figure.savefig(buffer, format="svg", dpi=IMAGE_DPI, metadata=UNSIGNED)
    plt.close(figure)
    svg = buffer.getvalue()
    return compact(svg[svg.index("<svg") :])


def to_png(figure: Figure, to: Path | BinaryIO, dpi: int = 130) -> None:
    """Write the figure as a PNG file and close it."""
    with plt.rc_context(SAVED):
        figure.savefig(to, dpi=dpi, format="png")
    plt.close(figure)
