"""The floor of the toy's loss: the exact entropy of the next token, on the sequences on which the loss is taken.

No predictor has a lower mean loss. A validation set has a floor of its own: a loss is set against the floor of its own
sequences. Of the best predictor it differs by chance: s.e. 0.002 nats for 512 sequences of the published task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sims.system.errors import MeasureError
from theory.formulas.law import WalkLaw
from toymodel.config import RunConfig
from toymodel.data import dataset
from toymodel.task import Task
from toymodel.tasks import ModularWalks

# The tables of the exact law take V³ operations and V² numbers: 2.4 s and 0.4 GB at 2048 tokens, 15 s and 1.4 GB at
# 4096, a quarter of an hour and 20 GB at 16384, in every process that needs a floor.
LARGEST_VOCABULARY = 2048


@dataclass(frozen=True, eq=False)
class Floor:
    """Hold the lowest mean loss that is possible, in nats.

    Attributes:
        by_position: (T,) mean entropy of the token after each position.
        mean: over all positions.
    """

    by_position: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.by_position.mean())


def check_law(task: Task) -> ModularWalks:
    """Return the task where its exact law is known and can be computed.

    Raises:
        MeasureError: as `exact_law`.
    """
    if not isinstance(task, ModularWalks):
        raise MeasureError(f"the task is {task.kind}; the exact law is that of {ModularWalks.kind} only")
    if task.unique_val:
        raise MeasureError(
            "unique_val is True: validation sequences are drawn until they do not occur in training, and their law "
            "depends on the training set; draw them without it"
        )
    if task.vocab > LARGEST_VOCABULARY:
        raise MeasureError(
            f"vocab is {task.vocab}; the exact law takes V³ operations, and is computed for at most "
            f"{LARGEST_VOCABULARY} tokens: lower task.vocab"
        )
    return task


def exact_law(task: Task) -> WalkLaw:
    """Return the exact law of the validation sequences of a task.

    Raises:
        MeasureError: its law is not known exactly, or takes too long; the message says why.
    """
    task = check_law(task)
    try:
        return WalkLaw(
            task.vocab,
            task.modulus_min,
            task.modulus_power,
            task.offset_power,
            task.step_fraction,
            task.noncoprime,
            task.components_max,
            task.noise,
        )
    except ValueError as error:
        raise MeasureError(str(error)) from error


@lru_cache(maxsize=64)
def loss_floor(task: Task, sequences: int | None = None) -> Floor:
    """Return the floor of the validation loss of a task, computed once for each process.

    Args:
        task: modular walks without noise, one a sequence.
        sequences: how many validation sequences the loss is taken on, the first ones; None for all.

    Raises:
        MeasureError: the law of these sequences is not known exactly.
    """
    floor = exact_law(task).entropies(dataset(task).val.inputs[:sequences]).mean(axis=0)
    floor.flags.writeable = False
    return Floor(floor)


def run_floor(config: RunConfig) -> float:
    """Return the floor of the validation losses of one run (nats); NaN where it is not known."""
    try:
        return loss_floor(config.task, config.eval_size).mean
    except MeasureError:
        return math.nan
