"""The sections of report.html: losses, concentration, spectra."""

from __future__ import annotations

from sims.analysis.cells import best_rates
from sims.analysis.concentration import concentration_rows
from sims.analysis.matched import batch_divergence, matched_spectra
from sims.analysis.runs import Runs
from sims.analysis.spectra import deepest_gradient, last_spectra, with_shares
from sims.analysis.stages import outcome_table
from sims.pages.figures.spectra import matched_figure, stage_figure
from sims.pages.outcomes import outcomes_table
from sims.pages.page import Section
from sims.studies.overview import tables
from sims.studies.overview.figures import causal_figure, concentration_figure, link_figure, loss_figure
from sims.studies.overview.study import STUDY

NULL = (
    "Dotted: the mean of the null, grey up to its 97.5 % level; the null is what averages over shuffled states would "
    "give, in the effective dimension of the states. “seen” bands occur in training, “unseen” ones do not."
)


def probed(runs: Runs) -> bool:
    """Return whether concentration was measured on probe bands."""
    return len(runs.values("h_peak", "probe")) > 0


def _in_task_band(runs: Runs) -> bool:
    # A band of few states has all its frequencies in the task band, and no such row.
    return len(runs.values("h_s", "probe", set="task")) > 0


def _compared(runs: Runs) -> bool:
    return probed(runs) and runs.runs["stage"].nunique() > 1


def _edited(runs: Runs) -> bool:
    return probed(runs) and len(runs.values("causal_drop")) > 0


def _with_gradients(runs: Runs) -> bool:
    return bool((runs.spectra["object"] == "gradient").any())


@STUDY.figure("losses", "Losses", order=10)
def losses(runs: Runs) -> Section:
    """Show validation losses over training, and where they ended."""
    return Section(
        figure=loss_figure(runs.values("val_loss")),
        caption="Thin lines are seeds, thick lines their mean, shading their range.",
        table=outcomes_table(outcome_table(runs)),
    )


@STUDY.figure("h_peak", "Concentration on one frequency: H_peak over training", order=20, applies=probed)
def h_peak(runs: Runs) -> Section:
    """Show H_peak on every band."""
    rows = concentration_rows(runs)
    return Section(
        figure=concentration_figure(rows[rows["quantity"] == "H_peak"], "H_peak"),
        caption="One side of the largest conjugate pair of the class means of the last position’s final state. "
        + NULL,
    )


@STUDY.figure("h_s", "Concentration on the task band: H_S over training", order=30, applies=_in_task_band)
def h_s(runs: Runs) -> Section:
    """Show the task-band H_S on every band."""
    rows = concentration_rows(runs)
    return Section(
        figure=concentration_figure(rows[rows["quantity"] == "H_S task"], "H_S (task band)"),
        caption="Share of the between-state variance at the frequencies ±1…±7, which the bigram statistics favour. "
        + NULL,
        table=tables.concentrations(runs),
    )


@STUDY.figure("differences", "Do the stages differ?", order=40, applies=_compared)
def differences(runs: Runs) -> Section:
    """Compare successive stages, paired by seed."""
    return Section(
        text="Differences of the highest value over training, paired by seed; a verdict needs an interval "
        "without 0.",
        table=tables.differences(runs),
    )


@STUDY.figure("link", "Concentration against the activation spectrum", order=50, applies=probed)
def link(runs: Runs) -> Section:
    """Set concentration against the activation spectrum of the same moment."""
    return Section(
        figure=link_figure(tables.link_means(runs)),
        caption="Every measured moment after the start; a line follows one run, a ring marks its end. H_S is the mean "
        "over bands.",
    )


@STUDY.figure("causal", "Is the key frequency used?", order=60, applies=_edited)
def causal(runs: Runs) -> Section:
    """Show what keeping or dropping the key frequency does to the loss."""
    return Section(
        figure=causal_figure(tables.causal_effects(runs)),
        caption="Filled: the pair of largest energy is dropped from, or alone kept in, the final state (left) or the "
        "band’s embedding rows (right). Open: random directions of equal dimension, or another frequency. One point a "
        "run. In stages with a tied head, editing the embedding edits the head too.",
    )


@STUDY.figure("activations", "Activation spectra at the end of training", order=70)
def activations(runs: Runs) -> Section:
    """Show activation spectra by stage at the end."""
    return Section(
        figure=stage_figure(last_spectra(runs, "activation", "final"), "activations at final"),
        caption="Eigenvalues of the centred covariance of the final normalised state at the last position, divided by "
        "their sum.",
    )


@STUDY.figure("summaries", "Summaries of the activation spectra", order=75)
def summaries(runs: Runs) -> Section:
    """Show every summary at the end of training, by stage and batch size."""
    return Section(
        text="Of the final state at each run’s last measurement, means over runs; in brackets the null, the value for "
        "Gaussian matrices of the same shape.",
        table=tables.summaries(runs),
    )


@STUDY.figure("matched", "Activation spectra by batch size at matched loss", order=80)
def matched(runs: Runs) -> Section:
    """Show activation spectra by batch size at one loss."""
    several = runs.runs["batch_size"].nunique() > 1
    divergence = batch_divergence(matched_spectra(best_rates(runs))) if several else None
    return Section(
        figure=matched_figure(with_shares(matched_spectra(runs))),
        caption="Each run at its first measurement at or below the loss that all runs of its stage reached.",
        table=None if divergence is None else tables.divergences(divergence),
    )


@STUDY.figure("gradients", "Gradient spectra", order=90, applies=_with_gradients)
def gradients(runs: Runs) -> Section:
    """Show gradient spectra by stage at the end."""
    site = deepest_gradient(runs)
    return Section(
        figure=stage_figure(last_spectra(runs, "gradient", site), f"gradients of {site}"),
        caption="Energies (squared singular values) of the M × P matrix of per-sample gradients of the last attention "
        "output matrix, uncentred, divided by their sum.",
    )
