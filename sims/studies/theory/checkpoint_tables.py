"""Gather everything that the questions need of a folder of runs, in one pass over the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from sims.analysis.caveats import other_rates
from sims.analysis.cells import best_rates, same_seed
from sims.analysis.runs import Runs, load
from sims.measure.band_states import Probe
from sims.measure.cache import CheckpointMeasurement, Tables, cached, file_digest, measured
from sims.measure.toy import MeasurementData, prepare
from sims.models.transformer import TransformerSubject
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder
from sims.runs.tensors import load_tensors
from sims.studies.theory import checkpoint_probes
from sims.system.errors import MeasureError
from toymodel.config import RunConfig
from toymodel.data import dataset
from toymodel.stages import CHAIN
from toymodel.tasks import ModularWalks

# Enough for a class mean of the demo's bands; the inequalities hold for any number.
PROBE_SEQUENCES = 512
A_STATE = 10
# Of what `checkpoint_probes` measures; raise it when the numbers change.
VERSION = 2
LABEL = ["run_id", "stage", "batch_size", "seed", "step", "tokens"]
_COLUMNS = {
    "bounds": ["band", "set", "h_s", "head", "bound", "total_head", "rankme", "entropy", "trace"],
    "modes": ["band", "r", "amplitude", "moved"],
    "positions": ["band", "seen", "c", "position", "by_state", "given_step", "null", "loss"],
    "start": ["loss", "scatter", "moved", "V", "d"],
    "direct": ["asymmetry", "follows"],
    "initial": ["band", "c", "d", "h_s"],
}


@dataclass(frozen=True, eq=False)
class CheckpointTables:
    """Hold what was measured as tables; those of checkpoints begin with the columns of `LABEL`.

    Attributes:
        runs: the stored rows and spectra.
        bounds: `checkpoint_probes.head_bounds` of every checkpoint and probe band.
        modes: `checkpoint_probes.mode_amplitudes` of every checkpoint and probe band.
        positions: `checkpoint_probes.positions` of the last checkpoint of every run.
        start: `checkpoint_probes.start` of every checkpoint at step 0.
        direct: `checkpoint_probes.direct_path` of the last checkpoint of every run.
        initial: `checkpoint_probes.initial_concentration` of the first run's configuration.
        width: state width d by run_id.
        notes: which runs were left out.
    """

    runs: Runs
    bounds: pd.DataFrame
    modes: pd.DataFrame
    positions: pd.DataFrame
    start: pd.DataFrame
    direct: pd.DataFrame
    initial: pd.DataFrame
    width: dict[str, int]
    notes: tuple[str, ...] = ()


def table(name: str, records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the records of one table as a data frame with its columns, even without records."""
    return pd.DataFrame(records, columns=[*LABEL, *_COLUMNS[name]])


def gather(out: Path, console: Console) -> CheckpointTables:
    """Read the runs below a folder and measure every checkpoint once (about a second each on one core).

    Of each stage and batch size the runs at its best learning rate count. What was measured before is read from the
    folders of the runs.

    Raises:
        StoreError: no complete run.
        MeasureError: a run that the claims are not about, or several of one stage, batch size and seed.
        CheckpointError: a checkpoint is damaged or of another run.
    """
    every = load(out)
    runs = best_rates(every)
    if same := same_seed(runs.runs):
        raise MeasureError(f"{same}; keep one of them in {out}, where a seed is one measurement")
    folders = [RunFolder(out / run) for run in sorted(runs.runs["run_id"])]
    _check(folders, out)
    work = [(f, file) for f in folders for file in f.checkpoints()]
    found: Tables = {name: [] for name in _COLUMNS}
    probes = _Probes()
    shown = track(
        work, description="asking the checkpoints", console=console, disable=not console.is_terminal
    )
    for folder, file in shown:
        config, measuring = folder.configs()
        step = int(file.stem.removeprefix("step-"))
        label = {
            "run_id": folder.path.name,
            "stage": config.stage,
            "batch_size": config.batch_size,
            "seed": config.seed,
            "step": step,
            "tokens": step * config.tokens_per_step,
        }
        own = measured(folder, file, config, _measurement(folder, file, config, measuring, probes))
        for name, records in own.items() if own else ():
            found[name] += [{**label, **record} for record in records]
    width = {f.path.name: f.configs()[0].model.d_model for f in folders}
    if work:
        found["initial"] = _initial(work[0][0], probes)
    tables = {name: table(name, records) for name, records in found.items()}
    return CheckpointTables(runs=runs, width=width, notes=tuple(other_rates(every, runs)), **tables)


def _check(folders: Sequence[RunFolder], out: Path) -> None:
    """Refuse runs of other tasks and of networks beside the chain: the predictions are not about them."""
    for folder in folders:
        config = folder.configs()[0]
        if not isinstance(config.task, ModularWalks) or config.stage not in CHAIN:
            raise MeasureError(
                f"{folder.path.name} has the task {config.task.kind} and stage {config.stage}; the claims are about "
                f"transformers of the chain on {ModularWalks.kind}: move other runs out of {out}"
            )


