"""The sections of report.html: losses, concentration, spectra."""

from __future__ import annotations

from sims.analysis.cells import best_rates
from sims.analysis.concentration import concentration_rows
from sims.analysis.floor import mean_floor, too_large
from sims.analysis.layers import summaries_by_site
from sims.analysis.matched import batch_divergence, matched_spectra
from sims.analysis.runs import Runs
from sims.analysis.spectra import (
    activation_site,
    deepest_gradient,
    last_spectra,
    measured_sites,
    spread_sites,
    with_shares,
)
from sims.analysis.stages import outcome_table
from sims.analysis.summaries import label
from sims.pages.figures.spectra import matched_figure, sites_figure, stage_figure
from sims.pages.outcomes import floor_note, outcomes_table
from sims.pages.page import Cells, Section
from sims.runs.layout import TEXT, TOY
from sims.studies.overview import tables
from sims.studies.overview.figures import (
    alignment_figure,
    causal_figure,
    concentration_figure,
    layers_figure,
    link_figure,
    loss_figure,
    positions_figure,
)
from sims.studies.overview.findings import probed
from sims.studies.overview.study import STUDY

LOSSES = {"val_loss": "validation loss", "train_loss": "training loss"}
NULL = (
    "Dotted: the mean of the null, grey up to its 97.5 % level; the null is what averages over shuffled states would "
    "give, in the effective dimension of the states. “seen” bands occur in training, “unseen” ones do not."
)


def _in_task_band(runs: Runs) -> bool:
    # A band of few states has all its frequencies in the task band, and no such row.
    return runs.has("h_s", "probe", set="task")


def _by_position(runs: Runs) -> bool:
    return runs.has("excess_by_position", "loss")


def _aligned(runs: Runs) -> bool:
    return runs.has("alignment_bc", "predictive")


def _compared(runs: Runs) -> bool:
    return probed(runs) and runs.runs["stage"].nunique() > 1


def _edited(runs: Runs) -> bool:
    return probed(runs) and runs.has("causal_drop")


def _with_gradients(runs: Runs) -> bool:
    return bool((runs.spectra["object"] == "gradient").any())


def _with_activations(runs: Runs) -> bool:
    return bool((runs.spectra["object"] == "activation").any())


def _summarised(runs: Runs) -> bool:
    return not runs.once(summaries_by_site).empty


def _matched(runs: Runs) -> bool:
    return _with_activations(runs) and runs.has("val_loss")


def _at_several_sites(runs: Runs) -> bool:
    return len(measured_sites(runs)) > 1


def _with_weights(runs: Runs) -> bool:
    return runs.kind == TEXT and bool((runs.spectra["object"] == "weight").any())


def _of_other_models(runs: Runs) -> bool:
    # The layers of toys are the subject of `speclens reproduce layers`.
    return runs.kind == TEXT and _at_several_sites(runs)


@STUDY.figure("differences", "Do the stages differ?", order=5, applies=_compared)
def differences(runs: Runs) -> Section:
    """Show every comparison of the head of the page with its verdict."""
    every = tables.verdicts(runs)
    return Section(
        text="Means over seeds, paired by seed, each with its 95 % interval; a change is the later stage minus the "
        "earlier one. “top − end” is how far concentration falls from its top to the end of training; a negative "
        "number is a rise. The first quarter of the seeds chooses the moment of the top, and the others are read "
        "there, so that a top is not above its null, or its end, by selection; 0 means that the moment is the end. A "
        "verdict needs p ≤ 0.05 after Holm’s correction for all comparisons, so that all hold together; what an open "
        "one needs is planned for a power of 80 % if the value is as it was seen.",
        tables={"differences": every.frame()},
        blocks=(
            *map(Cells, tables.verdict_grids(runs)),
            Cells(every, "Every comparison with its p-value, and what would decide the open ones"),
        ),
    )


@STUDY.figure("losses", "Losses", order=10)
def losses(runs: Runs) -> Section:
    """Show losses over training, and where they ended: of training, where no validation loss was measured."""
    which = next((name for name in LOSSES if runs.has(name, "loss")), None)
    floor = mean_floor(runs) if which == "val_loss" else None
    return Section(
        figure=None if which is None else loss_figure(runs.values(which, "loss"), LOSSES[which], floor),
        caption="Thin lines are seeds, thick lines their mean, shading their range."
        + floor_note(floor, too_large(runs)),
        table=outcomes_table(runs.once(outcome_table)),
    )


@STUDY.figure("positions", "Which positions are learned when", order=15, applies=_by_position)
def positions(runs: Runs) -> Section:
    """Show the loss above its exact floor at several positions."""
    return Section(
        figure=positions_figure(tables.positions(runs)),
        caption="Validation loss minus the exact mean entropy of the next token on the same sequences, after the start "
        "of training; at position k the model has read k tokens. 0 is the best that is possible. Thin lines are seeds, "
        "thick lines their mean, shading their range.",
    )


