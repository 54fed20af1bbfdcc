"""Signals that ask to stop, as a flag: an exception at any moment could strike inside a start or a write."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(KeyboardInterrupt):
    """Work was stopped by a signal, and what it had is stored.

    Args:
        by: the signal.
    """

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(by.name)
        self.by = by

    @property
    def status(self) -> int:
        """The exit status that a shell expects."""
        return 128 + self.by


class Interrupted(Exception):
    """Work was told to stop in its midst, and what it had is kept."""


class Stop:
    """Whether a signal has asked this process to stop, and which."""

    def __init__(self) -> None:
        self.by: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.by is not None

    def obey(self) -> None:
        """Give up, if it was asked for.

        Raises:
            Stopped: it was.
        """
        if self.by is not None:
            raise Stopped(self.by)


_HEARD = b"\nspeclens: stopping: what is under way is stored first; once more ends it at once\n"


@contextmanager
def stop_on_signals(speaks: bool = True) -> Iterator[Stop]:
    """Take Ctrl-C and SIGTERM as a request, to be met where the work can be stored; a second one strikes at once.

    Elsewhere than in the main thread signals cannot be taken, and nothing asks.

    Args:
        speaks: say that the request was heard.
    """
    stop = Stop()
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.by = signal.Signals(number)
        signal.signal(number, before[stop.by])
        if speaks:
            # No print: the signal may have struck in the midst of one.
            os.write(2, _HEARD)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
