"""Figures show all that they are given: no curve is cut by another panel's limits, and one point is seen."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.analysis.intervals import student
from sims.analysis.summaries import range_of
from sims.pages.figures.spectra import LEAST_SHARE, matched_figure, sites_figure, stage_figure
from sims.pages.number import ABSENT
from sims.pages.style import seed_band
from sims.studies.look.figures import by_layer
from sims.studies.overview.figures import layers_figure
from sims.studies.overview.tables import flag_note
from sims.studies.overview.tables import layers as layers_table


def _run(shares, **columns):
    return pd.DataFrame(
        {"stage": ["a"], "batch_size": [8], "loss": [1.0], "shares": [np.array(shares)]} | columns
    )


def _three(one, other):
    """The same two spectra as sites, as batch sizes and as stages."""
    return {
        "sites": sites_figure({"x": _run(one), "y": _run(other)}),
        "sizes": stage_figure(pd.concat([_run(one), _run(other, batch_size=[16])]), "states"),
        "stages": matched_figure(pd.concat([_run(one), _run(other, stage=["b"])])),
    }


@given(st.integers(2, 40), st.floats(0, 3), st.integers(2, 40), st.floats(0, 3))
@settings(max_examples=3, deadline=None)
def test_no_curve_is_cut_by_the_panel_before_it(first, steep, second, steeper):
    spectra = []
    for width, alpha in ((first, steep), (second, steeper)):
        shares = np.arange(1, width + 1.0) ** -alpha
        spectra.append(shares / shares.sum())
    for kind, figure in _three(*spectra).items():
        for ax, shares in zip(figure.axes, spectra, strict=True):
            low, high = ax.get_ylim()
            assert low <= max(min(shares), LEAST_SHARE) * 1.0001, kind
            assert max(shares) <= high * 1.0001, kind


def test_rounding_is_left_out_of_every_panel():
    for figure in _three([0.5, 0.5 - 1e-12, 1e-12], [0.9, 0.1]).values():
        assert all(ax.get_ylim()[0] >= LEAST_SHARE * 0.999 for ax in figure.axes)


@pytest.mark.parametrize("points", [1, 2])
def test_a_mean_of_one_point_is_marked(points):
    figure, ax = plt.subplots()
    steps = list(range(points)) * 2
    table = pd.DataFrame({"step": steps, "value": 1.0, "seed": [0] * points + [1] * points})
    seed_band(ax, table, "step", color="k", linestyle="solid")
    plt.close(figure)
    assert (ax.lines[-1].get_marker() == "o") == (points == 1)


def test_every_panel_of_layers_has_all_sites():
    rows = [("rankme", "0", 3.0), ("rankme", "2", 4.0), ("alpha 1-10", "0", 0.4)]
    table = pd.DataFrame(rows, columns=["quantity", "site", "value"]).assign(
        stage="a", batch_size=8, seed=0, null=1.0
    )
    figure = layers_figure(table, {name: name for name in table["quantity"]})
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    assert all(low < 0 and high > 1 for low, high in (ax.get_xlim() for ax in figure.axes))
    only = figure.axes[1].lines
    assert any(line.get_marker() == "o" and list(line.get_ydata()) == [0.4] for line in only)


def test_tables_of_summaries_have_seeds_intervals_and_nulls():
    values = {0: 2.0, 1: 3.0, 2: 4.0}
    rows = [("rankme", "0", seed, value) for seed, value in values.items()] + [("alpha 1-10", "2", 0, 0.5)]
    table = pd.DataFrame(rows, columns=["quantity", "site", "seed", "value"]).assign(
        stage="a", batch_size=8, null=1.5, status=["ok"] * 3 + ["flagged"]
    )
    found = layers_table(table)
    assert found.columns == ("stage", "batch size", "site", "seeds", "RankMe", "α 1-10")
    low, high = range_of("rankme").interval(3.0, student(2) / np.sqrt(3))
    cell = f"3 [{low:.3g}, {high:.3g}] (1.5)"
    assert found.rows == (("a", "8", "0", "3", cell, ABSENT), ("a", "8", "2", "1", ABSENT, "0.5 (1.5)!"))
    assert "! marks a fit that is flagged" in flag_note(found)
    assert not flag_note(layers_table(table[table["status"] == "ok"]))


def test_the_range_of_noise_is_seen_beside_one_matrix():
    row = {
        "name": "rankme",
        "kind": "a",
        "at": 0.0,
        "value": 5.0,
        "low": np.nan,
        "high": np.nan,
        "status": "ok",
    }
    table = pd.DataFrame([row | {"null": 6.0, "null_low": 4.0, "null_high": 8.0}])
    figure = by_layer(table, {"rankme": "RankMe"}, {0.0: "a"}, columns=1)
    ax = figure.axes[0]
    wide = [c for c in ax.collections if c.get_linewidth()[0] > 2]
    (segment,) = wide[0].get_segments()
    assert segment[:, 1].tolist() == [4.0, 8.0]
    assert ax.get_xlabel() == "in the order of the model"
