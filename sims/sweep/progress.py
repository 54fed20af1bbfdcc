"""Read the progress of a sweep from its folders, and show it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from sims.pages.fitted import FittedTable
from sims.pages.number import counted
from sims.runs.spec import RunSpec
from sims.sweep.work import R, Work
from sims.system.errors import StoreError
from sims.system.files import read_object

# Seconds between two lines without a terminal; a new evaluation of the only run under way is shown at once.
PLAIN_SECONDS = 15.0
# Reading the folders costs at most this share of the driver's time, however many runs there are.
READING_SHARE = 0.1
READING_SECONDS = 0.5
# Begun: it trains now, or was paused at a rung or by an earlier call.
STATES = ("done", "begun", "failed", "waiting")


@dataclass
class RunProgress:
    """Hold the last known progress of one run.

    Attributes:
        config, cost, size: the run, its whole work in any unit, and the size of its steps as text.
        state: one of `STATES`.
        ended: why a complete run has ended: finished, target, diverged, pruned.
        step: last step in progress.json.
        val_loss, train_loss: in nats; None where they are unknown or not finite.
        speed: tokens a second; None where it is not measured.
        mfu: share of the device's peak rate; None where it is not measured.
        doing: present activity where it takes long, such as "measuring gradients 3/10".
    """

    config: RunSpec
    cost: float
    size: str
    state: str = "waiting"
    ended: str | None = None
    step: int = 0
    val_loss: float | None = None
    train_loss: float | None = None
    speed: float | None = None
    mfu: float | None = None
    doing: str = ""

    @property
    def work(self) -> float:
        """Return the cost of the work done; a run that ended early counts as a whole run, unless it was pruned."""
        whole = self.state == "done" and self.ended != "pruned"
        return self.cost if whole else self.cost * self.step / self.config.steps

    @property
    def tokens(self) -> int:
        """Return the training tokens that it has seen."""
        return self.step * self.config.tokens_per_step

    def read(self, folder: Path) -> None:
        """Read the files of the run's folder."""
        try:
            record = read_object(folder / "progress.json", "step", "ended", "val_loss")
        except StoreError:
            record = None
        if record:
            self.state, self.step, self.ended = "begun", record["step"], record["ended"]
            self.val_loss, self.train_loss = record["val_loss"], record.get("train_loss")
            self.speed, self.mfu = record.get("tokens_per_second"), record.get("mfu")
            self.doing = record.get("doing", "")
        # done.json is written last: a run may have ended by its progress.json and not yet stored its tables.
        if (folder / "done.json").exists():
            self.state = "done"
        elif (folder / "failed.json").exists():
            self.state = "failed"


class Progress:
    """Hold the progress of all runs of a sweep.

    Args:
        configs: the runs.
        out: folder of the run folders.
        work: gives the cost of a run and the size of its steps.
        shares: expected share of a run's steps that is trained, where runs are pruned; by default all.
    """

    def __init__(
        self,
        configs: Sequence[R],
        out: Path,
        work: Work[R],
        shares: Callable[[R], float] = lambda _: 1.0,
    ) -> None:
        self.out = out
        self.runs = {c.run_id: RunProgress(c, work.cost(c), work.size(c)) for c in configs}
        self.total = sum(work.cost(c) * shares(c) for c in dict.fromkeys(configs))
        # Work and tokens of each run that this process has found done; fewer, where a run goes on from an older state.
        self._found: dict[str, tuple[float, int]] = {}
        self.read()
        self._began = time.monotonic()

    def read(self) -> None:
        """Read the folders of all runs that are not yet done."""
        for name, run in self.runs.items():
            if run.state != "done":
                run.read(self.out / name)
            now = run.work, run.tokens
            self._found[name] = min(self._found.get(name, now), now)

    def count(self) -> Counter[str]:
        """Count the runs by state."""
        return Counter(r.state for r in self.runs.values())

    @property
    def begun(self) -> list[RunProgress]:
        """Return the runs that train now or are paused."""
        return [r for r in self.runs.values() if r.state == "begun"]

    @property
    def work(self) -> float:
        """Return the cost of the work done."""
        return sum(r.work for r in self.runs.values())

    @property
    def tokens(self) -> int:
        """Return the training tokens that all runs have seen."""
        return sum(r.tokens for r in self.runs.values())

    def rates(self) -> tuple[float | None, float | None]:
        """Return (seconds left, tokens per second), or None while unknown.

        Both assume the mean rate since the start of this process.
        """
        work, tokens = (sum(found[i] for found in self._found.values()) for i in (0, 1))
        elapsed, gained = time.monotonic() - self._began, self.work - work
        if elapsed < 1 or gained <= 0:
            return None, None
        return max(0.0, self.total - self.work) / (gained / elapsed), (self.tokens - tokens) / elapsed

    def cells(self) -> list[tuple[str, str, Counter[str], float | None]]:
        """Return (stage, size of a step, runs by state, lowest loss) by cell.

        The order is that of the runs; the loss is None before the first evaluation.
        """
        cells: dict[tuple[str, str], list[RunProgress]] = {}
        for run in self.runs.values():
            cells.setdefault((run.config.stage, run.size), []).append(run)
        found = []
        for (stage, size), runs in cells.items():
            losses = [r.val_loss for r in runs if r.val_loss is not None]
            found.append((stage, size, Counter(r.state for r in runs), min(losses, default=None)))
        return found


