"""Numbers of an axis do not touch each other, and none is cut by the window of its panel."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sims.pages.drawing import drawn
from sims.pages.style import panels, styled
from sims.studies.overview.figures import concentration_figure, loss_figure, positions_figure


@styled
def long_numbers(largest: float) -> Figure:
    figure, axes = panels(1, 3)
    for ax, scale in zip(axes[0], (1, 1e5, 1), strict=True):
        ax.plot(np.linspace(0, largest, 50), np.arange(50.0) * scale)
        ax.set(xlabel="tokens", ylabel="loss", xlim=(0, largest))
    return figure


@pytest.mark.parametrize("largest", [0.015, 16_000, 160_000, 9_999_999, 1])
def test_numbers_stand_apart_and_whole_in_their_windows(largest):
    figure = long_numbers(largest)
    picture = drawn(figure)
    # Texts keep the size that they had in the file that was written last.
    FigureCanvasAgg(figure).draw()
    assert len(picture.panels) == 3
    for ax, (left, _, width, _) in zip(figure.axes, picture.panels, strict=True):
        low, high = ax.get_xlim()
        boxes = [
            text.get_window_extent()
            for text in ax.get_xticklabels()
            if text.get_text() and low <= text.get_position()[0] <= high
        ]
        assert len(boxes) > 1
        assert all(a.x1 + 0.15 * a.width < b.x0 for a, b in pairwise(boxes))
        points = 72 / figure.dpi
        assert left - 0.1 <= boxes[0].x0 * points
        assert boxes[-1].x1 * points <= left + width + 0.1


@pytest.mark.parametrize(("tokens", "words"), [(15_360, "tokens"), (400_000, "tokens (millions)")])
def test_figures_over_training_count_tokens_alike(tokens, words):
    rows = pd.DataFrame(
        {"step": [1, 2], "tokens": [tokens // 2, tokens], "value": 1.5, "null": 0.5, "null_high": 0.7}
    ).assign(stage="muon", batch_size=8, seed=0, position=3, band="31:20")
    figures = (loss_figure(rows), positions_figure(rows), concentration_figure(rows, "H_peak"))
    for figure in figures:
        assert figure.axes[0].get_xlabel().removeprefix("training ") == words
        assert np.nanmax(figure.axes[0].lines[0].get_xdata()) == (tokens if tokens < 1e5 else tokens / 1e6)
