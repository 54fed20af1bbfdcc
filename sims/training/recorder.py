"""Record a run while it trains: rows, spectra, weights, state, progress."""

from __future__ import annotations

import math
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sims.measure.measurement import StepObserver
from sims.measure.rows import MeasurementRows
from sims.runs.measurement_checkpoint import MeasurementCheckpoint
from sims.runs.spec import RunSpec
from sims.runs.store import RunFolder
from sims.runs.tensors import load_tensors
from sims.system.errors import EngineError, MeasureError, StoreError
from sims.system.files import write_json
from sims.system.process_group import SINGLE, ProcessGroup
from sims.training.measuring import RunMeasurement
from sims.training.snapshot import Snapshot
from sims.training.summary_workers import Rows, made, ready
from sims.training.trackers.registry import TrackedRun, named
from spectra.errors import NotFiniteError
from toymodel.errors import CheckpointError, ConfigError

# Seconds between updates of progress.json, which readers of the folder follow.
PROGRESS_SECONDS = 2.0
# Names of stored tensors that belong to the recorder, not to the model.
_VAL, _MEASURING = "run/val", "run/looking"
_OBSERVER = "observer/"


class Recorder:
    """Collect the results of one run and write them to its folder.

    With several processes each has a recorder, and the first process writes.

    Args:
        folder: folder of the run.
        config: the run.
        measurement: when and how it is measured.
        tracked: trackers of the run.
        seconds: wall time of an interrupted run so far, by part.
        group: processes that share the run.
        stopped: called during a long measurement; True interrupts it.
        observers: measure the run between its steps; their state is stored with that of the run.
        facts: further entries of the outcome in done.json.
        floor: lowest validation loss that is possible (nats); NaN where it is not known.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunSpec,
        measurement: RunMeasurement,
        tracked: TrackedRun | None = None,
        seconds: Mapping[str, float] | None = None,
        group: ProcessGroup = SINGLE,
        stopped: Callable[[], bool] = lambda: False,
        observers: Sequence[StepObserver] = (),
        facts: Mapping[str, Any] | None = None,
        floor: float = math.nan,
    ) -> None:
        self.folder, self.config, self.measurement = folder, config, measurement
        self.tracked, self.group, self.stopped = tracked, group, stopped
        self.observers, self.facts, self.floor = observers, facts or {}, floor
        self.pending: list[Rows] = []
        # What the trackers were not told yet, because rows of an earlier step are still being made.
        self.untold: list[Sequence[Rows]] = []
        self.seconds: dict[str, float] = defaultdict(float, seconds or {})
        self.val_loss: float | None = None
        self.stored: int | None = None
        self.stored_at = self.shown_at = time.monotonic()

    def restore(self, tensors: dict[str, Tensor], step: int) -> bool:
        """Remove the recorder's tensors from a stored state, and continue from them.

        Args:
            tensors: the stored state by name; afterwards it holds those of the model only.
            step: step of the state.

        Returns:
            Whether the run was interrupted while its model was measured, so that this step is evaluated again.

        Raises:
            CheckpointError: the state of an observer is missing.
        """
        self.stored = step
        value = tensors.pop(_VAL, None)
        self.val_loss = None if value is None or torch.isnan(value) else float(value)
        for observer in self.observers:
            prefix = f"{_OBSERVER}{observer.name}/"
            names = [name for name in tensors if name.startswith(prefix)]
            observer.load_state_dict({name.removeprefix(prefix): tensors.pop(name) for name in names})
        return bool(tensors.pop(_MEASURING, False))

    def see(self, snapshot: Snapshot) -> Snapshot:
        """Record the losses of a snapshot, and measurements that are due.

        Returns:
            The snapshot, as one of a run that has diverged where its model has a loss and no numbers to measure.

        Raises:
            Interrupted: a long measurement was asked to stop; everything is stored.
        """
        for part, seconds in snapshot.seconds.items():
            self.seconds[part] += seconds
        found: list[Rows] = [rows for observer in self.observers for rows in observer.flush()]
        self.pending += found
        if snapshot.val_loss is not None:
            rows, snapshot = self._evaluated(snapshot)
            found += rows
        elif snapshot.ended == "diverged":
            self._keep_stored_weights()
        elif time.monotonic() - self.shown_at > PROGRESS_SECONDS:
            self._progress(snapshot)
        self._report(found)
        return snapshot

    def _evaluated(self, snapshot: Snapshot) -> tuple[list[Rows], Snapshot]:
        """Record an evaluation, and measure the model where that is due; return the new rows and the snapshot."""
        if self.measurement.lasts and self.measurement.due(snapshot) and self.stored != snapshot.step:
            self.store(snapshot, measuring=True)
        self.val_loss = snapshot.val_loss
        found: list[Rows] = [_losses(snapshot, self.floor)]
        self.pending += found
        try:
            found += self._measure(snapshot)
        except NotFiniteError as error:
            # A process that left would leave the others waiting.
            if self.group.size > 1:
                raise
            snapshot = replace(snapshot, ended="diverged", reason=f"step {snapshot.step}: {error}")
        self._progress(snapshot)
        return found, snapshot

    def _report(self, found: Sequence[Rows]) -> None:
        """Report rows that are there to the trackers, each under its own step and in the order of steps."""
        if self.tracked is None:
            return
        self.untold.append(found)
        while self.untold and all(ready(rows) for rows in self.untold[0]):
            by_step: dict[int, list[dict[str, Any]]] = {}
            for rows in map(made, self.untold.pop(0)):
                by_step.setdefault(rows.step, []).extend(rows.rows)
            for step in sorted(by_step):
                self.tracked.logged(step, named(by_step[step]))

    def _measure(self, snapshot: Snapshot) -> list[Rows]:
        """Store the weights and measure the model, where they are due; return the new rows."""
        if self.measurement.keeps_weights(snapshot):
            began = time.perf_counter()
            if self.group.first:
                self.folder.keep_checkpoint(self.config, snapshot.step, snapshot.model.weights())
            self.seconds["writing"] += time.perf_counter() - began
        if not self.measurement.due(snapshot):
            return []
        began = time.perf_counter()
        keeper = None
        if self.measurement.lasts and self.stored == snapshot.step:
            keeper = MeasurementCheckpoint(self.folder, self.config, snapshot.step, self.group)

        def progress(part: str, done: int, total: int) -> None:
            if time.monotonic() - self.shown_at > PROGRESS_SECONDS:
                self._progress(snapshot, f"measuring {part} {done}/{total}")

        measured = self.measurement(snapshot.model.subject(), keeper, progress, self.stopped)
        self.pending.append(measured)
        self.seconds["measurement"] += time.perf_counter() - began
        return [measured]

    def store(self, snapshot: Snapshot, measuring: bool = False) -> None:
        """Store all results so far, and the state to continue from.

        Args:
            snapshot: of the present step.
            measuring: whether the model of this step is not yet measured; a process that continues from this state
                evaluates the step again.
        """
        # Parts are written before the state: without its parts, a state would lose rows; parts without a state are
        # measured again. The results of a step that is not yet measured belong to the next part.
        upto = _part(snapshot.step, measuring)
        self._flush(upto)
        began = time.perf_counter()
        if self.group.first:
            state = {**snapshot.model.state(), **self._state(measuring)}
            self.folder.keep_state(self.config, snapshot.step, state, self.seconds, upto)
        self.seconds["writing"] += time.perf_counter() - began
        self.stored, self.stored_at = snapshot.step, time.monotonic()

    def _state(self, measuring: bool) -> dict[str, Tensor]:
        """Return the recorder's tensors of a stored state."""
        state = {
            f"{_OBSERVER}{observer.name}/{name}": tensor
            for observer in self.observers
            for name, tensor in observer.state_dict().items()
        }
        if self.measurement.lasts:
            state[_MEASURING] = torch.tensor(measuring)
        value = float("nan") if self.val_loss is None else self.val_loss
        return {**state, _VAL: torch.tensor(value, dtype=torch.float64)}

    def _flush(self, part: int) -> None:
        """Store the pending rows and spectra as the part of this number, all of them: wait for those being made."""
        if not all(map(ready, self.pending)):
            began = time.perf_counter()
            for rows in self.pending:
                made(rows)
            self.seconds["measurement"] += time.perf_counter() - began
        sheets = [made(rows) for rows in self.pending]
        self._report(())
        began = time.perf_counter()
        rows = [row for found in sheets for row in found.rows]
        spectra = [spectrum for found in sheets for spectrum in found.spectra]
        if self.group.first:
            self.folder.keep_part(part, rows, spectra)
        self.pending.clear()
        self.seconds["writing"] += time.perf_counter() - began

    def _keep_stored_weights(self) -> None:
        """Store the weights of the last stored state, which precede the divergence."""
        file = self.folder.path / "state.safetensors"
        if self.group.first and file.exists():
            step, tensors = load_tensors(file, self.config)
            prefix = "param/"
            weights = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
            self.folder.keep_checkpoint(self.config, step, weights)

    def finish(self, snapshot: Snapshot) -> None:
        """Store the remaining results and mark the run complete."""
        self._flush(_part(snapshot.step))
        outcome = {
            "ended": snapshot.ended,
            "step": snapshot.step,
            "tokens": snapshot.tokens,
            "val_loss": self.val_loss,
            **self.facts,
            "seconds": dict(self.seconds),
        }
        if snapshot.reason:
            outcome["reason"] = snapshot.reason
        if self.group.first:
            self.folder.finish(outcome)
        if self.tracked is not None:
            self.tracked.ended(outcome)

    def _progress(self, snapshot: Snapshot, doing: str = "") -> None:
        """Write the position of the run to progress.json."""
        began = time.perf_counter()
        if self.group.first:
            more = {**snapshot.speed, "train_loss": snapshot.train_loss, "doing": doing}
            write_progress(
                self.folder, snapshot.step, self.config.steps, self.val_loss, snapshot.ended, **more
            )
        self.shown_at = time.monotonic()
        self.seconds["writing"] += time.perf_counter() - began


