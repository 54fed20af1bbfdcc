"""Sentences that say what the tables show, built from the numbers; where they do not tell, the sentence says so."""

from __future__ import annotations

from pathlib import Path

from sims.analysis.cells import best_rates
from sims.analysis.runs import Runs, load
from sims.analysis.stages import concentration_summary, outcome_table, stage_differences


def findings(runs: Runs) -> list[str]:
    """What came out, in plain words."""
    return [*_order(runs), *_transient(runs), *_transitions(runs)]


def report_runs(out: Path) -> tuple[Runs, list[str]]:
    """The runs of a folder that a report compares, one learning rate a cell, and what its reader must know.

    Raises:
        StoreError: no complete run there.
    """
    runs = load(out)
    best = best_rates(runs)
    notes = warnings(best)
    if runs.pruned:
        notes.append(f"{len(runs.pruned)} runs were pruned by successive halving and are left out.")
    if len(best.runs) < len(runs.runs):
        notes.append(
            f"{len(runs.runs) - len(best.runs)} of {len(runs.runs)} runs at other learning rates are left out: each "
            "cell stands with its best one (fewest tokens to the target, or else the lowest mean loss), chosen on "
            "the same seeds."
        )
    return best, notes


def nothing_to_report(runs: Runs) -> str | None:
    """Why these runs cannot be compared by a report, which sets stages side by side on bands; None where they can."""
    if runs.differing:
        return f"these runs also differ in {', '.join(runs.differing)}"
    if runs.values("h_peak", "probe").empty:
        return (
            "none of these runs was measured on probe bands, which a report is about; `speclens bridge compare` sets "
            "language models beside a toy"
        )
    return None


def warnings(runs: Runs) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = []
    if runs.incomplete:
        found.append(
            f"{len(runs.incomplete)} runs are not complete and are left out: {', '.join(runs.incomplete[:5])}."
        )
    diverged = runs.runs[runs.runs["ended"] == "diverged"]
    if len(diverged):
        names = ", ".join(diverged["run_id"].head(5))
        found.append(
            f"{len(diverged)} runs diverged (their loss was no longer finite) and count as diverged: {names}."
        )
    seeds = runs.runs.groupby(["stage", "batch_size"])["seed"].nunique().min()
    if seeds < 2:
        found.append(
            "Some cells have a single seed: they have no interval, and no difference between them is established."
        )
    # Only of runs whose validation sequences can occur in training is it known.
    overlap = runs.runs["validation_overlap"].max() if "validation_overlap" in runs.runs else 0.0
    if overlap > 0:
        found.append(
            f"Up to {overlap:.0%} of the validation sequences occur in training, as in the published setting: "
            "validation loss is partly training loss (task.unique_val removes them)."
        )
    return found


def _order(runs: Runs) -> list[str]:
    table = outcome_table(runs)
    lines = []
    for size, group in table.groupby("batch_size"):
        ordered = group.sort_values("loss")
        chain = " < ".join(f"{r['stage']} {r['loss']:.3f}" for r in ordered.to_dict("records"))
        lines.append(f"Final validation loss at B = {size}: {chain} nats.")
    return lines


def _transient(runs: Runs) -> list[str]:
    table = concentration_summary(runs)
    table = table[table["quantity"] == "H_peak"]
    lines = []
    for stage, group in table.groupby("stage", sort=False):
        fell = (group["end"] < group["top"] - 0.1 * (group["top"] - group["start"]).clip(lower=0)).mean()
        above = (group["top"] > group["null_high"]).mean()
        lines.append(
            f"{stage}: H_peak starts at {group['start'].mean():.3f}, tops out at {group['top'].mean():.3f} and ends at "
            f"{group['end'].mean():.3f} (means over {len(group)} bands and batch sizes); the top is above the null's "
            f"97.5 % level in {above:.0%} of them, and in {fell:.0%} it has fallen again by the end."
        )
    return lines


def _transitions(runs: Runs) -> list[str]:
    lines = []
    for quantity in ("H_peak", "H_S task"):
        table = stage_differences(runs, quantity)
        told = [
            f"{r['before']} → {r['after']} {r['difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]"
            + ("" if r["low"] > 0 or r["high"] < 0 else " (cannot tell)")
            for r in table.to_dict("records")
        ]
        if told:
            seeds = int(table["n"].min())
            lines.append(
                f"Change of the highest {quantity}, paired over {seeds} seeds, 95 % interval: {'; '.join(told)}."
            )
    return lines
