"""Measuring the checkpoints of a language model with progress in the terminal."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sims.measure.checkpoint_runner import measure_checkpoints, text_run
from sims.measure.lm import check_text
from sims.measure.lm_prepare import Text, settle
from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import CheckpointRun
from sims.pages.answer import Answer
from sims.pages.number import counted
from sims.pages.plain import cell, show_table
from sims.runs.columns import which
from sims.runs.lm_measure_config import LmOptions, RunMetadata
from sims.runs.store import RunFolder
from sims.system.process_group import ProcessGroup

# Seconds between two lines where there is no terminal.
QUIET = 30.0
# Quantities of the last checkpoint that are printed.
SHOWN = (
    "val_loss",
    "alpha",
    "rankme",
    "h_s",
    "h_peak",
    "ngram_correlation",
    "ngram_divergence",
    "ngram_accuracy",
)


@dataclass(frozen=True)
class Shards:
    """Text to measure on.

    Args:
        data: a token shard, or a folder of shards, in the vocabulary of the model.
        split: "val" or "train" shards of the folder; "" for all.
        vocabulary: folder with encoder.json and vocab.bpe if they are not those of GPT-2.
    """

    data: Path
    split: str
    vocabulary: Path | None


def measure_run(
    path: Path,
    out: Path,
    shards: Shards,
    options: LmOptions,
    metadata: RunMetadata,
    checkpoint: CheckpointOptions,
    device: str,
    group: ProcessGroup,
) -> RunFolder:
    """Measure a checkpoint or a folder of checkpoints; everything is checked before the first pass.

    Args:
        path: a checkpoint, or a folder of checkpoints.
        out: gets the run folder.
        shards: the text.
        options: what to measure.
        metadata, checkpoint: values that the files do not record.
        device: "cpu" or "cuda".
        group: the processes that share the work.

    Returns:
        The run folder.

    Raises:
        CheckpointError, ConfigError, MeasureError, StoreError: something cannot be read or measured.
    """
    run = CheckpointRun.of(path, checkpoint, device)
    subject = run[0]
    text = Text.of(shards.data, shards.split, options.families != (), shards.vocabulary)
    text.check_tokens(run.found[-1].path)
    known = len(subject.matrices["embed"])
    config, notes = settle(options, text, subject.longest, known)
    data = text.measurement_data(config, device, known)
    check_text(config, subject, data.families)
    identity = text_run(run, subject, metadata, config.length, text.files(config))
    folder = RunFolder(out / identity.run_id)
    del subject
    notes += run.beside
    for note in notes if group.first else ():
        print(note, file=sys.stderr, flush=True)
    with _Watch(group.first) as watch:
        measure_checkpoints(run, identity, data, folder, group, watch)
    return folder


class _Watch:
    """Show progress: a bar on a terminal, else a line every half minute; nothing in processes that do not write."""

    def __init__(self, shown: bool) -> None:
        console = Console(stderr=True)
        self.shown, self.terminal = shown, shown and console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        clocks = (TimeElapsedColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, *clocks, console=console, disable=not self.terminal)
        self.task: TaskID | None = None
        self.part = ""
        self.said = 0.0

    def __enter__(self) -> _Watch:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, step: int, which: int, count: int, part: str, done: int, total: int) -> None:
        name = f"step {step} ({which + 1} of {count}): {part}"
        if self.terminal:
            if self.task is None or name != self.part:
                self.task = self.progress.add_task(name, total=total)
            self.progress.update(self.task, completed=done)
        elif self.shown and (done == total or time.monotonic() - self.said >= QUIET):
            print(f"{name} {done} of {total}", file=sys.stderr, flush=True)
            self.said = time.monotonic()
        self.part = name


def show_last(folder: RunFolder, answer: Answer | None = None) -> None:
    """Print the main numbers of the last checkpoint.

    Args:
        folder: of the run.
        answer: gets folder and every row of the last checkpoint, in place of the table.
    """
    rows = folder.rows()
    last = rows[rows["step"] == rows["step"].max()]
    if answer is None:
        _show_rows(last[last["object"].isin(["loss", "activation", "table", "ngram"])])
    else:
        answer |= {"folder": folder.path, "last": last}
    if notes := folder.outcome.get("notes"):
        print(f"note: {notes}", file=sys.stderr)
    print(
        f"{counted(len(rows), 'row')} of {counted(rows['step'].nunique(), 'checkpoint')} in {folder.path}",
        file=sys.stderr,
    )


def _show_rows(last: pd.DataFrame) -> None:
    kept = last[last["quantity"].isin(SHOWN)]
    lines = [
        [
            r["quantity"],
            r["object"],
            r["site"],
            which(r),
            *(_figure(r[n]) for n in ("value", "null")),
            f"{r['status']}: {r['reason']}" if r["status"] == "diverged" else r["status"],
        ]
        for r in kept.to_dict("records")
    ]
    show_table(("quantity", "object", "site", "which", "value", "null", "status"), lines, left=4)


def _figure(value: float) -> str:
    return cell(None) if value != value else f"{value:.4g}"
