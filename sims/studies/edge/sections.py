"""The sections of the page."""

from __future__ import annotations

from dataclasses import astuple, fields

import numpy as np
import pandas as pd

from sims.analysis.gap_phases import GapPhases
from sims.pages.number import ABSENT, cell, interval, number
from sims.pages.page import Cells, Section, Text
from sims.pages.table import Table
from sims.studies.claims import Claim
from sims.studies.edge.answers import NULLS, EdgeAnswers
from sims.studies.edge.figures import (
    cell_styles,
    edge_figure,
    lag_figure,
    mode_figure,
    optimiser_figure,
    phase_figure,
    sketch_figure,
)
from sims.studies.edge.measured import RAW, UNIT
from sims.studies.edge.optimisers import COMPARED
from sims.studies.edge.published import NOTES, SKETCH_BOUND, claims
from sims.studies.edge.sketches import COLUMN, SKETCH
from sims.studies.edge.study import STUDY
from spectra.nulls.edge import EFFECTIVE_DIMENSIONS, find_edges, null_values

FORMS = {RAW: "as they are", UNIT: "length 1"}


def styles(answers: EdgeAnswers) -> dict[str, dict[str, object]]:
    """Return colour and line style of each cell."""
    runs = answers.data.runs
    return cell_styles(dict(zip(runs["cell"], runs["stage"], strict=True)))


@STUDY.figure("edge", "Is there an edge beyond what noise has?", order=10)
def edge(answers: EdgeAnswers) -> Section:
    """Show the share of disjoint windows beyond each null, and the verdict on each cell."""
    shares = answers.shares
    decided = shares[shares["decided"]]
    verdicts = [(name, null) for name in answers.data.cells for null in NULLS]
    rows = tuple(
        (name, NULLS[null], *_share(answers, name, null), v.outcome, v.reason)
        for name, null in verdicts
        for v in (answers.edge(name, null),)
    )
    every = shares[["cell", "form", "window", "most", "null", "mean", "low", "high", "runs", "n"]]
    return Section(
        text="Take the last W updates of the weights as the rows of a matrix. Its singular values σ₁ ≥ σ₂ ≥ … have an "
        "edge at k* = argmax σ_j/σ_{j+1}, and the ratio there is the gap. Every matrix has one. Each null is noise "
        "with one more property of the window: N0 has the momentum of the optimiser, so that neighbouring updates "
        "share gradients; N1 also the lengths of the updates; N2, in place of momentum, the mean cosines of updates 1, "
        "2, … apart, so that a constant drift is in it too and only what changes within the window is left. A run has "
        "an edge if more than 20 % (dashed) of its disjoint windows have p < .01. "
        f"k* is sought up to W/2; the larger p of {EFFECTIVE_DIMENSIONS[0]:,.0f} and {EFFECTIVE_DIMENSIONS[1]:,.0f} "
        "independent directions of noise counts.",
        figure=edge_figure(decided, styles(answers), NULLS, FORMS) if len(decided) else None,
        caption="Points: mean over seeds, lines: 95 %. Updates of length 1 have no lengths to tell, so that N0 and N1 "
        "are one there.",
        table=Table(
            ("runs", "beyond", "share of windows [95 %]", "seeds", "verdict", "why"),
            rows,
            text=(0, 1, 2, 4, 5),
        ),
        blocks=(
            Cells(_quarters(answers), "Share of windows beyond each null in each quarter of training"),
            Cells(
                Table.of_frame(
                    every.rename(
                        columns={"mean": "share", "most": "J", "runs": "runs with an edge", "n": "seeds"}
                    )
                ),
                "Shares at every W, for k* up to J, of updates as they are and of length 1",
            ),
        ),
        tables={
            "edge-runs": answers.edges.drop(columns=["sentence"]),
            "edge-shares": shares,
            "edge-quarters": answers.quarters,
        },
    )


def _quarters(answers: EdgeAnswers) -> Table:
    rows = tuple(
        (row["cell"], NULLS[row["null"]], *(number(row[i], 2) for i in range(1, 5)))
        for row in answers.quarters.to_dict("records")
    )
    return Table(("runs", "beyond", "first quarter", "second", "third", "last"), rows, text=(0, 1))


def _share(answers: EdgeAnswers, name: str, null: str) -> tuple[str, str]:
    row = answers.share(name, null)
    if row is None:
        return ABSENT, ABSENT
    return answers.told_share(name, null), f"{row['runs']:.0f} of {row['n']}"


