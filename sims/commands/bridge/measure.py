"""`speclens bridge measure`: the checkpoints of a language-model run, measured by the toy's pipeline."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sims.bridge import CheckpointRun, Hints
from sims.bridge.shards import GPT2_VOCABULARY, TokenSequences, shard_files
from sims.bridge.text import RecordedTokenizer, load_tokenizer
from sims.checkpoint_runner import Labels, measure_checkpoints, text_run
from sims.commands.looking import cell, show_table
from sims.measure.text import TextInstruments, check_text, drawn_text
from sims.measure.text_families import Encode, default_families, read_families
from sims.ranks import Ranks, torchrun_ranks
from sims.runner import default_device
from sims.store import RunFolder
from sims.subject import Subject
from sims.text_config import TextMeasureConfig, TextWishes

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
    labels: Annotated[Labels, tyro.conf.arg(name="")] = field(default_factory=Labels)
    hints: Annotated[Hints, tyro.conf.arg(name="")] = field(default_factory=Hints)
    config: Annotated[TextWishes, tyro.conf.arg(name="")] = field(default_factory=TextWishes)
    vocabulary: Path | None = None
    """Folder with another encoder.json and vocab.bpe than GPT-2's, of which the shards were made; for the families."""
    device: str | None = None
    """cpu or cuda; by default the GPU where there is one."""

    def run(self) -> int:
        """Run it."""
        device = self.device or default_device()
        with torchrun_ranks(device) as ranks:
            folder = self._measure(device, ranks)
        if ranks.first:
            _show(folder)
        return 0

    def _measure(self, device: str, ranks: Ranks) -> RunFolder:
        # Whatever cannot be is said before the first pass.
        shards = shard_files(self.data, "" if self.split == "all" else self.split)
        run = CheckpointRun.of(self.run_path, self.hints, device)
        subject = run[0]
        instruments, notes = self._prepared(subject, shards, device)
        identity = text_run(run, subject, self.labels, instruments.config.length, shards)
        folder = RunFolder(self.out / identity.run_id)
        del subject
        for note in notes if ranks.first else ():
            print(note, file=sys.stderr, flush=True)
        with _Watch(ranks.first) as watch:
            measure_checkpoints(run, identity, instruments, folder, ranks, watch)
        return folder

    def _prepared(
        self, subject: Subject, shards: list[Path], device: str
    ) -> tuple[TextInstruments, list[str]]:
        """The text and the families, and what differs from the defaults because of the model or the text."""
        wishes = self.config
        if wishes.families is not None:
            wishes = replace(wishes, families=read_families(wishes.families))
        encode, size = self._encode(wishes)
        known = len(subject.matrices["embed"])
        length = wishes.length_for(subject.longest)
        data = TokenSequences(shards, length, min(size, known))
        chosen, note = (), ""
        if wishes.families is None and encode is not None:
            chosen, note = default_families(encode, size, known)
        config = wishes.settled(length, len(data), chosen)
        instruments = drawn_text(config, data, encode, device)
        check_text(config, subject, instruments.families)
        return instruments, [*_lowered(wishes, config), *([note] if note else [])]

    def _encode(self, wishes: TextWishes) -> tuple[Encode | None, int]:
        """Tokens of a text as of the shards, and how many there are; the tokeniser is loaded for families alone."""
        recorded = RecordedTokenizer.of(self.data)
        if wishes.families == () and self.vocabulary is None:
            return None, GPT2_VOCABULARY if recorded is None else recorded.vocabulary
        if recorded is None:
            tokenizer = load_tokenizer(self.vocabulary)
        else:
            tokenizer = recorded.load(self.vocabulary)
        return lambda text: tokenizer.encoder.encode(text).ids, tokenizer.vocabulary


def _lowered(wishes: TextWishes, config: TextMeasureConfig) -> list[str]:
    """In one line, which defaults the model or the text does not allow."""
    default = TextMeasureConfig()
    counts = {
        n: (getattr(config, n), getattr(default, n)) for n in ("length", "tokens", "gradient_sequences")
    }
    less = [f"{n} {b} → {a}" for n, (a, b) in counts.items() if getattr(wishes, n) is None and a != b]
    return [f"defaults lowered to what the model takes and the text holds: {', '.join(less)}"] if less else []


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
            r["detail"],
            *(_figure(r[n]) for n in ("value", "null")),
            r["status"],
        ]
        for r in kept.to_dict("records")
    ]
    show_table(("quantity", "object", "site", "detail", "value", "null", "status"), lines, left=4)
    print(f"{len(rows)} rows of {rows['step'].nunique()} checkpoints in {folder.path}", file=sys.stderr)


def _figure(value: float) -> str:
    return cell(None) if value != value else f"{value:.4g}"
