"""Validation loss of a language model, on the first sequences of the pass over its text."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sims.measure.measurement import Batch, Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from spectra import Estimate, Moments
from theory.ranges import POSITIVE, REAL, Range
from toymodel.transformer import FINAL


class Loss(Gatherer):
    """Add the mean cross-entropy in nats over sequences, with the interval of its standard error."""

    sites = (FINAL,)

    def __init__(self, job: Job) -> None:
        config = job.data.config
        self.subject, self.ranks, self.device = job.subject, job.ranks, job.data.device
        # Whole sequences; the first ones of the pass, whichever rank takes them.
        self.counted = -(-config.loss_tokens // config.length)
        self.moments = Moments()

    def batch(self, batch: Batch) -> None:
        """Add the losses of the sequences that count."""
        states = batch.states[FINAL][0, : max(0, self.counted - batch.first)]
        if not len(states):
            return
        targets = batch.sequences[: len(states), 1:].long()
        # One sequence's logits (T, V) at a time: those of a whole batch would take gigabytes.
        losses = [self.subject.head_losses(x, y) for x, y in zip(states, targets, strict=True)]
        self.moments.update(torch.stack(losses).double().mean(dim=1, keepdim=True))

    def merge(self) -> None:
        """Merge the moments of all ranks."""
        self.moments = self.moments.copy().all_reduce()

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add the loss."""
        if self.moments.count:
            sheet.row("val_loss", "loss", "validation", mean_loss(self.moments))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments of the losses."""
        return self.moments.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self.moments = Moments.from_state_dict({name: value.to(self.device) for name, value in state.items()})


def mean_loss(losses: Moments, within: Range = POSITIVE) -> Estimate:
    """Estimate the mean over sequences, with Student's interval: the range for other text of this kind."""
    assert losses.mean is not None
    mean = float(losses.mean[0])
    return estimated_mean(
        mean, float(losses.covariance()[0, 0]) if losses.count > 1 else 0.0, losses.count, within
    )


def estimated_mean(mean: float, variance: float, n: int, within: Range = REAL) -> Estimate:
    """Return a mean of n independent values of a variance with its 95 % Student interval, which one value lacks."""
    if n < 2:
        return Estimate(mean)
    from sims.analysis.intervals import student

    return Estimate(mean, *within.interval(mean, student(n - 1) * math.sqrt(variance / n)))


LOSS = Measurement(
    "loss",
    version=1,
    meaning="validation loss on the measured text",
    needs=frozenset({"losses"}),
    begin=Loss,
    wanted=lambda config: config.loss_tokens > 0,
)
