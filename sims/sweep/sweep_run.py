"""Train many runs in one folder; a later call continues them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

from rich.console import Console

from sims.pages.number import counted, verb
from sims.runs.layout import CAMPAIGN
from sims.runs.store import RunFolder
from sims.sweep.engine import Cluster, Job, LocalExecutor, local_cluster, remote_cluster
from sims.sweep.halving import Halving, check_decisions, prune
from sims.sweep.lease import DriverLease, driving
from sims.sweep.options import check_scheduler, check_workers
from sims.sweep.progress import Progress, watching
from sims.sweep.work import R, Work
from sims.system.errors import StoreError
from sims.system.files import make_folder, read_object, write_json
from sims.system.machine import cores

Engine = LocalExecutor | Cluster


@dataclass(frozen=True)
class SweepRun(Generic[R]):
    """Describe the runs of a sweep and the processes that train them.

    Args:
        configs: the runs.
        work: how they are trained.
        out: folder that holds one folder for each run.
        label: purpose of the folder; a folder with another label is refused.
        workers: number of processes; None takes one per core on a CPU, and only this process on a GPU.
        scheduler: address of a dask scheduler whose workers train the runs instead.
        halving: stop the worse learning rates early; None trains every run to its end.
        retry_failed: train runs again that failed before.
        in_order: groups start in the order of their runs in `configs`; by default the most expensive one first, so that
            all workers end at about the same time.
    """

    configs: Sequence[R]
    work: Work[R]
    out: Path
    label: Mapping[str, Any]
    workers: int | None = None
    scheduler: str | None = None
    halving: Halving | None = None
    retry_failed: bool = False
    in_order: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers)
        check_scheduler(self.scheduler)


def run_all(
    sweep: SweepRun[Any], console: Console, tell: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Train every run to its end, except those already complete.

    Args:
        sweep: the runs.
        console: where to print.
        tell: prints what is to be said before the runs start; called when nothing is left that could be refused.

    Returns:
        {run id: error} of the failed runs; all others are complete.

    Raises:
        ConfigError, MeasureError, StoreError, EngineError: before any work starts.
        Stopped: a signal arrived, and the workers have stored their states; the same call continues the sweep.
    """
    sweep.work.ready(sweep.configs)
    with held(sweep) as found, ExitStack() as stack:
        failed = found.failed
        waiting = [
            c for c in sweep.configs if c.run_id not in failed and not RunFolder(sweep.out / c.run_id).done
        ]
        engine: Engine | None = None
        if waiting and sweep.scheduler is not None:
            engine = stack.enter_context(remote_cluster(sweep.scheduler, sweep.out, found.lease))
        tell()
        found.show_complete(sweep, console)
        if not waiting:
            return failed
        # Processes of this machine start after its time has been estimated, which they would disturb.
        engine = engine or stack.enter_context(_local_engine(sweep, len(waiting)))
        shares = sweep.halving.shares(sweep.configs) if sweep.halving else {}
        progress = Progress(sweep.configs, sweep.out, sweep.work, lambda config: shares.get(config, 1.0))
        with watching(progress, console) as watch:
            failed |= _run(sweep, waiting, engine, found.lease, watch)
        return failed or _incomplete(sweep)


@dataclass(frozen=True)
class Held:
    """Say what is in the folder of a sweep that this process holds.

    Attributes:
        lease: by which workers know that they are still wanted.
        complete: the runs that are complete.
        failed: {run id: error} of the runs that failed earlier and are not tried again.
    """

    lease: DriverLease
    complete: Sequence[RunFolder]
    failed: dict[str, str]

    def show_complete(self, sweep: SweepRun[Any], console: Console) -> None:
        """Print how many runs are complete, and how many of them an earlier --halving has pruned."""
        if self.complete:
            total = counted(len(sweep.configs), "run")
            console.print(f"{len(self.complete)} of {total} {verb(len(self.complete))} already complete")
        pruned = 0 if sweep.halving else sum(folder.outcome["ended"] == "pruned" for folder in self.complete)
        if pruned:
            console.print(
                f"{pruned} of them {verb(pruned, 'was', 'were')} pruned by an earlier --halving and "
                f"{verb(pruned, 'stays', 'stay')} so; delete their folders, or choose another --out, to train them to "
                "their end",
                soft_wrap=True,
            )


@contextmanager
def held(sweep: SweepRun[Any]) -> Iterator[Held]:
    """Hold the folder of a sweep, after checking that its runs match; nothing is printed.

    Raises:
        ConfigError, StoreError: before any run is changed.
    """
    if sweep.halving:
        sweep.halving.rungs(sweep.configs)
    make_folder(sweep.out)
    # The full path: workers on other machines have another working directory.
    with driving(sweep.out.resolve()) as lease:
        _claim(sweep.out, sweep.label)
        if sweep.halving:
            check_decisions(sweep.halving, sweep.configs, sweep.out)
        yield Held(lease, *_check_folders(sweep))


