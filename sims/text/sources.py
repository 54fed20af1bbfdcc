"""Sources of text: local files, or Debian packages fetched by apt and unpacked by dpkg."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sims.system.errors import StoreError
from sims.system.files import make_folder, write_atomic
from sims.system.hashing import sha256
from sims.text.debian import unpacked_package, version_of
from sims.text.documents import documents, is_text

# Packages of Debian 12 that are mostly English prose, and their text files: only one of the two if a manual exists both
# as HTML and as source.
DEBIAN: dict[str, str] = {
    "anarchism": "usr/share/doc/anarchism/html/*.html",
    "linux-doc-6.1": "usr/share/doc/linux-doc-6.1/Documentation/**/*.rst.gz",
    "python3.11-doc": "usr/share/doc/python3.11/html/_sources/**/*.txt",
    "dict-gcide": "usr/share/dictd/gcide.dict.dz",
    "wordnet-base": "usr/share/wordnet/data.*",
}


@dataclass(frozen=True)
class Source:
    """A body of text.

    Attributes:
        name: shown in messages and records.
        files: its text files, in a fixed order.
        facts: recorded with the shards: licence, and SHA-256 of the content.
        licence_file: the full text of the licence, if it has one.
    """

    name: str
    files: tuple[Path, ...]
    facts: dict[str, Any]
    licence_file: Path | None = None

    def documents(self) -> Iterator[str]:
        """Yield its documents, in the order of its files."""
        for path in self.files:
            yield from documents(path)


def file_sources(paths: Sequence[Path], licence: str) -> list[Source]:
    """Return files as sources; of a folder, every file below it that ends like plain text or HTML.

    Args:
        paths: files and folders.
        licence: of these texts, for the record.

    Raises:
        StoreError: no path given, a path that does not exist, or a folder without text.
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
    """Return Debian packages as sources; each is fetched once.

    Args:
        packages: names; `DEBIAN` lists the files of known ones, of others every text file is read.
        cache: folder for the packages and their contents; packages in it are not fetched again.

    Raises:
        StoreError: apt or dpkg is missing or fails, a package is not what was fetched, or holds no text.
    """
    make_folder(cache)
    return [_debian(name, cache) for name in packages]


def _debian(name: str, cache: Path) -> Source:
    package, unpacked = unpacked_package(name, cache, _run)
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
        "version": version_of(package),
        "sha256": sha256(package),
    }
    return Source(name, files, {"package": name, **facts}, copyright_file)


def _run(command: list[str], remedy: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise StoreError(f"{command[0]} is not installed; {remedy}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise StoreError(f"{' '.join(command)} failed ({said[-1] if said else done.returncode}); {remedy}")


def _licence(copyright_file: Path | None) -> str:
    """Return the short names in a machine-readable copyright file, or a reference to a free-form one."""
    if copyright_file is None:
        return "not stated"
    text = copyright_file.read_text("utf-8", "replace")
    if not text.startswith("Format:"):
        return "see the licence file"
    names = re.findall(r"^License: *(\S.*)$", text, flags=re.MULTILINE)
    return ", ".join(dict.fromkeys(n.strip() for n in names)) or "see the licence file"


def keep_licences(sources: Sequence[Source], folder: Path) -> None:
    """Copy the licence texts of sources into a folder, one file per source."""
    for source in sources:
        if source.licence_file is not None:
            text = source.licence_file.read_bytes()
            write_atomic(make_folder(folder) / f"{source.name}.txt", lambda file, text=text: file.write(text))
