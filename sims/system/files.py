"""Atomic file writes."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from sims.system.errors import PlaceError, StoreError

TEMPORARY = ".tmp-"
_PERMISSIONS = "change its permissions"


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace a file atomically: temporary name, fsync, rename, fsync of the folder.

    A reader sees either the old or the new file. After a failure the temporary file is removed and the old file is
    unchanged.

    Raises:
        StoreError: the disk is full, or the folder is missing or not writable.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        # It no longer exists after a successful rename, and was never made where nothing can be written.
        with suppress(OSError):
            temporary.unlink()


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically; NaN and Inf become null, which is valid JSON."""
    text = json.dumps(json_value(data), indent=2, sort_keys=True) + "\n"
    write_atomic(path, lambda file: file.write(text.encode()))


def json_value(data: Any) -> Any:
    """Return nested data as JSON can express it: keys are texts, tuples lists, NaN and Inf null.

    >>> json_value({1: (0.5, float("nan"))})
    {'1': [0.5, None]}
    """
    if isinstance(data, dict):
        return {str(k): json_value(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [json_value(v) for v in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StoreError: missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{path} is not valid JSON ({error}); it was edited or damaged: restore or delete it"
        ) from error


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON file that holds an object with these keys.

    Raises:
        StoreError: missing, unreadable, not JSON, something else than an object, or one without a key.
    """
    found = read_json(path)
    lacking = "is not an object" if not isinstance(found, dict) else ""
    lacking = lacking or ", ".join(f"has no {key!r}" for key in keys if key not in found)
    if lacking:
        raise StoreError(f"{path} {lacking}; it was edited or damaged: restore or delete it")
    return found


def make_folder(path: Path) -> Path:
    """Create a folder and its parents if they do not exist, durably, and return it.

    Raises:
        StoreError: it cannot be created or written to.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            # Without it a new folder, and all that is written in it, may be lost when the power fails.
            _sync_folder(folder.parent)
    except OSError as error:
        raise explained(error, path) from error
    if not os.access(path, os.W_OK):
        raise PlaceError(path, "is not writable", _PERMISSIONS)
    return path


def need_folder(path: Path, rule: str) -> None:
    """Refuse to read a folder that is not there.

    Args:
        path: of the folder.
        rule: what is to be given.

    Raises:
        StoreError: it does not exist, or is a file.
    """
    if not path.is_dir():
        raise StoreError(f"{path} {'is not a folder' if path.exists() else 'does not exist'}; {rule}")


def check_folder(path: Path) -> None:
    """Refuse what cannot become a folder, before the work whose results it is to hold.

    Raises:
        StoreError: it is, or lies below, a file; or nothing can be written there.
    """
    for place in (path, *path.parents):
        if place.exists():
            if not place.is_dir():
                raise PlaceError(path, "is, or lies below, a file")
            if not os.access(place, os.W_OK):
                raise PlaceError(place, "is not writable", _PERMISSIONS)
            return


def check_page(path: Path) -> None:
    """Refuse what cannot become a page, whose folder is made with it, before the work whose result it is to hold.

    Raises:
        StoreError: it is a folder, or would lie where nothing can be written.
    """
    if path.is_dir():
        raise PlaceError(path, "is a folder")
    check_folder(path.parent)


def page_folder(out: Path | None, runs: Path | None, default: Path, name: str = "page") -> Path:
    """Return where a command writes its page: below runs that it trains, or of existing runs as it is told.

    Args:
        out: option of the command.
        runs: folder of existing runs; None where the command trains them.
        default: folder in which it trains without `out`.
        name: of the folder below existing runs.

    >>> [str(page_folder(out, runs, Path("edge"))) for runs in (None, Path("demo")) for out in (None, Path("mine"))]
    ['edge/page', 'mine/page', 'demo/page', 'mine']
    """
    return (out or default) / "page" if runs is None else out or runs / name


def check_file(path: Path) -> None:
    """Refuse what cannot become a file, before the work whose result it is to hold.

    Raises:
        StoreError: it is a folder, or would lie in none that there is, or in one where nothing can be written.
    """
    folder = path.parent
    if path.is_dir():
        raise PlaceError(path, "is a folder")
    if not folder.is_dir():
        raise PlaceError(path, f"would lie in {folder}, which is no folder", "make that first")
    if not os.access(folder, os.W_OK):
        raise PlaceError(folder, "is not writable", _PERMISSIONS)


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """Return what a folder holds by a pattern, in the order of names, without hidden files and folders.

    Hidden are files that are being written or were left by a killed process, and those of other programs.
    """
    found = folder.glob(pattern)
    return sorted(p for p in found if not any(part[0] == "." for part in p.relative_to(folder).parts))


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of killed processes."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explained(error: OSError, path: Path) -> StoreError:
    """Return the error for a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"no space left while writing {path}; nothing is damaged: free some space, run the same command again"
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return PlaceError(path, f"cannot be written ({error.strerror})", _PERMISSIONS)
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return PlaceError(path, "is, or lies below, a file")
    return StoreError(f"cannot write {path}: {error.strerror}")