def _part(step: int, measuring: bool = False) -> int:
    """Return the number of a part: each step has one before its measurement and one after it."""
    return 2 * step + (not measuring)


def _losses(snapshot: Snapshot, floor: float) -> MeasurementRows:
    """Return the rows of an evaluation, in nats: validation and training loss, and the former above its floor."""
    assert snapshot.val_loss is not None
    rows = MeasurementRows(snapshot.step, snapshot.tokens)
    rows.row("val_loss", "loss", "validation", snapshot.val_loss)
    if snapshot.train_loss is not None:
        rows.row("train_loss", "loss", "training", snapshot.train_loss)
    if not math.isnan(floor):
        rows.row("excess", "loss", "validation", snapshot.val_loss - floor)
    return rows


def write_progress(
    folder: RunFolder, step: int, steps: int, val_loss: float | None, ended: str | None, **more: Any
) -> None:
    """Write the position of a run to progress.json.

    Args:
        folder: folder of the run.
        step, steps: steps done, and of the whole run.
        val_loss: of the last evaluation; None before the first.
        ended: why the run has ended; None while it continues.
        more: train_loss, tokens_per_second, mfu, doing; those without a value are left out.
    """
    record = {"step": step, "steps": steps, "val_loss": val_loss, "ended": ended}
    record |= {name: value for name, value in more.items() if value not in (None, "")}
    write_json(folder.path / "progress.json", record)


def record_failure(folder: RunFolder, error: Exception) -> str:
    """Record why a run failed; return the reason in one line.

    A `StoreError` is not recorded: its cause is the disk or the folder, and the run can be tried again.
    """
    named = isinstance(error, StoreError | CheckpointError | ConfigError | MeasureError | EngineError)
    reason = str(error) if named else f"{type(error).__name__}: {error}"
    reason = " ".join(reason.split()) or type(error).__name__
    if isinstance(error, StoreError):
        return reason
    with suppress(StoreError):
        # Where nothing can be written, the caller is told the reason all the same.
        folder.fail(reason, "".join(traceback.format_exception(error)))
    return reason
