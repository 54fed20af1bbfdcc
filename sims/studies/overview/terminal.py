"""The main tables of a report on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from sims.analysis.caveats import seconds_by_part
from sims.analysis.runs import Runs
from sims.analysis.stages import outcome_table
from sims.pages.outcomes import outcomes_table
from sims.pages.terminal import rich_table
from sims.studies.overview import tables


def print_summary(runs: Runs, notes: Sequence[str], console: Console) -> None:
    """Print losses, the change from stage to stage, the time spent, and the notes."""
    console.print(rich_table("Losses", outcomes_table(outcome_table(runs))))
    if len(runs.values("h_peak", "probe")):
        title = "Change of the highest Fourier concentration, paired by seed"
        console.print(rich_table(title, tables.differences(runs)))
    console.print(f"time: {time_shares(runs)}", soft_wrap=True)
    for warning in notes:
        console.print(f"[yellow]note:[/] {warning}")


def time_shares(runs: Runs) -> str:
    """Return what the seconds of all runs went into: "training 81 %, evaluation 10 %, …"."""
    spent = seconds_by_part(runs)
    parts = [f"{name} {seconds / spent.sum():.0%}" for name, seconds in spent.items()]
    return ", ".join(parts) + f" of {spent.sum():,.0f} s"
