"""What a campaign needs to know of its runs, and how those of the toy are carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from sims.runs.measure_config import MeasureConfig
from sims.runs.spec import TrainableSpec
from sims.runs.store import RunFolder
from sims.sweep.plan import cost, plan
from sims.training.toy_runner import SECONDS_BETWEEN_STATES, run_group
from sims.training.trackers.registry import check as check_trackers
from toymodel.config import RunConfig

R = TypeVar("R", bound=TrainableSpec)


class Work(Protocol[R]):
    """How runs of one kind are planned and carried out; workers in other processes get a copy of it."""

    @property
    def device(self) -> str:
        """Where a process computes."""
        ...

    def ready(self, configs: Sequence[R]) -> None:
        """Raise what can be known to be wrong before any work starts."""
        ...

    def check(self, config: R, folder: RunFolder) -> bool:
        """Whether the folder holds this very run; False when it holds none yet.

        Raises:
            StoreError: it holds another one.
        """
        ...

    def plan(self, configs: Sequence[R], places: int) -> list[list[R]]:
        """Groups that train together, in the order in which they are begun."""
        ...

    def cost(self, config: R) -> float:
        """Work of a run, in any unit."""
        ...

    def size(self, config: R) -> str:
        """How large a step is, in the unit of the command."""
        ...

    def run(
        self, configs: Sequence[R], out: Path, until: int | None, stopped: Callable[[], bool]
    ) -> dict[str, str]:
        """Bring a group to its end, or to a pause, each run in its folder below `out`.

        Args:
            configs: the group.
            out: folder of the run folders.
            until: pause at the first evaluation at or after this step; None for the end.
            stopped: whether to store everything and leave.

        Returns:
            {run id: error} of what failed.
        """
        ...


@dataclass(frozen=True)
class ToyWork:
    """Ensembles of toy transformers.

    Args:
        measuring: how each of them is measured.
        device: "cpu" or "cuda…".
        store_every: seconds between stored states of a run.
        trackers: observers of every run, by name; the tables stay the record.
    """

    measuring: MeasureConfig
    device: str = "cpu"
    store_every: float = SECONDS_BETWEEN_STATES
    trackers: tuple[str, ...] = ()

    def ready(self, configs: Sequence[RunConfig]) -> None:
        """Raise what can be known to be wrong before any work starts."""
        check_trackers(self.trackers)
        for config in configs:
            self.measuring.check(config)

    def check(self, config: RunConfig, folder: RunFolder) -> bool:
        """Whether the folder holds this very run."""
        return folder.check(config, self.measuring)

    def plan(self, configs: Sequence[RunConfig], places: int) -> list[list[RunConfig]]:
        """Groups that train as one ensemble each."""
        return plan(configs, self.device, places)

    def cost(self, config: RunConfig) -> float:
        """Tokens times parameters."""
        return cost(config)

    def size(self, config: RunConfig) -> str:
        """Sequences a step."""
        return str(config.batch_size)

    def run(
        self, configs: Sequence[RunConfig], out: Path, until: int | None, stopped: Callable[[], bool]
    ) -> dict[str, str]:
        """Bring one ensemble to its end, or to a pause."""
        with _one_thread():
            return run_group(
                configs,
                self.measuring,
                out,
                self.device,
                until=until,
                stopped=stopped,
                store_every=self.store_every,
                trackers=self.trackers,
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    """A second thread makes operations of the toy's size slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
