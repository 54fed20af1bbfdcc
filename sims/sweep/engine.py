"""Run jobs in this process, in worker processes, or on a dask scheduler.

A second thread slows operations of this size down, so work is parallel by process. Dask replaces a worker that was
killed, and its job continues from the stored state.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, cast

import torch

from sims.sweep.lease import DriverLease
from sims.sweep.progress import in_thread
from sims.sweep.work import R, Work
from sims.system.errors import EngineError
from sims.system.machine import start_fork_server
from sims.system.signals import stop_on_signals

if TYPE_CHECKING:
    from distributed import Client

Watch = Callable[[], None]

# The states of a future whose outcome can be fetched.
ENDED = ("finished", "error", "cancelled")
POLL_SECONDS = 0.2
# Time for workers to store their state after Ctrl-C before they are killed; files stay complete in any case.
STOP_SECONDS = 10.0
CONNECT_SECONDS = 10.0
# A job whose workers have died this often is probably the cause.
DEATHS = 10
# Time between two looks for workers that are missing, until those that do not start are started anew, and until a
# sweep without any worker is given up.
TEND_SECONDS = 5.0
STUCK_SECONDS = 60.0
PATIENCE_SECONDS = 900.0
# Jobs submitted to a remote scheduler in advance, so that an adaptive cluster sees the queue and grows.
BACKLOG = 64


@dataclass(frozen=True)
class Job(Generic[R]):
    """Train the runs of one group on one worker.

    Args:
        work: how they are trained.
        configs: the runs.
        out: folder of the run folders.
        lease: tells the worker when to stop.
        until: step to pause at; None trains to the end.
    """

    work: Work[R]
    configs: tuple[R, ...]
    out: Path
    lease: DriverLease
    until: int | None = None

    def __call__(self, stopped: Callable[[], bool] | None = None) -> dict[str, str]:
        """Train the runs; return {run id: error} of the failed ones.

        Args:
            stopped: True ends the job with its state stored; by default the end of the lease.
        """
        stopped = stopped or self.lease.over
        select_gpu()
        return {} if stopped() else self.work.run(self.configs, self.out, self.until, stopped)


class LocalExecutor:
    """Run jobs one by one in this process.

    It is the right choice for one GPU, and for a single job.
    """

    places = 1

    def run(self, jobs: Sequence[Job[Any]], watch: Watch) -> dict[str, str]:
        """Run every job; return {run id: error} of the failed runs.

        Args:
            jobs: in the order of their start.
            watch: shows the progress; called from a thread.

        Raises:
            Stopped: a signal arrived, and the state of the running job is stored.
        """
        failed: dict[str, str] = {}
        with stop_on_signals() as stop, in_thread(watch):
            for job in jobs:
                failed |= job(stop)
                stop.obey()
        return failed


class Cluster:
    """Run jobs on the workers of a dask cluster.

    Args:
        client: a connected client.
        remote: whether the number of workers may change while jobs run.
        local: the workers, where this process has started them.
    """

    def __init__(self, client: Client, remote: bool, local: LocalWorkers | None = None) -> None:
        self.client = client
        self.remote = remote
        self.local = local

    @property
    def places(self) -> int:
        """Return how many jobs can run at the same time now."""
        threads = cast(dict[str, int], self.client.ncores())
        return max(1, sum(threads.values()))

    def run(self, jobs: Sequence[Job[Any]], watch: Watch) -> dict[str, str]:
        """Run every job; return {run id: error} of the failed runs.

        Args:
            jobs: in the order of their start.
            watch: shows the progress; called at every poll.

        Raises:
            Stopped: a signal arrived, and the workers had time to store their states.
            EngineError: no worker of this machine could be started for a quarter of an hour.
        """
        from distributed import as_completed

        waiting, running, failed = list(reversed(jobs)), {}, {}
        ready = as_completed(loop=self.client.loop)
        with stop_on_signals() as stop:
            while waiting or running:
                # Jobs are submitted only when they can run: dask counts a death against all jobs of a worker.
                room = self._room() if waiting else 0
                while waiting and len(running) < room:
                    job = waiting.pop()
                    future = self.client.submit(job, pure=False)
                    running[future] = job
                    ready.add(future)
                for future in list(ready.next_batch(block=False)) if ready.has_ready() else ():
                    if future.status in ENDED:
                        failed |= _collect(future, running.pop(future))
                    else:
                        # Its worker died between the end of the job and here, and the result with it: dask runs the
                        # job again, which finds its runs complete.
                        ready.add(future)
                watch()
                if self.local is not None:
                    self.local.tend(self.client)
                if stop():
                    self._stop(list(running), jobs)
                    stop.obey()
                time.sleep(POLL_SECONDS)
        return failed

    def _room(self) -> int:
        return max(BACKLOG, 2 * self.places) if self.remote else self.places

    def _stop(self, futures: list[Any], jobs: Sequence[Job[Any]]) -> None:
        from distributed import wait

        jobs[0].lease.end()
        with suppress(Exception):
            wait(futures, timeout=STOP_SECONDS)


class LocalWorkers:
    """Keep the number of worker processes on this machine.

    Dask restarts a worker that was killed, but gives its place up where that takes long (many seconds on a busy
    machine) or fails; without any place left the jobs would wait for ever.

    Args:
        cluster: a `distributed.LocalCluster`.
        wanted: number of workers.
    """

    def __init__(self, cluster: Any, wanted: int) -> None:
        self.cluster, self.wanted = cluster, wanted
        self.looked = self.seen = self.renewed = time.monotonic()

    def tend(self, client: Client) -> None:
        """Start the workers that are missing.

        Raises:
            EngineError: there has been none for `PATIENCE_SECONDS`.
        """
        now = time.monotonic()
        if now - self.looked < TEND_SECONDS:
            return
        self.looked = now
        there = len(cast(dict[str, int], client.ncores()))
        if there:
            self.seen = self.renewed = now
        if now - self.seen > PATIENCE_SECONDS:
            raise EngineError(
                f"no worker process could be started for {PATIENCE_SECONDS / 60:.0f} minutes; look for what keeps this "
                "machine busy, or use --workers 1, and run the same command again"
            )
        if there < self.wanted:
            stuck = now - self.renewed > STUCK_SECONDS
            self.renewed = now if stuck else self.renewed
            self.cluster.loop.add_callback(self._forget, stuck)
            self.cluster.scale(self.wanted)

    def _forget(self, stuck: bool) -> None:
        """Give up places whose process is gone, or where all are stuck all of them; `scale` fills them again."""
        for name, worker in list(self.cluster.workers.items()):
            if stuck or worker.status.name in ("closed", "failed"):
                del self.cluster.workers[name]
                self.cluster.loop.add_callback(worker.close)


def _collect(future: Any, job: Job[Any]) -> dict[str, str]:
    if future.status == "finished":
        return future.result()
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        reason = (
            "its worker died again and again, perhaps for want of memory: use fewer workers or smaller ensembles, "
            "then run the same command again"
        )
    elif future.status == "cancelled":
        reason = "the scheduler dropped it; run the same command again"
    else:
        reason = f"{type(error).__name__}: {error}"
    return {config.run_id: reason for config in job.configs}


@contextmanager
def local_cluster(workers: int) -> Iterator[Cluster]:
    """Start worker processes of one thread each on this machine.

    They end with this process, even if it is killed.
    """
    dask = _import("dask")
    distributed = _import("distributed")
    start_fork_server(["sims.training.toy_runner", "distributed"])
    settings = {
        "distributed.worker.multiprocessing-method": "forkserver",
        "distributed.scheduler.allowed-failures": DEATHS,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=None,
            dashboard_address="127.0.0.1:0",
            silence_logs=60,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(_one_thread_plugin())
        yield Cluster(client, remote=False, local=LocalWorkers(cluster, workers))


@contextmanager
def remote_cluster(address: str, job_folder: Path, lease: DriverLease) -> Iterator[Cluster]:
    """Connect to the workers of a running dask scheduler.

    Args:
        address: tcp://HOST:PORT.
        job_folder: folder of the runs, which every worker must see.
        lease: stored in that folder; workers compare it to check that they see the same one.

    Raises:
        EngineError: no scheduler answers, or a worker sees another folder or has another version of this package.
    """
    distributed = _import("distributed")
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise EngineError(
            f"no dask scheduler answers at {address!r} ({error}); start one with `dask scheduler`, and give its "
            "address as tcp://HOST:PORT"
        ) from error
    with client:
        _same_everywhere(client, job_folder, lease)
        client.register_plugin(_one_thread_plugin())
        yield Cluster(client, remote=True)


def _same_everywhere(client: Client, folder: Path, lease: DriverLease) -> None:
    answers = cast(dict[str, Any], client.run(_seen_by_worker, lease, on_error="return"))
    here = _seen_by_worker(lease)
    for worker, answer in answers.items():
        if isinstance(answer, Exception):
            raise EngineError(
                f"worker {worker} cannot run this package ({answer}); install the same version there"
            )
        if answer["versions"] != here["versions"]:
            raise EngineError(
                f"worker {worker} has {answer['versions']}, here are {here['versions']}; install the same versions"
            )
        if answer["over"]:
            raise EngineError(
                f"worker {worker} does not see {folder.resolve()}; a sweep on several machines needs --out on a file "
                "system that all of them share, by its full path"
            )


def _seen_by_worker(lease: DriverLease) -> dict[str, Any]:
    from sims.system.provenance import versions

    return {"over": lease.over(), "versions": versions()}


def _one_thread_plugin() -> Any:
    from distributed import WorkerPlugin

    class OneThread(WorkerPlugin):
        """Limit every worker process to one thread of arithmetic."""

        name = "speclens"

        def setup(self, worker: Any) -> None:
            torch.set_num_threads(1)

    return OneThread()


def select_gpu() -> None:
    """Make the GPU of this worker's number the current one.

    Workers of a local cluster have numbers. Workers of other clusters have names, and keep the GPU that their
    scheduler assigned.
    """
    # A job in the driver process has no worker, and the package may not be installed.
    distributed = sys.modules.get("distributed")
    if distributed is None or not torch.cuda.is_available():
        return
    with suppress(ValueError):
        name = distributed.get_worker().name
        if isinstance(name, int):
            torch.cuda.set_device(name % torch.cuda.device_count())


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(
            f"worker processes need the package {name} ({error}); install it with `pip install distributed`, or use "
            "--workers 1"
        ) from error
