"""Figures 1a, 9 and 11a: activation spectra of different batch sizes at equal loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.matched import batch_divergence, matched_spectra
from sims.analysis.ranges import DIVERGENCE
from sims.analysis.spectra import with_shares
from sims.analysis.tails import matched_exponents, tail_by_batch, tail_trend
from sims.pages.figures.spectra import matched_figure
from sims.pages.number import interval, number
from sims.pages.page import Finding, Section
from sims.pages.table import Table
from sims.studies.paper.figure_data import (
    AGAINST,
    SUPPORTS,
    FigureData,
    checker,
    steeper_or_flatter,
    told,
)
from sims.studies.paper.figures.batches import divergence_figure, tail_figure
from sims.studies.paper.matching import matched_batches
from sims.studies.paper.prediction import ranks
from sims.studies.paper.published import PUBLISHED
from sims.studies.paper.study import STUDY
from sims.studies.paper.verdicts import AGREES, DISAGREES, SIGNIFICANT, Check, Ours
from sims.studies.study import OPEN
from sims.system.errors import MeasureError
from spectra import noise_quantiles
from theory.decision import side

STANCES = {AGREES: SUPPORTS, DISAGREES: AGAINST}


@STUDY.figure(
    "fig1a", "Figure 1a: activation spectra by batch size at equal loss", order=20, rank=6, runs="A"
)
def fig1a(data: FigureData) -> Section:
    """Show whether runs of different batch sizes have different spectra at equal loss."""
    matched, table = _matched(data)
    first = matched.iloc[0]
    low, high = noise_quantiles(int(first["n"]), int(first["d"]), centred=True)
    judge = checker("fig1a", data)
    digits = _digits(data)
    widest = {str(stage): _widest(own) for stage, own in table.groupby("stage", sort=False)}
    checks = tuple(
        judge(f"excess {stage}", Ours(row["excess"], row["excess_low"], row["excess_high"], row["seeds"]))
        for stage, row in widest.items()
        if f"excess {stage}" in PUBLISHED
    )
    return Section(
        text="Each run is read where it first reaches the lowest loss that every run of its stage reached. The "
        "question is whether batch sizes differ by more than seeds do: the excess is the mean JS between runs of "
        "different seeds and batch sizes, minus that between runs of different seeds and one batch size.",
        figure=matched_figure(with_shares(matched), (low, high)),
        caption="Thin lines are seeds, thick ones their geometric mean. Grey: the middle 95 % of "
        "Gaussian noise of the same shape, the null.",
        table=_excesses(widest, digits),
        tables={"fig1a-divergence": table, "fig1a-spectra": _shares(matched)},
        checks=checks,
        findings=(_excess_finding(widest, digits),),
    )


@STUDY.figure("fig9", "Figure 9: how far batch sizes are apart at equal loss", order=70, rank=13, runs="A")
def fig9(data: FigureData) -> Section:
    """Show JS between batch sizes with its floors."""
    _, table = _matched(data)
    digits = _digits(data)
    judge = checker("fig9", data)
    checks = []
    lowest = {(r["stage"], r["small"], r["large"]): r for r in table.to_dict("records")}
    published = pd.DataFrame() if data.language else matched_batches(data.a, data.measured_every)
    for r in published.to_dict("records"):
        key = f"batch js {r['stage']} {r['small']} {r['large']}"
        if key in PUBLISHED:
            own = lowest[r["stage"], r["small"], r["large"]]
            at = interval(own["js"], own["js_low"], own["js_high"], 4)
            note = f"at the lowest loss in common {at}, between seeds {number(own['floor'], 4)}"
            checks.append(
                judge(key, Ours(r["mean"], r["low"], r["high"], r["n"], note=note, within=DIVERGENCE))
            )
    below = table[table["js"] <= table["floor"]]
    stance = AGAINST if len(below) > len(table) / 2 else OPEN
    finding = Finding(
        f"In {len(below)} of {len(table)} pairs of batch sizes (all stages), the mean JS at equal loss is no larger "
        "than the mean JS between seeds of one batch size (between sizes "
        f"{table['js'].min():.{digits}f}–{table['js'].max():.{digits}f}, between seeds "
        f"{table['floor'].min():.{digits}f}–{table['floor'].max():.{digits}f} nats, "
        f"{int(table['seeds'].min())} seeds): a single-seed JS of that size does not show an effect of batch size.",
        stance,
    )
    rows = tuple(
        (
            r["stage"],
            f"{r['small']} / {r['large']}",
            f"{r['loss']:.3f}",
            interval(r["js"], r["js_low"], r["js_high"], digits),
            number(r["floor"], digits),
            number(r["sampling_floor"], digits + 1),
            interval(r["excess"], r["excess_low"], r["excess_high"], digits),
        )
        for r in table.to_dict("records")
    )
    columns = (
        "stage",
        "batch sizes",
        "loss",
        "JS, equal seeds",
        "floor: seeds",
        "floor: sampling",
        "excess over seeds",
    )
    return Section(
        text="Jensen–Shannon divergence (nats) of trace-normalised spectra. What two seeds of one batch size differ by "
        "is the level that a difference between batch sizes has to exceed.",
        figure=divergence_figure(table),
        caption="Bars: the range over seeds, dots their mean. Dashed: the level of two seeds of one batch size. "
        "Dotted: of two samples of one population.",
        table=Table(columns, rows),
        tables={"fig9-divergence": table},
        checks=tuple(checks),
        findings=(finding,) if len(below) else (),
    )


@STUDY.figure(
    "fig11a", "Figure 11a: tails by batch size at equal loss", order=80, rank=9, runs="B", stages=("untied",)
)
def fig11a(data: FigureData) -> Section:
    """Show whether smaller batches have steeper tails at equal loss."""
    exponents = matched_exponents(data.b)
    trend = tail_trend(exponents)
    means = data.b.values("alpha", "activation", "final").groupby("window")["null"].mean()
    nulls = {str(window): level for window, level in means.items()}
    judge = checker("fig11a", data)
    checks, findings = [], []
    own = trend[trend["window"] == data.window]
    if data.language:
        findings += [_tails_finding(own, data.window)] if len(own) else []
        own = own.head(0)
    for r in own[own["stage"] == "untied"].to_dict("records"):
        ours = Ours(r["slope"], r["low"], r["high"], r["seeds"], r["p"], r["p_min"])
        checks.append(judge("tail untied", ours))
        findings.append(_tail_finding(r, checks[-1]))
    rows = tuple(
        (
            r["stage"],
            r["window"],
            f"{r['loss']:.3f}",
            interval(r["slope"], r["low"], r["high"]),
            number(r["rho"], 2),
            f"{r['p']:.2g} ({r['p_min']:.2g})",
            str(r["steeper"]),
        )
        for r in trend.to_dict("records")
    )
    columns = ("stage", "ranks", "loss", "α per doubling of B", "mean ρ", "p (smallest possible)", "steeper")
    return Section(
        text="Exponents α of the activation spectrum where each run first reaches its stage’s common loss. Page’s test "
        "permutes the batch sizes within each seed; p-values are not corrected for the number of stages and windows.",
        figure=tail_figure(tail_by_batch(exponents), exponents, nulls),
        caption="Small dots are seeds, lines their mean with 95 % Student-t intervals. Grey: Gaussian noise of the "
        "same shape.",
        table=Table(columns, rows, text=(0, 1, 6)),
        tables={"fig11a-exponents": exponents, "fig11a-trend": trend},
        checks=tuple(checks),
        findings=tuple(findings),
    )


def _matched(data: FigureData) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return spectra at equal loss, and how far those of different batch sizes are apart."""
    matched = matched_spectra(data.a, interpolate=True)
    table = batch_divergence(matched)
    if table.empty:
        sizes = ", ".join(map(str, sorted(matched["batch_size"].unique())))
        raise MeasureError(
            f"batch sizes are compared, and no two of these runs ({sizes}) share a stage and a seed; train more"
        )
    return matched, table


