"""The picture at the top of a page: how some runs learn, what their spectra are, and what concentrates."""

from __future__ import annotations

import pandas as pd

from sims.analysis.cells import best_rates
from sims.analysis.concentration import concentration_rows
from sims.analysis.floor import mean_floor, uniform_guess
from sims.analysis.runs import Runs
from sims.analysis.spectra import activation_site, last_spectra
from sims.pages.figures.glance import glance_figure
from sims.pages.page import Section
from sims.system.errors import MeasureError

NAME, TITLE = "at-a-glance", "At a glance"


def glance(runs: Runs) -> Section | None:
    """Draw losses, final activation spectra and H_peak over training, as far as the runs have them.

    Of several batch sizes the one with most runs is drawn, of several learning rates the best.

    Returns:
        The picture; None where the runs have none of the three.
    """
    runs = best_rates(runs)
    counts = runs.runs["batch_size"].value_counts()
    size = max(counts.index, key=lambda b: (counts[b], -b))
    losses = _of(size, runs.values("val_loss", "loss"))
    kind = runs.loss_name
    if not len(losses):
        losses, kind = _of(size, runs.values("train_loss", "loss")), "training loss"
    spectra = _of(size, _spectra(runs))
    rows = _of(size, concentration_rows(runs, "H_peak")) if runs.has("h_peak", "probe") else pd.DataFrame()
    if len(rows):
        by = ["stage", "seed", "step", "tokens"]
        rows = rows.groupby(by, sort=False)[["value", "null", "null_high"]].mean().reset_index()
    told = [
        (f"the {kind} over training", losses),
        (f"the spectrum of {_state(runs)} at the end: share of variance by rank", spectra),
        (
            "H_peak, mean over bands (grey: up to the 97.5 % level of its null, dotted: the mean of the null)",
            rows,
        ),
    ]
    if not any(len(table) for _, table in told):
        return None
    floor = mean_floor(runs)
    what = "; ".join(text for text, table in told if len(table))
    caption = f"{what[0].upper()}{what[1:]}. Thin lines: seeds; thick: their mean; shading: their range; B = {size}."
    if floor is not None:
        guess = uniform_guess(runs)
        caption += f" Dashed: the floor {floor:.2f}, the lowest mean loss that the task’s law allows on new sequences"
        caption += "." if guess is None else f"; a uniform guess has {guess:.2f}."
    return Section(
        name=NAME, title=TITLE, figure=glance_figure(losses, spectra, rows, floor), caption=caption
    )


def _of(size: int, table: pd.DataFrame) -> pd.DataFrame:
    return table[table["batch_size"] == size] if len(table) else table


def _state(runs: Runs) -> str:
    site = activation_site(runs)
    return "the final state" if site == "final" else f"the activations at {site}"


def _spectra(runs: Runs) -> pd.DataFrame:
    try:
        return last_spectra(runs, "activation", activation_site(runs))
    except MeasureError:
        return pd.DataFrame()
