"""Find training runs whose states were measured; checkpoints of other projects are measured here, on a named text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sims.measure.lm_prepare import Text
from sims.measure.lm_terminal import Shards, measure_run
from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import CheckpointRun
from sims.pages.number import counted
from sims.runs.lm_measure_config import LmOptions
from sims.runs.store import RunFolder, run_folders
from sims.studies.stored import checkpoint_metadata
from sims.system.errors import MeasureError
from sims.system.process_group import ProcessGroup
from sims.text.shards import TokenSequences
from toymodel.errors import CheckpointError
from toymodel.transformer import FINAL

# Tokens of a step where nothing tells them: tokens are then steps, which moves no phase but renames its place.
UNKNOWN_TOKENS = 1
FOLDER = "checkpoints"


@dataclass(frozen=True)
class StateOptions:
    """Set how the states of checkpoints of other people are measured.

    Args:
        data: a token shard or a folder of shards in the vocabulary of the models; None where all runs are measured.
        length: inputs per sequence, or as many as the model takes.
        sequences: sequences, each with its last state, or as many as the text has.
        tokens_per_step: of their training; None where the checkpoints record it, or where steps are told.
        device: where they run.
    """

    data: Path | None = None
    length: int = 128
    sequences: int = 1_024
    tokens_per_step: int | None = None
    device: str = "cpu"


def measured_folders(
    paths: Sequence[Path], store: Path, options: StateOptions
) -> tuple[list[RunFolder], list[str]]:
    """Return the run folders of some paths, complete or not, and what must be known of them.

    Args:
        paths: folders of runs, run folders, or folders with the checkpoints of one training run each.
        store: where what is measured of checkpoints is kept; a second call takes it from there.
        options: how they are measured.

    Raises:
        MeasureError: a folder that holds neither, checkpoints without a text, or two folders of checkpoints with one
            name.
        CheckpointError: checkpoints that are damaged, or do not say their step.
    """
    every: list[list[RunFolder] | CheckpointRun] = []
    named: dict[str, Path] = {}
    chosen = list(dict.fromkeys(p.resolve() for p in paths))
    for path in chosen:
        every.append(runs_in(path) or _checkpoints(path, options))
        if isinstance(every[-1], CheckpointRun):
            other = named.setdefault(_folder_name(path), path)
            if other != path:
                raise MeasureError(
                    f"{other} and {path} have one name, by which what is measured of them is kept; rename one of them, "
                    "or name them in two calls with another --out"
                )
    found: list[RunFolder] = []
    notes: list[str] = []
    for path, own in zip(chosen, every, strict=True):
        if not isinstance(own, CheckpointRun):
            found += own
        elif options.data is not None:
            found.append(_measured(own, path, store, options, options.data, notes))
    return found, notes


def _checkpoints(path: Path, options: StateOptions) -> CheckpointRun:
    """Return the checkpoints in a folder, for which there must be a text."""
    try:
        run = CheckpointRun.of(
            path, CheckpointOptions(tokens_per_step=options.tokens_per_step), options.device
        )
    except CheckpointError as error:
        raise MeasureError(
            f"{path} holds no run of this package, and as a folder of checkpoints: {error}"
        ) from None
    if options.data is None:
        raise MeasureError(
            f"{path} holds {counted(len(run), 'checkpoint')}, whose states need a text: name token shards in the "
            "vocabulary of the model with --data (speclens data makes them)"
        )
    return run


def _folder_name(path: Path) -> str:
    """Return the name of the run folder of some checkpoints."""
    return re.sub(r"[^\w.+-]+", "-", path.name).strip(".")


def runs_in(path: Path) -> list[RunFolder]:
    """Return the runs of this package that a path is, or holds."""
    return [RunFolder(path)] if (path / "run.json").exists() else run_folders(path)


def _measured(
    run: CheckpointRun, path: Path, store: Path, options: StateOptions, data: Path, notes: list[str]
) -> RunFolder:
    """Measure the final states of every checkpoint that is not measured yet."""
    if not _knows_tokens(run):
        run = replace(run, options=replace(run.options, tokens_per_step=UNKNOWN_TOKENS))
        notes.append(
            f"Tokens of {path.name} are steps, because nothing tells the tokens of a step; name them with "
            "--tokens-per-step (Pythia: 2097152)."
        )
    text = Text.of(data, "val", families=False)
    available = len(TokenSequences(text.shards, options.length, text.vocabulary))
    sequences = min(options.sequences, available)
    if sequences < options.sequences:
        notes.append(
            f"{data} has {available} sequences of {options.length} tokens for {path.name}, of "
            f"{options.sequences} wanted."
        )
    measuring = LmOptions(
        tokens=sequences * options.length,
        length=options.length,
        batch=max(options.length, LmOptions.batch),
        loss_tokens=0,
        sites=(FINAL,),
        pooling="last",
        gradient_sequences=0,
        families=(),
        geometry=True,
    )
    metadata = checkpoint_metadata(_folder_name(path), run.found[-1].kind)
    shards, alone = Shards(data, "val", None), ProcessGroup()
    return measure_run(path, store / FOLDER, shards, measuring, metadata, run.options, options.device, alone)


def _knows_tokens(run: CheckpointRun) -> bool:
    return run.options.tokens_per_step is not None or bool(run.found[-1].tokens and run.found[-1].step)
