"""Rows of the learning-rate multipliers of matrices, and of the scores that they follow from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

from sims.measure.rows import MeasurementRows, RecordingObserver
from spectra import Estimate
from toymodel.observe import View
from toymodel.rates import Rates

OBJECT, MULTIPLIER, SCORE = "rate", "lr_multiplier", "rate_score"


class RatedView(View, Protocol):
    """Show also the multipliers of the last update (`toymodel.ensemble.MemberView`)."""

    def rates(self) -> Mapping[str, tuple[float, float | None]]:
        """Return multiplier and score by matrix; None where a matrix has no score."""
        ...


class RatesObserver(RecordingObserver):
    """Record what the rates of a run are whenever they were chosen anew (a `StepObserver`).

    A row at step s is of the update that led to it; its score is that of the weights before that update.

    Args:
        rates: the settings, not uniform.
        steps: of the run.
    """

    name = "rates"

    def __init__(self, rates: Rates, steps: int) -> None:
        self.by, self.every = rates.by, rates.period(steps)
        super().__init__()

    def due(self, step: int) -> bool:
        """Return whether the rates of the last update were new."""
        return step > 0 and (step - 1) % self.every == 0

    def look(self, view: View) -> None:
        """Add two rows for each matrix that takes part."""
        sheet = MeasurementRows(view.step, view.tokens)
        for name, (multiplier, score) in cast(RatedView, view).rates().items():
            none = Estimate.not_fitted("the matrix has no exponent, and multiplier 1")
            sheet.row(MULTIPLIER, OBJECT, name, multiplier, detail=self.by)
            sheet.row(SCORE, OBJECT, name, none if score is None else score, detail=self.by)
        self.found.append(sheet)