def _measurement(
    folder: RunFolder, file: Path, config: RunConfig, measuring: MeasureConfig, probes: _Probes
) -> CheckpointMeasurement:
    """Return the measurement of one checkpoint; some questions concern only the first or the last of a run."""
    files = folder.checkpoints()
    # The change of the class means is taken since step 0, where a checkpoint of it is kept.
    first = files[0] if int(files[0].stem.removeprefix("step-")) == 0 else None
    last = file == files[-1]

    def measure(subject: TransformerSubject) -> Tables:
        start = None if first is None else probes.start_means(first, config, measuring)
        return _tables(subject, probes.data(config, measuring), start, last)

    settings = {
        "measure": _reduced(measuring),
        "first": None if first is None else file_digest(first),
        "last": last,
    }
    return CheckpointMeasurement("theory", VERSION, settings, measure)


def _tables(
    subject: TransformerSubject, tools: MeasurementData, start: dict[str, np.ndarray] | None, last: bool
) -> Tables:
    """Return the records of one checkpoint by table."""
    found: Tables = {name: [] for name in ("bounds", "modes", "positions", "start", "direct")}
    for probe in tools.probes:
        if probe.split.regime != "clean":
            continue
        states = checkpoint_probes.final_states(subject, probe.tokens)[:, -1]
        found["bounds"] += checkpoint_probes.head_bounds(probe, states)
        means = None if start is None else start[probe.name]
        found["modes"] += checkpoint_probes.mode_amplitudes(subject, probe, states, means)
        if last:
            found["positions"] += checkpoint_probes.positions(subject, probe)
    config = subject.config
    assert isinstance(config, RunConfig)
    if subject.step == 0:
        found["start"].append(checkpoint_probes.start(subject, tools.sequences))
    if last:
        counted = checkpoint_probes.bigram(dataset(config.task), config.task.vocab)
        found["direct"].append(checkpoint_probes.direct_path(subject, counted))
    return found


class _Probes:
    """Draw the probes of each task, and measure the first checkpoint of a run, only where something needs them."""

    def __init__(self) -> None:
        self._data: dict[tuple[Any, MeasureConfig], MeasurementData] = {}
        self._start: tuple[Path | None, dict[str, np.ndarray]] = (None, {})

    def data(self, config: RunConfig, measuring: MeasureConfig) -> MeasurementData:
        """Return the sequences and probes of the runs of one task, all of them where fewer leave out a state."""
        key = config.task, measuring
        if key not in self._data:
            few = prepare(_reduced(measuring), config, dataset(config.task))
            every = all(_every_state(probe) for probe in few.probes)
            self._data[key] = few if every else prepare(measuring, config, dataset(config.task))
        return self._data[key]

    def start_means(self, first: Path, config: RunConfig, measuring: MeasureConfig) -> dict[str, np.ndarray]:
        """Return the (c, width) class means of a checkpoint by clean band; kept for one run at a time."""
        if self._start[0] != first:
            step, weights = load_tensors(first, config)
            subject = TransformerSubject.of_weights(config, weights, step)
            clean = [p for p in self.data(config, measuring).probes if p.split.regime == "clean"]
            states = ((p, checkpoint_probes.final_states(subject, p.tokens)[:, -1]) for p in clean)
            self._start = first, {p.name: checkpoint_probes.state_means(p, last) for p, last in states}
        return self._start[1]


def _initial(folder: RunFolder, probes: _Probes) -> list[dict[str, Any]]:
    """Return T3's records of untrained models of one run's configuration; no checkpoint is needed."""
    config, measuring = folder.configs()

    def measure() -> Tables:
        clean = [p for p in probes.data(config, measuring).probes if p.split.regime == "clean"]
        return {"initial": checkpoint_probes.initial_concentration(config, clean)}

    found = cached(folder.path, "theory-initial", VERSION, [config, _reduced(measuring)], measure)["initial"]
    where = {"stage": config.stage, "batch_size": config.batch_size, "step": 0, "tokens": 0}
    return [{**where, "run_id": f"initialisation-{r['seed']}", **r} for r in found]


def _every_state(probe: Probe) -> bool:
    """Return whether each state of a band is at the last position of some sequence, so that it has a class mean."""
    return len(np.unique(probe.split.states[:, -1])) == probe.split.modulus


def _reduced(measuring: MeasureConfig) -> MeasureConfig:
    """Return the settings of a run with no more sequences than the questions need."""
    widest = max([c for c, _ in measuring.bands], default=0)
    wanted = max(PROBE_SEQUENCES, A_STATE * widest)
    return replace(
        measuring,
        probe_sequences=min(measuring.probe_sequences, wanted),
        causal_sequences=0,
    )


def complete(runs: Runs) -> pd.DataFrame:
    """Return the runs that did not diverge."""
    return runs.runs[runs.runs["ended"] != "diverged"]


def ended(runs: Runs, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the runs that did not diverge: the last checkpoint of another one is no end of training."""
    return rows[rows["run_id"].isin(list(complete(runs)["run_id"]))]


def natural_log(values: Any) -> np.ndarray:
    """Return ln of positive numbers, NaN elsewhere."""
    x = np.asarray(values, float)
    return np.log(np.where(x > 0, x, np.nan))


__all__ = ["LABEL", "CheckpointTables", "complete", "ended", "gather", "natural_log", "table"]
