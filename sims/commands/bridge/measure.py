"""`speclens bridge measure`: the checkpoints of a language-model run, measured by the toy's pipeline."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sims.measure.checkpoint_runner import measure_checkpoints, text_run
from sims.measure.lm import check_text
from sims.measure.lm_prepare import Text, settle
from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import CheckpointRun
from sims.pages.plain import cell, show_table
from sims.runs.layout import which
from sims.runs.lm_measure_config import LmOptions, RunMetadata
from sims.runs.store import RunFolder
from sims.system.process_group import ProcessGroup, torchrun_group
from sims.training.toy_runner import chosen_device

# Seconds between two lines where there is no terminal.
QUIET = 30.0


@dataclass(frozen=True)
class Measure:
    """Measure the checkpoints of a language-model run on text: activations, gradients, weights, token families.

    Every checkpoint goes through one pass over the tokens (covariance at several blocks and of what the head reads, and
    the loss), the per-sample gradients of W_O, MLP out, Q and V within a budget of memory, the weight spectra of every
    matrix, and the concentration of token families in the embedding and the head. Results stand in OUT/<name>, a run
    folder as of the toy, which `speclens ls`, `speclens show` and `speclens bridge compare` read.

    Stopped at any time, the same command goes on where it was, within the pass over the tokens too. torchrun shares the
    work among several processes or machines.

    Examples:
        speclens bridge measure out/ckpt.pt --data shards
        speclens bridge measure logs/run --data shards --stage muon --seed 1 --heads 6 --tokens-per-step 524288
        speclens bridge measure pythia --data shards --tokens 2000000 --families weekdays 'vowels=a,e,i,o,u'
        torchrun --nproc-per-node 8 -m sims.cli bridge measure logs/run --data shards --memory 60
    """

    run_path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A checkpoint, or a folder of checkpoints."""
    data: Path
    """A token shard, or a folder of shards, in the vocabulary of the model."""
    split: Literal["val", "train", "all"] = "val"
    """Which shards of the folder."""
    out: Path = Path("lm-runs")
    """Folder of runs."""
    labels: Annotated[RunMetadata, tyro.conf.arg(name="")] = field(default_factory=RunMetadata)
    hints: Annotated[CheckpointOptions, tyro.conf.arg(name="")] = field(default_factory=CheckpointOptions)
    config: Annotated[LmOptions, tyro.conf.arg(name="")] = field(default_factory=LmOptions)
    vocabulary: Path | None = None
    """Folder with another encoder.json and vocab.bpe than GPT-2's, of which the shards were made; for the families."""
    device: str | None = None
    """cpu or cuda; by default the GPU where there is one."""

    def run(self) -> int:
        """Run it."""
        device = chosen_device(self.device)
        with torchrun_group(device) as ranks:
            folder = self._measure(device, ranks)
        if ranks.first:
            _show(folder)
        return 0

    def _measure(self, device: str, ranks: ProcessGroup) -> RunFolder:
        # Whatever cannot be is said before the first pass.
        run = CheckpointRun.of(self.run_path, self.hints, device)
        subject = run[0]
        split = "" if self.split == "all" else self.split
        text = Text.of(self.data, split, self.config.families != (), self.vocabulary)
        known = len(subject.matrices["embed"])
        config, notes = settle(self.config, text, subject.longest, known)
        instruments = text.instruments(config, device, known)
        check_text(config, subject, instruments.families)
        identity = text_run(run, subject, self.labels, config.length, text.shards)
        folder = RunFolder(self.out / identity.run_id)
        del subject
        for note in notes if ranks.first else ():
            print(note, file=sys.stderr, flush=True)
        with _Watch(ranks.first) as watch:
            measure_checkpoints(run, identity, instruments, folder, ranks, watch)
        return folder


class _Watch:
    """A bar on a terminal, a line every half minute otherwise; nothing on ranks that do not write."""

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


def _show(folder: RunFolder) -> None:
    """The last checkpoint in a table."""
    rows = folder.rows()
    last = rows[(rows["step"] == rows["step"].max()) & rows["object"].isin(["loss", "activation", "table"])]
    kept = last[last["quantity"].isin(["val_loss", "alpha", "rankme", "h_s", "h_peak"])]
    lines = [
        [
            r["quantity"],
            r["object"],
            r["site"],
            which(r),
            *(_figure(r[n]) for n in ("value", "null")),
            r["status"],
        ]
        for r in kept.to_dict("records")
    ]
    show_table(("quantity", "object", "site", "which", "value", "null", "status"), lines, left=4)
    print(f"{len(rows)} rows of {rows['step'].nunique()} checkpoints in {folder.path}", file=sys.stderr)


def _figure(value: float) -> str:
    return cell(None) if value != value else f"{value:.4g}"