def _digits(data: FigureData) -> int:
    """Return the decimals of a JS in nats: spectra of many samples (tokens) differ less."""
    return 6 if data.language else 4


def _widest(own: pd.DataFrame) -> dict[str, Any]:
    """Return the pair of the smallest and the largest batch size that share a seed."""
    row = own.iloc[int(np.argmax(own["large"] / own["small"]))]
    return {str(k): v for k, v in row.items()}


def _excesses(widest: dict[str, dict[str, Any]], digits: int) -> Table:
    rows = tuple(
        (
            stage,
            f"{r['small']} / {r['large']}",
            f"{r['loss']:.3f}",
            interval(r["excess"], r["excess_low"], r["excess_high"], digits),
            str(r["seeds"]),
        )
        for stage, r in widest.items()
    )
    return Table(("stage", "batch sizes", "loss", "excess JS over seeds (nats)", "seeds"), rows)


def _shares(matched: pd.DataFrame) -> pd.DataFrame:
    """Return one row a run: its labels, and the share of variance of each rank."""
    label = matched[["stage", "batch_size", "seed", "loss", "tokens"]].reset_index(drop=True)
    shares = pd.DataFrame([[v / sum(values) for v in values] for values in matched["values"]])
    return pd.concat([label, shares.rename(columns=lambda k: f"rank {k + 1}")], axis=1)


