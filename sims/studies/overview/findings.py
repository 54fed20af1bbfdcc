"""Which runs a report compares, and sentences about what its tables show."""

from __future__ import annotations

from pathlib import Path

from sims.analysis.caveats import caveats
from sims.analysis.cells import best_rates, same_seed
from sims.analysis.runs import Runs, load
from sims.analysis.stages import concentration_summary, outcome_table, stage_differences
from theory.decision import side


def findings(runs: Runs) -> list[str]:
    """Return what came out, one sentence each."""
    return [*_order(runs), *_transient(runs), *_transitions(runs)]


def report_runs(out: Path) -> tuple[Runs, list[str]]:
    """Read the runs that a report compares, one learning rate a cell, and what its reader must know.

    Raises:
        StoreError: no complete run there.
    """
    runs = load(out)
    best = best_rates(runs)
    notes = caveats(best)
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
    """Return why a report, which compares stages on bands, cannot show these runs; None where it can."""
    if (runs.runs["ended"] == "diverged").all():
        return "all of these runs diverged; lower their learning rates"
    if runs.differing:
        return f"these runs also differ in {', '.join(runs.differing)}"
    if same := same_seed(runs.runs):
        return same
    if runs.values("h_peak", "probe").empty:
        return (
            "none of these runs was measured on probe bands, which a report is about; `speclens carry-over` sets "
            "language models beside a toy"
        )
    return None


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
            + ("" if side(r["low"], r["high"]) else " (cannot tell)")
            for r in table.to_dict("records")
        ]
        if told:
            seeds = int(table["n"].min())
            lines.append(
                f"Change of the highest {quantity}, paired over {seeds} seeds, 95 % interval: {'; '.join(told)}."
            )
    return lines
