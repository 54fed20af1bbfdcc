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
