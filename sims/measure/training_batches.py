"""Training sequences for measurements between steps, and batches of them that every process draws alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sims.models.run_network import network_of_run
from sims.text.corpus import Corpus
from toymodel.config import RunConfig
from toymodel.data import dataset
from toymodel.derivatives import twice_differentiable
from toymodel.placed import Batch, Placed
from toymodel.task import Split

# A stream of its own: training draws other batches.
MEASURED_STREAM = 17


@dataclass(frozen=True)
class TrainingSequences:
    """Give sequences of the training split of a run.

    Args:
        count: how many there are.
        take: returns n sequences by index, with what counts of their targets.
    """

    count: int
    take: Callable[[np.ndarray], Batch]


def of_toy(run: RunConfig) -> TrainingSequences:
    """Return the training sequences of a toy run; they are drawn when the first are taken."""

    def take(which: np.ndarray) -> Batch:
        split = dataset(run.task).train
        mask, labels = (None if a is None else a[which] for a in (split.mask, split.labels))
        chosen = Split(split.tokens[which], None, mask=mask, labels=labels)
        return Placed.of([chosen], torch.cat, torch.device("cpu"))[:]

    return TrainingSequences(run.task.train, take)


def of_corpus(corpus: Corpus) -> TrainingSequences:
    """Return the training sequences of a text."""
    return TrainingSequences(len(corpus.train), lambda which: Batch(corpus.train.take(which), None, None))


def drawn_batches(run: Any, step: int, count: int, size: int, training: TrainingSequences) -> np.ndarray:
    """Draw (count, size) indices of training sequences, with replacement, by the seed of the run and the step only."""
    stream = np.random.SeedSequence(run.seed, spawn_key=(MEASURED_STREAM, step))
    return np.random.default_rng(stream).integers(0, training.count, size=(count, size))


def batch_loss(
    run: Any,
    step: int,
    names: list[str],
    batch: Batch,
    device: torch.device,
    twice: bool = False,
) -> Callable[[list[Tensor]], Tensor]:
    """Return the mean loss () in nats of a batch as a function of parameters (*shape), in their dtype.

    Args:
        run: a `RunConfig` or `LmConfig`.
        step: number of updates so far, on which attention windows may depend.
        names: of the parameters, in the order in which they are passed.
        batch: n sequences.
        device: of the parameters.
        twice: whether it has second derivatives.
    """
    network = network_of_run(run).at(step, run.steps)
    tokens, mask, labels = (
        None if t is None else t.to(device)[None] for t in (batch.sequences, batch.mask, batch.labels)
    )
    assert tokens is not None

    def loss(values: list[Tensor]) -> Tensor:
        params = {name: value[None] for name, value in zip(names, values, strict=True)}
        if not twice:
            return network.losses(params, tokens, mask=mask, labels=labels)[0]
        with twice_differentiable():
            return network.losses(params, tokens, mask=mask, labels=labels)[0]

    return loss
