"""Many runs in one folder: checked, planned, watched, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from rich.console import Console

from sims.runs.store import RunFolder
from sims.sweep.engine import Cluster, Job, LocalExecutor, local_cluster, remote_cluster
from sims.sweep.halving import Halving, check_decisions, prune
from sims.sweep.lease import DriverLease, driving
from sims.sweep.progress import Progress, watching
from sims.sweep.work import R, Work
from sims.system.errors import StoreError
from sims.system.files import make_folder, read_json, write_json
from sims.system.machine import cores
from toymodel.errors import ConfigError

Engine = LocalExecutor | Cluster


@dataclass(frozen=True)
class SweepRun(Generic[R]):
    """What to run and with whom.

    Args:
        configs: the runs.
        work: how they are carried out.
        out: folder that holds one folder a run.
        label: what the folder is for; a folder with another label is refused.
        workers: processes; None takes one a core on a CPU and this one on a GPU.
        scheduler: address of a dask scheduler whose workers do the work instead.
        halving: stop the worse learning rates early; None trains everything to its end.
        retry_failed: try again what failed before.
    """

    configs: Sequence[R]
    work: Work[R]
    out: Path
    label: Mapping[str, Any]
    workers: int | None = None
    scheduler: str | None = None
    halving: Halving | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers is {self.workers}; it must be at least 1")


def run_all(campaign: SweepRun[Any], console: Console) -> dict[str, str]:
    """Bring every run to its end; what is complete is left alone.

    Returns:
        {run id: error} of what failed; everything else is complete.

    Raises:
        ConfigError, MeasureError, StoreError, EngineError: before any work starts.
        Stopped: by a signal, after the workers have stored what they had; the same call goes on.
    """
    campaign.work.ready(campaign.configs)
    with held(campaign, console) as (session, failed):
        waiting = [
            c
            for c in campaign.configs
            if c.run_id not in failed and not RunFolder(campaign.out / c.run_id).done
        ]
        if not waiting:
            return failed
        with _engine(campaign, session, len(waiting)) as engine:
            if campaign.work.speaks and isinstance(engine, LocalExecutor):
                return failed | _run(campaign, waiting, engine, session, lambda: None)
            shares = campaign.halving.shares(campaign.configs) if campaign.halving else {}
            standing = Progress(
                campaign.configs, campaign.out, campaign.work, lambda config: shares.get(config, 1.0)
            )
            with watching(standing, console) as watch:
                return failed | _run(campaign, waiting, engine, session, watch)


@contextmanager
def held(campaign: SweepRun[Any], console: Console) -> Iterator[tuple[DriverLease, dict[str, str]]]:
    """Hold the folder of a campaign as its only driver, after it was found to be of these runs.

    Yields:
        What tells workers to go on, and {run id: error} of what failed earlier and is not tried again.

    Raises:
        ConfigError, StoreError: before any run is touched.
    """
    if campaign.halving:
        campaign.halving.rungs(campaign.configs)
    make_folder(campaign.out)
    # The full path: workers elsewhere have another working directory.
    with driving(campaign.out.resolve()) as session:
        _claim(campaign.out, campaign.label)
        if campaign.halving:
            check_decisions(campaign.halving, campaign.configs, campaign.out)
        complete, failed = _look_at_folders(campaign)
        if complete:
            console.print(f"{len(complete)} of {len(campaign.configs)} runs are already complete")
        pruned = 0 if campaign.halving else sum(folder.outcome["ended"] == "pruned" for folder in complete)
        if pruned:
            console.print(
                f"{pruned} of them were pruned by an earlier --halving and stay so; delete their folders, or choose "
                "another --out, to train them to their end",
                soft_wrap=True,
            )
        yield session, failed


def _look_at_folders(campaign: SweepRun[Any]) -> tuple[list[RunFolder], dict[str, str]]:
    """Complete runs and earlier failures; refuses folders of another configuration or version.

    Raises:
        StoreError: before anything is written.
    """
    complete, failed = [], {}
    for config in campaign.configs:
        folder = RunFolder(campaign.out / config.run_id)
        if not campaign.work.check(config, folder):
            continue
        if folder.done:
            complete.append(folder)
            folder.tidy()
        elif folder.failed:
            if campaign.retry_failed:
                folder.retry()
            else:
                reason = read_json(folder.path / "failed.json")["error"]
                failed[config.run_id] = f"{reason} (failed earlier; --retry-failed tries it again)"
    return complete, failed


def _run(
    campaign: SweepRun[Any],
    waiting: Sequence[Any],
    engine: Engine,
    session: DriverLease,
    watch: Callable[[], None],
) -> dict[str, str]:
    """All runs to their end, or rung by rung where the worse ones are pruned."""
    failed: dict[str, str] = {}
    rungs = campaign.halving.rungs(campaign.configs) if campaign.halving else []
    for k, rung in enumerate(rungs):
        alive = [c for c in waiting if c.run_id not in failed and not RunFolder(campaign.out / c.run_id).done]
        pausing = [(c, rung[c]) for c in alive if rung[c] < c.steps]
        failed |= engine.run(_jobs(campaign, pausing, engine, session), watch)
        assert campaign.halving is not None
        if failed and campaign.retry_failed:
            # What is tried again shall compete: nothing is decided without it.
            return {name: f"{reason} (halving waits for it)" for name, reason in failed.items()}
        prune(campaign.halving, k, campaign.configs, campaign.out)
    alive = [c for c in waiting if c.run_id not in failed and not RunFolder(campaign.out / c.run_id).done]
    return failed | engine.run(_jobs(campaign, [(c, None) for c in alive], engine, session), watch)


def _jobs(
    campaign: SweepRun[Any],
    runs: Sequence[tuple[Any, int | None]],
    engine: Engine,
    session: DriverLease,
) -> list[Job[Any]]:
    """One job a group; members of a group pause at the same step."""
    until = dict(runs)
    groups = campaign.work.plan([config for config, _ in runs], engine.places)
    out = campaign.out.resolve()
    work = campaign.work if isinstance(engine, LocalExecutor) else campaign.work.quiet()
    return [Job(work, tuple(g), out, session, until[g[0]]) for g in groups]


@contextmanager
def _engine(campaign: SweepRun[Any], session: DriverLease, runs: int) -> Iterator[Engine]:
    count = min(runs, campaign.workers or (1 if campaign.work.device.startswith("cuda") else cores()))
    chosen: AbstractContextManager[Engine]
    if campaign.scheduler is not None:
        chosen = remote_cluster(campaign.scheduler, campaign.out, session)
    elif count > 1:
        chosen = local_cluster(count)
    else:
        chosen = nullcontext(LocalExecutor())
    with chosen as engine:
        yield engine


def _claim(out: Path, label: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(label))
    file = out / "campaign.json"
    if not file.exists():
        write_json(file, wanted)
        return
    found = read_json(file)
    if found != wanted:
        names = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
        shown = "; ".join(f"{k} is {found.get(k)!r} there, {wanted.get(k)!r} here" for k in names[:3])
        raise StoreError(
            f"{out} belongs to another campaign ({shown}); choose another --out, or delete that folder"
        )
