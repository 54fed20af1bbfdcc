"""Many runs in one folder: checked, planned, watched, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from sims.config import MeasureConfig
from sims.errors import StoreError
from sims.files import make_folder, read_json, write_json
from sims.machine import cores
from sims.runner import SECONDS_BETWEEN_STATES
from sims.store import RunFolder
from sims.sweep.engine import Cluster, Here, Job, local_cluster, remote_cluster
from sims.sweep.halving import Halving, check_decisions, prune
from sims.sweep.plan import plan
from sims.sweep.session import Session, driving
from sims.sweep.standing import Standing, watching
from sims.trackers import check as check_trackers
from toymodel.config import RunConfig

Engine = Here | Cluster


@dataclass(frozen=True)
class Campaign:
    """What to run and with whom.

    Args:
        configs: the runs.
        measuring: how each of them is measured.
        out: folder that holds one folder a run.
        label: what the folder is for; a folder with another label is refused.
        device: "cpu" or "cuda…".
        workers: processes; None takes one a core on a CPU and this one on a GPU.
        scheduler: address of a dask scheduler whose workers do the work instead.
        halving: stop the worse learning rates early; None trains everything to its end.
        retry_failed: try again what failed before.
        store_every: seconds between stored states of a run.
        trackers: observers of every run, by name; the tables stay the record.
    """

    configs: Sequence[RunConfig]
    measuring: MeasureConfig
    out: Path
    label: Mapping[str, Any]
    device: str = "cpu"
    workers: int | None = None
    scheduler: str | None = None
    halving: Halving | None = None
    retry_failed: bool = False
    store_every: float = SECONDS_BETWEEN_STATES
    trackers: tuple[str, ...] = ()


def run_all(campaign: Campaign, console: Console) -> dict[str, str]:
    """Bring every run to its end; what is complete is left alone.

    Returns:
        {run id: error} of what failed; everything else is complete.

    Raises:
        ConfigError, MeasureError, StoreError, EngineError: before any work starts.
        KeyboardInterrupt: after the workers have stopped; the same call goes on.
    """
    check_trackers(campaign.trackers)
    for config in campaign.configs:
        campaign.measuring.check(config)
    make_folder(campaign.out)
    # The full path: workers elsewhere have another working directory.
    with driving(campaign.out.resolve()) as session:
        _claim(campaign.out, campaign.label)
        if campaign.halving:
            check_decisions(campaign.halving, campaign.configs, campaign.out)
        complete, failed = _look_at_folders(campaign)
        if complete:
            console.print(f"{complete} of {len(campaign.configs)} runs are already complete")
        waiting = [
            c
            for c in campaign.configs
            if c.run_id not in failed and not RunFolder(campaign.out / c.run_id).done
        ]
        if not waiting:
            return failed
        with _engine(campaign, session, len(waiting)) as engine:
            standing = Standing(campaign.configs, campaign.out)
            with watching(standing, console) as watch:
                return failed | _run(campaign, waiting, engine, session, watch)


def _look_at_folders(campaign: Campaign) -> tuple[int, dict[str, str]]:
    """Complete runs and earlier failures; refuses folders of another configuration or version.

    Raises:
        StoreError: before anything is written.
    """
    complete, failed = 0, {}
    for config in campaign.configs:
        folder = RunFolder(campaign.out / config.run_id)
        if not folder.check(config, campaign.measuring):
            continue
        if folder.done:
            complete += 1
            folder.tidy()
        elif folder.failed:
            if campaign.retry_failed:
                folder.retry()
            else:
                reason = read_json(folder.path / "failed.json")["error"]
                failed[config.run_id] = f"{reason} (failed earlier; --retry-failed tries it again)"
    return complete, failed


def _run(
    campaign: Campaign,
    waiting: Sequence[RunConfig],
    engine: Engine,
    session: Session,
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
        prune(campaign.halving, k, campaign.configs, campaign.out)
    alive = [c for c in waiting if c.run_id not in failed and not RunFolder(campaign.out / c.run_id).done]
    return failed | engine.run(_jobs(campaign, [(c, None) for c in alive], engine, session), watch)


def _jobs(
    campaign: Campaign,
    runs: Sequence[tuple[RunConfig, int | None]],
    engine: Engine,
    session: Session,
) -> list[Job]:
    """One job a group of equal shape; members of a group pause at the same step."""
    until = dict(runs)
    groups = plan([config for config, _ in runs], campaign.device, engine.places)
    out = campaign.out.resolve()
    return [
        Job(
            tuple(g),
            campaign.measuring,
            out,
            campaign.device,
            session,
            campaign.store_every,
            campaign.trackers,
            until[g[0]],
        )
        for g in groups
    ]


@contextmanager
def _engine(campaign: Campaign, session: Session, runs: int) -> Iterator[Engine]:
    count = min(runs, campaign.workers or (1 if campaign.device.startswith("cuda") else cores()))
    chosen: AbstractContextManager[Engine]
    if campaign.scheduler is not None:
        chosen = remote_cluster(campaign.scheduler, campaign.out, session)
    elif count > 1:
        chosen = local_cluster(count)
    else:
        chosen = nullcontext(Here())
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
