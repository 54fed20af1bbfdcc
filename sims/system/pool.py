"""Work over processes that end with the present one, for items that do not depend on each other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from sims.system.machine import start_fork_server

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class OrderedMap(Protocol):
    """What `map` does: results in the order of the items, an exception where its result is due."""

    def __call__(self, function: Callable[[_In], _Out], items: Iterable[_In], /) -> Iterator[_Out]:
        """Apply ``function`` to every item."""
        ...


@contextmanager
def ordered_map(workers: int, modules: Sequence[str]) -> Iterator[OrderedMap]:
    """Yield a `map` over worker processes, or the plain one for a single worker.

    Function, items and results must be picklable (a registered claim is, by its id). Leaving by an exception, Ctrl-C
    among them, ends the workers at once.

    Args:
        workers: number of processes.
        modules: that are imported once for all of them.
    """
    if workers <= 1:
        yield map
        return
    start_fork_server(modules)
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
