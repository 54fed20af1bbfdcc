"""Records a run while it trains: rows and spectra, weights, the state to continue from, progress, trackers."""

from __future__ import annotations

import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sims.measure.measurement import StepObserver
from sims.measure.rows import MeasurementRows
from sims.runs.spec import RunSpec
from sims.runs.store import MeasurementCheckpoint, RunFolder
from sims.runs.tensors import load_tensors
from sims.system.errors import EngineError, MeasureError, StoreError
from sims.system.files import write_json
from sims.system.process_group import SINGLE, ProcessGroup
from sims.training.measuring import RunMeasurement
from sims.training.snapshot import Snapshot
from sims.training.trackers.registry import TrackedRun, named
from toymodel.errors import CheckpointError, ConfigError

# Whoever watches the folder of a run sees its position at least this often.
PROGRESS_SECONDS = 2.0
# Tensors of a stored state that belong to the recorder, not to the model.
_VAL, _MEASURING = "run/val", "run/looking"
_OBSERVER = "observer/"


class Recorder:
    """What one run has found since its last stored part, on its way into the run's folder.

    With several processes every one has a recorder; the first one writes.

    Args:
        folder: of the run.
        config: the run.
        measurement: when and how it is measured.
        observed: trackers of the run.
        seconds: what the run has cost already by part, before it was interrupted.
        group: processes that share the run.
        stopped: asked while a long measurement works.
        observers: measure the run between its steps; their state is stored with that of the run.
        facts: more of the outcome than the training says.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunSpec,
        measurement: RunMeasurement,
        observed: TrackedRun | None = None,
        seconds: Mapping[str, float] | None = None,
        group: ProcessGroup = SINGLE,
        stopped: Callable[[], bool] = lambda: False,
        observers: Sequence[StepObserver] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.config, self.measurement = folder, config, measurement
        self.observed, self.group, self.stopped = observed, group, stopped
        self.observers, self.facts = observers, facts or {}
        self.pending: list[MeasurementRows] = []
        self.seconds: dict[str, float] = defaultdict(float, seconds or {})
        self.val_loss: float | None = None
        self.stored: int | None = None
        self.stored_at = self.shown_at = time.monotonic()

    def restore(self, tensors: dict[str, Tensor], step: int) -> bool:
        """Take the recorder's own tensors out of a stored state.

        Returns:
            Whether the run was interrupted while its model was measured: the evaluation of this step is repeated.

        Raises:
            CheckpointError: an observer does not find its state.
        """
        self.stored = step
        value = tensors.pop(_VAL, None)
        self.val_loss = None if value is None or torch.isnan(value) else float(value)
        for observer in self.observers:
            prefix = f"{_OBSERVER}{observer.name}/"
            names = [name for name in tensors if name.startswith(prefix)]
            observer.load_state_dict({name.removeprefix(prefix): tensors.pop(name) for name in names})
        return bool(tensors.pop(_MEASURING, False))

    def see(self, snapshot: Snapshot) -> None:
        """Record a snapshot: losses where it was evaluated, and measurements where they are due.

        Raises:
            Interrupted: a long measurement was told to stop; everything is stored.
        """
        for part, seconds in snapshot.seconds.items():
            self.seconds[part] += seconds
        known = len(self.pending)
        for observer in self.observers:
            self.pending += observer.flush()
        if snapshot.ended == "diverged" and snapshot.val_loss is None:
            self._keep_stored_weights()
            return
        if snapshot.val_loss is None:
            if time.monotonic() - self.shown_at > PROGRESS_SECONDS:
                self._progress(snapshot)
            return
        if self.measurement.lasts and self.measurement.due(snapshot) and self.stored != snapshot.step:
            self.store(snapshot, measuring=True)
            known = 0
        self.val_loss = snapshot.val_loss
        self.pending.append(_losses(snapshot))
        self._measure(snapshot)
        self._progress(snapshot)
        if self.observed is not None:
            self.observed.logged(
                snapshot.step, named(row for sheet in self.pending[known:] for row in sheet.rows)
            )

    def _measure(self, snapshot: Snapshot) -> None:
        if self.measurement.keeps_weights(snapshot):
            began = time.perf_counter()
            if self.group.first:
                self.folder.keep_checkpoint(self.config, snapshot.step, snapshot.model.weights())
            self.seconds["writing"] += time.perf_counter() - began
        if not self.measurement.due(snapshot):
            return
        began = time.perf_counter()
        keeper = None
        if self.measurement.lasts and self.stored == snapshot.step:
            keeper = MeasurementCheckpoint(self.folder, self.config, snapshot.step, self.group)

        def tell(part: str, done: int, total: int) -> None:
            if time.monotonic() - self.shown_at > PROGRESS_SECONDS:
                self._progress(snapshot, f"measuring {part} {done}/{total}")

        self.pending.append(self.measurement(snapshot.model.subject(), keeper, tell, self.stopped))
        self.seconds["measurement"] += time.perf_counter() - began

    def store(self, snapshot: Snapshot, measuring: bool = False) -> None:
        """Store everything found so far, and the state to continue from.

        Parts first: a state without its parts would lose rows, parts without a state are measured again.

        Args:
            snapshot: of the step that was reached.
            measuring: the model of this step is still to be measured; its evaluation is repeated by a later process.
        """
        # What is found at a step that is still to be measured follows in a part of its own.
        upto = snapshot.step - measuring
        self._flush(upto)
        began = time.perf_counter()
        if self.group.first:
            state = {**snapshot.model.state(), **self._state(measuring)}
            self.folder.keep_state(self.config, snapshot.step, state, self.seconds, upto)
        self.seconds["writing"] += time.perf_counter() - began
        self.stored, self.stored_at = snapshot.step, time.monotonic()

    def _state(self, measuring: bool) -> dict[str, Tensor]:
        state = {
            f"{_OBSERVER}{observer.name}/{name}": tensor
            for observer in self.observers
            for name, tensor in observer.state_dict().items()
        }
        if self.measurement.lasts:
            state[_MEASURING] = torch.tensor(measuring)
        value = float("nan") if self.val_loss is None else self.val_loss
        return {**state, _VAL: torch.tensor(value, dtype=torch.float64)}

    def _flush(self, step: int) -> None:
        began = time.perf_counter()
        rows = [row for sheet in self.pending for row in sheet.rows]
        spectra = [spectrum for sheet in self.pending for spectrum in sheet.spectra]
        if self.group.first:
            self.folder.keep_part(step, rows, spectra)
        self.pending.clear()
        self.seconds["writing"] += time.perf_counter() - began

    def _keep_stored_weights(self) -> None:
        """Keep the weights of the last stored state, from before the step whose loss went wrong."""
        file = self.folder.path / "state.safetensors"
        if self.group.first and file.exists():
            step, tensors = load_tensors(file, self.config)
            prefix = "param/"
            weights = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
            self.folder.keep_checkpoint(self.config, step, weights)

    def finish(self, snapshot: Snapshot) -> None:
        """Store the rest and mark the run complete."""
        self._flush(snapshot.step)
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
        if self.observed is not None:
            self.observed.ended(outcome)

    def _progress(self, snapshot: Snapshot, doing: str = "") -> None:
        began = time.perf_counter()
        if self.group.first:
            more = {**snapshot.speed, "train_loss": snapshot.train_loss, "doing": doing}
            write_progress(
                self.folder, snapshot.step, self.config.steps, self.val_loss, snapshot.ended, **more
            )
        self.shown_at = time.monotonic()
        self.seconds["writing"] += time.perf_counter() - began


def _losses(snapshot: Snapshot) -> MeasurementRows:
    """Return the rows of an evaluation."""
    assert snapshot.val_loss is not None
    sheet = MeasurementRows(snapshot.step, snapshot.tokens)
    sheet.row("val_loss", "loss", "validation", snapshot.val_loss)
    if snapshot.train_loss is not None:
        sheet.row("train_loss", "loss", "training", snapshot.train_loss)
    return sheet


def write_progress(
    folder: RunFolder, step: int, steps: int, val_loss: float | None, ended: str | None, **more: Any
) -> None:
    """Write the position of a run for those who watch its folder.

    Args:
        folder: of the run.
        step, steps: steps done, of how many.
        val_loss: of the last evaluation, None before the first.
        ended: why the run has ended, None while it continues.
        more: further facts: train_loss, tokens_per_second, mfu, doing; those without a value are left out.
    """
    record = {"step": step, "steps": steps, "val_loss": val_loss, "ended": ended}
    record |= {name: value for name, value in more.items() if value not in (None, "")}
    write_json(folder.path / "progress.json", record)


def record_failure(folder: RunFolder, error: Exception) -> str:
    """Record why a run failed, where the disk allows it; returns the reason in one line."""
    named = isinstance(error, StoreError | CheckpointError | ConfigError | MeasureError | EngineError)
    reason = str(error) if named else f"{type(error).__name__}: {error}"
    reason = " ".join(reason.split()) or type(error).__name__
    if isinstance(error, StoreError):
        # The disk or the folder, not the run: trying again is right once it is repaired.
        return reason
    folder.fail(reason, "".join(traceback.format_exception(error)))
    return reason
