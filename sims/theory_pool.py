"""The work of `speclens theory` over worker processes; the claims do not depend on each other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Protocol, TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class OrderedMap(Protocol):
    """What `map` does: results in the order of the items, an exception where its result is due."""

    def __call__(self, function: Callable[[_In], _Out], items: Iterable[_In], /) -> Iterator[_Out]:
        """Apply ``function`` to every item."""
        ...


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def ordered_map(workers: int) -> Iterator[OrderedMap]:
    """A `map` over worker processes, or the plain one for a single worker.

    Function, items and results must be picklable (a registered claim is, by its id). Leaving by an exception, Ctrl-C
    among them, ends the workers at once.
    """
    if workers <= 1:
        yield map
        return
    _start_server()
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver"))
    try:
        yield pool.map
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start_server() -> None:
    """Start the process that imports everything once and of which every worker is a fork.

    Ctrl-C reaches the whole process group. The server is started while it is ignored, and its workers inherit that,
    so that this process alone decides what it means and no worker prints a traceback.
    """
    multiprocessing.set_forkserver_preload(["sims.theory_report"])
    if threading.current_thread() is not threading.main_thread():
        forkserver.ensure_running()
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, previous)
