"""Measure a run between its training steps, each measurement on a schedule of its own."""

from __future__ import annotations

from typing import Any

import torch

from sims.measure.engine import measure
from sims.measure.measurement import Data, Measurement, StepObserver
from sims.measure.rate_rows import RatesObserver
from sims.measure.registry import schedules, wanted
from sims.measure.rows import RecordingObserver
from sims.measure.training_batches import TrainingSequences, of_toy
from sims.models.transformer import TransformerSubject
from sims.system.process_group import SINGLE, ProcessGroup
from toymodel.config import RunConfig
from toymodel.observe import Schedule, View
from toymodel.rates import ONE_RATE


class ScheduledMeasurement(RecordingObserver):
    """Take one measurement of the model at its own steps (a `StepObserver`).

    It keeps nothing from one look to the next, so a resumed run needs no state of it.

    Args:
        measurement: what is measured.
        schedule: after which steps.
        run: configuration of the run, a `RunConfig` or `LmConfig`.
        data: what it is measured with.
        group: processes that share the work.
    """

    def __init__(
        self, measurement: Measurement, schedule: Schedule, run: Any, data: Data, group: ProcessGroup
    ) -> None:
        self.name = measurement.name
        self.measurement, self.schedule = measurement, schedule
        self.run, self.data, self.group = run, data, group
        super().__init__()

    def due(self, step: int) -> bool:
        """Return whether the schedule names this step."""
        return self.schedule.due(step, last=step - 1)

    def look(self, view: View) -> None:
        """Measure the model as it is now."""
        weights = view.weights()
        # One question to the device, not one for each parameter.
        if not bool(torch.stack([weight.isfinite().all() for weight in weights.values()]).all()):
            # The run has diverged, and ends at its next evaluation.
            return
        params = {name: weight[None] for name, weight in weights.items()}
        subject = TransformerSubject(self.run, params, view.step)
        self.found.append(measure(subject, self.data, measurements=[self.measurement], ranks=self.group))


def observers(
    config: Any,
    run: Any,
    data: Data | None = None,
    group: ProcessGroup = SINGLE,
    training: TrainingSequences | None = None,
) -> list[StepObserver]:
    """Return new observers for one run, for the measurements between its steps.

    Args:
        config: a `MeasureConfig` or `LmMeasureConfig`; of any other class (an unmeasured run), only rates that are not
            uniform are recorded.
        run: configuration of the run, a `RunConfig` or `LmConfig`.
        data: what the run is measured with; needed for `schedules`.
        group: processes that share the run.
        training: its training sequences; those of a toy run are known.
    """
    if training is None and isinstance(run, RunConfig):
        training = of_toy(run)
    own = schedules(config)
    found: list[StepObserver] = []
    rates = getattr(run, "rates", ONE_RATE)
    if not rates.uniform:
        found.append(RatesObserver(rates, run.steps))
    for measurement in wanted(config):
        if measurement.observer is not None:
            found.append(measurement.observer(config, run, training))
        elif measurement.name in own:
            assert data is not None, "scheduled measurements need data"
            found.append(ScheduledMeasurement(measurement, own[measurement.name], run, data, group))
    return found
