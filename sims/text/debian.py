"""Debian packages as text: fetched by apt, unpacked by dpkg, and compared with their digests whenever they are used."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from sims.system.errors import StoreError, UnverifiedWarning
from sims.system.files import make_folder, write_atomic
from sims.system.hashing import sha256

Run = Callable[..., None]


def unpacked_package(name: str, cache: Path, run: Run) -> tuple[Path, Path]:
    """Return the file of a package and the folder of its content; each package is fetched and unpacked once.

    Args:
        name: of the package.
        cache: folder for the packages and their contents.
        run: runs a program; its arguments are the command, what to do where it fails, and the folder.

    Beside them lies a list of digests (``<package>.sha256``, as sha256sum writes it), made when it was unpacked.

    Raises:
        StoreError: apt or dpkg is missing or fails, or a file is not what was fetched or unpacked.

    Warns:
        UnverifiedWarning: the package was put into the cache by hand, and apt does not know its digest.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name):
        raise StoreError(f"{name!r} is no name of a Debian package")
    kept = sorted(cache.glob(f"{name}_*.deb"))
    package = kept[-1] if kept else _fetched(name, cache, run)
    unpacked, sums = cache / package.stem, cache / f"{package.stem}.sha256"
    if unpacked.exists() and sums.exists():
        _compare(cache, sums)
        return package, unpacked
    if kept:
        _compare_with_apt(package)
    # Unpacked under another name and renamed: a folder with the final name is complete.
    partial = cache / f".{package.stem}.part"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(unpacked, ignore_errors=True)
    run(["dpkg", "-x", str(package), str(partial)], "install dpkg, or use --source files")
    partial.rename(unpacked)
    files = [package, *(p for p in sorted(unpacked.rglob("*")) if p.is_file() and not p.is_symlink())]
    lines = "".join(f"{sha256(p)}  {p.relative_to(cache)}\n" for p in files)
    write_atomic(sums, lambda file: file.write(lines.encode()))
    return package, unpacked


def version_of(package: Path) -> str:
    """Return the version in the name of a package, as it is written there."""
    return package.stem.split("_")[1]


def _compare(cache: Path, sums: Path) -> None:
    for line in sums.read_text("utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if not (cache / name).is_file() or sha256(cache / name) != digest:
            raise StoreError(
                f"{cache / name} is missing or not what was unpacked (its SHA-256 is not that of {sums.name}); delete "
                f"{sums.with_suffix('')}* and run the same command again"
            )


def _compare_with_apt(package: Path) -> None:
    """Compare a package that lies in the cache with the digest that apt knows of this version."""
    known, own = _published(package), sha256(package)
    if known is None:
        warnings.warn(
            UnverifiedWarning(
                f"{package} lay in the cache, and apt does not know its SHA-256; it is taken as it is"
            ),
            stacklevel=1,
        )
    elif own != known:
        raise StoreError(
            f"{package} has SHA-256 {own[:12]}…, and Debian's package of this version has {known[:12]}…; it is damaged "
            "or another one: delete it and run the same command again"
        )


def _published(package: Path) -> str | None:
    """Return the SHA-256 in apt's lists of a package in this version, or None."""
    name, version, *_ = package.stem.split("_")
    command = ["apt-cache", "show", f"{name}={unquote(version)}"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return None
    found = re.search(r"^SHA256: *([0-9a-f]{64})$", said, flags=re.MULTILINE)
    return None if found is None else found[1]


def _fetched(name: str, cache: Path, run: Run) -> Path:
    # Fetched into a separate folder and moved: a file in the cache is complete. Apt compares digests itself.
    partial = make_folder(cache / f".{name}.part")
    remedy = f"check the name and the network, run `apt-get update`, or put {name}_….deb into {cache}"
    run(["apt-get", "download", name], remedy, partial)
    fetched = next(iter(partial.glob("*.deb")), None)
    if fetched is None:
        raise StoreError(f"apt-get fetched nothing for {name}; {remedy}")
    target = cache / fetched.name
    fetched.rename(target)
    shutil.rmtree(partial)
    return target
