"""Layer by layer: exponents of the activations by depth, and how early each layer's predicts token efficiency."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims.pages.style import in_order, panels, styled

DEPTH = "depth (0 embedding, 1 final state)"


@styled
def layers_figure(layers: pd.DataFrame, window: str, early: pd.DataFrame | None = None) -> Figure:
    """Draw exponents by depth, one panel a stage, one line a moment of training: the later, the darker.

    Args:
        layers: of `exponents_by_layer`, whose moments are tokens, or of `exponents_at_shares`.
        window: of ranks.
        early: of `early_by_layer`, one window: drawn below, as by `early_figure`.
    """
    stages = in_order(layers["stage"])
    figure, axes = panels(1 if early is None else 2, len(stages), sharey="row")
    for ax, stage in zip(axes[0], stages, strict=True):
        _by_depth(ax, layers[layers["stage"] == stage])
        ax.set(xlabel=DEPTH, title=stage)
    axes[0, 0].set_ylabel(f"α, ranks {window.replace('-', '–')}")
    if early is not None:
        _all_correlations(figure, axes[1], stages, early)
    return figure


@styled
def early_figure(table: pd.DataFrame) -> Figure:
    """Draw the rank correlation of early exponents with token inefficiency by layer and share of training.

    Args:
        table: of `early_by_layer`, one window.
    """
    stages = in_order(table["stage"])
    figure, axes = panels(1, len(stages), sharey=True)
    _all_correlations(figure, axes[0], stages, table)
    return figure


def _by_depth(ax: Axes, own: pd.DataFrame) -> None:
    clock = "share" if "share" in own else "tokens"
    moments = sorted(own[clock].unique())
    for k, moment in enumerate(moments):
        mean = own[own[clock] == moment].groupby("depth")["value"].mean()
        shade = plt.get_cmap("viridis_r")(0.1 + 0.9 * k / max(1, len(moments) - 1))
        name = f"{moment:.0%} of training" if clock == "share" else f"{moment / 1e6:.3g} M tokens"
        label = name if k in (0, len(moments) - 1) else None
        ax.plot(mean.index, mean, color=shade, marker=".", linewidth=1, label=label)
    ax.legend()


def _all_correlations(figure: Figure, axes: np.ndarray, stages: list[str], table: pd.DataFrame) -> None:
    for ax, stage in zip(axes, stages, strict=True):
        own = table[table["stage"] == stage]
        wide = own.pivot(index="depth", columns="fraction", values="rho")
        tested = own.pivot(index="depth", columns="fraction", values="q")
        ax.imshow(wide, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", origin="lower")
        for row, column in np.argwhere(tested.to_numpy() <= 0.05):
            ax.text(column, row, "*", ha="center", va="center")
        names = own.drop_duplicates("site").set_index("depth")["site"]
        ax.set_yticks(range(len(wide)), [names[d] for d in wide.index])
        ax.set_xticks(range(wide.shape[1]), [f"{f:g}" for f in wide.columns])
        ax.set(xlabel="share of training", title=stage)
    figure.colorbar(axes[0].images[0], ax=axes, label="ρ")
