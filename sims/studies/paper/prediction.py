"""Figure 4a: does an exponent measured early order the batch sizes by token efficiency?"""

from __future__ import annotations

import pandas as pd

from sims.analysis.cells import tokens_to
from sims.analysis.noise_scale import noise_scale
from sims.analysis.prediction import early_exponents, early_prediction, token_inefficiency
from sims.pages.number import interval, number
from sims.pages.page import Finding, Section
from sims.pages.table import Table
from sims.studies.paper.figure_data import AGAINST, SUPPORTS, FigureData, checker
from sims.studies.paper.figures.batches import prediction_figure
from sims.studies.paper.study import STUDY
from sims.studies.paper.verdicts import AGREES, DISAGREES, SIGNIFICANT, Check, Ours, absolute
from sims.studies.study import OPEN

# Texts and captions name the fraction as a percentage.
STAGE, FRACTION = "muon", 0.2


@STUDY.figure("fig4a", "Figure 4a: early prediction of token efficiency", order=40, rank=7, runs="B")
def fig4a(data: FigureData) -> Section:
    """Show ρ between early exponents and token inefficiency over windows × fractions, with exact permutation tests."""
    exponents = early_exponents(data.b)
    table = early_prediction(exponents)
    scales = noise_scale(tokens_to(data.b))
    sizes, p_min = int(table["sizes"].min()), float(table["p_min"].min())
    limit = ""
    if p_min > SIGNIFICANT:
        limit = (
            f" With {sizes} batch sizes no outcome can be significant: even |ρ| = 1 has p ≥ {p_min:.3f}. What stands "
            "here is a drawing of the analysis, not evidence for or against prediction."
        )
    judge = checker("fig4a", data)
    window = data.window
    own = table[(table["window"] == window) & (table["fraction"] == FRACTION)].dropna(subset=["rho"])
    if data.language is None:
        own = own[own["stage"] == STAGE]
    checks = tuple(
        judge(
            "early muon",
            Ours(abs(r["rho"]), *absolute(r["low"], r["high"]), r["seeds"], r["p"], r["p_min"]),
        )
        for r in own[own["stage"] == STAGE].to_dict("records")
    )
    head = _head_of_all(own, window) if data.language else _head(own)
    return Section(
        text="Spearman correlation, over batch sizes, of the token inefficiency D(B)/min D − 1 with α measured at a "
        "fraction of each run’s own training. p-values permute the batch sizes (all seeds together) and count every "
        "permutation; q is controlled over windows × fractions of a stage." + limit,
        figure=prediction_figure(table, exponents, window, FRACTION),
        caption=f"Above: ρ by window and fraction, a star where q ≤ 0.05. Below: α({ranks(window)}) at 20 % of "
        "training against tokens to the common loss, one small dot a run, large ones means over seeds. The null is "
        "ρ = 0; in brackets in the title the correlation of the batch size itself, which any early indicator has to "
        "beat.",
        table=_scales(scales),
        tables={
            "fig4a-prediction": table,
            "fig4a-exponents": exponents,
            "fig4a-inefficiency": token_inefficiency(exponents),
            "fig4a-noise-scale": scales,
        },
        checks=checks,
        findings=(_finding(table, head, checks, sizes, p_min),),
    )


def ranks(window: str) -> str:
    """Write a rank window as it is printed."""
    return window.replace("-", "–")


def _head(own: pd.DataFrame) -> str:
    """Return what became of the published predictor."""
    if own.empty:
        return "The published early predictor was not fitted here"
    rho, low, high = own[["rho", "low", "high"]].iloc[0].tolist()
    return (
        f"α(10–40) at 20 % of Muon training correlates with token inefficiency at ρ = "
        f"{interval(rho, low, high, 2)}, p = {own['p'].iloc[0]:.2g}"
    )


def _head_of_all(own: pd.DataFrame, window: str) -> str:
    """Return what became of the same predictor in every stage."""
    what = f"α({ranks(window)}) at 20 % of training"
    if own.empty:
        return f"{what} was not fitted in every run of any stage"
    shown = ", ".join(
        f"{interval(r['rho'], r['low'], r['high'], 2)} in {r['stage']} (p = {r['p']:.2g})"
        for r in own.to_dict("records")
    )
    return f"{what} correlates with token inefficiency at ρ = {shown}"


def _finding(table: pd.DataFrame, head: str, checks: tuple[Check, ...], sizes: int, p_min: float) -> Finding:
    tested = table.dropna(subset=["rho"])
    if tested.empty:
        return Finding(
            f"{head}, nor another exponent in every run of a stage: early prediction is not tested.", OPEN
        )
    found = int((tested["q"] <= SIGNIFICANT).sum())
    perfect = int((tested["rho"].abs() > 1 - 1e-9).sum())
    beaten = int((tested["rho_size"].abs() >= tested["rho"].abs() - 1e-9).sum())
    if p_min > SIGNIFICANT:
        text = (
            f"Early prediction cannot be tested with {sizes} batch sizes: the smallest attainable p is {p_min:.3f}. "
            f"{head}; |ρ| = 1 occurs in {perfect} of {len(tested)} windows × fractions × stages, and in {beaten} of "
            "them the batch size itself predicts at least as well."
        )
        return Finding(text, OPEN)
    text = (
        f"{head} (smallest possible {p_min:.2g}); {found} of {len(tested)} windows × fractions × stages pass "
        f"false-discovery control, and in {beaten} the batch size itself predicts at least as well."
    )
    verdict = checks[0].verdict if checks else ""
    return Finding(text, {AGREES: SUPPORTS, DISAGREES: AGAINST}.get(verdict, OPEN))


def _scales(scales: pd.DataFrame) -> Table:
    rows = tuple(
        (
            r["stage"],
            f"{r['target']:.3f}",
            interval(r["d_min"] / 1e6, r["d_min_low"] / 1e6, r["d_min_high"] / 1e6),
            interval(r["b_noise"], r["b_noise_low"], r["b_noise_high"], 0),
            number(r["r2"], 2),
            number(r["p_form"], 3),
            f"{r['status']}{': ' + r['reason'] if r['reason'] else ''}",
        )
        for r in scales.to_dict("records")
    )
    columns = ("stage", "loss", "D_min (M tokens)", "B_noise (sequences)", "R²", "p of the form", "status")
    return Table(columns, rows, text=(0, 6))
