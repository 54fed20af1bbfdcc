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


def sha256_of_all(path: Path) -> str:
    """Return the SHA-256 (hex) of a file; for a folder that of the names and digests of all files in it.

    Raises:
        StoreError: one cannot be read.
    """
    if path.is_file():
        return sha256(path)
    inside = sorted((p.relative_to(path).as_posix(), p) for p in path.rglob("*") if p.is_file())
    lines = "".join(f"{sha256(p)}  {name}\n" for name, p in inside)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


@lru_cache(maxsize=4096)
def sha256_of_version(path: Path, size: int, changed: int) -> str:
    """Return the SHA-256 of a file in hexadecimal, computed once for each size (bytes) and time of change (ns).

    Raises:
        StoreError: the file cannot be read.
    """
    return sha256(path)
