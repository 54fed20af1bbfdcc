"""The same tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable

from sims.analysis.runs import Runs
from sims.studies.overview import tables


def print_summary(runs: Runs, notes: Sequence[str], console: Console) -> None:
    """Losses, what changed from stage to stage, what the time went into, and the notes."""
    console.print(_rich("Losses", tables.outcomes(runs)))
    if len(runs.values("h_peak", "probe")):
        console.print(
            _rich("Change of the highest Fourier concentration, paired by seed", tables.differences(runs))
        )
    console.print(f"time: {time_shares(runs)}", soft_wrap=True)
    for warning in notes:
        console.print(f"[yellow]note:[/] {warning}")


def time_shares(runs: Runs) -> str:
    """What the seconds of all runs went into: "training 81 %, evaluation 10 %, …"."""
    columns = [c for c in runs.runs.columns if c.startswith("seconds_")]
    spent = runs.runs[columns].sum()
    parts = [f"{name.removeprefix('seconds_')} {spent[name] / spent.sum():.0%}" for name in columns]
    return ", ".join(parts) + f" of {spent.sum():,.0f} s"


def _rich(title: str, table: tables.Table) -> RichTable:
    result = RichTable(title=title, title_justify="left")
    for i, name in enumerate(table.columns):
        result.add_column(name, justify="left" if i in table.text else "right", overflow="fold")
    for row in table.rows:
        result.add_row(*row)
    return result