def check_place(sweep: SweepRun[Any]) -> None:
    """Refuse runs that cannot train, or a folder that does not take them, before other work; nothing is printed.

    Raises:
        ConfigError, MeasureError, StoreError: as `run_all`.
    """
    sweep.work.ready(sweep.configs)
    with held(replace(sweep, retry_failed=False)):
        pass


def earlier_failures(sweep: SweepRun[Any]) -> dict[str, str]:
    """Return {run id: error} of the runs that failed and were not tried again; nothing is changed.

    Raises:
        StoreError: a folder holds another configuration or version, or its failed.json is damaged.
    """
    folders = {c.run_id: RunFolder(sweep.out / c.run_id) for c in sweep.configs}
    known = [c.run_id for c in sweep.configs if sweep.work.check(c, folders[c.run_id])]
    return {
        name: _failure(folders[name]) for name in known if folders[name].failed and not folders[name].done
    }


def _failure(folder: RunFolder) -> str:
    reason = read_object(folder.path / "failed.json", "error")["error"]
    return f"{reason} (failed earlier; --retry-failed tries it again)"


def _check_folders(sweep: SweepRun[Any]) -> tuple[list[RunFolder], dict[str, str]]:
    """Return the complete runs, and {run id: error} of earlier failures.

    Raises:
        StoreError: a folder holds another configuration or version.
    """
    complete, failed = [], {}
    for config in sweep.configs:
        folder = RunFolder(sweep.out / config.run_id)
        if not sweep.work.check(config, folder):
            continue
        if folder.done:
            complete.append(folder)
            folder.tidy()
        elif folder.failed:
            if sweep.retry_failed:
                folder.retry()
            else:
                failed[config.run_id] = _failure(folder)
    return complete, failed


def _run(
    sweep: SweepRun[Any],
    waiting: Sequence[Any],
    engine: Engine,
    lease: DriverLease,
    watch: Callable[[], None],
) -> dict[str, str]:
    """Train all runs, rung by rung where learning rates are pruned."""
    failed: dict[str, str] = {}
    rungs = sweep.halving.rungs(sweep.configs) if sweep.halving else []
    for k, rung in enumerate(rungs):
        alive = [c for c in waiting if c.run_id not in failed and not RunFolder(sweep.out / c.run_id).done]
        failed |= engine.run(_jobs(sweep, [(c, rung[c]) for c in alive], engine, lease), watch)
        assert sweep.halving is not None
        if failed and sweep.retry_failed:
            # A run that is tried again takes part in the comparison, so the decision waits for it.
            return {name: f"{reason} (halving waits for it)" for name, reason in failed.items()}
        prune(sweep.halving, k, sweep.configs, sweep.out)
    alive = [c for c in waiting if c.run_id not in failed and not RunFolder(sweep.out / c.run_id).done]
    return failed | engine.run(_jobs(sweep, [(c, None) for c in alive], engine, lease), watch)


def _incomplete(sweep: SweepRun[Any]) -> dict[str, str]:
    """Return {run id: reason} of the runs that workers gave up without an error, as they do without a lease."""
    left = (c.run_id for c in sweep.configs if not RunFolder(sweep.out / c.run_id).done)
    return dict.fromkeys(left, "its worker stopped before its end; run the same command again")


def _jobs(
    sweep: SweepRun[Any],
    runs: Sequence[tuple[Any, int | None]],
    engine: Engine,
    lease: DriverLease,
) -> list[Job[Any]]:
    """Return one job per group; its members pause together."""
    until = dict(runs)
    groups = sweep.work.plan([config for config, _ in runs], engine.places)
    if sweep.in_order:
        place = {config: k for k, config in enumerate(sweep.configs)}
        groups = sorted(groups, key=lambda group: min(place[config] for config in group))
    out = sweep.out.resolve()
    return [Job(sweep.work, tuple(g), out, lease, until[g[0]]) for g in groups]


def _local_engine(sweep: SweepRun[Any], runs: int) -> AbstractContextManager[Engine]:
    count = min(runs, sweep.workers or (1 if sweep.work.device.startswith("cuda") else cores()))
    return local_cluster(count) if count > 1 else nullcontext(LocalExecutor())


def _claim(out: Path, label: Mapping[str, Any]) -> None:
    """Store the label of the folder, or compare it."""
    # Through JSON, so that tuples compare equal to the lists that are read back.
    wanted = json.loads(json.dumps(label))
    file = out / CAMPAIGN
    if not file.exists():
        write_json(file, wanted)
        return
    found = read_object(file)
    if found != wanted:
        names = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
        shown = "; ".join(f"{k} is {found.get(k)!r} there, {wanted.get(k)!r} here" for k in names[:3])
        raise StoreError(
            f"{out} belongs to another campaign ({shown}); choose another --out, or delete that folder"
        )