def _excess_finding(widest: dict[str, dict[str, Any]], digits: int) -> Finding:
    shown = {
        stage: interval(r["excess"], r["excess_low"], r["excess_high"], digits) for stage, r in widest.items()
    }
    beyond = [stage for stage, r in widest.items() if side(r["excess_low"], r["excess_high"]) > 0]
    if beyond:
        text = (
            f"At equal loss, spectra of the smallest and the largest batch differ by more than seeds do in "
            f"{', '.join(f'{s} (excess JS {shown[s]} nats)' for s in beyond)}; in "
            f"{len(widest) - len(beyond)} of {len(widest)} stages this cannot be told or is not so."
        )
        return Finding(text, SUPPORTS)
    against = any(side(r["excess_low"], r["excess_high"]) < 0 for r in widest.values())
    text = (
        "In no stage do spectra of the smallest and the largest batch differ at equal loss by demonstrably more than "
        "those of two seeds (JS between the batches minus JS between seeds in nats, with the 95 % jackknife interval "
        "over seeds where there are three or more: "
        + "; ".join(f"{s} {v} ({widest[s]['seeds']} seeds)" for s, v in shown.items())
        + ")."
    )
    return Finding(text, AGAINST if against else OPEN)


def _tail_finding(r: dict, checked: Check) -> Finding:
    said = {
        AGREES: "Smaller batches have steeper tails at equal loss in untied, as published",
        DISAGREES: "Smaller batches have flatter tails at equal loss in untied, against the published direction",
    }.get(
        checked.verdict, "Whether smaller batches have steeper tails at equal loss in untied cannot be told"
    )
    text = (
        f"{said}: α(10–40) changes by {interval(r['slope'], r['low'], r['high'])} a doubling of B over {r['sizes']} "
        f"batch sizes and {r['seeds']} seeds (Page’s test p = {r['p']:.2g}, smallest possible {r['p_min']:.2g})."
    )
    return Finding(text, STANCES.get(checked.verdict, OPEN))


def _tails_finding(trend: pd.DataFrame, window: str) -> Finding:
    """Return one sentence about every stage, without the published statement."""
    found = []
    for r in trend.to_dict("records"):
        # The slope is a doubling of the batch; a smaller batch has the opposite.
        sign = -float(np.sign(r["slope"])) if told(r["low"], r["high"]) and r["p"] <= SIGNIFICANT else 0.0
        shown = interval(r["slope"], r["low"], r["high"])
        found.append((sign, f"{r['stage']} ({shown}; p = {r['p']:.2g}, smallest possible {r['p_min']:.2g})"))
    sizes, seeds = int(trend["sizes"].min()), int(trend["seeds"].min())
    text = (
        f"At equal loss the tails of smaller batches are {steeper_or_flatter(found)}: change of α({ranks(window)}) a "
        f"doubling of B, {sizes} batch sizes, {seeds} seeds, Page’s test."
    )
    return Finding(text, OPEN)
