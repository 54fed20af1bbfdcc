"""The page of `speclens edge`: what windows of updates show of the published claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sims.pages.number import counted, missing
from sims.pages.page import Page, Section
from sims.pages.write import beside, made_here, write_folder
from sims.studies.claims import TONES, statements
from sims.studies.edge.answers import NOT_SHOWN, NULLS, OPEN, SHOWN, EdgeAnswers
from sims.studies.edge.figures import glance_figure
from sims.studies.edge.measured import RAW
from sims.studies.edge.published import claims
from sims.studies.edge.sections import styles
from sims.studies.edge.study import PAGE
from sims.studies.study import sections
from toymodel.stages import stage

TITLE = "Do parameter updates have a spectral edge?"
RULE = (
    "Rules do not depend on the runs: disjoint windows, four seeds of which three must agree, and for each claim a "
    "null in which it is false. Verdicts are not corrected for the number of claims and sets of runs."
)


def write_edge(answers: EdgeAnswers, runs: Path, folder: Path, notes: Sequence[str]) -> Path:
    """Write `folder`/index.html and tables.md, figures (SVG, PNG) and tables (CSV); return the page.

    Args:
        answers: windows of all runs, and what the rules say of them.
        runs: folder of the runs.
        folder: made if it does not exist.
        notes: what a reader must know before believing the numbers.

    Raises:
        StoreError: something cannot be written.
    """
    data = answers.data
    cells = "; ".join(
        f"{name} ({counted(len(own), 'seed')})" for name, own in data.runs.groupby("cell", sort=False)
    )
    lengths = " and ".join(map(str, data.lengths))
    page = Page(
        title=TITLE,
        subtitle=f"{len(data.runs)} runs: {cells}. Rolling windows of the last W = {lengths} updates of the "
        f"{data.group} parameters, each the change of the weights from one snapshot to the next (arXiv 2603.15678). "
        f"{_optimisers(answers)}",
        lead=lead(answers),
        glance=glance(answers),
        links=[beside("Source runs", runs, folder)],
        warnings=[*data.notes, *notes],
        rule=RULE,
        findings=list(statements(list(claims(answers)))),
        sections=sections(PAGE, answers),
        provenance=made_here(),
        tones=TONES,
        paper="2603.15678",
    )
    return write_folder(page, folder)


def _optimisers(answers: EdgeAnswers) -> str:
    stages = list(dict.fromkeys(answers.data.runs["stage"]))
    muon = [name for name in stages if stage(name).routing.muon]
    told = [("AdamW", [name for name in stages if name not in muon]), ("Muon (matrices of the blocks)", muon)]
    return "Optimiser: " + "; ".join(f"{name} in {', '.join(own)}" for name, own in told if own) + "."


def glance(answers: EdgeAnswers) -> Section:
    """Return the picture of the first screen."""
    shares, lags = answers.shares, answers.lags
    shares = shares[(shares["form"] == RAW) & (shares["window"] == answers.data.main) & shares["decided"]]
    if len(lags):
        lags = lags[(lags["stamp"] == "end") & (lags["detrend"] == "cubic") & (lags["status"] == "ok")]
    return Section(
        name="at-a-glance",
        title="At a glance",
        figure=glance_figure(answers.gaps, shares, lags, styles(answers), NULLS),
        caption="Left: gap of updates of length 1 over the median gap of momentum noise (grey: 95 % of noise; thin "
        f"lines: seeds), W = {answers.data.main}. Middle: disjoint windows whose gap noise exceeds in less than "
        "1 % of draws; the noise has the momentum of the optimiser (N0), also the lengths of the updates (N1), or "
        "their lengths and mean cosines (N2); dashed: a run above it has an edge. Right: lag of σ₂/σ₃ against the "
        "validation loss, a point a seed with its 95 % interval.",
    )


def lead(answers: EdgeAnswers) -> str:
    """Return the verdict in one sentence."""
    cells = answers.data.cells
    alike, left = (
        _count([answers.edge(cell, null).outcome for cell in cells]) for null in ("norms", "correlations")
    )
    phases = _count([answers.phase_verdict(cell).outcome for cell in cells])
    flips = _count([answers.flip(cell).outcome for cell in cells])
    scales = [verdict.outcome for verdict in answers.scales.values()]
    scale = next((o for o in (SHOWN, NOT_SHOWN) if o in scales), OPEN)
    table = answers.quarters
    own = table[table["null"] == "norms"]
    early, late = (_range(own[list(part)].mean(axis=1)) for part in ((1,), (2, 3, 4)))
    return (
        f"Of {counted(len(cells), 'set')} of runs, in {alike} updates are more alike than momentum and their own "
        f"lengths make them ({early} of windows in the first quarter of training, {late} later), and in {left} an edge "
        f"is left beyond their lag correlations; in {phases} the gap has three phases, in {flips} its lag turns with "
        f"W; whether k* depends on the size of the model: {scale}."
    )


def _range(shares: pd.Series) -> str:
    low, high = shares.min(), shares.max()
    if missing(low):
        return "an unknown share"
    return f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"


def _count(outcomes: Sequence[str]) -> str:
    shown, unsure = outcomes.count(SHOWN), outcomes.count(OPEN)
    return f"{shown}" + (f" ({unsure} not resolved)" if unsure else "")
