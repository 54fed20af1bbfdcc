"""What one run has found since its last stored part, on its way into the run's folder."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

from sims.measure.measure import MeasurementData, measure
from sims.measure.rows import MeasurementRows
from sims.models.transformer import TransformerSubject
from sims.runs.store import RunFolder
from sims.system.files import write_json
from sims.training.trackers.registry import Observed, named
from toymodel.config import RunConfig
from toymodel.ensemble import dataset
from toymodel.train import Snapshot


class Recorder:
    """Measures one member of an ensemble at its snapshots and keeps what it found.

    Args:
        folder: where it is stored.
        config, instruments: the run and what it is measured with.
        observed: told of everything that is measured.
        seconds: what the run has cost already, by part, before it was interrupted.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        instruments: MeasurementData,
        observed: Observed,
        seconds: Mapping[str, float],
    ) -> None:
        self.folder = folder
        self.config = config
        self.instruments = instruments
        self.observed = observed
        self.pending: list[MeasurementRows] = []
        self.seconds: dict[str, float] = defaultdict(float, seconds)

    def look(self, snapshot: Snapshot, k: int) -> None:
        """Record the losses of member k, and measure it when it is time or the run ends."""
        known = len(self.pending)
        sheet = MeasurementRows(snapshot.step, snapshot.tokens)
        sheet.row("val_loss", "loss", "validation", snapshot.val_losses[k])
        if snapshot.step > 0:
            sheet.row("train_loss", "loss", "training", snapshot.train_losses[k])
        self.pending.append(sheet)
        for part, seconds in snapshot.seconds.items():
            self.seconds[part] += seconds / len(snapshot.configs)
        ended = snapshot.ended[k]
        if self._due(snapshot.step, ended) and ended != "diverged":
            self._measure(snapshot, k)
        self._progress(snapshot.step, snapshot.val_losses[k], ended)
        self.observed.logged(snapshot.step, named(row for s in self.pending[known:] for row in s.rows))

    def _due(self, step: int, ended: str | None) -> bool:
        measuring = self.instruments.config
        early = step <= measuring.early * self.config.eval_every
        return early or step % measuring.every == 0 or ended is not None

    def _measure(self, snapshot: Snapshot, k: int) -> None:
        began = time.perf_counter()
        params = {name: p.detach()[k : k + 1] for name, p in snapshot.ensemble.params.items()}
        self.pending.append(measure(TransformerSubject(self.config, params, snapshot.step), self.instruments))
        self.seconds["measurement"] += time.perf_counter() - began
        if self.instruments.config.checkpoints:
            began = time.perf_counter()
            self.folder.keep_checkpoint(self.config, snapshot.step, snapshot.ensemble.weights(k))
            self.seconds["writing"] += time.perf_counter() - began

    def _progress(self, step: int, val_loss: float, ended: str | None) -> None:
        began = time.perf_counter()
        write_progress(self.folder, step, self.config.steps, val_loss, ended)
        self.seconds["writing"] += time.perf_counter() - began

    def keep(self, snapshot: Snapshot, k: int) -> None:
        """Store everything found so far, and the state to go on from.

        Parts first: a state without its parts would lose rows, parts without a state are redone.
        """
        self._flush(snapshot.step)
        began = time.perf_counter()
        self.folder.keep_state(self.config, snapshot.step, snapshot.ensemble.state(k), self.seconds)
        self.seconds["writing"] += time.perf_counter() - began

    def _flush(self, step: int) -> None:
        began = time.perf_counter()
        rows = [row for sheet in self.pending for row in sheet.rows]
        spectra = [spectrum for sheet in self.pending for spectrum in sheet.spectra]
        self.folder.keep_part(step, rows, spectra)
        self.pending.clear()
        self.seconds["writing"] += time.perf_counter() - began

    def finish(self, snapshot: Snapshot, k: int) -> None:
        """Store the rest and mark the run complete."""
        self._flush(snapshot.step)
        outcome = {
            "ended": snapshot.ended[k],
            "step": snapshot.step,
            "tokens": snapshot.tokens,
            "val_loss": snapshot.val_losses[k],
            "validation_overlap": dataset(self.config.task).overlap,
            "seconds": dict(self.seconds),
        }
        self.folder.finish(outcome)
        self.observed.ended(outcome)


def write_progress(folder: RunFolder, step: int, steps: int, val_loss: float, ended: str | None) -> None:
    """Where a run stands, for whoever watches its folder."""
    record = {"step": step, "steps": steps, "val_loss": val_loss, "ended": ended}
    write_json(folder.path / "progress.json", record)
