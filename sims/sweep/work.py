"""Plan and train runs of a sweep: the interface, and the toy's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from sims.measure.registry import schedules
from sims.measure.toy import check_task
from sims.measure.updates import check_updates
from sims.runs.measure_config import MeasureConfig
from sims.runs.spec import TrainableSpec
from sims.runs.store import RunFolder
from sims.sweep.plan import cost, plan
from sims.training.defaults import SECONDS_BETWEEN_STATES
from sims.training.toy_memory import check_memory
from sims.training.toy_runner import run_group
from sims.training.trackers.registry import check as check_trackers
from toymodel.captured import check_graphs
from toymodel.config import Graphs, RunConfig
from toymodel.network import check_targets
from toymodel.precision import check_precision
from toymodel.stages import stage

R = TypeVar("R", bound=TrainableSpec)


class Work(Protocol[R]):
    """Plan and train runs of one kind.

    Workers in other processes get a copy, so it must be picklable.
    """

    @property
    def device(self) -> str:
        """Return the device of a process."""
        ...

    def ready(self, configs: Sequence[R]) -> None:
        """Check everything that can be checked before any work starts."""
        ...

    def check(self, config: R, folder: RunFolder) -> bool:
        """Return whether the folder holds this run; False when it is empty.

        Raises:
            StoreError: it holds another run.
        """
        ...

    def plan(self, configs: Sequence[R], places: int) -> list[list[R]]:
        """Return groups that train together, in the order of their start.

        Args:
            configs: the runs.
            places: number of groups that can train at the same time.
        """
        ...

    def cost(self, config: R) -> float:
        """Return the work of a run, in any unit."""
        ...

    def size(self, config: R) -> str:
        """Return the size of a step as text."""
        ...

    def run(
        self, configs: Sequence[R], out: Path, until: int | None, stopped: Callable[[], bool]
    ) -> dict[str, str]:
        """Train a group to its end, or to a pause.

        Args:
            configs: the group.
            out: folder of the run folders.
            until: pause at the first evaluation at or after this step; None trains to the end.
            stopped: called regularly; True stores everything and returns.

        Returns:
            {run id: error} of the failed runs.
        """
        ...


@dataclass(frozen=True)
class ToyWork:
    """Train ensembles of toy transformers.

    Args:
        measuring: how each run is measured.
        device: "cpu" or "cuda…".
        store_every: seconds between stored states of a run.
        trackers: names of the trackers that every run reports to, in addition to its tables.
        graphs: whether training steps are captured as CUDA graphs.
        summary_workers: processes that make the rows of measurements while this one trains.
    """

    measuring: MeasureConfig
    device: str = "cpu"
    store_every: float = SECONDS_BETWEEN_STATES
    trackers: tuple[str, ...] = ()
    graphs: Graphs = "auto"
    summary_workers: int = 0

    def ready(self, configs: Sequence[RunConfig]) -> None:
        """Check trackers, measurements and what the device has, before any work starts."""
        check_trackers(self.trackers)
        check_graphs(self.graphs, self.device)
        for config in configs:
            check_precision(config.precision, self.device)
            self.measuring.check(config)
            check_updates(self.measuring, config)
        check_memory(configs, self.device)
        for task in dict.fromkeys(config.task for config in configs):
            check_task(self.measuring, task)
        for name, task in dict.fromkeys((config.stage, config.task) for config in configs):
            check_targets(stage(name), task)
        schedules(self.measuring)

    def check(self, config: RunConfig, folder: RunFolder) -> bool:
        """Return whether the folder holds this run."""
        return folder.check(config, self.measuring)

    def plan(self, configs: Sequence[RunConfig], places: int) -> list[list[RunConfig]]:
        """Return groups that train as one ensemble each."""
        return plan(configs, self.device, places)

    def cost(self, config: RunConfig) -> float:
        """Return tokens times parameters."""
        return cost(config)

    def size(self, config: RunConfig) -> str:
        """Return the sequences per step as text."""
        return str(config.batch_size)

    def run(
        self, configs: Sequence[RunConfig], out: Path, until: int | None, stopped: Callable[[], bool]
    ) -> dict[str, str]:
        """Train one ensemble to its end, or to a pause."""
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
                graphs=self.graphs,
                summary_workers=self.summary_workers,
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run on one thread: a second one slows small operations down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