@STUDY.figure("scale", "Does k* depend on the size of the model?", order=20)
def scale(answers: EdgeAnswers) -> Section:
    """Show how often each k* occurs, beside momentum noise, and the verdict on sizes."""
    counts, noise = [], []
    for name in answers.data.cells:
        own = answers.data.of(name, UNIT, answers.data.main)["edge_k_half"]
        counts.append(
            own.value_counts(normalize=True).rename_axis("k").rename("share").reset_index().assign(cell=name)
        )
        noise.append(_noise_counts(answers, name))
    modes = answers.modes.drop(columns=["sentence"])
    told = " ".join(verdict.sentence for verdict in answers.scales.values())
    return Section(
        text="Scales are compared in updates of length 1, with the same J, stride and learning rate: each of these "
        f"moves k* by itself. Published: 2 at 51M, 3 at 124M parameters. {told}",
        figure=mode_figure(pd.concat(counts), pd.concat(noise), styles(answers)),
        caption=f"All windows of W = {answers.data.main}, k* up to {answers.half}.",
        table=Table.of_frame(
            modes.rename(columns={"most": "J", "k": "k*", "null_k": "k* of momentum noise"})
        ),
        tables={"k-star": modes},
    )


def _noise_counts(answers: EdgeAnswers, name: str) -> pd.DataFrame:
    own, window = answers.data.cell(name), answers.data.main
    if np.isnan(own["momentum"]):
        return pd.DataFrame({"cell": [], "k": [], "share": []})
    ks = [
        find_edges(
            null_values(
                window,
                min(dimension, own["parameters"]),
                own["momentum"],
                999,
                stride=own["stride"],
                norms=np.ones(window),
            ),
            answers.half,
        )[0]
        for dimension in EFFECTIVE_DIMENSIONS
    ]
    found = pd.Series(np.concatenate(ks)).value_counts(normalize=True)
    return found.rename_axis("k").rename("share").reset_index().assign(cell=name)


@STUDY.figure("phases", "Does the gap rise, stay and collapse?", order=30)
def phases(answers: EdgeAnswers) -> Section:
    """Show σ₂/σ₃ with its changes of slope beside the lengths of updates, and the null of these lengths."""
    changes, rows, tables = [], [], []
    for name, found in answers.phases.items():
        verdict = answers.phase_verdict(name)
        if isinstance(found, GapPhases):
            tables.append(found.seeds.assign(cell=name))
            changes += [
                {"cell": name, "seed": row["seed"], "step": step}
                for row in found.seeds.to_dict("records")
                for step, p in zip(row["changes"], row["p"], strict=True)
                if p < 0.05
            ]
        rows.append((name, answers.phase_null(name), verdict.outcome, verdict.reason))
    main = answers.data.windows
    main = main[(main["form"] == RAW) & (main["window"] == answers.data.main)]
    seeds = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    blocks = (
        () if seeds.empty else (Cells(Table.of_frame(_seed_rows(seeds)), "Changes of slope of each seed"),)
    )
    return Section(
        text="The published phases are read off thresholds, which any series crosses. Here the slope of ln σ₂/σ₃ "
        "against ln step has to change twice (p < .05): a rise, a part flatter than a quarter of it, a fall, in three "
        "of four seeds at the same steps within √2. The null has directions without any structure and the observed "
        "lengths of the updates: a learning rate that rises and falls makes a gap rise and fall.",
        figure=phase_figure(
            main.rename(columns={COLUMN: "value"}).dropna(subset=["value"]),
            answers.data.updates,
            pd.DataFrame(changes, columns=["cell", "seed", "step"]),
            styles(answers),
        ),
        caption="Lines: seeds. Dashed: changes of slope with p < .05, of every seed. Windows overlap in the picture; "
        "the test takes those that end W/2 updates apart.",
        table=Table(
            ("runs", "independent updates with the phases", "verdict", "why"), tuple(rows), text=(0, 2, 3)
        ),
        blocks=blocks,
        tables={"phases": seeds} if len(seeds) else {},
    )


def _seed_rows(seeds: pd.DataFrame) -> pd.DataFrame:
    def told(values: tuple[float, ...]) -> str:
        return ", ".join(f"{v:.3g}" for v in values) or ABSENT

    listed = {name: seeds[name].map(told) for name in ("changes", "slopes", "p")}
    return seeds.assign(**listed)[["cell", "seed", "points", "changes", "slopes", "p", "status", "reason"]]


@STUDY.figure("lags", "Does the gap go before the loss, and does that turn with W?", order=40)
def lags(answers: EdgeAnswers) -> Section:
    """Show the correlation of gap and validation loss at every lag, with both stamps."""
    stamps = {"end": "at the last update", "centre": "at the centre"}
    rows = tuple(
        (name, told, kind, verdict.outcome, verdict.reason)
        for name in answers.data.cells
        for stamp, told in stamps.items()
        for kind, verdict in (
            ("largest |r|", answers.flip(name, stamp)),
            ("most negative r", answers.flip(name, stamp, negative=True)),
        )
    )
    found, curves = answers.lags, answers.curves
    blocks = ()
    if len(found):
        columns = [
            "cell",
            "seed",
            "window",
            "stamp",
            "detrend",
            "lag",
            "low",
            "high",
            "r",
            "p",
            "block",
            "reason",
        ]
        blocks = (
            Cells(
                Table.of_frame(found[columns]), "Lag of the largest |r| of each seed, with p over all lags"
            ),
        )
    return Section(
        text="A cubic trend is taken out of σ₂/σ₃ and of the validation loss, and they are correlated at lags −5…5 "
        "snapshots. The largest |r| is compared with that of permuted blocks no shorter than a window, since slow "
        "series are correlated by chance. A window is a mean of W updates: stamped with its last one it comes (W−1)/2 "
        "snapshots late, the later the longer it is. A lag that turns with that stamp alone, and not with one at the "
        "centre, is arithmetic.",
        figure=lag_figure(curves, list(dict.fromkeys(curves["cell"]))) if len(curves) else None,
        caption="Thick: mean over seeds; thin: seeds. To the right the gap is earlier than the loss.",
        table=Table(("runs", "stamp", "lag of", "turns with W", "why"), rows, text=(0, 1, 2, 3, 4)),
        blocks=blocks,
        tables={"lags": found.drop(columns=["sentence"]), "lag-curves": curves} if len(found) else {},
    )


