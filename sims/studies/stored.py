"""What studies of stored checkpoints have in common: which runs they take, and what their sections say of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sims.analysis.origins import copied, distinct, made_by
from sims.analysis.runs import Runs
from sims.pages.number import counted
from sims.runs.layout import WRITER
from sims.runs.lm_measure_config import RunMetadata
from sims.runs.spec import RunSpec
from sims.runs.store import RunFolder, run_folders
from sims.runs.tensors import load_tensors
from sims.system.errors import MeasureError
from sims.system.plain import some
from toymodel.config import RunConfig
from toymodel.task import Task

if TYPE_CHECKING:
    import pandas as pd

# Why language models have no such section.
CHECKPOINTS = "checkpoints are measured again on probe bands, which text does not have"
_SEED = re.compile(r"[-_]seed[-_]?(\d+)$")


class Stored(Protocol):
    """Runs with their folder.

    Attributes:
        a: the runs, one learning rate a cell.
        folder: where they lie, with their checkpoints.
        vocab: of their task.
    """

    @property
    def a(self) -> Runs:
        """Return the runs."""
        ...

    @property
    def folder(self) -> Path:
        """Return where they lie."""
        ...

    @property
    def vocab(self) -> int:
        """Return the vocabulary of their task."""
        ...

    def __hash__(self) -> int: ...


def smallest_batch(data: Stored) -> str:
    """Return a sentence about which checkpoints are measured."""
    return f"Checkpoints of the runs at the smallest batch size, {data.a.runs['batch_size'].min()}."


def seeds_at_smallest_batch(data: Stored) -> int:
    """Count the seeds of the runs at the smallest batch size."""
    runs = data.a.runs
    return int(runs.loc[runs["batch_size"] == runs["batch_size"].min(), "seed"].nunique())


def chosen_runs(out: Path, batch_size: int | None) -> list[tuple[RunFolder, RunConfig]]:
    """Return the complete runs with checkpoints of one batch size (None: the smallest), one a stage and seed.

    Those that diverged or were pruned are left out: their last checkpoint is not that of the others.

    Raises:
        MeasureError: none, or several of one stage and seed.
    """
    stored = [f for f in _distinct(out) if f.checkpoints()]
    complete = [(f, f.configs()[0]) for f in stored if not cut_short(f)]
    if not complete:
        others = f" that ended regularly ({counted(len(stored), 'other')})" if stored else ""
        raise MeasureError(
            f"{out} holds no complete run with checkpoints{others}; make some with `speclens demo`"
        )
    sizes = sorted({c.batch_size for _, c in complete})
    size = sizes[0] if batch_size is None else batch_size
    chosen = [(f, c) for f, c in complete if c.batch_size == size]
    if not chosen:
        raise MeasureError(
            f"{out} holds no complete run with checkpoints at batch size {size}, but at "
            f"{', '.join(map(str, sizes))}; name one of them by --batch-size, or train others"
        )
    cells = [(c.stage, c.task.seed, c.seed) for _, c in chosen]
    double = next((cell for cell in cells if cells.count(cell) > 1), None)
    if double:
        raise MeasureError(
            f"{out} holds several runs of stage {double[0]}, task seed {double[1]}, seed {double[2]} at batch size "
            f"{size}; keep one learning rate a stage in the folder"
        )
    return chosen


def require_one_task(runs: Sequence[tuple[RunFolder, RunConfig]]) -> None:
    """Refuse runs of several tasks, or of several seeds of one: what is measured of them is of other data.

    Raises:
        MeasureError: naming two of them.
    """
    (first, config), *others = runs
    other = next((folder for folder, own in others if own.task != config.task), None)
    if other is not None:
        raise MeasureError(
            f"{first.path.name} and {other.path.name} have different tasks; keep those of another task, or of another "
            "task.seed, in a folder of their own"
        )


def require_one_end(runs: Sequence[tuple[RunFolder, RunConfig]]) -> None:
    """Refuse runs of one stage that ended at different steps: their looks are of other parts of training.

    Raises:
        MeasureError: naming two of them.
    """
    ends: dict[str, tuple[str, int]] = {}
    for folder, config in runs:
        name, step = folder.path.name, int(folder.outcome["step"])
        first, end = ends.setdefault(config.stage, (name, step))
        if step != end:
            raise MeasureError(
                f"{first} and {name} are both of stage {config.stage}, and ended at steps {end} and {step}; seeds are "
                "compared at equal parts of training, so train them for the same steps, without a target loss"
            )


def cut_short(folder: RunFolder) -> str:
    """Return how a complete run ended before its time, "diverged" or "pruned"; "" for any other end."""
    ended = str(folder.outcome["ended"])
    return ended if ended in ("diverged", "pruned") else ""


def without_end(folder: RunFolder) -> str:
    """Return why a run has no weights that it ended with; "" if it has them."""
    if not folder.done:
        return "it is not complete"
    if not folder.checkpoints():
        return "it stored no weights"
    step, _ = load_tensors(folder.checkpoints()[-1], folder.spec)
    ended = folder.outcome["step"]
    return "" if step == ended else f"its last weights are of step {step}, and it ended at {ended}"


def run_notes(out: Path) -> list[str]:
    """Return what a reader must know of the complete runs of a folder.

    These are copies, runs that diverged or were pruned, and runs that were not made alike.
    """
    found = distinct([f for f in run_folders(out) if f.done])
    short = [f"{f.path.name} ({ended})" for f in found.folders if (ended := cut_short(f))]
    told = [f"Diverged or pruned, and compared with nothing: {some(short, 5)}."] if short else []
    return [*copied(found.copies), *told, *made_by(found.folders)]


def check_distinct(runs: pd.DataFrame) -> None:
    """Refuse two runs of one cell and seed.

    Args:
        runs: columns run, cell and seed.

    Raises:
        MeasureError: naming the runs.
    """
    double = runs[runs.duplicated(["cell", "seed"], keep=False)]
    if len(double):
        raise MeasureError(
            f"{' and '.join(double['run'].iloc[:2])} are runs of {double['cell'].iloc[0]} and seed "
            f"{double['seed'].iloc[0]}; keep one of them in the folder"
        )


def check_alike(runs: pd.DataFrame, specs: Mapping[str, RunSpec]) -> None:
    """Refuse runs of one cell that differ in more than their seeds, which a study would take for its replicates.

    Args:
        runs: columns run and cell.
        specs: configuration of each run; runs without one are not compared.

    Raises:
        MeasureError: naming two runs and the settings in which they differ.
    """
    for cell, own in runs.groupby("cell", sort=False):
        known = [(run, specs[run]) for run in own["run"] if run in specs]
        for (one, first), (other, second) in pairwise(known):
            names = [f.name for f in fields(first) if _setting(first, f.name) != _setting(second, f.name)]
            if names:
                raise MeasureError(
                    f"{one} and {other} are both of {cell}, and differ in {', '.join(names)}; move one of them to "
                    "another folder"
                )


def _setting(spec: RunSpec, name: str) -> Any:
    """Return a setting; None for those that seeds of one setting may differ in."""
    if name in ("seed", "name", "checkpoints"):
        return None
    value = getattr(spec, name, None)
    return replace(value, seed=0) if isinstance(value, Task) else value


def _distinct(out: Path) -> tuple[RunFolder, ...]:
    return distinct([f for f in run_folders(out) if f.done]).folders


def checkpoint_metadata(name: str, kind: str) -> RunMetadata:
    """Return what the name of a folder of checkpoints says of its run.

    Args:
        name: of the folder.
        kind: of its checkpoints; those of this package record stage and seed themselves.

    >>> checkpoint_metadata("pythia-70m-seed3", "Hugging Face gpt_neox")
    RunMetadata(name='pythia-70m-seed3', stage='pythia-70m', batch_size=None, lr=None, seed=3)
    """
    seed = _SEED.search(name)
    stage = name[: seed.start()] if seed else name
    own = kind == WRITER
    return RunMetadata(name=name, stage=None if own else stage or None, seed=int(seed[1]) if seed else None)
