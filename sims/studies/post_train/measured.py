"""Post-train stored runs and measure each before and after; what was measured is kept in the folder of the run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
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
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder
from sims.runs.tensors import load_tensors
from sims.studies.post_train.signals import check_signals
from sims.studies.post_train.sources import (
    TEXT_PLAN,
    Config,
    Measured,
    Plan,
    Run,
    checked_plan,
    fit_runs,
    measured_of,
    text_source,
)
from sims.studies.post_train.words import Words, words_of
from sims.system.errors import MeasureError
from sims.system.pool import ordered_map
from sims.training.post_training import TextOptions
from spectra import alpha_req, covariance_spectrum, rankme
from toymodel.config import RunConfig, canonical_hash
from toymodel.posttrain.config import KINDS, PostTraining
from toymodel.posttrain.continued import Continued, Signal, signal_of, train_further
from toymodel.posttrain.sampling import sample_continuations

NAME, VERSION = "post-training", 2
SIGNAL, SIGNAL_VERSION = "post-training-signal", 2
BEFORE = "before"
ARMS = (BEFORE, *KINDS)
KS = (1, 4, 16, 64, 256)
# Of RankMe without the first directions.
LEFT_OUT = 8
# Learning rate: of toys, and as a share of that of language models.
LR, LR_SHARE = 1e-4, 0.1
# Of language models: sequences of an update, and samples of one of rlvr.
TEXT_BATCH, TEXT_SAMPLES = 8, 64
# Tokens of their prompts and continuations, and training sequences with pairs.
TEXT_PROMPT, TEXT_LENGTH, TEXT_PAIRS = 6, 8, 256
# Parts of the plan that are timed to tell how long it takes.
TIMED = 16


@dataclass(frozen=True)
class Item:
    """Name one post-training of one run, or the run itself (`settings` None)."""

    folder: Path
    settings: PostTraining | None
    like: PostTraining
    plan: Plan
    text: TextOptions | None = None

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
        words: what the page says of the data.
        notes: which runs were left out, and why, and which rewards have little to learn from.
        signals: what preferences and rewards of each run have to learn from, by its name.
    """

    table: pd.DataFrame
    settings: tuple[PostTraining, ...]
    plan: Plan
    words: Words
    notes: tuple[str, ...] = ()
    signals: Mapping[str, Signal] = field(default_factory=dict)

    @property
    def cells(self) -> list[str]:
        """Stages."""
        return list(dict.fromkeys(self.table["cell"]))

    def of(self, kind: str) -> PostTraining:
        """Return the settings of a kind."""
        return next(own for own in self.settings if own.kind == kind)


def settings_of(steps: int, lr: float | None, config: Config | None = None) -> tuple[PostTraining, ...]:
    """Return the post-trainings that are compared.

    Args:
        steps: updates.
        lr: learning rate; None takes that of toys, or a tenth of that of a language model.
        config: of the runs; None for toys.
    """
    if not isinstance(config, LmConfig):
        return tuple(PostTraining(kind, steps=steps, lr=LR if lr is None else lr) for kind in KINDS)
    return tuple(
        PostTraining(
            kind,
            steps=steps,
            batch_size=TEXT_SAMPLES if kind == "rlvr" else TEXT_BATCH,
            lr=LR_SHARE * config.lr if lr is None else lr,
            pairs=TEXT_PAIRS,
            prompt=TEXT_PROMPT,
            length=TEXT_LENGTH,
        )
        for kind in KINDS
    )


def items_of(
    runs: Path,
    settings: Sequence[PostTraining],
    plan: Plan,
    notes: list[str],
    text: TextOptions | None = None,
) -> list[Item]:
    """Return every post-training of the runs of a folder, each run itself first.

    Args:
        runs, notes: as in `fit_runs`.
        settings: of each kind.
        plan: what is measured, or as much of it as there is data.
        text: of language models.

    Raises:
        MeasureError: as `fit_runs`, or a run that cannot be post-trained.
    """
    items = []
    for run in fit_runs(runs, notes):
        own = checked_plan(run, settings, plan, text)
        items += [Item(run[0].path, kind, settings[0], own, text) for kind in (None, *settings)]
    return items


