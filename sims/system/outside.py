"""Failures of what is outside the package: streams, the current folder, paths."""

from __future__ import annotations

import errno
import os
import sys

from sims.system.plain import discard, plain, without_long_words

# What a stream says that takes no more.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def outside(error: Exception) -> str:
    """Say what has failed outside the package; empty where the error is another one."""
    return _unwritable(error) or _homeless(error) or _unnameable(error) or _closed(error)


def _unwritable(error: Exception) -> str:
    """Say why the output cannot be written; empty where the error is another one."""
    # Errors of files carry their names; those of streams have none.
    if not isinstance(error, OSError) or error.filename is not None or error.errno not in _UNWRITABLE:
        return ""
    discard(sys.stdout)
    return f"the output cannot be written ({error.strerror}); write it to another place"


def _homeless(error: Exception) -> str:
    """Say that the current folder is gone; empty where the error is another one."""
    if not isinstance(error, FileNotFoundError):
        return ""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the current folder does not exist any more; change to another one, and give paths from there"
    return ""


def _unnameable(error: Exception) -> str:
    """Say that a path is none that the file system takes; empty where the error is another one."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
        return ""
    path = without_long_words(os.fsdecode(error.filename or ""))
    return plain(f"{path} is no path here ({error.strerror}); give another one")


def _closed(error: Exception) -> str:
    """Say that this user may not reach a path; empty where the error is another one."""
    if not isinstance(error, PermissionError) or not isinstance(error.filename, str | bytes):
        return ""
    path = without_long_words(os.fsdecode(error.filename))
    return plain(f"{path} cannot be reached ({error.strerror}); change its permissions, or give another path")
