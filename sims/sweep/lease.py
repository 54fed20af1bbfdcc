"""One driver a folder, and a sign by which its workers know that it still wants them."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sims.system.errors import StoreError
from sims.system.files import write_atomic


@dataclass(frozen=True)
class DriverLease:
    """A driver's hold on a folder.

    Workers compare the token with the file at every evaluation, those of language models after every step. A driver
    that stops removes the file; a later driver writes its own: either way workers store what they have and leave. A
    driver that was killed leaves the file as it is, and workers on other machines finish what they have begun.

    Args:
        file: where the token stands.
        token: this driver's own.
    """

    file: Path
    token: str

    def over(self) -> bool:
        """Whether workers shall stop."""
        try:
            return self.file.read_text() != self.token
        except FileNotFoundError:
            return True
        except OSError:
            # A file system that hiccups is no reason to throw work away.
            return False

    def end(self) -> None:
        """Ask the workers to stop."""
        with suppress(OSError):
            self.file.unlink()


@contextmanager
def driving(out: Path) -> Iterator[DriverLease]:
    """Hold a folder as its only driver; the operating system lets go however the process ends.

    Raises:
        StoreError: another driver holds it, or it cannot be written.
    """
    path = out / ".driver"
    try:
        lock = open(path, "a+")  # noqa: SIM115
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}); choose another --out") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise StoreError(
                f"another process ({lock.read().strip() or 'unknown'}) is already working in {out}; wait for it, "
                "stop it, or choose another --out"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()} on {socket.gethostname()}")
        lock.flush()
        lease = DriverLease(out / ".session", secrets.token_hex(8))
        write_atomic(lease.file, lambda file: file.write(lease.token.encode()))
        try:
            yield lease
        finally:
            lease.end()