@STUDY.figure("sketches", "Is a sketch of the updates good enough?", order=50)
def sketches(answers: EdgeAnswers) -> Section:
    """Show the error of σ₂/σ₃ and the share of kept k* of sketches, by size and window."""
    curves = answers.sketch_curves
    at = curves[curves["times"] == SKETCH]
    shown = at[["window", "d", "ratio", "mean", "bias", "low", "high", "quantile_95", "kept"]]
    return Section(
        text="A sketch keeps d random combinations of the P numbers of an update. Its error depends on the singular "
        "values of the window and on d alone, so that it is computed exactly for measured windows, without a "
        "projection. A small mean error is no sign of a good sketch: a flat spectrum has it too, and there the place "
        "of the edge is lost.",
        figure=sketch_figure(curves, styles(answers), SKETCH_BOUND, SKETCH),
        caption="Each cell is drawn by its disjoint window with the middle ratio. Grey: a flat spectrum (circles), two "
        "modes over a flat rest (triangles). Black: the published window. Dashed: 5.7 %; dotted: d = 10 W.",
        table=Table.of_frame(
            shown.rename(
                columns={"mean": "mean |error|", "quantile_95": "95 % of |error|", "kept": "k* kept"}
            )
        ),
        blocks=(
            Cells(
                Table.of_frame(answers.sketch_means.rename(columns={"n": "seeds"})),
                "Means over all disjoint windows, with 95 % intervals over seeds",
            ),
        ),
        tables={"sketches": answers.sketches, "sketch-sizes": curves},
    )


@STUDY.figure(
    "optimisers", "Muon against AdamW", order=60, applies=lambda answers: len(answers.optimisers) > 0
)
def optimisers(answers: EdgeAnswers) -> Section:
    """Show windows of Muon beside those of AdamW at equal size."""
    table = answers.optimisers
    pair = [*table["adamw"], *table["muon"]]
    rows = tuple(
        (
            r["size"],
            r["quantity"],
            cell(r["adamw_mean"]),
            cell(r["muon_mean"]),
            interval(r["difference"], r["low"], r["high"]),
            str(r["n"]),
            cell(r["p_holm"]),
        )
        for r in table.to_dict("records")
    )
    return Section(
        text="Updates of length 1, means over the steps that both have, paired by seed. Both optimisers have momentum, "
        "of 0.9 (AdamW) and 0.95 (Muon); the gap is therefore that over momentum noise of the same β and stride. "
        "Learning rates are those of each optimiser, and the loss falls at another pace, so that a difference is one "
        "of the whole recipe.",
        figure=optimiser_figure(
            answers.gaps, {n: s for n, s in styles(answers).items() if n in pair}, COMPARED
        ),
        caption="Mean over seeds; thin: seeds; windows are averaged to at most 60 points. Grey: momentum noise.",
        table=Table(
            ("size", "quantity", "AdamW", "Muon", "difference [95 %]", "seeds", "p (Holm)"), rows, text=(0, 1)
        ),
        tables={"optimisers": table},
    )


@STUDY.figure("published", "The published claims", order=70)
def published(answers: EdgeAnswers) -> Section:
    """Show every published claim beside these runs, with its null and verdict."""
    found = [astuple(claim) for claim in claims(answers)]
    heads = tuple(f.name for f in fields(Claim))
    places = [heads.index(name) for name in ("claim", "runs", "published", "here", "against", "outcome")]
    columns = ("claim", "runs", "published", "here [95 %]", "where nothing is", "verdict")
    rows = tuple(tuple(row[i] for i in places) for row in found)
    return Section(
        text="Published runs are language models with a schedule of the learning rate; these are compared in kind. "
        "Shown: the rule's condition holds. Not shown: it does not. Not resolved: there is too little to apply it.",
        blocks=(
            Cells(Table(columns, rows, text=tuple(range(len(columns))))),
            Text("Unclear at the source: " + " ".join(NOTES)),
        ),
        tables={"claims": pd.DataFrame(found, columns=list(heads))},
    )
