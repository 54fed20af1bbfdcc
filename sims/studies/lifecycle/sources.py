"""Find training runs: folders of runs of this package, and folders of the checkpoints of any other run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import track

from sims.measure.cache import Tables, cached
from sims.measure.weights import weight_sheet
from sims.models.checkpoints import CheckpointRun
from sims.models.weights import faulty_weights
from sims.runs.store import RunFolder, run_folders
from sims.studies.lifecycle.measured import Source
from sims.studies.stored import checkpoint_metadata, cut_short
from sims.system.errors import MeasureError
from toymodel.errors import CheckpointError

# Of what is stored of a checkpoint; raise it when the numbers change.
VERSION = 3
KEPT = ("step", "quantity", "object", "site", "detail", "value", "null")


def sources(paths: Sequence[Path], store: Path, console: Console) -> Iterator[Source]:
    """Yield the complete runs of some folders that neither diverged nor were pruned.

    Checkpoints of others are measured, their weights alone.

    Args:
        paths: folders of runs, run folders, or folders with the checkpoints of one training run each.
        store: where what is measured of checkpoints is kept.
        console: shows the progress.

    Raises:
        MeasureError: a folder that holds neither.
        CheckpointError: checkpoints that are damaged, or do not say their step.
    """
    for path in dict.fromkeys(p.resolve() for p in paths):
        if found := runs_in(path):
            for folder in found:
                # The looks of a cell are those that all of its seeds have: a run that ended early would cut the others.
                if folder.done and not cut_short(folder):
                    yield Source(folder.path.name, folder.path, folder.spec, folder.rows())
            continue
        try:
            run = CheckpointRun.of(path)
        except CheckpointError as error:
            raise MeasureError(
                f"{path} holds no run of this package, and as a folder of checkpoints: {error}"
            ) from None
        yield _foreign(run, path, store, console)


def runs_in(path: Path) -> list[RunFolder]:
    """Return the runs of this package that a path is, or holds."""
    return [RunFolder(path)] if (path / "run.json").exists() else run_folders(path)


def _foreign(run: CheckpointRun, path: Path, store: Path, console: Console) -> Source:
    rows: list[dict[str, Any]] = []
    width = math.nan
    steps = track(range(len(run)), f"measuring {path.name}", console=console, disable=not console.is_terminal)
    for k in steps:
        found = _measured(run, k, store)
        rows += found["rows"]
        width = next((row["width"] for row in found["model"]), width)
    kind = run.found[-1].kind
    seed = checkpoint_metadata(path.name, kind).seed or 0
    return Source(path.name, path, None, pd.DataFrame(rows, columns=list(KEPT)), kind, seed, width)


def _measured(run: CheckpointRun, k: int, store: Path) -> Tables:
    """Return rows of the weights of one checkpoint, and its width; of one whose weights are not finite, nothing."""
    info = run.found[k]

    def measure() -> Tables:
        (subject,) = run.subjects([k])
        if fault := faulty_weights(subject):
            warnings.warn(f"{info.path}: {fault}; this step is left out", stacklevel=2)
            return {"rows": [], "model": []}
        sheet = weight_sheet(subject)
        rows = [{key: row[key] for key in KEPT} for row in sheet.rows]
        return {"rows": rows, "model": [{"width": int(subject.head.shape[1])}]}

    files = sorted(p for p in info.path.rglob("*") if p.is_file()) if info.path.is_dir() else [info.path]
    seen = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return cached(store, "weights", VERSION, [info.step, seen], measure)
