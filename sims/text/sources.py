"""Where text comes from: files at hand, or Debian packages that apt fetches and dpkg unpacks."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sims.system.errors import StoreError
from sims.system.files import make_folder, write_atomic
from sims.text.documents import documents, is_text

# Packages of Debian 12 that are mostly English prose, and which of their files are the text: where a manual comes as
# HTML and as its source, only one of the two.
DEBIAN: dict[str, str] = {
    "anarchism": "usr/share/doc/anarchism/html/*.html",
    "linux-doc-6.1": "usr/share/doc/linux-doc-6.1/Documentation/**/*.rst.gz",
    "python3.11-doc": "usr/share/doc/python3.11/html/_sources/**/*.txt",
    "dict-gcide": "usr/share/dictd/gcide.dict.dz",
    "wordnet-base": "usr/share/wordnet/data.*",
}
_CHUNK = 2**20


@dataclass(frozen=True)
class Source:
    """A body of text.

    Attributes:
        name: for people.
        files: its text files, in a fixed order.
        facts: what is recorded of it: licence, and what identifies its content (SHA-256).
        licence_file: the full text of the licence, where there is one.
    """

    name: str
    files: tuple[Path, ...]
    facts: dict[str, Any]
    licence_file: Path | None = None

    def documents(self) -> Iterator[str]:
        """Its documents, in the order of its files."""
        for path in self.files:
            yield from documents(path)


def file_sources(paths: Sequence[Path], licence: str) -> list[Source]:
    """Text files as sources; of folders, every file below them with an ending of plain text or HTML.

    Args:
        licence: of these texts, as it is to be recorded.

    Raises:
        StoreError: nothing given, a path that is not there, or a folder without text.
    """
    if not paths:
        raise StoreError("--source files needs the files or folders to read; name them after it")
    found = []
    for path in paths:
        if path.is_dir():
            files = tuple(p for p in sorted(path.rglob("*")) if p.is_file() and is_text(p))
        else:
            files = (path,)
        if not files:
            raise StoreError(
                f"{path} holds no text; text files end in .txt, .md, .rst or .html, or in one of these and .gz"
            )
        digests = {str(f.relative_to(path)) if path.is_dir() else f.name: sha256(f) for f in files}
        found.append(Source(str(path), files, {"licence": licence, "sha256": digests}))
    return found


def debian_sources(packages: Sequence[str], cache: Path) -> list[Source]:
    """Debian packages as sources, fetched once and kept.

    Args:
        packages: names; those of `DEBIAN` are read by the files named there, others by every text file in them.
        cache: folder for the packages and what is in them. What it holds already is not fetched again.

    Raises:
        StoreError: apt or dpkg is missing or fails, or a package holds no text.
    """
    make_folder(cache)
    return [_debian(name, cache) for name in packages]


def _debian(name: str, cache: Path) -> Source:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name):
        raise StoreError(f"{name!r} is no name of a Debian package")
    package = _fetched(name, cache)
    unpacked = cache / package.stem
    if not unpacked.exists():
        # Under another name first: a folder of the right name is whole.
        partial = cache / f".{package.stem}.part"
        shutil.rmtree(partial, ignore_errors=True)
        _run(["dpkg", "-x", str(package), str(partial)], "install dpkg, or use --source files")
        partial.rename(unpacked)
    pattern = DEBIAN.get(name)
    found = (
        sorted(unpacked.glob(pattern)) if pattern else [p for p in sorted(unpacked.rglob("*")) if is_text(p)]
    )
    files = tuple(p for p in found if p.is_file())
    if not files:
        raise StoreError(f"the package {name} holds no text that is known here; leave it out")
    copyright_file = next(iter(sorted(unpacked.glob("usr/share/doc/*/copyright"))), None)
    facts = {
        "licence": _licence(copyright_file),
        "version": package.stem.split("_")[1],
        "sha256": sha256(package),
    }
    return Source(name, files, {"package": name, **facts}, copyright_file)


def _fetched(name: str, cache: Path) -> Path:
    kept = sorted(cache.glob(f"{name}_*.deb"))
    if kept:
        return kept[-1]
    # Into a folder of its own, so that a file in the cache is whole.
    partial = make_folder(cache / f".{name}.part")
    remedy = f"check the name and the network, run `apt-get update`, or put {name}_….deb into {cache}"
    _run(["apt-get", "download", name], remedy, partial)
    fetched = next(iter(partial.glob("*.deb")), None)
    if fetched is None:
        raise StoreError(f"apt-get fetched nothing for {name}; {remedy}")
    target = cache / fetched.name
    fetched.rename(target)
    shutil.rmtree(partial)
    return target


def _run(command: list[str], remedy: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise StoreError(f"{command[0]} is not installed; {remedy}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise StoreError(f"{' '.join(command)} failed ({said[-1] if said else done.returncode}); {remedy}")


def _licence(copyright_file: Path | None) -> str:
    """The short names in a machine-readable copyright file; where it is written freely, that it is to be read."""
    if copyright_file is None:
        return "not stated"
    text = copyright_file.read_text("utf-8", "replace")
    if not text.startswith("Format:"):
        return "see the licence file"
    names = re.findall(r"^License: *(\S.*)$", text, flags=re.MULTILINE)
    return ", ".join(dict.fromkeys(n.strip() for n in names)) or "see the licence file"


def keep_licences(sources: Sequence[Source], folder: Path) -> None:
    """Copy the licence texts of sources into a folder, one file a source."""
    for source in sources:
        if source.licence_file is not None:
            text = source.licence_file.read_bytes()
            write_atomic(make_folder(folder) / f"{source.name}.txt", lambda file, text=text: file.write(text))


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits.

    Raises:
        StoreError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
