"""Post-train stored runs and measure each before and after; what was measured is kept in the folder of the run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sims.analysis.pass_at_k import pass_at_k
from sims.measure.cache import Record, cached, file_digest
from sims.measure.directions import measure_directions
from sims.measure.geometry import rankme_without, width_window
from sims.models.transformer import TransformerSubject
from sims.runs.store import RunFolder, run_folders
from sims.runs.tensors import load_tensors
from sims.studies.stored import check_alike, chosen_runs, without_end
from sims.system.errors import MeasureError
from sims.system.pool import ordered_map
from spectra import alpha_req, covariance_spectrum, rankme
from toymodel.config import RunConfig, canonical_hash
from toymodel.data import dataset
from toymodel.errors import ConfigError
from toymodel.posttrain.config import KINDS, PostTraining
from toymodel.posttrain.sampling import sample_continuations
from toymodel.posttrain.training import Band, check_post, post_train
from toymodel.tasks import ModularWalks
from toymodel.tasks.modular_walk_laws import possible_walks
from toymodel.tasks.modular_walk_probes import probe_split, training_bands

NAME, VERSION = "post-training", 2
BEFORE = "before"
ARMS = (BEFORE, *KINDS)
KS = (1, 4, 16, 64, 256)
# Of RankMe without the first directions.
LEFT_OUT = 8
# Smallest modulus of the narrow data, and number of rare bands, whose moduli are larger by 4 or more.
NARROW_FROM, RARE = 7, 3


@dataclass(frozen=True)
class Plan:
    """Set what is measured of each model, the same for all.

    Args:
        sequences: validation sequences of the geometry and of losses, or as many as there are.
        prompts: beginnings of validation sequences.
        samples: continuations of each prompt.
        band_sequences: sequences of each band.
    """

    sequences: int = 1_024
    prompts: int = 48
    samples: int = 512
    band_sequences: int = 256


@dataclass(frozen=True)
class Item:
    """Name one post-training of one run, or the run itself (`settings` None)."""

    folder: Path
    settings: PostTraining | None
    like: PostTraining
    plan: Plan

    @property
    def arm(self) -> str:
        """Name of the kind."""
        return BEFORE if self.settings is None else self.settings.kind


@dataclass(frozen=True, eq=False)
class PostData:
    """Hold what was measured.

    Attributes:
        table: cell, seed, arm, quantity, value.
        settings: of the post-trainings, one for each kind.
        plan: of the measurement, as it was used.
        narrow, rare: bands (modulus, offset) of the narrow data, and those that training has fewest sequences of.
        notes: which runs were left out, and why.
    """

    table: pd.DataFrame
    settings: tuple[PostTraining, ...]
    plan: Plan
    narrow: Band
    rare: tuple[Band, ...]
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> list[str]:
        """Stages."""
        return list(dict.fromkeys(self.table["cell"]))


def settings_of(steps: int, lr: float) -> tuple[PostTraining, ...]:
    """Return the post-trainings that are compared."""
    return tuple(PostTraining(kind, steps=steps, lr=lr) for kind in KINDS)


def fit_runs(runs: Path, notes: list[str]) -> list[tuple[RunFolder, RunConfig]]:
    """Return the runs of a folder that were trained to their end, at the smallest batch size.

    Args:
        runs: the folder.
        notes: gets why others were left out.

    Raises:
        MeasureError: none, several of one stage and seed, or runs that were not made alike: of one stage with other
            settings, of several tasks or task seeds, or of several widths.
    """
    chosen = chosen_runs(runs, None)
    size = chosen[0][1].batch_size
    left_out = {folder.path: reason for folder in run_folders(runs) if (reason := _unfit(folder, size))}
    notes += [f"{path.name} was left out: {reason}." for path, reason in left_out.items()]
    found = [(folder, config) for folder, config in chosen if folder.path not in left_out]
    if not found:
        raise MeasureError(f"{runs} holds no run that can be post-trained: {notes[0]}")
    _require_alike(found)
    return found


def _unfit(folder: RunFolder, size: int) -> str:
    """Return why a run is no replicate of those of a batch size that were trained to their end; "" if it is one."""
    if folder.done and (own := getattr(folder.spec, "batch_size", size)) != size:
        return f"its batch size is {own}, and the smallest, {size}, is taken"
    if reason := without_end(folder):
        return reason
    ended, step = folder.outcome["ended"], folder.outcome["step"]
    return "" if ended == "finished" else f"it ended at step {step} ({ended}), before its last one"


def _require_alike(found: Sequence[tuple[RunFolder, RunConfig]]) -> None:
    names = [folder.path.name for folder, _ in found]
    configs = [config for _, config in found]
    runs = pd.DataFrame({"run": names, "cell": [config.stage for config in configs]})
    check_alike(runs, dict(zip(names, configs, strict=True)))
    shared: dict[str, list[Any]] = {
        "of task seed": [config.task.seed for config in configs],
        "of width": [config.model.d_model for config in configs],
        "trained on": [config.task for config in configs],
    }
    for what, values in shared.items():
        other = next((i for i, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            raise MeasureError(
                f"{names[0]} is {what} {values[0]} and {names[other]} {what} {values[other]}; they have other bands or "
                "measurements, so move those of one kind to a folder of their own"
            )


def items_of(runs: Path, settings: Sequence[PostTraining], plan: Plan, notes: list[str]) -> list[Item]:
    """Return every post-training of the runs of a folder, each run itself first.

    Args:
        runs, notes: as in `fit_runs`.
        settings: of each kind.
        plan: what is measured, or as much of it as the task has sequences.

    Raises:
        MeasureError: as `fit_runs`, or a run that cannot be post-trained.
    """
    items = []
    for folder, config in fit_runs(runs, notes):
        narrow, _ = bands_of(config)
        try:
            for kind in settings:
                check_post(config, kind, narrow)
        except ConfigError as error:
            raise MeasureError(f"{folder.path.name}: {error}") from error
        own = replace(
            plan,
            sequences=min(plan.sequences, config.task.val),
            prompts=min(plan.prompts, config.task.val),
        )
        items += [Item(folder.path, kind, settings[0], own) for kind in (None, *settings)]
    return items


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


def post_data(runs: Path, settings: Sequence[PostTraining], plan: Plan, workers: int, told: Any) -> PostData:
    """Post-train and measure the complete runs of a folder, those that are not stored yet.

    Args:
        runs: folder of the runs.
        settings: of each kind.
        plan: what is measured.
        workers: processes.
        told: called with the number of finished items, of all, and the last one.

    Raises:
        MeasureError: as `items_of`; a model that diverged.
    """
    notes: list[str] = []
    items = items_of(runs, settings, plan, notes)
    rows = []
    with ordered_map(min(workers, len(items)), ["sims.studies.post_train.measured"]) as each:
        for done, (item, found) in enumerate(zip(items, each(measure_item, items), strict=True), start=1):
            told(done, len(items), item)
            config = RunFolder(item.folder).configs()[0]
            where = {"cell": config.stage, "seed": config.seed, "arm": item.arm}
            rows += [{**where, **row} for row in found]
    config = RunFolder(items[0].folder).configs()[0]
    return PostData(pd.DataFrame(rows), tuple(settings), items[0].plan, *bands_of(config), tuple(notes))


def measure_item(item: Item) -> list[Record]:
    """Return the numbers of one model, quantity and value, from the folder of its run where they are stored."""
    torch.set_num_threads(1)
    folder = RunFolder(item.folder)
    config, file = folder.configs()[0], folder.checkpoints()[-1]
    own = None if item.settings is None else asdict(item.settings)
    source = [file_digest(file), canonical_hash(config), own, item.like.prompt, item.like.length, item.plan]

    def measure() -> dict[str, list[Record]]:
        step, weights = load_tensors(file, config)
        narrow, rare = bands_of(config)
        if item.settings is not None:
            weights = post_train(config, weights, item.settings, narrow)
        if not all(bool(weight.isfinite().all()) for weight in weights.values()):
            raise MeasureError(_diverged(item))
        subject = TransformerSubject.of_weights(config, weights, step)
        numbers = measure_model(subject, config, item.like, item.plan, narrow, rare)
        if not all(map(math.isfinite, numbers.values())):
            raise MeasureError(_diverged(item))
        return {"numbers": [{"quantity": name, "value": value} for name, value in numbers.items()]}

    return cached(folder.path, NAME, VERSION, source, measure)["numbers"]


def _diverged(item: Item) -> str:
    if item.settings is None:
        return f"{item.folder.name} diverged in training; move it to another folder"
    return f"{item.folder.name} diverged in post-training by {item.arm}; lower the learning rate (--lr)"


def measure_model(
    subject: TransformerSubject,
    config: RunConfig,
    like: PostTraining,
    plan: Plan,
    narrow: Band,
    rare: Sequence[Band],
) -> dict[str, float]:
    """Return all numbers of one model by name; those that its width or the rank of its states rule out are absent."""
    assert isinstance(config.task, ModularWalks)
    tokens = torch.tensor(dataset(config.task).val.tokens).long()
    sequences = tokens[: plan.sequences]
    numbers = geometry(subject, sequences) | directions(subject, sequences)
    numbers["val_loss"] = float(subject.losses(sequences).double().mean())
    bands = {"narrow": [narrow], "rare": rare}
    for name, own in bands.items():
        losses = [
            subject.losses(torch.tensor(probe_split(config.task, c, o, plan.band_sequences).tokens).long())
            for c, o in own
        ]
        numbers[f"{name}_loss"] = float(torch.stack([each.double().mean() for each in losses]).mean())
    return numbers | answers(subject, config.task, tokens[: plan.prompts, : like.prompt], like.length, plan)


def geometry(subject: TransformerSubject, sequences: Tensor) -> dict[str, float]:
    """Return RankMe and α-ReQ of the states of the last position, and RankMe without the first directions."""
    states = subject.last_states(sequences).double().numpy()
    spectrum = covariance_spectrum(states)
    found = {"rankme": rankme(spectrum)}
    without = rankme_without(spectrum, LEFT_OUT)
    if without.status != "not fitted":
        found["rankme_without"] = without.value
    window = width_window(states.shape[1])
    if window is not None:
        found["alpha_req"] = alpha_req(spectrum, *window).value
    return found


def directions(subject: TransformerSubject, sequences: Tensor) -> dict[str, float]:
    """Return the accuracy of whole states, and with the first directions kept and dropped."""
    table = measure_directions(subject, sequences)
    found = {"accuracy": float(table["accuracy"].iloc[0])}
    rows: list[Mapping[str, Any]] = table.iloc[1:].to_dict("records")  # pyright: ignore[reportAssignmentType]
    for row in rows:
        # Above the rank of the states the table has none.
        if row["directions"] and not math.isnan(row["accuracy"]):
            found[f"{row['edit']}_top_{row['directions']}"] = float(row["accuracy"])
    return found


def answers(
    subject: TransformerSubject, task: ModularWalks, prompts: Tensor, length: int, plan: Plan
) -> dict[str, float]:
    """Return pass@k and the numbers of distinct continuations, of all and of possible ones, means over prompts.

    All models have the same prompts and the same random numbers.
    """
    draws = torch.Generator().manual_seed(0)
    found = sample_continuations(
        subject.transformer, subject.params, prompts, plan.samples, length, draws
    ).numpy()
    right = possible_walks(task, found.reshape(-1, found.shape[2])).reshape(found.shape[:2])
    rates = pass_at_k(right.sum(axis=1), plan.samples, KS).mean(axis=0)
    return {
        **{f"pass@{k}": float(rate) for k, rate in zip(KS, rates, strict=True)},
        "distinct": float(np.mean([len(np.unique(own, axis=0)) for own in found])),
        "distinct_possible": float(
            np.mean([len(np.unique(own[ok], axis=0)) for own, ok in zip(found, right, strict=True)])
        ),
    }
