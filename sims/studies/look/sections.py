"""Sections of the page of a look: weights by layer, and on a text activations and gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sims.analysis.summaries import SUMMARIES, label
from sims.measure.draft import DRAFT
from sims.measure.metric import METRIC
from sims.measure.noise_levels import DRAWS
from sims.measure.text_predictive import PREDICTIVE
from sims.models.names import short
from sims.pages.number import counted
from sims.pages.page import Cells, Section
from sims.pages.table import Table
from sims.studies.look.figures import against_laws, by_layer
from sims.studies.look.laws import draft_table, law_rows
from sims.studies.look.study import STUDY
from sims.studies.look.tables import KEY, SHOWN, STREAM, every_row, narrow, place, weight_rows

if TYPE_CHECKING:
    from sims.studies.look.look import Look

TOP = "top_share"
# Positions with a label on the axis of depth.
TICKS = 8


@STUDY.figure("weights", "Weights by layer", order=10)
def weights(look: Look) -> Section:
    """Show every weight matrix beside noise of its shape."""
    rows = weight_rows(look.rows)
    names = {**SHOWN, TOP: label(TOP) or TOP}
    drawn = rows[rows["name"].isin(names) & rows["value"].notna()]
    table, ticks = _placed(drawn, {str(site): place(str(site)) for site in rows["site"].unique()})
    there = {name: title for name, title in names.items() if (table["name"] == name).any()}
    return Section(
        text=f"Each matrix beside {DRAWS} Gaussian matrices of its shape. RankMe, participation ratio and stable rank "
        "count directions; α is the decay of the energies σ² over ranks 1–10 and 10–40; Hill and FARMS are exponents "
        "of the density of energies, FARMS pooled over square tiles of one size, so that shapes can be compared.",
        figure=by_layer(table, there, ticks) if there else None,
        caption="One colour a kind of matrix. Grey: noise, mean and range. Hollow: a fit that is flagged, whose number "
        "is no tail exponent; bars: 95 % intervals of the fits.",
        blocks=(
            Cells(narrow(look.rows), folded=f"Table by matrix ({rows['site'].nunique()}); {KEY}"),
            *_skipped(look),
        ),
    )


def glance(look: Look) -> Section | None:
    """Draw the first three quantities of the weights for the head of the page; None where none has a value."""
    rows = weight_rows(look.rows)
    drawn = rows[rows["name"].isin(SHOWN) & rows["value"].notna()]
    there = [name for name in SHOWN if (drawn["name"] == name).any()][:3]
    if not there:
        return None
    table, ticks = _placed(drawn, {str(site): place(str(site)) for site in rows["site"].unique()})
    return Section(
        name="at-a-glance",
        title="At a glance",
        figure=by_layer(table, {name: SHOWN[name] for name in there}, ticks, columns=len(there)),
        caption="The weights by layer, one colour a kind of matrix. "
        f"Grey: {DRAWS} Gaussian matrices of the same shape.",
    )


def _measured(what: str, title: str, look: Look) -> Section:
    """Show spectra that a text gave, by site."""
    rows = look.rows[look.rows["object"] == what].copy()
    rows["name"] = (rows["quantity"] + " " + rows["window"]).str.strip()
    shown = {s.name for s in SUMMARIES if s.null}
    names = {n: label(n) or n for n in dict.fromkeys(rows["name"]) if n.partition(" ")[0] in shown}
    drawn = rows[rows["name"].isin(names) & rows["value"].notna()].copy()
    sites = {str(site): place(str(site)) for site in drawn["site"].unique()}
    # What enters the first block and what the head reads belong to the stream: one line.
    kinds = {site: STREAM if layer is None else kind for site, (layer, kind) in sites.items()}
    drawn["kind"] = drawn["site"].map(
        kinds if STREAM in kinds.values() else {s: k for s, (_, k) in sites.items()}
    )
    table, ticks = _placed(drawn, sites)
    there = {n: t for n, t in names.items() if (table["name"] == n).any()}
    return Section(
        text=f"{title} of {look.text}. Noise: independent Gaussian samples, as many and as wide.",
        figure=by_layer(table, there, ticks) if there else None,
        caption="Grey: noise.",
        blocks=(Cells(every_row(look.rows[look.rows["object"] == what]), folded="All numbers"),),
    )


@STUDY.figure("activations", "Activations by layer", order=20, applies=lambda look: _has(look, "activation"))
def activations(look: Look) -> Section:
    """Show the covariance spectra of the activations."""
    return _measured("activation", "Covariances of the activations", look)


@STUDY.figure(
    "gradients", "Per-sample gradients by layer", order=30, applies=lambda look: _has(look, "gradient")
)
def gradients(look: Look) -> Section:
    """Show the spectra of stacked per-sample gradients."""
    return _measured("gradient", "Stacked per-sample gradients", look)


@STUDY.figure(
    "laws",
    "Against laws of the next token",
    order=35,
    applies=lambda look: _has(look, PREDICTIVE) or _has(look, DRAFT),
)
def laws(look: Look) -> Section:
    """Show the model against approximate laws of the next token, and its draft head."""
    own = look.rows[look.rows["object"].isin((PREDICTIVE, METRIC, DRAFT))]
    return Section(
        text="The laws are approximate: counts of other text, or another model. Left: how far the predictions are from "
        "each law. Middle: what an affine map of the final state explains of the leading eigenfunctions of its kernel "
        "⟨√p, √p′⟩, held out. Right: how often the model would accept the token after next that a linear draft "
        "proposes from the state and the next token.",
        figure=against_laws(law_rows(own), draft_table(own)),
        caption="One colour a law; bars: 95 % intervals over sequences. Hollow: the same model with random weights. "
        "Grey: permuted contexts.",
        blocks=(Cells(every_row(own), folded=counted(len(own), "number")),),
    )


@STUDY.figure("numbers", "All numbers of the weights", order=40)
def numbers(look: Look) -> Section:
    """List every number with its status."""
    own = weight_rows(look.rows)
    return Section(
        text="Also in rows.csv and rows.parquet; the singular values are in spectra.parquet.",
        blocks=(Cells(every_row(own), folded=counted(len(own), "number")),),
    )


def _has(look: Look, what: str) -> bool:
    return bool((look.rows["object"] == what).any())


def _placed(
    rows: pd.DataFrame, sites: dict[str, tuple[int | None, str]]
) -> tuple[pd.DataFrame, dict[float, str]]:
    """Return the rows with their positions in depth, and the labels of these positions.

    Blocks stand at their numbers; what comes before them at −1, what comes behind them after the last. Without blocks
    the sites stand in their order.
    """
    layers = [layer for layer, _ in sites.values() if layer is not None]
    if not layers:
        at = {site: float(i) for i, site in enumerate(sites)}
        shown = {position: short(site) for site, position in at.items()} if len(at) <= TICKS else {}
        return rows.assign(at=rows["site"].map(at)), shown
    last = max(layers)
    behind = {"head", "final"}
    at = {
        site: float(layer) if layer is not None else last + 1.0 if site in behind else -1.0
        for site, (layer, _) in sites.items()
    }
    step = max(-(-(last + 1) // TICKS), 1)
    shown = {float(k): str(k) for k in range(0, last + 1, step)}
    outside = {at[site]: site for site, (layer, _) in sites.items() if layer is None}
    return rows.assign(at=rows["site"].map(at)), dict(sorted({**shown, **outside}.items()))


def _skipped(look: Look) -> list[Cells]:
    if not look.skipped:
        return []
    table = Table(("tensor", "why it is not measured"), tuple(look.skipped.items()), text=(0, 1))
    return [Cells(table, folded=f"{counted(len(look.skipped), 'tensor')} not measured")]
