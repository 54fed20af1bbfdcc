"""Record the snapshots of runs in training, and store states regularly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sims.system.process_group import SINGLE, ProcessGroup
from sims.system.signals import Interrupted
from sims.training.recorder import Recorder
from sims.training.snapshot import Snapshot

Left = Literal["ended", "stopped"]
# The runs of an ensemble at one step, each with its recorder.
Point = Sequence[tuple[Recorder, Snapshot]]


@dataclass(frozen=True)
class Terms:
    """Set how long to train, and how often to store.

    Args:
        until: pause, with the state stored, at the first regular evaluation at or after this step; None trains to the
            end.
        stopped: called at every snapshot; True in any process of the group stores the states and stops training.
        store_every: seconds between stored states: a killed process loses at most this much training.
        group: processes that share the runs.
    """

    until: int | None = None
    stopped: Callable[[], bool] = lambda: False
    store_every: float = 20.0
    group: ProcessGroup = SINGLE

    def leave(self, snapshot: Snapshot, eval_every: int) -> bool:
        """Return whether to stop or pause at this snapshot."""
        return self.group.agree(self.stopped()) or self.reached(snapshot.step, eval_every)

    def reached(self, step: int, eval_every: int) -> bool:
        """Return whether to pause at this step."""
        return self.until is not None and step >= self.until and step % eval_every == 0


def drive(points: Iterable[Point], terms: Terms, eval_every: int) -> Left:
    """Record snapshots until every run has ended, stopped or paused.

    Args:
        points: snapshots of all runs, step by step; the iterator advances after all runs of a step are recorded.
        terms: when to store and when to stop.
        eval_every: steps between regular evaluations.

    Returns:
        "ended", or "stopped" with all states stored.
    """
    over: list[Recorder] = []
    try:
        for point in points:
            living: list[tuple[Recorder, Snapshot]] = []
            for recorder, given in point:
                if recorder in over:
                    continue
                snapshot = recorder.see(given)
                if snapshot.ended is None:
                    living.append((recorder, snapshot))
                else:
                    recorder.finish(snapshot)
                    over.append(recorder)
            if not living:
                # Models without numbers to measure could train on.
                if all(given.ended is None for _, given in point):
                    break
                continue
            leaving = terms.leave(living[0][1], eval_every)
            oldest = min(recorder.stored_at for recorder, _ in living)
            # A run that is resumed at step 0 begins anew: rows stored here would come twice.
            if living[0][1].step > 0 and (leaving or time.monotonic() - oldest > terms.store_every):
                for recorder, snapshot in living:
                    recorder.store(snapshot)
            if leaving:
                return "stopped"
    except Interrupted:
        # The recorder has stored the state of this step; its measurement continues with the run.
        return "stopped"
    return "ended"
