"""Training, measuring and storing runs of one shape, so that a killed process loses seconds and no file."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sims.bridge import ToySubject
from sims.config import MeasureConfig
from sims.errors import StoreError
from sims.files import write_json
from sims.measure import Instruments, measure, prepare
from sims.measure.rows import Sheet
from sims.provenance import provenance
from sims.store import RunFolder
from toymodel.config import RunConfig
from toymodel.ensemble import Ensemble, dataset
from toymodel.errors import CheckpointError
from toymodel.train import Snapshot, train

# At most this much training is lost when a process is killed.
SECONDS_BETWEEN_STATES = 20.0


class Recorder:
    """What one run has found since its last stored part, and the seconds it has cost.

    Args:
        folder: where it is stored.
        config, instruments: the run and what it is measured with.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, instruments: Instruments) -> None:
        self.folder = folder
        self.config = config
        self.instruments = instruments
        self.pending: list[Sheet] = []
        self.seconds: dict[str, float] = defaultdict(float)

    def look(self, snapshot: Snapshot, k: int) -> None:
        """Record the losses of member k, and measure it when it is time or the run ends."""
        sheet = Sheet(snapshot.step, snapshot.tokens)
        sheet.row("val_loss", "loss", "validation", snapshot.val_losses[k])
        if snapshot.step > 0:
            sheet.row("train_loss", "loss", "training", snapshot.train_losses[k])
        self.pending.append(sheet)
        for part, seconds in snapshot.seconds.items():
            self.seconds[part] += seconds / len(snapshot.configs)
        ended = snapshot.ended[k]
        due = snapshot.step % self.instruments.config.every == 0 or ended is not None
        if due and ended != "diverged":
            self._measure(snapshot, k)
        write_progress(self.folder, snapshot.step, self.config.steps, snapshot.val_losses[k], ended)

    def _measure(self, snapshot: Snapshot, k: int) -> None:
        began = time.perf_counter()
        params = {name: p.detach()[k : k + 1] for name, p in snapshot.ensemble.params.items()}
        self.pending.append(measure(ToySubject(self.config, params, snapshot.step), self.instruments))
        self.seconds["measurement"] += time.perf_counter() - began
        if self.instruments.config.checkpoints:
            began = time.perf_counter()
            self.folder.keep_checkpoint(self.config, snapshot.step, snapshot.ensemble.weights(k))
            self.seconds["writing"] += time.perf_counter() - began

    def flush(self, step: int) -> None:
        """Store everything found so far."""
        began = time.perf_counter()
        rows = [row for sheet in self.pending for row in sheet.rows]
        spectra = [spectrum for sheet in self.pending for spectrum in sheet.spectra]
        self.folder.keep_part(step, rows, spectra)
        self.pending.clear()
        self.seconds["writing"] += time.perf_counter() - began

    def finish(self, snapshot: Snapshot, k: int) -> None:
        """Store the rest and mark the run complete."""
        self.flush(snapshot.step)
        data = dataset(self.config.task)
        self.folder.finish(
            {
                "ended": snapshot.ended[k],
                "step": snapshot.step,
                "tokens": snapshot.tokens,
                "val_loss": snapshot.val_losses[k],
                "validation_overlap": data.overlap,
                "seconds": dict(self.seconds),
            }
        )


def run_group(configs: Sequence[RunConfig], measuring: MeasureConfig, out: Path, device: str = "cpu") -> None:
    """Bring runs of one shape to their end, each in its own folder below `out`.

    Complete runs are left as they are; interrupted ones go on from their last stored state. Runs that stand at
    the same step train as one ensemble: a run's numbers do not depend on its company.

    Raises:
        MeasureError: before any training.
        StoreError: a folder or a state could not be used; the other runs have finished by then.
    """
    for config in configs:
        measuring.check(config)
    origin = provenance(device)
    waiting: dict[int, list[tuple[RunConfig, RunFolder, Mapping[str, Any] | None]]] = defaultdict(list)
    refused = []
    for config in configs:
        folder = RunFolder(out / config.run_id)
        try:
            folder.start(config, measuring, origin)
            if not folder.done:
                found = folder.resume(config)
                step, state = found if found else (0, None)
                waiting[step].append((config, folder, state))
        except (StoreError, CheckpointError) as error:
            # One unusable folder must not take the rest of its ensemble with it.
            refused.append(str(error))
    for step, group in sorted(waiting.items()):
        _train_and_record(step, group, measuring, device)
    if refused:
        raise StoreError("; ".join(refused))


def _train_and_record(
    step: int,
    group: Sequence[tuple[RunConfig, RunFolder, Mapping[str, Any] | None]],
    measuring: MeasureConfig,
    device: str,
) -> None:
    configs = [config for config, _, _ in group]
    states = [state for _, _, state in group if state is not None]
    ensemble = Ensemble.from_states(configs, states, step, device) if states else Ensemble(configs, device)
    recorders = {
        config: Recorder(folder, config, instruments)
        for (config, folder, _), instruments in zip(
            group, _instruments(configs, measuring, device), strict=True
        )
    }
    stored = time.perf_counter()
    for snapshot in train(ensemble):
        overdue = time.perf_counter() - stored > SECONDS_BETWEEN_STATES
        for k, config in enumerate(snapshot.configs):
            recorder = recorders[config]
            recorder.look(snapshot, k)
            if snapshot.ended[k] is not None:
                recorder.finish(snapshot, k)
            elif overdue:
                # Parts first: a state without its parts would lose rows, parts without a state are redone.
                recorder.flush(snapshot.step)
                recorder.folder.keep_state(config, snapshot.step, ensemble.state(k))
        if overdue:
            stored = time.perf_counter()


def _instruments(configs: Iterable[RunConfig], measuring: MeasureConfig, device: str) -> list[Instruments]:
    """One set of instruments for each dataset, shared by the runs that train on it."""
    made: dict[Any, Instruments] = {}
    for config in configs:
        if config.task not in made:
            made[config.task] = prepare(measuring, config, dataset(config.task), device)
    return [made[config.task] for config in configs]


def write_progress(folder: RunFolder, step: int, steps: int, val_loss: float, ended: str | None) -> None:
    """Where a run stands, for whoever watches its folder."""
    write_json(
        folder.path / "progress.json", {"step": step, "steps": steps, "val_loss": val_loss, "ended": ended}
    )


def default_device() -> str:
    """The GPU where there is one, the CPU otherwise."""
    return "cuda" if torch.cuda.is_available() else "cpu"
