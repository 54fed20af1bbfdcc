"""Optional observers of runs. A new tracker is one file and one line in `TRACKERS`.

A driver asks `check` before work starts; whoever trains follows its runs by `track`:

    with track(names, out) as observer:
        observed = observer.started(config.run_id, as_dict(config))
        observed.logged(step, named(rows))  # at every evaluation
        observed.ended(outcome)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sims.runs.layout import which
from sims.system import extras
from sims.system.errors import QueryError
from sims.training.trackers.tensorboard import TensorBoard
from sims.training.trackers.tracker import Tracker
from sims.training.trackers.trackio import Trackio
from sims.training.trackers.wandb import WandB

TRACKERS: dict[str, Callable[[Path, str], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
}


def check(names: Iterable[str]) -> None:
    """Refuse trackers that cannot work, before anything else does.

    Raises:
        QueryError: no such tracker.
        MissingExtraError: its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise QueryError(f"unknown tracker {name!r}; the trackers are {', '.join(TRACKERS)}")
        # Not imported here: some tools settle where they write when they are.
        extras.check(name, name)


@contextmanager
def track(names: Sequence[str], out: Path) -> Iterator[Trackers]:
    """Follow runs with these trackers; whatever is still open in the end is ended as paused.

    Args:
        names: of `TRACKERS`; without any, nothing is followed.
        out: the folder of the runs; a tracker writes to out/trackers/<name>.
    """
    out = Path(out).resolve()
    observer = Trackers({name: partial(_make, name, out) for name in names})
    try:
        yield observer
    finally:
        observer.close()


def named(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return measured rows (`sims.runs.layout.ROWS`) as numbers by name.

    A name is object/site/quantity, and /`sims.runs.layout.which` of the row where that is not empty:
    "probe/final/h_peak/31:20 clean unseen".
    """
    named_rows = (((row["object"], row["site"], row["quantity"], which(row)), row["value"]) for row in rows)
    return {"/".join(part for part in parts if part): value for parts, value in named_rows}


class Trackers:
    """Trackers over several runs. One that fails is named in a warning once and switched off; runs never notice.

    Args:
        makers: how the tracker of one run is made, by name.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Tracker]]) -> None:
        self.makers = dict(makers)
        self.open: dict[str, TrackedRun] = {}

    def started(self, run_id: str, config: Mapping[str, Any]) -> TrackedRun:
        """Follow a run that begins or goes on."""
        if run_id in self.open:
            self.open[run_id].ended({"ended": "interrupted"})
        trackers: dict[str, Tracker] = {}
        for name, make in list(self.makers.items()):
            with self.guarded(name):
                trackers[name] = make()
                trackers[name].started(run_id, config)
        self.open[run_id] = TrackedRun(self, run_id, trackers)
        return self.open[run_id]

    def close(self) -> None:
        """End what is still open."""
        for observed in list(self.open.values()):
            observed.ended({"ended": "paused"})

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Let no error of a tracker through."""
        try:
            yield
        except Exception as error:
            if self.makers.pop(name, None) is not None:
                warnings.warn(
                    f"tracker {name} is switched off: {type(error).__name__}: {error}; the runs go on, and their "
                    "parquet files are complete",
                    RuntimeWarning,
                    stacklevel=3,
                )


class TrackedRun:
    """One run under observation; made by `Trackers.started`."""

    def __init__(self, observer: Trackers, run_id: str, trackers: Mapping[str, Tracker]) -> None:
        self.observer = observer
        self.run_id = run_id
        self.trackers = trackers

    def logged(self, step: int, numbers: Mapping[str, float]) -> None:
        """Pass on the finite ones of the numbers of a step."""
        finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
        self._each(lambda tracker: tracker.logged(step, finite))

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """Say how the run ended; nothing more is passed on afterwards."""
        self._each(lambda tracker: tracker.ended(outcome))
        self.trackers = {}
        self.observer.open.pop(self.run_id, None)

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in self.trackers.items():
            if name in self.observer.makers:
                with self.observer.guarded(name):
                    tell(tracker)


def _make(name: str, out: Path) -> Tracker:
    folder = out / "trackers" / name
    folder.mkdir(parents=True, exist_ok=True)
    return TRACKERS[name](folder, out.name)


__all__ = ["TRACKERS", "TrackedRun", "Tracker", "Trackers", "check", "named", "track"]
