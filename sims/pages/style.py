"""The style of all figures: one colour for each stage, one line style for each batch size."""

from __future__ import annotations

import io
import re
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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

P = ParamSpec("P")

_PATH, _DECIMALS = re.compile(r' d="[^"]*"'), re.compile(r"(\.\d\d)\d+")

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
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (8, 3)))
MARKERS = "osD^v"

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    # Glyphs as paths: a page looks the same whatever fonts its reader has.
    "svg.fonttype": "path",
    # Ids follow from the content, so that equal figures are equal files.
    "svg.hashsalt": "spectral-lens",
    "figure.constrained_layout.use": True,
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw a figure in this style; neither the global style nor pyplot's list of open figures changes."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with plt.rc_context(STYLE):
            figure = draw(*args, **kwargs)
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
    rows: int, columns: int, *, width: float = 3.3, height: float = 2.6, **options: Any
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its (rows, columns) array of axes."""
    return plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **options)


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
    lines = [one[[x, "value"]].to_numpy(float) for _, one in table.groupby("seed")]
    many_lines(axes, lines, color=color, linestyle=linestyle, linewidth=0.5, alpha=0.5)
    over = table.groupby(x)["value"]
    mean, low, high = over.mean(), over.min(), over.max()
    axes.plot(mean.index, mean, color=color, linestyle=linestyle, linewidth=1.6, label=label)
    axes.fill_between(mean.index, low, high, color=color, alpha=0.15, linewidth=0)


def many_lines(axes: Axes, lines: Sequence[np.ndarray], **style: Any) -> None:
    """Draw lines of one style as one element, with a gap between them; pages of many runs stay small.

    Args:
        lines: (points, 2) each, x and y.
        style: of `Axes.plot`.
    """
    if lines:
        gap = np.full((1, 2), np.nan)
        x, y = np.concatenate([part for line in lines for part in (line, gap)]).T
        axes.plot(x, y, **style)


def stage_legend(
    axes: Axes, stages: Sequence[str], sizes: Sequence[int], loc: Any = "best", noise: bool = False
) -> None:
    """Explain colours and line styles inside a panel."""
    axes.legend(handles=_handles(axes, stages, sizes, noise), loc=loc)


def outside_legend(
    figure: Figure, axes: Axes, stages: Sequence[str], sizes: Sequence[int], noise: bool = False
) -> None:
    """Explain colours and line styles to the right of all panels, where the legend hides no curve."""
    figure.legend(handles=_handles(axes, stages, sizes, noise), loc="outside right center")


def _handles(axes: Axes, stages: Sequence[str], sizes: Sequence[int], noise: bool) -> list[Any]:
    handles = [axes.plot([], [], color=colour(s), label=s)[0] for s in stages]
    handles += [
        axes.plot([], [], color="0.4", linestyle=dashes(b, sizes), label=f"B = {b}")[0]
        for b in sorted(set(sizes))
    ]
    return handles + ([axes.plot([], [], **NOISE, label="noise")[0]] if noise else [])


def noise_level(axes: Axes, level: float) -> None:
    """Draw a horizontal line at the value of pure noise."""
    axes.axhline(level, **NOISE)


def plain_log(axes: Axes, which: Literal["x", "y", "both"]) -> None:
    """Make axes of a few decades logarithmic, labelled 1, 2, 5, 10 … instead of powers of ten."""
    for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y")):
        if which in (name, "both"):
            axes.set(**{f"{name}scale": "log"})
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())


def to_svg(figure: Figure, *, crop: bool = False) -> str:
    """Return the figure as an SVG element and close it.

    Args:
        crop: cut to the content, which draws everything twice.
    """
    buffer = io.StringIO()
    with plt.rc_context(STYLE):
        bounds = "tight" if crop else None
        figure.savefig(buffer, format="svg", bbox_inches=bounds, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = buffer.getvalue()
    return _PATH.sub(_shorter, svg[svg.index("<svg") :])


def _shorter(path: re.Match[str]) -> str:
    """Return a path with hundredths of a point, which no screen shows; six decimals are a third of a page."""
    return _DECIMALS.sub(r"\1", path[0])


def to_png(figure: Figure, to: Path | BinaryIO, dpi: int = 130) -> None:
    """Write the figure as a PNG file and close it."""
    with plt.rc_context(STYLE):
        figure.savefig(to, dpi=dpi, format="png")
    plt.close(figure)
