"""The published tables beside ours: final losses and tokens, transitions, concentration at equal steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sims.analysis.at_steps import concentration_at_steps, transition_divergence
from sims.analysis.cells import usable
from sims.analysis.concentration import concentration_changes
from sims.analysis.data_seeds import LOSS, TOKENS
from sims.analysis.floor import mean_floor
from sims.analysis.intervals import seed_intervals
from sims.analysis.ranges import DIVERGENCE, GAIN, POSITIVE
from sims.analysis.runs import Runs
from sims.analysis.stages import outcome_table
from sims.analysis.summaries import range_in
from sims.analysis.transitions import gains_by_seed, mean_over_batches, transition_gains
from sims.pages.number import counted, interval, number
from sims.pages.outcomes import outcomes_table
from sims.pages.page import Section
from sims.studies.paper.concentration import gain_finding
from sims.studies.paper.data_seeds import further_data
from sims.studies.paper.figure_data import FigureData, checker
from sims.studies.paper.matching import matched_transitions
from sims.studies.paper.published import PUBLISHED, STEPS, TARGET_A, TRANSITIONS, arrow
from sims.studies.paper.study import STUDY
from sims.studies.paper.verdicts import Check, Ours
from sims.system.errors import MeasureError

OUTCOMES = (
    "Final losses and tokens of the runs; a dash where a run of the cell passes the common loss before its first "
    "evaluation after the start."
)
QUANTITIES = {"H_peak": "h_peak", "PC1 peak mass": "pc1"}


@STUDY.figure("tables", "Tables: losses, tokens, transitions and concentration", order=10, rank=5, runs="A")
def tables(data: FigureData) -> Section:
    """Compare every number of the published tables."""
    if not data.a.has("val_loss"):
        raise MeasureError("no validation loss of these runs was measured; measure it")
    made = {"tables-outcomes": outcome_table(data.a)}
    if data.language:
        return _of_language(data, made)
    checks = [*_outcomes(data), *_transitions(data, made), *_concentration(data, made)]
    return Section(
        text=OUTCOMES + _above_floor(data),
        table=outcomes_table(made["tables-outcomes"]),
        tables=made,
        checks=tuple(checks),
    )


def _above_floor(data: FigureData) -> str:
    """Say how far the losses that are reached are above the lowest one that is possible."""
    floor = mean_floor(data.a)
    if floor is None:
        return ""
    target = (
        f"; the published target of {TARGET_A:g} is {TARGET_A - floor:.2f} above it"
        if data.comparable
        else ""
    )
    return (
        f" The exact floor of the validation loss, the mean entropy of the next token given the tokens before it, is "
        f"{floor:.3f} nats{target}."
    )


def _of_language(data: FigureData, made: dict[str, pd.DataFrame]) -> Section:
    """Show outcomes and, as far as these runs allow, compare successive stages."""
    missing, findings = [], []
    try:
        gains = transition_gains(gains_by_seed(data.a), by_batch=False)
        made["tables-gains"] = gains
        findings.append(gain_finding(gains))
        made["tables-divergences"] = transition_divergence(data.a)
    except MeasureError as error:
        missing.append(f" Stages are not compared any further: {error}.")
    return Section(
        title="Tables: losses, tokens and transitions",
        text=OUTCOMES + "".join(missing),
        table=outcomes_table(made["tables-outcomes"]),
        tables=made,
        findings=tuple(findings),
    )


def _outcomes(data: FigureData) -> list[Check]:
    judge = checker("tables", data)
    alive, further = usable(data.a), further_data(data)
    checks = []
    for (stage, size), own in alive.groupby(["stage", "batch_size"], sort=False):
        early = int((own["ended"] == "target").sum())
        told = {
            "final loss": (early, f"reached a loss of {TARGET_A:g} and ended there"),
            "tokens": (len(own) - early, "did not reach the loss"),
        }
        for key, column, unit in (("final loss", "val_loss", 1.0), ("tokens", "tokens", 1e6)):
            if f"{key} {stage} {size}" not in PUBLISHED:
                continue
            values = own.assign(all=0, value=own[column] / unit)
            found = seed_intervals(values, ["all"], within=POSITIVE).iloc[0]
            seeds, what = told[key]
            note = f"{seeds} of {counted(len(own), 'seed')} {what}" if seeds else ""
            quantity = {"tokens": TOKENS, "final loss": LOSS}[key]
            ours = Ours(
                *(found["mean"], found["low"], found["high"], int(found["n"])),
                note=note,
                within=POSITIVE,
                on_data=further.get((stage, size, quantity)),
            )
            checks.append(judge(f"{key} {stage} {size}", ours))
    return checks


def _transitions(data: FigureData, made: dict[str, pd.DataFrame]) -> list[Check]:
    """Check gains, divergences and changes of H_peak."""
    judge = checker("tables", data)
    pairs = _pairs(data.a)
    if not pairs:
        return []
    gains = transition_gains(gains_by_seed(data.a, pairs), by_batch=False)
    divergences = transition_divergence(data.a, pairs)
    made["tables-gains"], made["tables-divergences"] = gains, divergences
    made["tables-matched-gains"], made["tables-matched-divergences"] = matched_transitions(
        data.a, pairs, data.measured_every
    )
    checks = []
    for name, within, own in (("gain", GAIN, gains), ("js", DIVERGENCE, divergences)):
        lowest = {(r["before"], r["after"]): r for r in own.to_dict("records")}
        for r in made[f"tables-matched-{'gains' if name == 'gain' else 'divergences'}"].to_dict("records"):
            note = r["reason"] or _inside(name, lowest[r["before"], r["after"]])
            ours = Ours(r["mean"], r["low"], r["high"], r["n"], note=note, within=within)
            checks.append(judge(f"{name} {arrow(r['before'], r['after'])}", ours))
    within = range_in(data.a, "H_peak").change
    for published, step in zip(STEPS, data.steps, strict=True):
        changes = concentration_changes(data.a, pairs, "H_peak", step)
        if changes.empty:
            continue
        own = mean_over_batches(changes, ["change"])
        means = seed_intervals(own, ["before", "after"], "change", within)
        made[f"tables-changes-{step}"] = means
        for r in means.to_dict("records"):
            ours = Ours(r["mean"], r["low"], r["high"], r["n"], within=within)
            checks.append(judge(f"dh {arrow(r['before'], r['after'])} {published}", ours))
    return checks


def _inside(name: str, own: Mapping[Any, Any]) -> str:
    """Say what our own comparison gives, which leaves the untrained models out."""
    if own["reason"]:
        return ""
    if name == "gain":
        inside = interval(own["proximal"], own["proximal_low"], own["proximal_high"], 2)
        return f"inside of the losses in common {inside}"
    js = interval(own["js"], own["low"], own["high"], 4)
    return f"at the lowest loss in common {js}, between seeds {number(own['floor'], 4)}"


def _concentration(data: FigureData, made: dict[str, pd.DataFrame]) -> list[Check]:
    judge = checker("tables", data)
    table = concentration_at_steps(data.a, data.steps)
    made["tables-concentration"] = table
    published = dict(zip(data.steps, STEPS, strict=True))
    named = [
        (f"{QUANTITIES[r['quantity']]} {r['stage']} {published[r['step']]}", r)
        for r in table.to_dict("records")
    ]
    return [
        judge(key, Ours(r["mean"], r["low"], r["high"], r["n"], within=range_in(data.a, r["quantity"])))
        for key, r in named
        if key in PUBLISHED
    ]


def _pairs(runs: Runs) -> list[tuple[str, str]]:
    """Return the published transitions whose two stages are here."""
    try:
        here = set(usable(runs)["stage"])
    except MeasureError:
        return []
    return [pair for pair in TRANSITIONS if set(pair) <= here]
