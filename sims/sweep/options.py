"""Options of the commands that train, shared by them; they load no torch."""

from __future__ import annotations

from dataclasses import dataclass

from sims.system.machine import cores
from sims.training.defaults import SECONDS_BETWEEN_STATES
from toymodel.config import Graphs
from toymodel.errors import ConfigError
from toymodel.limits import LARGEST


@dataclass(frozen=True)
class LocalOptions:
    """Where runs train, and which trackers follow them."""

    workers: int | None = None
    """Processes of one thread each; by default one per core (one on a GPU)."""
    device: str | None = None
    """cpu, cuda or cuda:N; by default the GPU if there is one."""
    graphs: Graphs = "auto"
    """CUDA graphs of training steps: auto (on a GPU, with a word where one cannot be made), on (or fail), off."""
    track: tuple[str, ...] = ()
    """Trackers of every run: tensorboard, wandb (offline unless WANDB_MODE is set), trackio."""

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if self.track:
            from sims.training.trackers.registry import check

            check(self.track)

    def processes(self, device: str) -> int:
        """Return the number of worker processes on a device."""
        if self.workers is not None:
            return self.workers
        return 1 if device.startswith("cuda") else cores()


@dataclass(frozen=True)
class SweepOptions(LocalOptions):
    """Where many runs train, on this machine or elsewhere, and how they are stored and tried again."""

    scheduler: str | None = None
    """Address of a dask scheduler (tcp://HOST:PORT) whose workers train; they must see --out by the same path."""
    store_every: float = SECONDS_BETWEEN_STATES
    """Seconds between stored states: what a killed process loses at most."""
    retry_failed: bool = False
    """Try again the runs that failed before."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_store_every(self.store_every)


def check_workers(workers: int | None) -> None:
    """Raise ConfigError for fewer than one worker."""
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}; it must be at least 1")


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
