"""Stop signals as a flag: an exception at any moment could interrupt a write or the start of a process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


class Stopped(KeyboardInterrupt):
    """Raised when a signal stops the work; partial results are saved.

    Args:
        by: the signal.
    """

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(by.name)
        self.by = by

    @property
    def status(self) -> int:
        """Exit status by the convention of shells."""
        return 128 + self.by


class Interrupted(Exception):
    """Raised when a measurement stops early; partial results are saved."""


class Stop:
    """Records the signal that asked this process to stop; calling it returns whether one did."""

    def __init__(self) -> None:
        self.by: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.by is not None

    def obey(self) -> None:
        """Raise if a signal asked to stop.

        Raises:
            Stopped: one did.
        """
        if self.by is not None:
            raise Stopped(self.by)


_HEARD = b"\nspeclens: stopping: what is under way is stored first; once more ends it at once\n"


@contextmanager
def stop_on_signals(speaks: bool = True) -> Iterator[Stop]:
    """Turn Ctrl-C and SIGTERM into a request to stop where results can be saved; the same signal again ends at once.

    Only the main thread can handle signals; in any other thread the request never comes.

    Args:
        speaks: print that the request was received.
    """
    stop = Stop()
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.by = signal.Signals(number)
        # Not the other one: after Ctrl-C torchrun also sends SIGTERM to its ranks, which are storing their states.
        signal.signal(number, before[stop.by])
        if speaks:
            # No print: the signal may have interrupted one.
            with suppress(OSError):
                os.write(2, _HEARD)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class TimeLimit:
    """Interrupt this process after some time, as Ctrl-C does: work that stops on signals stores what is under way.

    Use it as a context inside the `try` that catches the KeyboardInterrupt.

    Args:
        seconds: until then; more than a thread can wait (`threading.TIMEOUT_MAX`, centuries) counts as that.

    Attributes:
        over: whether the time is over, which tells this interruption from one by a person.
    """

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._timer = threading.Timer(min(max(seconds, 0.0), threading.TIMEOUT_MAX), self._interrupt)
        self._timer.daemon = True

    def _interrupt(self) -> None:
        self.over = True
        os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self) -> TimeLimit:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        # A signal that is on its way arrives here, and not after the `try`.
        self._timer.join()