@STUDY.figure("alignment", "How much of the best predictor do the states hold?", order=17, applies=_aligned)
def alignment(runs: Runs) -> Section:
    """Show the share of the square roots of the exact laws that final states explain linearly."""
    return Section(
        figure=alignment_figure(tables.alignments(runs)),
        caption="Share of the variance of √p over contexts, p the exact law of the next token, that an affine map of "
        "the final state explains on contexts that it was not fitted to; 1 is all of it. Dotted: contexts permuted "
        "(chance alone). Dash-dotted: the last token in place of the state. The first points are the untrained model. "
        "At position k the model has read k tokens; positions with too few distinct contexts are left out. Thin lines "
        "are seeds, thick lines their mean, shading their range.",
    )


@STUDY.figure("h_peak", "Concentration on one frequency: H_peak over training", order=20, applies=probed)
def h_peak(runs: Runs) -> Section:
    """Show H_peak on every band."""
    return Section(
        figure=concentration_figure(concentration_rows(runs, "H_peak"), "H_peak"),
        caption="One side of the largest conjugate pair of the class means of the last position’s final state. "
        + NULL,
    )


@STUDY.figure("h_s", "Concentration on the task band: H_S over training", order=30, applies=_in_task_band)
def h_s(runs: Runs) -> Section:
    """Show the task-band H_S on every band."""
    return Section(
        figure=concentration_figure(concentration_rows(runs, "H_S task"), "H_S (task band)"),
        caption="Share of the between-state variance at the frequencies ±1…±7, which the bigram statistics favour. "
        + NULL,
        table=tables.concentrations(runs),
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


@STUDY.figure("activations", "Activation spectra at the end of training", order=70, applies=_with_activations)
def activations(runs: Runs) -> Section:
    """Show activation spectra by stage at the end."""
    site = activation_site(runs)
    states = "the final normalised state at the last position" if runs.kind == TOY else f"the state at {site}"
    return Section(
        figure=stage_figure(last_spectra(runs, "activation", site), f"activations at {site}"),
        caption=f"Eigenvalues of the centred covariance of {states}, divided by their sum.",
    )


@STUDY.figure("sites", "Activation spectra by site", order=72, applies=_of_other_models)
def sites(runs: Runs) -> Section:
    """Show activation spectra at several sites at the end."""
    return _by_site(runs, "activation", "Eigenvalues of the centred covariance of the activations")


@STUDY.figure("layers", "Layer by layer", order=74, applies=lambda r: _of_other_models(r) and _summarised(r))
def layers(runs: Runs) -> Section:
    """Show summaries of the activations by site at the end."""
    table = runs.once(summaries_by_site)
    cells = tables.layers(table)
    return Section(
        figure=layers_figure(table, {name: label(name) or name for name in table["quantity"].unique()}),
        caption="Summaries of the activations at each run’s last measurement, in the order of the model; thin lines "
        "are seeds. Dotted: the null, the value for Gaussian matrices of the same shape."
        + tables.flag_note(cells),
        table=cells,
    )


@STUDY.figure("summaries", "Summaries of the activation spectra", order=75, applies=_summarised)
def summaries(runs: Runs) -> Section:
    """Show every summary at the end of training, by stage and batch size."""
    state = "the final state" if runs.kind == TOY else f"the state at {activation_site(runs)}"
    table = tables.summaries(runs)
    return Section(
        text=f"Of {state} at each run’s last measurement: means over seeds, their 95 % intervals, and in round "
        "brackets the null, the value for Gaussian matrices of the same shape." + tables.flag_note(table),
        table=table,
    )


@STUDY.figure("matched", "Activation spectra by batch size at matched loss", order=80, applies=_matched)
def matched(runs: Runs) -> Section:
    """Show activation spectra by batch size at one loss."""
    site = activation_site(runs)
    several = runs.runs["batch_size"].nunique() > 1
    divergence = batch_divergence(matched_spectra(best_rates(runs), site)) if several else None
    return Section(
        title="" if several else "Activation spectra at matched loss",
        figure=matched_figure(with_shares(matched_spectra(runs, site))),
        caption="Each run at its first measurement at or below the loss that all runs of its stage reached.",
        table=None if divergence is None else tables.divergences(divergence),
    )


@STUDY.figure("gradients", "Gradient spectra", order=90, applies=_with_gradients)
def gradients(runs: Runs) -> Section:
    """Show gradient spectra by stage at the end."""
    site = deepest_gradient(runs)
    what = "the last attention output matrix" if runs.kind == TOY else site
    return Section(
        figure=stage_figure(last_spectra(runs, "gradient", site), f"gradients of {site}"),
        caption=f"Energies (squared singular values) of the M × P matrix of per-sample gradients of {what}, uncentred, "
        "divided by their sum.",
    )


@STUDY.figure("weights", "Weight spectra", order=95, applies=_with_weights)
def weights(runs: Runs) -> Section:
    """Show spectra of several weight matrices at the end."""
    return _by_site(runs, "weight", "Energies (squared singular values) of the weights")


def _by_site(runs: Runs, object_: str, what: str) -> Section:
    every = measured_sites(runs, object_)
    shown = spread_sites(every)
    left = f" {len(shown)} of {len(every)} are shown." if len(shown) < len(every) else ""
    return Section(
        figure=sites_figure({site: last_spectra(runs, object_, site) for site in shown}),
        caption=f"{what} at each run’s last measurement, divided by their sum.{left}",
    )