@contextmanager
def watching(progress: Progress, console: Console, threaded: bool = False) -> Iterator[Callable[[], None]]:
    """Yield a function that shows the progress when called.

    On a terminal it is a live table, otherwise a line at regular intervals.

    Args:
        progress: of the runs.
        console: where it is shown.
        threaded: also call the function from a thread, for a process that trains the runs itself.
    """
    with (
        Live(console=console, auto_refresh=False, transient=True)
        if console.is_terminal
        else _Lines(console) as shown
    ):
        last = [0.0, 0.0]  # time of the last reading of the folders, and its duration

        def watch() -> None:
            began = time.monotonic()
            if began - last[0] < max(READING_SECONDS, last[1] / READING_SHARE):
                return
            progress.read()
            if isinstance(shown, Live):
                shown.update(live_table(progress), refresh=True)
            else:
                shown.update(progress)
            last[:] = [time.monotonic(), time.monotonic() - began]

        watch()
        if threaded:
            with in_thread(watch):
                yield watch
        else:
            yield watch
        progress.read()
        if isinstance(shown, _Lines):
            shown.update(progress)


@contextmanager
def in_thread(watch: Callable[[], None]) -> Iterator[None]:
    """Call `watch` regularly from another thread."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(READING_SECONDS / 2):
            watch()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def live_table(progress: Progress) -> Group:
    """Draw a table of cells by state, a summary line and a bar."""
    rows = []
    for stage, size, states, loss in progress.cells():
        shown = "–" if loss is None else f"{loss:.3f}"
        rows.append([Text(t) for t in (stage, size, *(str(states[s] or "·") for s in STATES), shown)])
    table = FittedTable(("stage", "batch", *STATES, "lowest loss"), rows)
    share = progress.work / progress.total if progress.total else 1.0
    # The bar last: it does not end its line.
    return Group(table, Text(line(progress)), ProgressBar(total=1.0, completed=share, width=60))


def line(progress: Progress) -> str:
    """Summarise the progress in one line.

    It names runs by state, share of the work, time left, speed, and of the begun ones that with the most steps.
    """
    states = progress.count()
    parts = [f"{states['done']}/{counted(len(progress.runs), 'run')}"]
    parts += [f"{states[s]} {s}" for s in ("begun", "failed") if states[s]]
    share = progress.work / progress.total if progress.total else 1.0
    # The whole work is done when the tables of all runs are stored.
    most = 100 if states["done"] == len(progress.runs) else 99
    parts.append(f"{min(most, round(100 * share))}%")
    left, speed = progress.rates()
    if left is not None and speed is not None:
        parts += [f"about {duration(left)} left", f"{speed:,.0f} tokens/s"]
    used = [r.mfu for r in progress.begun if r.mfu is not None]
    if used:
        parts.append(f"MFU {sum(used) / len(used):.1%}")
    furthest = max(progress.begun, key=lambda r: r.step, default=None)
    if furthest is not None and furthest.val_loss is not None:
        c = furthest.config
        where = f"{c.stage}, batch {furthest.size}: step {furthest.step}, loss {furthest.val_loss:.3f}"
        parts.append(f"({where}{', ' + furthest.doing if furthest.doing else ''})")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Format seconds in one unit: 40 s, 12 min, 3.4 h, 12 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:,.0f} days"


def clock(seconds: float) -> str:
    """Format seconds in two units: 40 s, 12 min 05 s, 3 h 24 min."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


class _Lines:
    """Print plain lines into a file or a pipe."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last = time.monotonic()
        self.evaluation: tuple[str, float | None] | None = None

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, progress: Progress) -> None:
        begun = progress.begun
        evaluation = (begun[0].config.run_id, begun[0].val_loss) if len(begun) == 1 else None
        new = evaluation is not None and evaluation[1] is not None and evaluation != self.evaluation
        if new or time.monotonic() - self.last >= PLAIN_SECONDS:
            self.last, self.evaluation = time.monotonic(), evaluation
            self.console.print(line(progress), soft_wrap=True)
