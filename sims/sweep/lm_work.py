"""Plan and train the language models of a sweep."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder
from sims.sweep.progress import Progress, watching
from sims.sweep.sweep_run import SweepRun, held
from sims.system.errors import StoreError
from sims.system.process_group import SINGLE, ProcessGroup
from sims.system.signals import Stopped, stop_on_signals
from sims.training.defaults import STORE_SECONDS
from sims.training.lm_runner import LmSetup, check_shards, train_run
from sims.training.recorder import record_failure
from sims.training.throughput import flops_per_token
from sims.training.trackers.registry import check as check_trackers
from sims.training.trackers.registry import track


@dataclass(frozen=True)
class LmWork:
    """Train language models one at a time (a `sims.sweep.work.Work`).

    Args:
        setup: where and how they train, and what is measured.
        store_every: seconds between stored states of a run.
        trackers: names of the trackers that every run reports to, in addition to its tables.
    """

    setup: LmSetup
    store_every: float = STORE_SECONDS
    trackers: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """Return the device of a process."""
        return self.setup.device

    def with_data(self, configs: Sequence[LmConfig], group: ProcessGroup = SINGLE) -> list[LmConfig]:
        """Return the runs with the digest of their shards.

        Only the first process reads the shards; the others receive the digest.
        """
        # (32,) bytes of the SHA-256, zero except on the first process: the sum over processes broadcasts it.
        local = list(bytes.fromhex(self.setup.corpus(configs[0]).digest)) if group.first else [0] * 32
        digest = bytes(group.sum(torch.tensor(local)).tolist()).hex()
        return [replace(config, data=digest) for config in configs]

    def ready(self, configs: Sequence[LmConfig], group: ProcessGroup = SINGLE) -> None:
        """Check runs, shards, measurements and trackers before any work starts.

        Raises:
            ConfigError: a step cannot be divided among the processes.
            StoreError: shards are missing or damaged, or hold no sequence of this length.
            MeasureError: a measurement is not possible.
            QueryError, MissingExtraError: a tracker is unknown or not installed.
        """
        check_trackers(self.trackers)
        for config in configs:
            self.setup.execution(config, group)
        for length in dict.fromkeys(config.length for config in configs):
            self.setup.corpus(next(c for c in configs if c.length == length))
        self.setup.measurement_data(configs[0])

    def check(self, config: LmConfig, folder: RunFolder) -> bool:
        """Return whether the folder already holds this run.

        Raises:
            StoreError: it holds another run, or its shards have changed; the message names the difference.
        """
        check_shards(folder, self.setup.corpus(config))
        there = (folder.path / "run.json").exists()
        if self.setup.measuring is not None and there and not folder.identity()["measure"]:
            raise StoreError(
                f"{folder.path} was trained without --measure; measure its checkpoints by `speclens measure "
                f"{folder.path} --data {self.setup.data}`, or choose another --out"
            )
        return folder.check(config, self.setup.measure)

    def plan(self, configs: Sequence[LmConfig], places: int) -> list[list[LmConfig]]:
        """Return groups of one run each.

        One process keeps the given order; several start the most expensive run first, to finish together.
        """
        ordered = configs if places == 1 else sorted(configs, key=lambda c: -self.cost(c))
        return [[config] for config in ordered]

    def cost(self, config: LmConfig) -> float:
        """Return the floating-point operations of a whole run."""
        return config.steps * config.tokens_per_step * flops_per_token(config.transformer())

    def size(self, config: LmConfig) -> str:
        """Return the target tokens of a step as text."""
        return f"{config.tokens_per_step:,} tokens"

    def run(
        self, configs: Sequence[LmConfig], out: Path, until: int | None, stopped: Callable[[], bool]
    ) -> dict[str, str]:
        """Train runs to their end, or to a pause; return {run id: error}."""
        failed = {}
        with track(self.trackers, out) as trackers:
            for config in configs:
                if stopped():
                    break
                folder = RunFolder(out / config.run_id)
                try:
                    train_run(
                        config,
                        folder,
                        self.setup,
                        trackers=trackers,
                        until=until,
                        stopped=stopped,
                        store_every=self.store_every,
                    )
                except Exception as error:
                    failed[config.run_id] = record_failure(folder, error)
        return failed


def train_together(
    sweep: SweepRun[LmConfig],
    work: LmWork,
    group: ProcessGroup,
    console: Console,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Train runs one after the other, all processes sharing every step.

    Args:
        sweep: the runs; the first process holds their folder.
        work: how they are trained.
        group: the processes; each of them calls this function.
        console: where the first process shows the progress.
        tell: prints what is to be said before the runs start; the first process calls it when nothing is left that
            could be refused.

    Raises:
        Stopped: a process received a signal; all states are stored.
        Exception: raised by `train_run`; the first failure ends the sweep.
    """
    with ExitStack() as stack:

        def begin() -> None:
            found = stack.enter_context(held(sweep))
            tell()
            found.show_complete(sweep, console)

        group.lead(begin)
        trackers = stack.enter_context(track(work.trackers, sweep.out))
        stop = stack.enter_context(stop_on_signals(group.first))
        if group.first:
            stack.enter_context(watching(Progress(sweep.configs, sweep.out, work), console, threaded=True))
        for config in sweep.configs:
            folder = RunFolder(sweep.out / config.run_id)
            # Only the first process reads the folder; asking the group also waits for the other processes.
            if group.agree(group.first and folder.done):
                continue
            # A signal during the last step of the previous run: that run is complete, this one has not begun.
            if group.agree(stop()):
                raise Stopped(stop.by or signal.SIGTERM)
            try:
                left = train_run(
                    config,
                    folder,
                    work.setup,
                    trackers=trackers,
                    group=group,
                    stopped=stop,
                    store_every=work.store_every,
                )
            except Exception as error:
                if group.first and folder.path.exists():
                    record_failure(folder, error)
                raise
            if left == "stopped":
                raise Stopped(stop.by or signal.SIGTERM)
