"""Where the runs of a campaign stand, read from their folders, and how that is shown while they work."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sims.sweep.work import Planned, R, Work

PLAIN_SECONDS = 15.0
# Looking costs at most this share of the driver's time, however many runs there are.
LOOKING_SHARE = 0.1
LOOKING_SECONDS = 0.5
STATES = ("done", "running", "failed", "waiting")


@dataclass
class Run:
    """One run as it was last seen.

    Attributes:
        state: one of `STATES`.
        ended: why, of a run that is done: finished, target, diverged, pruned.
        step, val_loss: of its last evaluation; val_loss is None where it is unknown or not finite.
        mfu: share of the device's rate that its steps reach; None where nobody says.
    """

    config: Planned
    cost: float
    size: str
    state: str = "waiting"
    ended: str | None = None
    step: int = 0
    val_loss: float | None = None
    mfu: float | None = None


class Progress:
    """What is known of the runs of a campaign.

    Args:
        configs: the runs.
        out: folder of their folders.
        work: how they are carried out, which says what they cost and how large their steps are.
        shares: of each run's steps, which are expected to be trained where runs are pruned; by default all.
    """

    def __init__(
        self,
        configs: Sequence[R],
        out: Path,
        work: Work[R],
        shares: Callable[[R], float] = lambda _: 1.0,
    ) -> None:
        self.out = out
        self.runs = {c.run_id: Run(c, work.cost(c), work.size(c)) for c in configs}
        self.total = sum(work.cost(c) * shares(c) for c in dict.fromkeys(configs))
        self.look()
        self._began, self._cost, self._tokens = time.monotonic(), self.work, self.tokens

    def look(self) -> None:
        """Read the progress of every run that is not yet done."""
        for name, run in self.runs.items():
            if run.state == "done":
                continue
            folder = self.out / name
            try:
                record = json.loads((folder / "progress.json").read_bytes())
            except (OSError, ValueError):
                record = None
            if record:
                run.state, run.step, run.val_loss = "running", record["step"], record["val_loss"]
                run.ended, run.mfu = record["ended"], record.get("mfu")
            # The marker is what counts: a run whose last progress says so may not have kept its tables.
            if (folder / "done.json").exists():
                run.state = "done"
            elif (folder / "failed.json").exists():
                run.state = "failed"

    def count(self) -> Counter[str]:
        """Runs by state."""
        return Counter(r.state for r in self.runs.values())

    @property
    def work(self) -> float:
        """Cost of what is done; of a run that ended before its last step all of it, unless it was pruned."""
        whole = (r.state == "done" and r.ended != "pruned" for r in self.runs.values())
        return sum(
            r.cost if all_of_it else r.cost * r.step / r.config.steps
            for r, all_of_it in zip(self.runs.values(), whole, strict=True)
        )

    @property
    def tokens(self) -> int:
        """Training tokens seen by all runs."""
        return sum(r.step * r.config.tokens_per_step for r in self.runs.values())

    def rates(self) -> tuple[float | None, float | None]:
        """Seconds left at the rate since the campaign was started, and tokens a second; None while unknown."""
        elapsed, gained = time.monotonic() - self._began, self.work - self._cost
        if elapsed < 1 or gained <= 0:
            return None, None
        return (self.total - self.work) / (gained / elapsed), (self.tokens - self._tokens) / elapsed

    def cells(self) -> list[tuple[str, str, Counter[str], float | None]]:
        """(stage, size of a step, runs by state, lowest loss so far) of each cell, in the order of the plan."""
        cells: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs.values():
            cells.setdefault((run.config.stage, run.size), []).append(run)
        found = []
        for (stage, size), runs in cells.items():
            losses = [r.val_loss for r in runs if r.val_loss is not None]
            found.append((stage, size, Counter(r.state for r in runs), min(losses, default=None)))
        return found


@contextmanager
def watching(standing: Progress, console: Console) -> Iterator[Callable[[], None]]:
    """A function that shows where the runs stand: a live table on a terminal, a line now and then elsewhere."""
    with (
        Live(console=console, auto_refresh=False, transient=True)
        if console.is_terminal
        else _Lines(console) as shown
    ):
        last = [0.0, 0.0]  # when it was looked last, how long that took

        def watch() -> None:
            began = time.monotonic()
            if began - last[0] < max(LOOKING_SECONDS, last[1] / LOOKING_SHARE):
                return
            standing.look()
            if isinstance(shown, Live):
                shown.update(live_table(standing), refresh=True)
            else:
                shown.update(standing)
            last[:] = [time.monotonic(), time.monotonic() - began]

        watch()
        yield watch
        standing.look()


def live_table(standing: Progress) -> Group:
    """Cells by state, the whole, and what is left."""
    table = Table("stage", "batch", *STATES, "lowest loss", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for stage, size, states, loss in standing.cells():
        shown = "–" if loss is None else f"{loss:.3f}"
        table.add_row(stage, size, *(str(states[s] or "·") for s in STATES), shown)
    share = standing.work / standing.total if standing.total else 1.0
    # The bar last: it does not end its line.
    return Group(table, Text(line(standing)), ProgressBar(total=1.0, completed=share, width=60))


def line(standing: Progress) -> str:
    """The same in one line."""
    states = standing.count()
    parts = [f"{states['done']}/{len(standing.runs)} runs"]
    parts += [f"{states[s]} {s}" for s in ("running", "failed") if states[s]]
    parts.append(f"{standing.work / standing.total:.0%}" if standing.total else "100%")
    left, speed = standing.rates()
    if left is not None and speed is not None:
        parts += [f"about {duration(left)} left", f"{speed:,.0f} tokens/s"]
    used = [r.mfu for r in standing.runs.values() if r.state == "running" and r.mfu is not None]
    if used:
        parts.append(f"MFU {sum(used) / len(used):.1%}")
    furthest = max(
        (r for r in standing.runs.values() if r.state == "running"), key=lambda r: r.step, default=None
    )
    if furthest is not None and furthest.val_loss is not None:
        c = furthest.config
        parts.append(
            f"({c.stage}, batch {furthest.size}: step {furthest.step}, loss {furthest.val_loss:.3f})"
        )
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds in words: 40 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Lines:
    """Plain lines for a file or a pipe."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last = time.monotonic()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, standing: Progress) -> None:
        if time.monotonic() - self.last >= PLAIN_SECONDS:
            self.last = time.monotonic()
            self.console.print(line(standing), soft_wrap=True)
