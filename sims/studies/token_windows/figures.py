"""Figure of covariance spectra of token windows, with those of shuffled tokens."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from sims.pages.style import COLOURS, panels, styled
from spectra.plots import rank_axes


@styled
def token_windows_figure(table: pd.DataFrame) -> Figure:
    """Draw share of variance against rank, one panel per window length.

    Args:
        table: window, tokens ("text" or "shuffled"), rank, share.
    """
    lengths = sorted(table["window"].unique())
    figure, axes = panels(1, len(lengths), sharey=True)
    for ax, length in zip(axes[0], lengths, strict=True):
        for tokens, colour, line in (("text", COLOURS["untied"], "solid"), ("shuffled", "0.3", "dotted")):
            own = table[(table["window"] == length) & (table["tokens"] == tokens)]
            ax.plot(own["rank"], own["share"], color=colour, linestyle=line, linewidth=1.4, label=tokens)
        rank_axes(ax)
        ax.set_title(f"windows of {length} tokens")
    axes[0, 0].set_ylabel("share of variance")
    axes[0, 0].legend()
    return figure