def all_items(
    runs: Path, steps: int, lr: float | None, text: TextOptions | None, notes: list[str]
) -> tuple[list[Item], tuple[PostTraining, ...]]:
    """Return every post-training of the runs of a folder with the settings of their kind, and these; see `items_of`."""
    if text is None:
        settings = settings_of(steps, lr)
        return items_of(runs, settings, Plan(), notes), settings
    fit = fit_runs(runs, [])
    if lr is None:
        _require_one_rate(fit)
    settings = settings_of(steps, lr, fit[0][1])
    return items_of(runs, settings, TEXT_PLAN, notes, text), settings


def _require_one_rate(runs: Sequence[Run]) -> None:
    """Refuse language models of different learning rates, of which each would need a tenth of its own."""
    (first, config), *others = runs
    for folder, other in others:
        if isinstance(config, LmConfig) and isinstance(other, LmConfig) and other.lr != config.lr:
            raise MeasureError(
                f"{first.path.name} was trained at learning rate {config.lr:g} and {folder.path.name} at {other.lr:g}; "
                "all runs are post-trained at one, by default a tenth of theirs: set it by --lr"
            )


def post_data(
    items: Sequence[Item],
    settings: Sequence[PostTraining],
    notes: Sequence[str],
    workers: int,
    told: Callable[[int, int, Item], None],
) -> PostData:
    """Post-train and measure runs, those that are not stored yet.

    Args:
        items: of all runs (`all_items`).
        settings: of each kind.
        notes: of runs that were left out.
        workers: processes.
        told: called with the number of finished items, of all, and the last one.

    Raises:
        MeasureError: preferences or rewards that would train nothing, before any post-training; a model that diverged.
    """
    rows, first, signals = [], items[0], dict[str, Signal]()
    notes = list(notes)
    with ordered_map(min(workers, len(items)), ["sims.studies.post_train.measured"]) as each:
        bases = [item for item in items if item.settings is None]
        found = each(partial(signal_item, settings=tuple(settings)), bases)
        for item, own in zip(bases, found, strict=True):
            signals[item.folder.name] = own
            # A run that is refused is so before the next one is asked.
            notes += check_signals({item.folder.name: own}, first.text and first.text.order)
        for done, (item, found) in enumerate(zip(items, each(measure_item, items), strict=True), start=1):
            told(done, len(items), item)
            config = config_of(item)
            where = {"cell": config.stage, "seed": config.seed, "arm": item.arm}
            rows += [{**where, **row} for row in found]
    words = words_of(config_of(first), first.like, first.plan, first.text)
    return PostData(pd.DataFrame(rows), tuple(settings), first.plan, words, tuple(notes), signals)


def config_of(item: Item) -> Config:
    """Return the configuration of the run of an item."""
    found = RunFolder(item.folder).spec
    assert isinstance(found, RunConfig | LmConfig)
    return found


def signal_item(item: Item, settings: Sequence[PostTraining]) -> Signal:
    """Return what preferences and rewards have to learn from in a run, from its folder where it is stored."""
    torch.set_num_threads(1)
    folder = RunFolder(item.folder)
    config, file = config_of(item), folder.checkpoints()[-1]
    source = [file_digest(file), canonical_hash(config), [asdict(own) for own in settings]]

    def measure() -> dict[str, list[Record]]:
        model = measured_of(config, item.like, item.plan, item.text).model
        return {"signal": [asdict(signal_of(model, load_tensors(file, config)[1], settings))]}

    (found,) = cached(folder.path, SIGNAL, SIGNAL_VERSION, source + text_source(item.text), measure)["signal"]
    return Signal(**found)


def measure_item(item: Item) -> list[Record]:
    """Return the numbers of one model, quantity and value, from the folder of its run where they are stored."""
    torch.set_num_threads(1)
    folder = RunFolder(item.folder)
    config, file = config_of(item), folder.checkpoints()[-1]
    own = None if item.settings is None else asdict(item.settings)
    source = [file_digest(file), canonical_hash(config), own, item.like.prompt, item.like.length, item.plan]

    def measure() -> dict[str, list[Record]]:
        numbers = _numbers(item, *load_tensors(file, config))
        if not all(map(math.isfinite, numbers.values())):
            raise MeasureError(_diverged(item))
        return {"numbers": [{"quantity": name, "value": value} for name, value in numbers.items()]}

    return cached(folder.path, NAME, VERSION, source + text_source(item.text), measure)["numbers"]


