"""Texts of Debian packages: fetched once, recorded, compared with what apt knows."""

import hashlib
from pathlib import Path

import pytest

from sims.system.errors import StoreError, UnverifiedWarning
from sims.text import sources as sources_module
from sims.text.sources import debian_sources


def test_debian_packages_are_fetched_once_and_recorded(tmp_path, monkeypatch):
    calls = []

    def run(command, remedy, folder=None):
        calls.append(command[0])
        if command[0] == "apt-get":
            (folder / "essays_1.2-3_all.deb").write_bytes(b"a package")
        else:
            docs = Path(command[-1]) / "usr/share/doc/essays"
            docs.mkdir(parents=True)
            (docs / "one.txt").write_text("rain fell on the old stone house")
            (docs / "copyright").write_text(
                "Format: x\n\nFiles: *\nLicense: CC0-1.0\n\nLicense: CC0-1.0\n text\n"
            )

    monkeypatch.setattr(sources_module, "_run", run)
    (source,) = debian_sources(["essays"], tmp_path / "cache")
    assert list(source.documents()) == ["rain fell on the old stone house"]
    assert source.facts == {
        "package": "essays",
        "licence": "CC0-1.0",
        "version": "1.2-3",
        "sha256": hashlib.sha256(b"a package").hexdigest(),
    }
    assert debian_sources(["essays"], tmp_path / "cache") == [source]
    assert calls == ["apt-get", "dpkg"]
    with pytest.raises(StoreError, match="no name of a Debian package"):
        debian_sources(["../x"], tmp_path / "cache")


def fake_debian(monkeypatch, content=b"a package"):
    """Programs that fetch and unpack a package of two texts."""

    def run(command, remedy, folder=None):
        if command[0] == "apt-get":
            (folder / "essays_1.2-3_all.deb").write_bytes(content)
            return
        docs = Path(command[-1]) / "usr/share/doc/essays"
        docs.mkdir(parents=True)
        for name in ("one", "two"):
            (docs / f"{name}.txt").write_text(f"rain fell on the old stone house {name}")

    monkeypatch.setattr(sources_module, "_run", run)


@pytest.mark.parametrize("what", ["package", "text", "lost"])
def test_a_package_that_changed_in_the_cache_is_refused(tmp_path, monkeypatch, what):
    fake_debian(monkeypatch)
    (source,) = debian_sources(["essays"], tmp_path)
    file = tmp_path / "essays_1.2-3_all.deb" if what == "package" else source.files[1]
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    if what == "lost":
        file.unlink()
    with pytest.raises(
        StoreError, match=rf"{file.name} is missing or not what was unpacked .*essays_1.2-3_all\* and"
    ):
        debian_sources(["essays"], tmp_path)


def test_a_package_put_into_the_cache_is_compared_with_what_apt_knows(tmp_path, monkeypatch):
    fake_debian(monkeypatch)
    package = tmp_path / "essays_1.2-3_all.deb"
    package.write_bytes(b"a package")
    known = hashlib.sha256(b"another").hexdigest()
    monkeypatch.setattr("sims.text.debian._published", lambda package: known)
    with pytest.raises(StoreError, match=rf"and Debian's package of this version has {known[:12]}…"):
        debian_sources(["essays"], tmp_path)
    assert not (tmp_path / "essays_1.2-3_all").exists()
    monkeypatch.setattr("sims.text.debian._published", lambda package: None)
    with pytest.warns(UnverifiedWarning, match="apt does not know its SHA-256"):
        debian_sources(["essays"], tmp_path)
    # Its content was unpacked by an earlier version, without digests: it is unpacked anew.
    (tmp_path / "essays_1.2-3_all.sha256").unlink()
    changed = tmp_path / "essays_1.2-3_all/usr/share/doc/essays/one.txt"
    changed.write_text("something else, and long enough")
    known = hashlib.sha256(b"a package").hexdigest()
    monkeypatch.setattr("sims.text.debian._published", lambda package: known)
    (source,) = debian_sources(["essays"], tmp_path)
    assert "something else" not in "".join(source.documents())
