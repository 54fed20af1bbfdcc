"""Report runs to tracking tools.

A new tracker is one file and one line in `TRACKERS`.

Call `check` before work starts, and `track` around the training of the runs:

    with track(names, out) as trackers:
        tracked = trackers.started(config.run_id, as_dict(config))
        tracked.logged(step, named(rows))  # at every evaluation
        tracked.ended(outcome)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sims.runs.columns import which
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
    """Refuse trackers that are unknown or not installed.

    Raises:
        QueryError: no such tracker.
        MissingExtraError: its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise QueryError(f"unknown tracker {name!r}; the trackers are {', '.join(TRACKERS)}")
        # The package is not imported here: some tools fix their folder at import.
        extras.check(name, name)


@contextmanager
def track(names: Sequence[str], out: Path) -> Iterator[Trackers]:
    """Yield trackers of runs; runs still open at the end are paused.

    Args:
        names: keys of `TRACKERS`; may be empty.
        out: folder of the runs; a tracker writes to out/trackers/<name>.
    """
    out = Path(out).resolve()
    trackers = Trackers({name: partial(make, name, out) for name in names})
    try:
        yield trackers
    finally:
        trackers.close()


def named(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return measured rows (`sims.runs.layout.ROWS`) as numbers by name.

    A name is object/site/quantity, and /`sims.runs.columns.which` of the row where that is not empty:
    "probe/final/h_peak/31:20 clean unseen".
    """
    named_rows = (((row["object"], row["site"], row["quantity"], which(row)), row["value"]) for row in rows)
    return {"/".join(part for part in parts if part): value for parts, value in named_rows}


class Trackers:
    """Report several runs to their trackers.

    A tracker that fails is switched off, with one warning that names it; training is not affected.

    Args:
        makers: {name: function that creates the tracker of one run}.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Tracker]]) -> None:
        self.makers = dict(makers)
        self.open: dict[str, TrackedRun] = {}

    def started(self, run_id: str, config: Mapping[str, Any]) -> TrackedRun:
        """Start to report a run that begins or continues."""
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
        """End the reports of all runs still open, as paused."""
        for tracked in list(self.open.values()):
            tracked.ended({"ended": "paused"})

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Switch a tracker off with a warning when it fails."""
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
    """Report one run to its trackers; created by `Trackers.started`."""

    def __init__(self, owner: Trackers, run_id: str, trackers: Mapping[str, Tracker]) -> None:
        self.owner = owner
        self.run_id = run_id
        self.trackers = trackers

    def logged(self, step: int, numbers: Mapping[str, float]) -> None:
        """Report the finite numbers of a step."""
        finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
        self._each(lambda tracker: tracker.logged(step, finite))

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """Report how the run ended; later calls report nothing."""
        self._each(lambda tracker: tracker.ended(outcome))
        self.trackers = {}
        self.owner.open.pop(self.run_id, None)

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in self.trackers.items():
            if name in self.owner.makers:
                with self.owner.guarded(name):
                    call(tracker)


def make(name: str, out: Path) -> Tracker:
    """Return a tracker of one run that writes below a folder of runs."""
    folder = out / "trackers" / name
    folder.mkdir(parents=True, exist_ok=True)
    return TRACKERS[name](folder, out.name)
