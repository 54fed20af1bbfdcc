"""A look on a terminal: progress, the table by layer, the findings; or one JSON object."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sims.pages.answer import Answer
from sims.pages.plain import show_table
from sims.studies.look.findings import NAMED, findings
from sims.studies.look.tables import KEY, every_row, few_blocks, narrow
from sims.system.plain import some

if TYPE_CHECKING:
    from sims.studies.look.look import Look


class Bar:
    """Show progress on stderr where it is a terminal; a `sims.studies.look.look.Progress`."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        self.progress = Progress(
            *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal, transient=True
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, part: str, done: int, total: int) -> None:
        if part not in self.tasks:
            self.tasks[part] = self.progress.add_task(part, total=total)
        self.progress.update(self.tasks[part], completed=done)


def show(look: Look, *, everything: bool = False, answer: Answer | None = None) -> None:
    """Print the table by layer and the findings.

    Args:
        look: what was found.
        everything: every number of every block.
        answer: gets findings, rows and what was not measured, in place of the terminal.
    """
    said = [finding.text for finding in findings(look)]
    if answer is not None:
        facts = {"name": look.name, "kind": look.kind, "step": look.step, "text": look.text or None}
        told = {"findings": said, "notes": look.notes, "skipped": look.skipped}
        answer |= {**facts, **told, "rows": look.rows}
        return
    if everything:
        table, note = every_row(look.rows), ""
    else:
        few, blocks = few_blocks(look.rows)
        table = narrow(few)
        every = narrow(look.rows)
        left = len(every.rows) - len(table.rows)
        more = f"{left} {'matrix' if left == 1 else 'matrices'} more with --all"
        note = f"blocks {', '.join(map(str, blocks))}; {more}" if left else ""
    show_table(table.columns, table.rows, left=len(table.text), narrow=True)
    skipped = [f"{name} ({why})" for name, why in look.skipped.items()]
    left = f"tensors that are not measured: {some(skipped, NAMED)}" if skipped else ""
    for line in (KEY, note, left, *look.notes):
        if line:
            print(line, file=sys.stderr)
    for text in said:
        print(text)
