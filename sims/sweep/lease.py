"""Allow one driver per folder, and tell its workers when to stop."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sims.system.errors import StoreError
from sims.system.files import write_atomic
from sims.system.locks import take_lock


@dataclass(frozen=True)
class DriverLease:
    """Hold the right of one driver to use a folder.

    Workers compare the token with the file at every evaluation, those of language models after every step. A driver
    that stops removes the file, and a later driver replaces it: in both cases the workers store their states and
    stop. A driver that was killed leaves the file unchanged, and workers on other machines finish their jobs.

    Args:
        file: the file that holds the token.
        token: a random string, different for each driver.
    """

    file: Path
    token: str

    def over(self) -> bool:
        """Return whether the workers have to stop."""
        try:
            return self.file.read_text() != self.token
        except FileNotFoundError:
            return True
        except OSError:
            # A temporary failure of the file system is not a reason to stop.
            return False

    def end(self) -> None:
        """Ask the workers to stop."""
        with suppress(OSError):
            self.file.unlink()


@contextmanager
def driving(out: Path) -> Iterator[DriverLease]:
    """Hold a folder as its only driver.

    The operating system releases the lock however the process ends.

    Raises:
        StoreError: another driver holds the folder, or it cannot be written.
    """
    path = out / ".driver"
    lock = take_lock(path)
    if lock is None:
        raise StoreError(
            f"another process ({_holder(path)}) is already working in {out}; wait for it, stop it, or choose another "
            "--out"
        )
    with lock:
        # Only told in messages: a full disk is found by the next file.
        with suppress(OSError):
            lock.truncate(0)
            lock.write(f"{os.getpid()} on {socket.gethostname()}".encode())
        lease = DriverLease(out / ".session", secrets.token_hex(8))
        write_atomic(lease.file, lambda file: file.write(lease.token.encode()))
        try:
            yield lease
        finally:
            lease.end()


def _holder(path: Path) -> str:
    try:
        return path.read_text().strip() or "unknown"
    except OSError:
        return "unknown"
