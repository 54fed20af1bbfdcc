"""Digests of files."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from sims.system.errors import StoreError


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=4096)
def sha256_of_version(path: Path, size: int, changed: int) -> str:
    """Return the SHA-256 of a file in hexadecimal, computed once for each size (bytes) and time of change (ns).

    Raises:
        StoreError: the file cannot be read.
    """
    return sha256(path)
