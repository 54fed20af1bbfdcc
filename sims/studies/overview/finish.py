"""How a command that trained runs ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from sims.pages.answer import Answer
from sims.runs.store import run_folders
from sims.studies.overview.findings import nothing_to_report, report_runs
from sims.studies.overview.page import write_report
from sims.studies.overview.side_by_side import show_side_by_side
from sims.studies.overview.terminal import print_summary, summary
from sims.sweep.show import show_failures


def finish(out: Path, failed: Mapping[str, str], console: Console, answer: Answer | None = None) -> int:
    """Print the failures and the summary of a folder of runs, and write its report.html.

    Runs that a report cannot compare are shown side by side instead, cell by cell.

    Args:
        out: folder of the runs.
        failed: {run id: error}.
        console: where to print.
        answer: gets the summary as tables, in place of the console.

    Returns:
        The exit status: 1 if a run failed, else 0.
    """
    if answer is not None:
        answer["failed"] = dict(failed)
    show_failures(failed, console)
    if failed and not any(folder.done for folder in run_folders(out)):
        # There is nothing to report.
        return 1
    runs, notes = report_runs(out)
    reason = nothing_to_report(runs)
    if reason is None:
        if answer is None:
            print_summary(runs, notes, console)
        page = write_report(out, runs, notes)
        console.print(f"report: {page}", soft_wrap=True, markup=False)
        if answer is not None:
            answer |= {**summary(runs), "notes": notes, "page": page}
    else:
        show_side_by_side((out,), answer=answer)
        console.print(f"no report: {reason}", soft_wrap=True, highlight=False, markup=False)
    return 1 if failed else 0
