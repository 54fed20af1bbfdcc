"""This machine: its cores, and the process of which workers are forks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing import forkserver


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_fork_server(modules: Sequence[str]) -> None:
    """Start the process that imports the modules once and of which every worker is a fork.

    Ctrl-C reaches the whole process group. The server is started while it is ignored, and its workers inherit that,
    so that this process alone decides what it means and no worker prints a traceback.
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
