"""Rows of measurements made in worker processes while training goes on; they are the same rows."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import torch

from sims.measure.engine import Gathered
from sims.measure.rows import MeasurementRows
from sims.system.machine import start_fork_server

# Models under way for each worker, of about 3 MB each at the published size; beyond, this process makes the rows.
BACKLOG = 16


class LaterRows:
    """Rows that a worker makes of what was gathered of one model.

    Args:
        work: the model as bytes, as it was when it was gathered.
        future: of the worker.
    """

    def __init__(self, work: bytes, future: Future[MeasurementRows | None]) -> None:
        self._work, self._future = work, future
        self._found: MeasurementRows | None = None

    @property
    def done(self) -> bool:
        """Return whether the rows, or the reason why there are none, are there."""
        return self._found is not None or self._future.done()

    def sheet(self) -> MeasurementRows:
        """Return the rows; wait for them, and make them here where the worker died or could not.

        Raises:
            Exception: what was raised where they were made.
        """
        if self._found is not None:
            return self._found
        found = self._awaited()
        if found is None:
            gathered: Gathered = pickle.loads(self._work)
            found = gathered.sheet()
        self._found, self._work = found, b""
        return found

    def _awaited(self) -> MeasurementRows | None:
        try:
            return self._future.result()
        except BrokenProcessPool:
            return None


Rows = MeasurementRows | LaterRows


def made(rows: Rows) -> MeasurementRows:
    """Return rows that are there, or wait for them."""
    return rows.sheet() if isinstance(rows, LaterRows) else rows


def ready(rows: Rows) -> bool:
    """Return whether `made` would not wait."""
    return rows.done if isinstance(rows, LaterRows) else True


class SummaryWorkers:
    """Give what was gathered of models to worker processes.

    Args:
        pool: the processes.
        most: models under way at most.
    """

    def __init__(self, pool: ProcessPoolExecutor, most: int) -> None:
        self.pool, self.most = pool, most
        self.broken = False
        self._under_way: list[Future[MeasurementRows | None]] = []

    def rows(self, gathered: Gathered) -> Rows:
        """Return the rows of a model: later, or at once where enough is under way or no worker can make them.

        Raises:
            NotFiniteError: the model has no numbers to measure, which must be known before it trains on.
        """
        if not all(bool(x.isfinite().all()) for x in gathered.found.values()):
            return gathered.sheet()
        try:
            # Now: what was gathered shares the memory of weights that the next step changes.
            work = pickle.dumps(gathered, protocol=5)
        except Exception:
            # A measurement of somebody's own that cannot leave its process.
            return gathered.sheet()
        self._under_way = [future for future in self._under_way if not future.done()]
        if not self.broken and len(self._under_way) < self.most:
            try:
                self._under_way.append(self.pool.submit(_made, work))
            except BrokenProcessPool as error:
                self.broken = True
                warnings.warn(f"rows are made in this process from here on: {error}", stacklevel=2)
            else:
                return LaterRows(work, self._under_way[-1])
        # From the same copy as a worker: where numbers lie in memory may show in the last bits.
        return _made(work) or gathered.sheet()


@contextmanager
def summarising(count: int) -> Iterator[SummaryWorkers | None]:
    """Yield that many worker processes, of as many threads as this one; None for none.

    They end with this process, even if it is killed.
    """
    if not count:
        yield None
        return
    start_fork_server(["sims.training.summary_workers"])
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(torch.get_num_threads(),))
    try:
        yield SummaryWorkers(pool, BACKLOG * count)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _made(work: bytes) -> MeasurementRows | None:
    """Return the rows; None where a measurement of somebody's own is not known in this process."""
    try:
        gathered: Gathered = pickle.loads(work)
    except Exception:
        return None
    return gathered.sheet()
