"""When a run is measured while it trains, and by what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sims.measure.engine import Keeper, measure
from sims.measure.engine import Progress as Tell
from sims.measure.lm import LmMeasurementData
from sims.measure.measure import MeasurementData
from sims.measure.rows import MeasurementRows
from sims.models.subject import Subject
from sims.runs.lm_config import LmConfig
from sims.system.process_group import SINGLE, ProcessGroup
from sims.training.snapshot import Snapshot
from toymodel.config import RunConfig


class RunMeasurement(Protocol):
    """How one run is measured while it trains."""

    @property
    def lasts(self) -> bool:
        """Whether measuring may take longer than training.

        Then the state is stored before, so that a kill loses neither, and a signal need not wait for the end.
        """
        ...

    def keeps_weights(self, snapshot: Snapshot) -> bool:
        """Return whether the weights are kept here, for measuring again."""
        ...

    def due(self, snapshot: Snapshot) -> bool:
        """Return whether the model is measured here."""
        ...

    def __call__(
        self, subject: Subject, keeper: Keeper | None, tell: Tell, stopped: Callable[[], bool]
    ) -> MeasurementRows:
        """Measure the model.

        Args:
            subject: the model.
            keeper: keeps what is gathered so far; None where a killed run would not come back to this very model.
            tell: called after every piece of work with the part, the pieces done, and how many there are.
            stopped: asked after every piece of work where there is a keeper.

        Raises:
            Interrupted: `stopped` said so; what was gathered is kept.
        """
        ...


@dataclass(frozen=True)
class ToyMeasurement:
    """The toy is measured at some of its evaluations, within a second.

    Args:
        config: the run.
        data: what it is measured with.
    """

    config: RunConfig
    data: MeasurementData
    lasts = False

    def due(self, snapshot: Snapshot) -> bool:
        """Return whether an early or regular measurement is due, or the run ends other than by diverging."""
        if snapshot.val_loss is None or snapshot.ended == "diverged":
            return False
        measuring = self.data.config
        early = snapshot.step <= measuring.early * self.config.eval_every
        return early or snapshot.step % measuring.every == 0 or snapshot.ended is not None

    def keeps_weights(self, snapshot: Snapshot) -> bool:
        """Return whether weights are kept, which is where the model is measured."""
        return self.data.config.checkpoints and self.due(snapshot)

    def __call__(
        self, subject: Subject, keeper: Keeper | None, tell: Tell, stopped: Callable[[], bool]
    ) -> MeasurementRows:
        """Measure the model in one piece."""
        return measure(subject, self.data)


@dataclass(frozen=True)
class LmMeasurement:
    """A language model is measured where its weights are kept, which takes minutes.

    Args:
        config: the run.
        data: what it is measured with; None keeps the weights without measuring.
        group: processes that share the work.
    """

    config: LmConfig
    data: LmMeasurementData | None = None
    group: ProcessGroup = SINGLE

    @property
    def lasts(self) -> bool:
        """Whether anything is measured."""
        return self.data is not None

    def keeps_weights(self, snapshot: Snapshot) -> bool:
        """Return whether this is one of the run's checkpoints, or its end."""
        if snapshot.val_loss is None:
            return False
        return snapshot.step in self.config.checkpoint_steps or snapshot.ended is not None

    def due(self, snapshot: Snapshot) -> bool:
        """Return whether the model is measured here."""
        return self.data is not None and self.keeps_weights(snapshot)

    def __call__(
        self, subject: Subject, keeper: Keeper | None, tell: Tell, stopped: Callable[[], bool]
    ) -> MeasurementRows:
        """Measure the model on text; every process of the group calls this."""
        assert self.data is not None
        return measure(subject, self.data, progress=tell, ranks=self.group, keeper=keeper, stopped=stopped)
