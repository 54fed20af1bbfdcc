"""Cores of this machine, and the server that forks worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing import forkserver


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def crowding(workers: int, load: float | None = None, total: int | None = None) -> float:
    """Return how many times longer a step takes while so many processes work than while one does.

    Args:
        workers: processes of one thread.
        load: other processes that want a core; by default the load average of the last minute.
        total: cores of the machine; by default all that it has.

    >>> crowding(2, load=0, total=2), crowding(2, load=2, total=2), crowding(8, load=0, total=2)
    (1.0, 1.3333333333333333, 4.0)
    """
    total = total or os.cpu_count() or 1
    load = os.getloadavg()[0] if load is None else load
    alone, together = (min(1.0, total / (load + running)) for running in (1, workers))
    return alone / together


def start_fork_server(modules: Sequence[str]) -> None:
    """Start the process that imports the modules once and is forked for every worker.

    Ctrl-C is sent to the whole process group. The server is started while Ctrl-C is ignored and its workers inherit
    this, so that only the present process handles it and no worker prints a traceback.
    """
    multiprocessing.set_forkserver_preload(list(modules))
    if threading.current_thread() is not threading.main_thread():
        forkserver.ensure_running()
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, previous)
