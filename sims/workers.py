"""Several processes at work on independent jobs, one thread each, watched from their folders.

A second thread makes operations of this size slower, so parallelism is by process. A worker that is killed takes
its own job with it and nothing else.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

POLL_SECONDS = 0.2
# How long a worker may take to end before it is killed; its files are whole either way.
STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """Something for one worker process to do.

    Args:
        name: how messages call it.
        function, arguments: importable, and picklable.
    """

    name: str
    function: Callable[..., object]
    arguments: tuple[object, ...]


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(jobs: Sequence[Job], workers: int, watch: Callable[[], None], logs: Path) -> dict[str, str]:
    """Run every job, at most `workers` at a time, in the order given.

    Args:
        watch: called a few times a second while jobs run.
        logs: folder for one error file a failed job.

    Returns:
        {job name: error} of the jobs that failed; the others are complete.

    Raises:
        KeyboardInterrupt: after all workers have been stopped.
    """
    context = mp.get_context("forkserver")
    # The server imports torch once; every worker is then a fork of it that starts at once.
    context.set_forkserver_preload(["sims.runner"])
    waiting, running, failed = list(jobs), {}, {}
    interrupts: list[int] = []
    # A flag instead of an exception at any moment: an exception that strikes inside a start or a finaliser would
    # leave a worker behind, or be lost.
    in_main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number)) if in_main else None
    try:
        while waiting or running:
            if interrupts:
                raise KeyboardInterrupt
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                process = context.Process(target=_work, args=(job, logs), name=job.name, daemon=True)
                process.start()
                running[job.name] = process
            for name, process in list(running.items()):
                if process.exitcode is not None:
                    del running[name]
                    if process.exitcode != 0:
                        failed[name] = _failure(name, process, logs)
            watch()
            time.sleep(POLL_SECONDS)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join(STOP_SECONDS)
            process.kill()
            process.join()
        if in_main:
            signal.signal(signal.SIGINT, previous)
    return failed


def _work(job: Job, logs: Path) -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    try:
        job.function(*job.arguments)
    except Exception as error:
        logs.mkdir(parents=True, exist_ok=True)
        _log(job.name, logs).write_text(f"{error}\n\n{traceback.format_exc()}")
        raise SystemExit(1) from error


def _failure(name: str, process: BaseProcess, logs: Path) -> str:
    if process.exitcode is not None and process.exitcode < 0:
        return f"killed by signal {-process.exitcode}; run the same command again to finish it"
    log = _log(name, logs)
    return (
        f"{log.read_text().splitlines()[0]} (details in {log})"
        if log.exists()
        else f"exit status {process.exitcode}"
    )


def _log(name: str, logs: Path) -> Path:
    return logs / f"error-{name}.txt"
