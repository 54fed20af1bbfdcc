"""Locks of files, which the operating system releases when their process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from sims.system.errors import StoreError
from sims.system.files import explained


def take_lock(path: Path) -> BinaryIO | None:
    """Create a file where there is none, and lock it.

    Args:
        path: of the file; the process that holds the lock may delete it.

    Returns:
        The open file, which holds the lock until it is closed; None while another process has it.

    Raises:
        StoreError: the file cannot be written, or its file system has no locks.
    """
    try:
        file = open(path, "ab", buffering=0)  # noqa: SIM115  (the caller closes it)
    except OSError as error:
        raise explained(error, path) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Otherwise it was deleted meanwhile, and a third process may hold the lock of a new file.
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        file.close()
        raise StoreError(
            f"{path} cannot be locked ({error.strerror}): without locks two processes could write the same files; "
            "choose a folder on a file system that has them (of NFS and Lustre an option of the mount)"
        ) from error
    file.close()
    return None
