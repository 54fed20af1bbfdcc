"""Digests of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sims.system.errors import StoreError

_CHUNK = 2**20


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        StoreError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
