"""How far the gradient steps of two training batches are from commuting, between training steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from sims.measure.measurement import Measurement
from sims.measure.rows import MeasurementRows, RecordingObserver
from sims.measure.training_batches import TrainingSequences, batch_loss, drawn_batches
from spectra import Estimate
from spectra.defects import Defect, commutator_defect
from spectra.errors import InputError
from toymodel.observe import Schedule, View
from toymodel.precision import full_precision

LEVEL = 0.95


@dataclass(frozen=True)
class DefectSettings:
    """Set what the defect is taken of.

    Args:
        pairs: K pairs of batches.
        sequences: sequences of a batch.
        rate: η of the finite steps.
    """

    pairs: int
    sequences: int
    rate: float


class DefectObserver(RecordingObserver):
    """Measure the defect of pairs of training batches of one run.

    The batches depend on the seed of the run and on the step only, and nothing is kept from one look to the next: a
    resumed run needs no state of it.

    Args:
        schedule: after which steps.
        run: a `RunConfig` or `LmConfig`.
        training: its training sequences.
        settings: of the batches.
    """

    name = "defect"

    def __init__(
        self, schedule: Schedule, run: Any, training: TrainingSequences, settings: DefectSettings
    ) -> None:
        self.schedule, self.run, self.training, self.settings = schedule, run, training, settings
        super().__init__()

    def due(self, step: int) -> bool:
        """Return whether the schedule names this step."""
        return self.schedule.due(step, last=step - 1)

    @full_precision()
    def look(self, view: View) -> None:
        """Measure all pairs with the weights as they are now."""
        weights = view.weights()
        if not bool(torch.stack([weight.isfinite().all() for weight in weights.values()]).all()):
            # The run has diverged, and ends at its next evaluation.
            return
        names, values = list(weights), list(weights.values())
        batches = drawn_batches(
            self.run, view.step, 2 * self.settings.pairs, self.settings.sequences, self.training
        )
        defects, failures = [], []
        for pair in batches.reshape(self.settings.pairs, 2, -1):
            first, second = (
                batch_loss(
                    self.run, view.step, names, self.training.take(which), values[0].device, twice=True
                )
                for which in pair
            )
            try:
                defects.append(commutator_defect(first, second, values, rate=self.settings.rate))
            except InputError as error:
                failures.append(str(error))
        sheet = MeasurementRows(view.step, view.tokens)
        _add_rows(sheet, defects, failures)
        self.found.append(sheet)


def _add_rows(sheet: MeasurementRows, defects: Sequence[Defect], failures: Sequence[str]) -> None:
    """Add medians over the pairs, with their intervals; where finite steps measure something else, flagged."""
    pairs = len(defects) + len(failures)
    missing = f"{len(failures)} of {pairs} pairs have no defect: {failures[0]}" if failures else ""
    numbers: dict[str, tuple[list[float], str]] = {
        "defect": ([d.exact for d in defects], ""),
        "defect_fd": ([d.finite for d in defects], _most([d for d in defects if d.curved], defects)),
        "defect_fd32": ([d.published for d in defects], _most([d for d in defects if d.rounded], defects)),
        "gradient_norm": ([norm for d in defects for norm in d.norms], ""),
        "gradient_cosine": ([d.cosine for d in defects], ""),
    }
    for quantity, (values, doubt) in numbers.items():
        if not values:
            sheet.row(quantity, "defect", "all", Estimate.not_fitted(missing))
            continue
        reason = "; ".join(part for part in (doubt, missing) if part)
        low, high = median_interval(values)
        status = "flagged" if reason else "ok"
        sheet.row(quantity, "defect", "all", Estimate(float(np.median(values)), low, high, status, reason))


def _most(doubtful: Sequence[Defect], defects: Sequence[Defect]) -> str:
    """Return a sentence where more than half of the pairs are doubtful, which then moves the median."""
    if 2 * len(doubtful) <= len(defects):
        return ""
    return f"{len(doubtful)} of {len(defects)} pairs: {doubtful[0].reason}"


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return two of the values that enclose the median of their law with a probability of at least 95 %.

    These are the narrowest such order statistics at equal distance from both ends. Up to five values the smallest and
    the largest are returned, whose probability is 1 − 2^(1−n): 93.75 % for five. One value has no interval: NaN.

    >>> median_interval([5.0, 1.0, 3.0, 2.0, 4.0])
    (1.0, 5.0)
    """
    ordered, n = sorted(values), len(values)
    if n < 2:
        return math.nan, math.nan
    outside = 0
    while outside + 1 < n / 2 and 2 * stats.binom.cdf(outside + 1, n, 0.5) <= 1 - LEVEL:
        outside += 1
    return ordered[outside], ordered[n - 1 - outside]


def _schedule(config: Any) -> Schedule:
    return Schedule(every=config.defect)


def _observer(config: Any, run: Any, training: TrainingSequences | None) -> DefectObserver:
    assert training is not None, "the defect needs training sequences"
    sequences = config.defect_sequences or run.batch_size
    settings = DefectSettings(config.defect_pairs, sequences, config.defect_rate)
    return DefectObserver(_schedule(config), run, training, settings)


DEFECT = Measurement(
    "defect",
    version=1,
    meaning="how far gradient steps of two training batches are from commuting (`--measure.defect`)",
    needs=frozenset({"training"}),
    wanted=lambda config: config.defect > 0,
    schedule=_schedule,
    observer=_observer,
)
