"""One look for all figures: a colour a stage, a line style a batch size."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
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
OTHER = "0.5"
# No stage and no batch size is drawn like this.
NOISE: Any = {"color": "0.6", "linestyle": "solid", "linewidth": 1.6}
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (8, 3)))

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
    "figure.constrained_layout.use": True,
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in this look without touching the look of anybody else's figures."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with plt.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def colour(stage: str) -> str:
    """The colour of a stage; grey for what is none."""
    return COLOURS.get(stage, OTHER)


def dashes(batch_size: int, all_sizes: Sequence[int]) -> Any:
    """The line style of a batch size among those of a figure."""
    return DASHES[sorted(set(all_sizes)).index(batch_size) % len(DASHES)]


def panels(
    rows: int, columns: int, *, width: float = 3.3, height: float = 2.6, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, columns) array of axes."""
    return plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **options)


def seed_band(
    axes: Axes, table: pd.DataFrame, x: str, *, color: str, linestyle: Any, label: str | None = None
) -> None:
    """The mean over seeds as a line, every seed as a thin one, and the range over seeds shaded.

    Args:
        table: columns x, value and seed.
    """
    for _, one in table.groupby("seed"):
        axes.plot(one[x], one["value"], color=color, linestyle=linestyle, linewidth=0.5, alpha=0.5)
    over = table.groupby(x)["value"]
    mean, low, high = over.mean(), over.min(), over.max()
    axes.plot(mean.index, mean, color=color, linestyle=linestyle, linewidth=1.6, label=label)
    axes.fill_between(mean.index, low, high, color=color, alpha=0.15, linewidth=0)


def stage_legend(
    axes: Axes, stages: Sequence[str], sizes: Sequence[int], loc: Any = "best", noise: bool = False
) -> None:
    """Explain colours and line styles once a figure."""
    axes.legend(handles=_handles(axes, stages, sizes, noise), loc=loc)


def outside_legend(
    figure: Figure, axes: Axes, stages: Sequence[str], sizes: Sequence[int], noise: bool = False
) -> None:
    """The same to the right of all panels, where it hides no curve."""
    figure.legend(handles=_handles(axes, stages, sizes, noise), loc="outside right center")


def _handles(axes: Axes, stages: Sequence[str], sizes: Sequence[int], noise: bool) -> list[Any]:
    handles = [axes.plot([], [], color=colour(s), label=s)[0] for s in stages]
    handles += [
        axes.plot([], [], color="0.4", linestyle=dashes(b, sizes), label=f"B = {b}")[0]
        for b in sorted(set(sizes))
    ]
    return handles + ([axes.plot([], [], **NOISE, label="noise")[0]] if noise else [])


def noise_level(axes: Axes, level: float) -> None:
    """A horizontal line where pure noise would be."""
    axes.axhline(level, **NOISE)


def plain_log(axes: Axes, which: Literal["x", "y", "both"]) -> None:
    """Logarithmic axes of a few decades, labelled 1, 2, 5, 10 … and not with powers of ten."""
    for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y")):
        if which in (name, "both"):
            axes.set(**{f"{name}scale": "log"})
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())


def to_svg(figure: Figure) -> str:
    """The figure as an inline SVG element; its ids are its own, so several can stand on one page."""
    buffer = io.StringIO()
    with plt.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    prefix = f"f{abs(hash(svg)) % 10**8}-"
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}", svg)


def to_png(figure: Figure, to: Path | BinaryIO, dpi: int = 150) -> None:
    """The figure as a PNG file."""
    with plt.rc_context(STYLE):
        figure.savefig(to, dpi=dpi, format="png")
    plt.close(figure)
