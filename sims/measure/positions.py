"""Validation loss above its exact floor at every position, of a toy whose law is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, cast

from torch import Tensor

from sims.measure.loss import estimated_mean
from sims.measure.measurement import Batch, Data, Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from spectra import Estimate
from toymodel.transformer import FINAL


class LawData(Data, Protocol):
    """Inputs whose next tokens have a known law."""

    @property
    def entropies(self) -> Tensor:
        """Exact entropies (n, T) in nats of the token after each position of the sequences, float64."""
        ...


class Positions(Gatherer):
    """Add the mean of loss minus exact entropy at every position, with Student's interval over sequences."""

    sites = (FINAL,)
    stays = ("job", "total", "squares")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.count = 0
        self.total: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def batch(self, batch: Batch) -> None:
        """Add the losses of one batch of sequences."""
        states = batch.states[FINAL]
        targets = batch.sequences[:, 1:].long()
        losses = self.job.models.head_losses(states.flatten(1, 2), targets.flatten())
        entropies = cast(LawData, self.job.data).entropies[batch.first : batch.first + len(targets)]
        excess = losses.view(len(losses), *targets.shape).double() - entropies  # (K, b, T)
        self.count += len(targets)
        self.total += excess.sum(dim=1)
        self.squares += excess.square().sum(dim=1)

    def found(self) -> Mapping[str, Tensor]:
        """Return sums and sums of squares by position."""
        return {"excess": cast(Tensor, self.total), "squares": cast(Tensor, self.squares)}

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add one row a position; position 1 has read one token."""
        n = self.count
        for k, (total, squares) in enumerate(
            zip(found["excess"].tolist(), found["squares"].tolist(), strict=True)
        ):
            mean = total / n
            variance = max(squares / n - mean**2, 0.0) * n / max(n - 1, 1)
            estimate = (
                estimated_mean(mean, variance, n)
                if math.isfinite(mean)
                else Estimate.not_fitted("the loss is not a finite number")
            )
            sheet.row("excess_by_position", "loss", "validation", estimate, detail=f"position {k + 1}")


POSITIONS = Measurement(
    "positions",
    version=1,
    meaning="validation loss above its exact floor at every position (`--measure.positions`)",
    needs=frozenset({"activations", "law"}),
    begin=Positions,
    wanted=lambda config: config.positions,
)
