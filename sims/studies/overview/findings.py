"""Which runs a report compares, and sentences about what its tables show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sims.analysis.caveats import caveats, other_rates
from sims.analysis.cells import apart, best_rates, same_seed
from sims.analysis.comparisons import (
    AT_TOP,
    FALL,
    LEAST_SEEDS,
    LOSS,
    RANKME,
    RISE,
    SIGNIFICANT,
    TOP,
    comparisons,
    tops,
)
from sims.analysis.intervals import seed_intervals
from sims.analysis.runs import Runs, load
from sims.analysis.stages import outcome_table
from sims.analysis.summaries import range_in
from sims.pages.number import counted, interval, number, verb
from sims.pages.page import Statement
from sims.runs.layout import TEXT, TOY
from sims.runs.store import run_folders
from sims.studies.overview.tables import SHOWN, needed
from sims.system.plain import some
from theory.decision import side

UNITS = {LOSS: " nats"}
ALONE = "Each cell has a single seed, which has no spread: nothing is decided."
LEFT_ALONE = (
    "Each comparison is left with a single seed, which has no spread: nothing is decided. At least one seed of a cell "
    "chooses the moment of a top, and stages are compared in the seeds that both have."
)
# What a verdict of +1, −1 or 0 on a question of `comparisons` says.
SAID = {
    LOSS: {
        -1: "The final validation loss falls at",
        1: "The final validation loss rises at",
        0: "Not decided: whether the final validation loss changes at",
    },
    RISE: {
        1: "At its top, concentration is above its null:",
        -1: "Even at its top, concentration is below its null:",
        0: "Not decided: whether concentration climbs above its null (top − null):",
    },
    FALL: {
        1: "From its top to the end of training, concentration falls:",
        -1: "Concentration still rises at the end (top − end):",
        0: "Not decided: whether concentration falls from its top to the end of training (top − end):",
    },
    TOP: {
        1: "The top of concentration is higher in the later stage:",
        -1: "The top of concentration is lower in the later stage:",
        0: "Not decided: whether the top of concentration differs between stages:",
    },
    RANKME: {
        1: "RankMe of the activations at the end rises at",
        -1: "RankMe of the activations at the end falls at",
        0: "Not decided: whether RankMe of the activations at the end changes at",
    },
}


def findings(runs: Runs) -> list[Statement]:
    """Return what came out: decided statements first, the surest in front, then open ones, then plain facts."""
    table = runs.once(comparisons)
    if len(table) and table["n"].max() < LEAST_SEEDS:
        alone = runs.runs.groupby(["stage", "batch_size"])["seed"].nunique().max() == 1
        text = ALONE if alone else LEFT_ALONE
        return [Statement(text, False, needed(table.iloc[0].to_dict())), *_losses(runs)]
    said = []
    for _, own in table.groupby(["question", "verdict"], sort=False):
        question, verdict = str(own["question"].iloc[0]), int(own["verdict"].iloc[0])
        said.append((verdict == 0, -_sureness(own), _statement(question, verdict, own, runs)))
    return [
        *(statement for _, _, statement in sorted(said, key=lambda x: x[:2])),
        *_losses(runs),
    ]


def rule(runs: Runs) -> str:
    """Return how decided and open comparisons are told apart, and what a top is."""
    table = runs.once(comparisons)
    if table.empty:
        return ""
    sizes = sorted(runs.runs["batch_size"].unique())
    over = f" and batch sizes {_and([str(s) for s in sizes])}" if len(sizes) > 1 else ""
    text = (
        f"Values are means over seeds{over}, with 95 % intervals. “Decided” are the comparisons whose p-value is at "
        f"most {SIGNIFICANT:.0%} after Holm’s correction for all {len(table)}, so that all verdicts hold together; an "
        "open one may have an interval without 0."
    )
    if not table["question"].isin(AT_TOP).any():
        return text
    return (
        f"{text} The top of H_peak or H_S is read at the moment at which a quarter of the seeds has its highest mean, "
        "on the other seeds."
    )


def lead(runs: Runs) -> str:
    """Return the one sentence at the head of a report: who learns best, what concentrates, how much is decided."""
    table = runs.once(comparisons)
    cells = runs.once(outcome_table).pivot_table(
        index="batch_size", columns="stage", values="loss", sort=False
    )
    # Over the batch sizes that all of them have: the mean of another one would be over other sizes.
    losses = cells.dropna(axis="columns", how="all").dropna().mean().dropna()
    parts = []
    if len(losses) > 1:
        best, worst = str(losses.idxmin()), str(losses.idxmax())
        parts.append(
            f"{best} ends at the lowest mean {runs.loss_name} ({losses[best]:.2f} nats; {worst} at "
            f"{losses[worst]:.2f})"
        )
    for question, words in ((RISE, "climbs above its null"), (FALL, "has fallen again by the end")):
        own = table[(table["question"] == question) & (table["quantity"] == "H_peak")]
        if len(own) and own["n"].max() >= LEAST_SEEDS:
            up = list(own.loc[own["verdict"] > 0, "subject"])
            if up:
                where = "every stage" if len(up) == len(own) else _and(up)
                parts.append(f"H_peak demonstrably {words} in {where}")
            else:
                parts.append(f"that H_peak {words} is decided in no stage")
    if len(table):
        parts.append(decided(table))
    return "; ".join(parts) + "." if parts else ""


def _and(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def decided(table: pd.DataFrame) -> str:
    """Return "7 of 9 comparisons are decided (8 seeds)" for a table of `comparisons`."""
    fewest, most = int(table["n"].min()), int(table["n"].max())
    seeds = f"{fewest} to {most} seeds" if fewest < most else counted(most, "seed")
    return f"{int((table['verdict'] != 0).sum())} of {len(table)} comparisons are decided ({seeds})"


def probed(runs: Runs) -> bool:
    """Return whether concentration was measured on probe bands."""
    return runs.has("h_peak", "probe")


def report_runs(out: Path) -> tuple[Runs, list[str]]:
    """Read the runs that a report compares, one learning rate a cell, and what its reader must know.

    Of toy runs beside runs of other models, the toy runs are compared. Runs of other models that have no common cells,
    as they differ in more than a cell or share a seed, stand for themselves, each a cell by its name.

    Raises:
        StoreError: no complete run there.
    """
    runs, left = _of_one_kind(out)
    best = best_rates(runs)
    if runs.kind == TEXT and (why := _without_cells(runs, best)):
        best = apart(runs)
        left.append(f"Each run stands for itself, and no interval is over seeds: {why}.")
    notes = [*caveats(best), *_bundled(best), *left]
    if pruned := len(runs.pruned):
        notes.append(
            f"{counted(pruned, 'run')} {verb(pruned, 'was', 'were')} pruned by successive halving and {verb(pruned)} "
            "left out."
        )
    notes += other_rates(runs, best)
    return best, notes


def _bundled(runs: Runs) -> list[str]:
    """Say what a difference between stages of the toy is not."""
    if runs.kind != TOY or runs.runs["stage"].nunique() < 2:
        return []
    return [
        "Each stage changes several things at once, and its learning rate may be another: a difference between stages "
        "is not the effect of one change."
    ]


def nothing_to_report(runs: Runs) -> str | None:
    """Return why a report, which compares cells of runs, cannot show these; None where it can."""
    if (runs.runs["ended"] == "diverged").all():
        return "all of these runs diverged; lower their learning rates"
    return _without_cells(runs, runs)


def _of_one_kind(out: Path) -> tuple[Runs, list[str]]:
    """Read the toy runs of a folder, or those of other models where it holds no toy; and say which are left out."""
    kinds = {f.path.name: f.identity().get("kind", TOY) for f in run_folders(out) if f.done}
    kind = TOY if TOY in kinds.values() else TEXT
    left = [name for name, other in kinds.items() if other != kind]
    if not left:
        return load(out), []
    note = (
        f"{counted(len(left), 'run')} of other models {verb(len(left))} left out ({some(left, 5)}): a report is about "
        "toy runs or about others. Move them into a folder of their own for theirs; `speclens carry-over` sets the two "
        "side by side."
    )
    return load(out, kind, others=True), [note]


def _without_cells(runs: Runs, best: Runs) -> str | None:
    if runs.differing:
        return f"these runs also differ in {', '.join(runs.differing)}"
    return same_seed(best.runs)


def _statement(question: str, verdict: int, table: pd.DataFrame, runs: Runs) -> Statement:
    """Return one sentence about the comparisons of a question that came out alike."""
    told = []
    for quantity, own in table.groupby("quantity", sort=False):
        name = f"{SHOWN.get(str(quantity), quantity)} in " if question in (RISE, FALL) else ""
        name = name or (f"{SHOWN.get(str(quantity), quantity)} at " if quantity else "")
        below = _below_null(runs, str(quantity)) if question == FALL and verdict > 0 else {}
        subjects = (_subject(r) + below.get(r["subject"], "") for r in own.to_dict("records"))
        told.append(name + ", ".join(subjects))
    text = f"{SAID[question][verdict]} {'; '.join(told)}."
    return Statement(text, verdict != 0, "" if verdict else _needs(table))


def _below_null(runs: Runs, quantity: str) -> dict[str, str]:
    """Return words for the stages whose concentration ends below its null, which a fall alone does not say."""
    ends = tops(runs, quantity).groupby(["stage", "seed"], sort=False)["end_excess"].mean().reset_index()
    table = seed_intervals(ends, ["stage"], "end_excess", range_in(runs, quantity).change)
    return {
        r["stage"]: f", to {interval(-r['mean'], -r['high'], -r['low'])} below the mean of its null"
        for r in table.to_dict("records")
        if side(r["low"], r["high"]) < 0
    }


def _subject(r: Mapping[Any, Any]) -> str:
    """Return "rope → muon −0.634 [−0.729, −0.539] nats" of a comparison; the subject alone where it has no interval.

    A verdict that names the direction ("falls") is followed by the size ("by 0.066").
    """
    if not math.isfinite(r["low"]):
        return (
            f"{r['subject']} (its top is at the end)"
            if r["question"] == FALL and r["value"] == 0
            else r["subject"]
        )
    sized = r["question"] in (RISE, FALL) and r["verdict"] > 0
    written = interval(r["value"], r["low"], r["high"], write=number if sized else lambda v: f"{v:+.3f}")
    return f"{r['subject']} {'by ' * sized}{written}{UNITS.get(r['question'], '')}"


def _needs(table: pd.DataFrame) -> str:
    """Return what would decide these open comparisons: "about 14 seeds", or from the fewest to the most."""
    rows = table.sort_values("seeds").to_dict("records")
    counts = dict.fromkeys(needed(r) for r in rows if not math.isnan(r["seeds"]))
    others = dict.fromkeys(needed(r) for r in rows if math.isnan(r["seeds"]))
    if len(counts) + len(others) == 1:
        return next(iter(counts | others))
    where = {needed(r): _where(r) for r in reversed(rows)}
    ends = [f"{told} ({where[told]})" for told in list(counts)[:: max(1, len(counts) - 1)]]
    return "; ".join(
        [*([" to ".join(ends)] if ends else []), *(f"{told} ({where[told]})" for told in others)]
    )


def _where(comparison: Mapping[Any, Any]) -> str:
    return f"{SHOWN.get(comparison['quantity'], comparison['quantity'])} {comparison['subject']}".strip()


def _sureness(table: pd.DataFrame) -> float:
    """Return the smallest size of these differences over half their interval; 0 where one has none."""
    half = (table["high"] - table["low"]) / 2
    return float((table["value"].abs() / half.where(half > 0)).fillna(0.0).min())


def _losses(runs: Runs) -> list[Statement]:
    found = []
    for size, group in runs.once(outcome_table).groupby("batch_size"):
        ordered = group.dropna(subset="loss").sort_values("loss")
        if len(ordered):
            chain = ", ".join(f"{r['stage']} {r['loss']:.3f}" for r in ordered.to_dict("records"))
            found.append(Statement(f"Mean final {runs.loss_name} at B = {size}, in nats: {chain}."))
    return found
