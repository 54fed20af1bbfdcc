"""Options of the commands that train, shared by them; they load no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sims.system.command_options import ConfigFile
from sims.system.errors import EngineError
from sims.system.machine import cores
from sims.training.defaults import SECONDS_BETWEEN_STATES
from toymodel.config import Graphs
from toymodel.errors import ConfigError
from toymodel.limits import LARGEST

if TYPE_CHECKING:
    from sims.runs.measure_config import MeasureConfig
    from sims.sweep.work import ToyWork

SUMMARY_WORKERS = 8
# More processes than any machine runs at once.
MOST_WORKERS = 4_096


@dataclass(frozen=True)
class LocalOptions:
    """Where runs train, and which trackers follow them."""

    workers: int | None = None
    """Processes of one thread each; by default one per core (one on a GPU)."""
    device: str | None = None
    """cpu, cuda or cuda:N; by default the GPU if there is one."""
    graphs: Graphs = "auto"
    """CUDA graphs of steps and evaluations: auto (on a GPU; says where one cannot be made), on (or fail), off."""
    summary_workers: int | None = None
    """Processes that make rows of measurements beside one that trains; by default 0 on a CPU, up to 8 with a GPU."""
    track: tuple[str, ...] = ()
    """Trackers of every run: tensorboard, wandb (offline unless WANDB_MODE is set), trackio."""
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""
    config: ConfigFile = None

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if self.summary_workers is not None and not 0 <= self.summary_workers <= MOST_WORKERS:
            raise ConfigError(f"--summary-workers is {self.summary_workers}; it must be 0 … {MOST_WORKERS:,}")
        if self.track:
            from sims.training.trackers.registry import check

            check(self.track)

    def processes(self, device: str) -> int:
        """Return the number of worker processes on a device."""
        if self.workers is not None:
            return self.workers
        return 1 if device.startswith("cuda") else cores()

    def summary_processes(self, device: str) -> int:
        """Return the number of processes that make rows.

        Raises:
            ConfigError: they are asked for beside several processes that train.
        """
        alone = self.processes(device) == 1 and self._here
        if self.summary_workers is None:
            return summary_processes(device) if alone else 0
        if self.summary_workers and not alone:
            raise ConfigError(
                f"--summary-workers is {self.summary_workers}, which is for one process that trains; add --workers 1 "
                "(without --scheduler), or leave out --summary-workers"
            )
        return self.summary_workers

    def work(self, measuring: MeasureConfig, device: str) -> ToyWork:
        """Return how toys train with these options."""
        from sims.sweep.work import ToyWork

        workers = self.summary_processes(device)
        return ToyWork(measuring, device, trackers=self.track, graphs=self.graphs, summary_workers=workers)

    @property
    def _here(self) -> bool:
        return True


@dataclass(frozen=True)
class SweepOptions(LocalOptions):
    """Where many runs train, on this machine or elsewhere, and how they are stored and tried again."""

    scheduler: str | None = None
    """Address of a dask scheduler (tcp://HOST:PORT) whose workers train; they must see --out by the same path."""
    store_every: float = SECONDS_BETWEEN_STATES
    """Seconds between stored states: what a killed process loses at most."""
    retry_failed: bool = False
    """Try again the runs that failed before."""

    def work(self, measuring: MeasureConfig, device: str) -> ToyWork:
        """Return how toys train with these options."""
        return replace(super().work(measuring, device), store_every=self.store_every)

    @property
    def _here(self) -> bool:
        return self.scheduler is None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scheduler(self.scheduler)
        check_store_every(self.store_every)


def summary_processes(device: str) -> int:
    """Return by default how many processes make rows where one process trains.

    On a CPU nearly all of a measurement is passes of the model. On a GPU it is the statistics of what the passes found,
    .12 s for a run of the published size: eight processes keep up with 15 runs measured every two seconds.

    >>> summary_processes("cpu")
    0
    """
    return min(SUMMARY_WORKERS, cores() - 1) if device.startswith("cuda") else 0


def check_workers(workers: int | None) -> None:
    """Raise ConfigError for fewer than one worker, or more than a machine runs."""
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}; it must be at least 1")
    if workers is not None and workers > MOST_WORKERS:
        raise ConfigError(f"--workers is {workers}; it must be at most {MOST_WORKERS:,}, about one per core")


def check_scheduler(address: str | None) -> None:
    """Raise EngineError for what is no address of a scheduler."""
    if address is not None and not re.fullmatch(r"\w+://\S+", address):
        raise EngineError(
            f"--scheduler: {address!r} is no address of a dask scheduler; give it as tcp://HOST:PORT"
        )


def check_store_every(seconds: float) -> None:
    """Raise ConfigError unless the seconds are 0 or more."""
    if not seconds >= 0:
        raise ConfigError(f"--store-every is {seconds}; it must be 0 or more seconds")


def check_seeds(seeds: tuple[int, ...] | None) -> None:
    """Raise ConfigError for an empty list of seeds, a negative seed, or one given twice."""
    if seeds is None:
        return
    if not seeds:
        raise ConfigError("--seeds: the seeds are empty; give at least one, or leave the option out")
    for seed in seeds:
        if seed < 0:
            raise ConfigError(f"--seeds has {seed}; a seed must be 0 or positive")
        if seed > LARGEST:
            raise ConfigError(
                "--seeds has one of more digits than a 64-bit number; a seed must be at most 2⁶³ − 1"
            )
        if seeds.count(seed) > 1:
            raise ConfigError(f"--seeds: the seeds hold {seed} more than once; name every value once")