def _numbers(item: Item, step: int, weights: Mapping[str, Tensor]) -> dict[str, float]:
    config = config_of(item)
    own = measured_of(config, item.like, item.plan, item.text)
    if item.settings is not None:
        weights = train_further(own.model, weights, item.settings)
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise MeasureError(_diverged(item))
    return measure_model(TransformerSubject.of_weights(config, weights, step), own, item.like, item.plan)


def seconds_of(items: Sequence[Item]) -> float:
    """Return the seconds that one process takes for items, from small parts of those of the first run, timed now."""
    first = [item for item in items if item.folder == items[0].folder]
    config, plan, like = config_of(first[0]), first[0].plan, first[0].like
    step, weights = load_tensors(RunFolder(first[0].folder).checkpoints()[-1], config)
    subject = TransformerSubject.of_weights(config, weights, step)
    small = replace(plan, sequences=max(4, plan.sequences // TIMED), prompts=max(1, plan.prompts // TIMED))
    own = measured_of(config, like, small, first[0].text)

    def measuring() -> float:
        return _timed(lambda: measure_model(subject, own, like, small))

    def training(settings: PostTraining, steps: int) -> float:
        return _timed(lambda: train_further(own.model, weights, replace(settings, steps=steps)))

    measuring()
    total = len(first) * measuring() * plan.prompts / small.prompts
    for settings in (item.settings for item in first if item.settings is not None):
        one, three = training(settings, 1), training(settings, 3)
        # What comes before the first update is done once.
        update = max(0.0, three - one) / 2
        total += max(0.0, one - update) + update * settings.steps
    return total * len({item.folder for item in items})


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _diverged(item: Item) -> str:
    if item.settings is None:
        return f"{item.folder.name} diverged in training; move it to another folder"
    return f"{item.folder.name} diverged in post-training by {item.arm}; lower the learning rate (--lr)"


def measure_model(
    subject: TransformerSubject, own: Measured, like: PostTraining, plan: Plan
) -> dict[str, float]:
    """Return all numbers of one model by name; those that its width or the rank of its states rule out are absent."""
    numbers = geometry(subject, own.sequences)
    if own.directions:
        numbers |= directions(subject, own.sequences)
    for name, sets in own.losses.items():
        means = [subject.losses(sequences).double().mean() for sequences in sets]
        numbers[name] = float(torch.stack(means).mean())
    return numbers | answers(subject, own.model, own.prompts, like.length, plan)


def geometry(subject: TransformerSubject, sequences: Tensor) -> dict[str, float]:
    """Return RankMe and α-ReQ of the states of the last position, and RankMe without the first directions."""
    states = subject.last_states(sequences).double().numpy()
    spectrum = covariance_spectrum(states)
    found = {"rankme": rankme(spectrum)}
    without = rankme_without(spectrum, LEFT_OUT)
    if without.status != "not fitted":
        found["rankme_without"] = without.value
    window = width_window(states.shape[1])
    if window is not None and (slope := alpha_req(spectrum, *window)).status != "not fitted":
        found["alpha_req"] = slope.value
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
    subject: TransformerSubject, model: Continued, prompts: Tensor, length: int, plan: Plan
) -> dict[str, float]:
    """Return pass@k and the numbers of distinct continuations, of all and of right ones, means over prompts.

    All models have the same prompts and the same random numbers.
    """
    draws = torch.Generator().manual_seed(0)
    found = sample_continuations(
        subject.transformer, subject.params, prompts, plan.samples, length, draws
    ).numpy()
    right = model.right(found.reshape(-1, found.shape[2]), prompts.shape[1]).reshape(found.shape[:2])
    rates = pass_at_k(right.sum(axis=1), plan.samples, KS).mean(axis=0)
    return {
        **{f"pass@{k}": float(rate) for k, rate in zip(KS, rates, strict=True)},
        "distinct": float(np.mean([len(np.unique(own, axis=0)) for own in found])),
        "distinct_possible": float(
            np.mean([len(np.unique(own[ok], axis=0)) for own, ok in zip(found, right, strict=True)])
        ),
    }
