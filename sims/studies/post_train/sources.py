"""Find runs that can be post-trained, toys or language models, and what each is measured with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sims.analysis.origins import distinct
from sims.measure.cache import file_digest
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder, run_folders
from sims.studies.stored import check_alike, chosen_runs, without_end
from sims.system.errors import MeasureError, StoreError
from sims.text.shards import TokenSequences, shard_files
from sims.training.post_training import ContinuedText, TextOptions, texts_of
from toymodel.config import RunConfig
from toymodel.data import dataset
from toymodel.errors import ConfigError
from toymodel.posttrain.config import PostTraining
from toymodel.posttrain.continued import Continued
from toymodel.posttrain.training import Band, ContinuedWalks, check_post
from toymodel.sequences import Sequences
from toymodel.tasks import ModularWalks
from toymodel.tasks.modular_walk_probes import probe_split, training_bands

Config = RunConfig | LmConfig
Run = tuple[RunFolder, Config]
# Smallest modulus of the narrow data, and number of rare bands, whose moduli are larger by 4 or more.
NARROW_FROM, RARE = 7, 3


@dataclass(frozen=True)
class Plan:
    """Set what is measured of each model, the same for all.

    Args:
        sequences: validation sequences of the geometry and of losses, or as many as there are.
        prompts: beginnings of validation sequences.
        samples: continuations of each prompt.
        band_sequences: sequences of each band, or of each part of a text.
    """

    sequences: int = 1_024
    prompts: int = 48
    samples: int = 512
    band_sequences: int = 256


# Of language models, whose sequences are longer.
TEXT_PLAN = Plan(sequences=512, prompts=16, samples=256, band_sequences=64)


@dataclass(frozen=True, eq=False)
class Measured:
    """Hold one run that goes on, and the data that it is measured with before and after.

    Attributes:
        model: what goes on.
        sequences: (n, T+1) of validation, whose last states and losses are taken.
        losses: sequences of the losses by their names; of several sets the mean of their means.
        prompts: (n, m) beginnings of validation sequences.
        directions: whether principal directions are kept and dropped.
    """

    model: Continued
    sequences: Tensor
    losses: Mapping[str, Sequence[Tensor]]
    prompts: Tensor
    directions: bool


def fit_runs(runs: Path, notes: list[str]) -> list[Run]:
    """Return the runs of a folder that were trained to their end, at the smallest batch size.

    Args:
        runs: the folder.
        notes: gets why others were left out.

    Raises:
        MeasureError: none, toys beside language models, several of one stage and seed, or runs that were not made
            alike: of one stage with other settings, of several tasks, task seeds or texts, or of several widths.
    """
    chosen = _text_runs(runs) if _are_texts(runs) else list[Run](chosen_runs(runs, None))
    size = chosen[0][1].batch_size
    left_out = {folder.path: reason for folder in run_folders(runs) if (reason := _unfit(folder, size))}
    notes += [f"{path.name} was left out: {reason}." for path, reason in left_out.items()]
    found = [(folder, config) for folder, config in chosen if folder.path not in left_out]
    if not found:
        raise MeasureError(f"{runs} holds no run that can be post-trained: {notes[0]}")
    _require_alike(found)
    return found


def _are_texts(runs: Path) -> bool:
    """Return whether the runs of a folder are language models."""
    kinds: dict[bool, str] = {}
    for folder in run_folders(runs):
        kinds.setdefault(isinstance(folder.spec, LmConfig), folder.path.name)
    if len(kinds) == 2:
        raise MeasureError(
            f"{runs} holds {kinds[True]}, a language model, and {kinds[False]}, which is none; move those of one kind "
            "to a folder of their own"
        )
    return True in kinds


def _text_runs(runs: Path) -> list[Run]:
    """Return complete language models with weights at the smallest batch size, one a stage and seed."""
    every = distinct([folder for folder in run_folders(runs) if folder.done]).folders
    complete = [
        (folder, config)
        for folder in every
        if folder.checkpoints() and isinstance(config := folder.spec, LmConfig)
    ]
    if not complete:
        raise MeasureError(
            f"{runs} holds no complete run with checkpoints; make some with `speclens train lm`"
        )
    size = min(config.batch_size for _, config in complete)
    chosen: list[Run] = [(folder, config) for folder, config in complete if config.batch_size == size]
    counts = Counter((config.stage, config.seed) for _, config in chosen)
    (stage, seed), most = counts.most_common(1)[0]
    if most > 1:
        raise MeasureError(
            f"{runs} holds several runs of stage {stage}, seed {seed} at batch size {size}; keep one setting a stage "
            "in the folder"
        )
    return chosen


def _unfit(folder: RunFolder, size: int) -> str:
    """Return why a run is no replicate of those of a batch size that were trained to their end; "" if it is one."""
    if folder.done and (own := getattr(folder.spec, "batch_size", size)) != size:
        return f"its batch size is {own}, and the smallest, {size}, is taken"
    if reason := without_end(folder):
        return reason
    ended, step = folder.outcome["ended"], folder.outcome["step"]
    return "" if ended == "finished" else f"it ended at step {step} ({ended}), before its last one"


def _require_alike(found: Sequence[Run]) -> None:
    names = [folder.path.name for folder, _ in found]
    configs = [config for _, config in found]
    runs = pd.DataFrame({"run": names, "cell": [config.stage for config in configs]})
    check_alike(runs, dict(zip(names, configs, strict=True)))
    shared = {
        what: [_shared(config)[what] for config in configs]
        for config in configs[:1]
        for what in _shared(config)
    }
    for what, values in shared.items():
        other = next((i for i, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            raise MeasureError(
                f"{names[0]} is {what} {values[0]} and {names[other]} {what} {values[other]}; they have other data or "
                "measurements, so move those of one kind to a folder of their own"
            )


def _shared(config: Config) -> dict[str, Any]:
    """Return by name what runs of all stages have in common."""
    if isinstance(config, RunConfig):
        return {
            "of task seed": config.task.seed, "of width": config.model.d_model, "trained on": config.task
        }  # fmt: skip
    return {
        "of tier": config.tier,
        "of vocabulary": config.vocabulary,
        "of length": config.length,
        "trained on the text": config.data,
    }


def checked_plan(run: Run, settings: Sequence[PostTraining], plan: Plan, text: TextOptions | None) -> Plan:
    """Return what is measured of a run that can be post-trained, as much of it as there is data.

    Raises:
        MeasureError: a run, settings or a text that do not fit.
    """
    folder, config = run
    try:
        if isinstance(config, RunConfig):
            if text is not None:
                raise MeasureError(
                    f"{folder.path.name} is a toy run, which has its own data; leave out --data"
                )
            narrow, _ = bands_of(config)
            for kind in settings:
                check_post(config, kind, narrow)
            count = config.task.val
        else:
            if text is None:
                raise MeasureError(
                    f"{folder.path.name} is a language model; name by --data the shards that it was trained on"
                )
            count = len(_checked_text(config, settings, text))
    except ConfigError as error:
        raise MeasureError(f"{folder.path.name}: {error}") from error
    return replace(plan, sequences=min(plan.sequences, count), prompts=min(plan.prompts, count))


def _checked_text(config: LmConfig, settings: Sequence[PostTraining], text: TextOptions) -> TokenSequences:
    """Return the validation sequences of a language model that can be post-trained."""
    for kind in settings:
        kind.check_length(config.length)
        if kind.prompt < text.order - 1:
            raise ConfigError(
                f"the order of n-grams is {text.order}, and a prompt has {kind.prompt} tokens, fewer than the "
                f"{text.order - 1} before the last one; lower --order"
            )
    return texts_of(config, text).corpus.val


def bands_of(config: RunConfig) -> tuple[Band, tuple[Band, ...]]:
    """Return the band of odd modulus that most training sequences have, and those that fewest have, of other moduli.

    Raises:
        MeasureError: a task without bands, or with too few.
    """
    if not isinstance(config.task, ModularWalks):
        raise MeasureError(f"the task is {config.task.kind}; post-training is for {ModularWalks.kind} only")
    data, vocab = dataset(config.task), config.task.vocab
    try:
        (first,) = training_bands(data, 1, NARROW_FROM, odd=True)
    except ConfigError as error:
        raise MeasureError(str(error)) from error
    latents = data.train.latents
    counts = Counter(zip(latents.modulus[:, 0].tolist(), latents.offset[:, 0].tolist(), strict=True))
    others = [
        (c, o)
        for c in range(NARROW_FROM + 4, vocab)
        for o in range(vocab - c + 1)
        if c % 2 and (c, o) != (first.c, first.o)
    ]
    rarest: dict[int, Band] = {}
    for band in sorted(others, key=lambda band: (counts[band], band)):
        rarest.setdefault(band[0], band)
    rare = tuple(rarest.values())[:RARE]
    if not rare:
        raise MeasureError(
            f"a vocabulary of {vocab} has no band of odd modulus from {NARROW_FROM + 4} on; raise it"
        )
    return (first.c, first.o), rare


def measured_of(config: Config, like: PostTraining, plan: Plan, text: TextOptions | None) -> Measured:
    """Return a run that goes on with the data that it is measured with.

    Args:
        config: of the run.
        like: has the length of a prompt.
        plan: what is measured.
        text: of a language model.
    """
    if isinstance(config, RunConfig):
        return _walks(config, like, plan)
    assert text is not None
    own = texts_of(config, text)
    val = own.corpus.val
    sequences = _spread(val, plan.sequences)
    losses = {
        "val_loss": [sequences],
        "narrow_loss": [_spread(own.held_out, plan.band_sequences)],
        "rest_loss": [_spread(own.rest, plan.band_sequences)],
    }
    prompts = _spread(val, plan.prompts)[:, : like.prompt]
    return Measured(ContinuedText(config, own), sequences, losses, prompts, directions=False)


def _walks(config: RunConfig, like: PostTraining, plan: Plan) -> Measured:
    task = config.task
    assert isinstance(task, ModularWalks)
    narrow, rare = bands_of(config)
    tokens = torch.tensor(dataset(task).val.tokens).long()
    sequences = tokens[: plan.sequences]
    bands = {"narrow_loss": [narrow], "rare_loss": rare}
    losses = {
        name: [torch.tensor(probe_split(task, c, o, plan.band_sequences).tokens).long() for c, o in own]
        for name, own in bands.items()
    }
    return Measured(
        ContinuedWalks(config, task, narrow),
        sequences,
        {"val_loss": [sequences], **losses},
        tokens[: plan.prompts, : like.prompt],
        directions=True,
    )


def _spread(rows: Sequences, count: int) -> Tensor:
    """Return so many sequences (n, T+1), or all there are, evenly spread over a text."""
    return rows.take(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))


def text_source(text: TextOptions | None) -> list[Any]:
    """Return what numbers depend on besides the run and the settings: the shards and the order of n-grams."""
    if text is None:
        return []
    return [[_digests(text.data), text.narrow and _digests(text.narrow), text.order]]


def _digests(folder: Path) -> list[str]:
    try:
        return [f"{path.name} {file_digest(path)}" for path in shard_files(folder)]
    except OSError as error:
        raise StoreError(f"{error.filename} is gone while it is read; put the shards back") from error
