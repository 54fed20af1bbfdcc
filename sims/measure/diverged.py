"""Checkpoints whose numbers are none: one row says which, and the other checkpoints of the run are measured."""

from __future__ import annotations

from sims.measure.measurement import Data
from sims.measure.rows import MeasurementRows
from sims.models.subject import Subject
from sims.models.weights import not_finite


def diverged_rows(subject: Subject, data: Data) -> MeasurementRows | None:
    """Return the row of a model with NaN or Inf in its weights, or in the states of one sequence; None without such.

    Every process that shares a measurement finds the same.
    """
    sequence = data.tokens(data.batches(False)[0])[:1]
    why = not_finite(subject, sequence)
    if not why:
        return None
    return diverged_sheet(subject, why)


def diverged_sheet(subject: Subject, why: str) -> MeasurementRows:
    """Return the one row of a model whose numbers are none."""
    sheet = MeasurementRows(subject.step, subject.tokens)
    sheet.diverged(f"step {subject.step}: {why}")
    return sheet
