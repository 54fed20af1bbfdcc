"""The same tables on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable

from sims.analysis import Runs
from sims.report import tables
from sims.report.findings import warnings


def print_summary(runs: Runs, console: Console) -> None:
    """Losses, and what changed from stage to stage."""
    console.print(_rich("Losses", tables.outcomes(runs)))
    if len(runs.values("h_peak", "probe")):
        console.print(
            _rich("Change of the highest Fourier concentration, paired by seed", tables.differences(runs))
        )
    for warning in warnings(runs):
        console.print(f"[yellow]note:[/] {warning}")


def _rich(title: str, table: tables.Table) -> RichTable:
    result = RichTable(title=title, title_justify="left")
    for i, name in enumerate(table.columns):
        result.add_column(name, justify="left" if i in table.text else "right", overflow="fold")
    for row in table.rows:
        result.add_row(*row)
    return result
