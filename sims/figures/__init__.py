"""Pictures of tables. Each function takes tables of `sims.analysis` and returns a matplotlib figure."""

from sims.figures.batches import divergence_figure, prediction_figure, tail_figure
from sims.figures.concentration import causal_figure, concentration_figure, link_figure
from sims.figures.curves import loss_figure
from sims.figures.layers import layers_figure
from sims.figures.spectra import gradient_figure, matched_figure, stage_figure
from sims.figures.style import to_png, to_svg
from sims.figures.transitions import (
    gains_figure,
    optimiser_figure,
    phases_figure,
    taxonomy_figure,
    trajectory_figure,
)

__all__ = [
    "causal_figure",
    "concentration_figure",
    "divergence_figure",
    "gains_figure",
    "gradient_figure",
    "layers_figure",
    "link_figure",
    "loss_figure",
    "matched_figure",
    "optimiser_figure",
    "phases_figure",
    "prediction_figure",
    "stage_figure",
    "tail_figure",
    "taxonomy_figure",
    "to_png",
    "to_svg",
    "trajectory_figure",
]
