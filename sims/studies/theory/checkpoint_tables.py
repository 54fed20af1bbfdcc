"""Everything that the questions need of a folder of runs, gathered in one pass over the checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from sims.analysis.runs import Runs, load
from sims.measure.measure import MeasurementData, prepare
from sims.models.transformer import TransformerSubject
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder, run_folders
from sims.runs.tensors import load_tensors
from sims.studies.theory import checkpoint_probes as looks
from toymodel.config import RunConfig
from toymodel.data import dataset

# Enough for a class mean of the demo's bands; the inequalities hold for any number.
PROBE_SEQUENCES = 512
A_STATE = 10
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
    """What was measured, as tables; those of checkpoints begin with the columns of `LABEL`.

    Attributes:
        runs: the stored rows and spectra.
        bounds: `looks.head_bounds` of every checkpoint and probe band.
        modes: `looks.mode_amplitudes` of every checkpoint and probe band.
        positions: `looks.positions` of the last checkpoint of every run.
        start: `looks.start` of every checkpoint at step 0.
        direct: `looks.direct_path` of the last checkpoint of every run.
        initial: `looks.initial_concentration` of the first run's configuration.
        width: state width d by run_id.
    """

    runs: Runs
    bounds: pd.DataFrame
    modes: pd.DataFrame
    positions: pd.DataFrame
    start: pd.DataFrame
    direct: pd.DataFrame
    initial: pd.DataFrame
    width: dict[str, int]


def table(name: str, records: list[dict[str, Any]]) -> pd.DataFrame:
    """Records of one of the tables as a data frame with its columns, also when there are none."""
    return pd.DataFrame(records, columns=[*LABEL, *_COLUMNS[name]])


def gather(out: Path, console: Console) -> CheckpointTables:
    """Read the runs below a folder and look at every checkpoint once (about a second each on one core).

    Raises:
        StoreError: no complete run.
        CheckpointError: a checkpoint is damaged or of another run.
    """
    runs = load(out)
    folders = [f for f in run_folders(out) if f.done]
    work = [(f, file) for f in folders for file in f.checkpoints()]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _COLUMNS}
    tools: dict[str, MeasurementData] = {}
    begun: dict[tuple[str, str], np.ndarray] = {}
    shown = track(
        work, description="asking the checkpoints", console=console, disable=not console.is_terminal
    )
    for folder, file in shown:
        config, measuring = folder.configs()
        key = f"{config.task}{measuring}"
        if key not in tools:
            tools[key] = prepare(_reduced(measuring), config, dataset(config.task))
        last = file == folder.checkpoints()[-1]
        for name, records in _look(folder, file, config, tools[key], last, begun):
            found[name] += records
    width = {f.path.name: f.configs()[0].model.d_model for f in folders}
    if work:
        found["initial"] = _initial(work[0][0], tools)
    tables = {name: table(name, records) for name, records in found.items()}
    return CheckpointTables(runs=runs, width=width, **tables)


def _look(
    folder: RunFolder,
    file: Path,
    config: RunConfig,
    tools: MeasurementData,
    last: bool,
    begun: dict[tuple[str, str], np.ndarray],
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    step, weights = load_tensors(file, config)
    subject = TransformerSubject.of_weights(config, weights, step)
    label = {
        "run_id": folder.path.name,
        "stage": config.stage,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "step": step,
        "tokens": subject.tokens,
    }

    def labelled(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**label, **r} for r in records]

    for probe in tools.probes:
        if probe.split.regime != "clean":
            continue
        states = looks.final_states(subject, probe.tokens)
        yield "bounds", labelled(looks.head_bounds(probe, states[:, -1]))
        place = (folder.path.name, probe.name)
        if step == 0:
            begun[place] = looks.state_means(probe, states[:, -1])
        yield "modes", labelled(looks.mode_amplitudes(subject, probe, states[:, -1], begun.get(place)))
        if last:
            yield "positions", labelled(looks.positions(subject, probe))
    if step == 0:
        yield "start", labelled([looks.start(subject, tools.sequences)])
    if last:
        counted = looks.bigram(dataset(config.task), config.task.vocab)
        yield "direct", labelled([looks.direct_path(subject, counted)])


def _initial(folder: RunFolder, tools: dict[str, MeasurementData]) -> list[dict[str, Any]]:
    config = folder.configs()[0]
    clean = [p for p in next(iter(tools.values())).probes if p.split.regime == "clean"]
    where = {"stage": config.stage, "batch_size": config.batch_size, "step": 0, "tokens": 0}
    records = looks.initial_concentration(config, clean)
    return [{**where, "run_id": f"initialisation-{r['seed']}", **r} for r in records]


def _reduced(measuring: MeasureConfig) -> MeasureConfig:
    """The run's own bands with no more sequences than the questions need."""
    widest = max([c for c, _ in measuring.bands], default=0)
    wanted = max(PROBE_SEQUENCES, A_STATE * widest)
    return replace(
        measuring,
        probe_sequences=min(measuring.probe_sequences, wanted),
        causal_sequences=0,
    )


def complete(runs: Runs) -> pd.DataFrame:
    """The runs that did not diverge."""
    return runs.runs[runs.runs["ended"] != "diverged"]


def natural_log(values: Any) -> np.ndarray:
    """ln of positive numbers, NaN elsewhere."""
    x = np.asarray(values, float)
    return np.log(np.where(x > 0, x, np.nan))


__all__ = ["LABEL", "CheckpointTables", "complete", "gather", "natural_log", "table"]
