"""The main tables of a report on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from sims.analysis.caveats import seconds_by_part
from sims.analysis.comparisons import comparisons
from sims.analysis.runs import Runs
from sims.analysis.stages import differences, outcome_table
from sims.pages.outcomes import outcomes_table
from sims.pages.page import Statement, Tone
from sims.pages.terminal import STYLES, print_notes, rich_table
from sims.studies.overview import tables
from sims.studies.overview.findings import findings, lead, probed
from sims.system.as_json import records

TONES: Mapping[str, Tone] = dict.fromkeys(("up", "down", "above", "below", "falls", "rises"), "good")


def print_summary(runs: Runs, notes: Sequence[str], console: Console) -> None:
    """Print losses, every comparison with its verdict, what came out, the time spent, and the notes."""
    console.print(rich_table("Losses", outcomes_table(runs.once(outcome_table))))
    if len(runs.once(comparisons)):
        title = "Comparisons over seeds, verdicts of all together (Holm, 5 %); of an open one, what would decide it"
        console.print(rich_table(title, tables.short_verdicts(runs), TONES))
    if verdict := lead(runs):
        console.print(f"[bold]{escape(verdict)}[/]", soft_wrap=True, highlight=False)
    for said in findings(runs):
        console.print(f"  {_marked(said)}", soft_wrap=True, highlight=False)
    console.print(f"time: {time_shares(runs)}", soft_wrap=True)
    print_notes(notes, console)


def _marked(said: Statement) -> str:
    """Return a statement with its verdict in front, as rich markup."""
    if said.decided is None:
        return f"        {escape(said.text)}"
    if said.decided:
        return f"[{STYLES['good']}]decided[/] {escape(said.text)}"
    return f"[{STYLES['open']}]open[/]    {escape(said.text)} Needs {escape(said.needs)}."


def summary(runs: Runs) -> dict[str, Any]:
    """Return what is printed in full: runs, outcomes, comparisons, what came out, and seconds by part."""
    changes = runs.once(differences) if probed(runs) else {}
    return {
        "runs": runs.runs,
        "outcomes": runs.once(outcome_table),
        "differences": [r for name, t in changes.items() for r in records(t.assign(quantity=name))],
        "comparisons": runs.once(comparisons),
        "lead": lead(runs),
        "findings": [said.text for said in findings(runs)],
        "seconds": seconds_by_part(runs).to_dict(),
    }


def time_shares(runs: Runs) -> str:
    """Return what the seconds of all runs went into: "training 81 %, evaluation 10 %, …"."""
    spent = seconds_by_part(runs)
    total = spent.sum()
    parts = [f"{name} {seconds / total:.0%}" for name, seconds in spent.items() if total]
    return f"{', '.join(parts)} of {total:,.0f} s".strip()
