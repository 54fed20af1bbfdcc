"""Decide when a run in training is measured, and measure it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from sims.measure.engine import Gathered, Keeper, gather, measure, stack_with
from sims.measure.engine import Progress as Tell
from sims.measure.lm import LmMeasurementData
from sims.measure.rows import MeasurementRows
from sims.measure.toy import MeasurementData
from sims.models.subject import Subject
from sims.runs.lm_config import LmConfig
from sims.system.process_group import SINGLE, ProcessGroup
from sims.training.snapshot import Snapshot, stack_of
from sims.training.summary_workers import Rows, SummaryWorkers
from spectra.errors import NotFiniteError
from toymodel.config import RunConfig


class RunMeasurement(Protocol):
    """Measure one run while it trains."""

    @property
    def lasts(self) -> bool:
        """Return whether measuring may take longer than training.

        Then the state is stored before, so that a killed process loses neither, and a signal interrupts the
        measurement.
        """
        ...

    def keeps_weights(self, snapshot: Snapshot) -> bool:
        """Return whether the weights are stored here, for measuring again."""
        ...

    def due(self, snapshot: Snapshot) -> bool:
        """Return whether the model is measured here."""
        ...

    def __call__(
        self, subject: Subject, keeper: Keeper | None, tell: Tell, stopped: Callable[[], bool]
    ) -> Rows:
        """Measure the model; the rows may come later.

        Args:
            subject: the model.
            keeper: stores intermediate results; None where a killed run would not continue with this model.
            tell: called after every piece of work with its name, the number done, and the total.
            stopped: called after every piece of work where there is a keeper; True interrupts.

        Raises:
            Interrupted: `stopped` returned True; intermediate results are stored.
        """
        ...


@dataclass(frozen=True)
class ToyMeasurement:
    """Measure a toy run at some of its evaluations, within a second.

    Args:
        config: the run.
        data: sequences and settings of the measurements.
        workers: make its rows; None makes them at once.
    """

    config: RunConfig
    data: MeasurementData
    workers: SummaryWorkers | None = None
    lasts = False
    # What was gathered of the run together with others, by step, and is not yet reported.
    gathered: dict[int, Gathered] = field(default_factory=dict, compare=False, repr=False)

    def due(self, snapshot: Snapshot) -> bool:
        """Return whether a measurement is due.

        It is due early and regularly, and at the end of a run that did not diverge.
        """
        if snapshot.val_loss is None or snapshot.ended == "diverged":
            return False
        measuring = self.data.config
        early = snapshot.step <= measuring.early * self.config.eval_every
        return early or snapshot.step % measuring.every == 0 or snapshot.ended is not None

    def keeps_weights(self, snapshot: Snapshot) -> bool:
        """Return whether weights are stored: wherever the model is measured."""
        return self.data.config.checkpoints and self.due(snapshot)

    def __call__(
        self, subject: Subject, keeper: Keeper | None, tell: Tell, stopped: Callable[[], bool]
    ) -> Rows:
        """Measure the model in one piece, or report what was gathered of it."""
        found = self.gathered.pop(subject.step, None)
        if found is None:
            (found,) = gather(stack_with(subject), self.data)
        return found.sheet() if self.workers is None else self.workers.rows(found)


def measure_together(runs: Sequence[tuple[ToyMeasurement, Snapshot]]) -> list[Snapshot]:
    """Gather what is due of the members of one ensemble at one step, all of them in the same passes.

    On a CPU nothing is gained, and every run is measured by itself.

    Args:
        runs: measurement and snapshot of each member.

    Returns:
        The snapshots, with the time that this took in equal shares.
    """
    groups: dict[int, list[int]] = {}
    for place, (measurement, snapshot) in enumerate(runs):
        if measurement.data.device != "cpu" and measurement.due(snapshot):
            groups.setdefault(id(measurement.data), []).append(place)
    snapshots = [snapshot for _, snapshot in runs]
    for places in groups.values():
        began = time.perf_counter()
        own = [runs[place] for place in places]
        models = stack_of([snapshot.model for _, snapshot in own])
        # Where one has no numbers to measure, each is measured by itself.
        with suppress(NotFiniteError):
            for (measurement, snapshot), found in zip(own, gather(models, own[0][0].data), strict=True):
                measurement.gathered[snapshot.step] = found
        share = (time.perf_counter() - began) / len(places)
        for place in places:
            seconds = {**snapshots[place].seconds, "measurement": share}
            snapshots[place] = replace(snapshots[place], seconds=seconds)
    return snapshots


@dataclass(frozen=True)
class LmMeasurement:
    """Measure a language model at its checkpoints, within minutes.

    Args:
        config: the run.
        data: sequences and settings of the measurements; None stores the weights without measuring.
        group: processes that share the measurement.
    """

    config: LmConfig
    data: LmMeasurementData | None = None
    group: ProcessGroup = SINGLE

    @property
    def lasts(self) -> bool:
        """Return whether anything is measured."""
        return self.data is not None

    def keeps_weights(self, snapshot: Snapshot) -> bool:
        """Return whether this is a checkpoint or the end."""
        if snapshot.val_loss is None:
            return False
        return snapshot.step in self.config.checkpoint_steps or snapshot.ended is not None

    def due(self, snapshot: Snapshot) -> bool:
        """Return whether the model is measured here."""
        return self.data is not None and self.keeps_weights(snapshot)

    def __call__(
        self, subject: Subject, keeper: Keeper | None, tell: Tell, stopped: Callable[[], bool]
    ) -> MeasurementRows:
        """Measure the model on text; every process calls this."""
        assert self.data is not None
        return measure(subject, self.data, progress=tell, ranks=self.group, keeper=keeper, stopped=stopped)
