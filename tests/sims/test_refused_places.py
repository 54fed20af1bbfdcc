"""Places that nothing can be written to or read from: status 2 and one line, before the work."""

import errno
import re

import pytest
from listed import finished

from sims import cli
from toymodel.config import RunConfig


def test_nothing_can_be_written_where_all_is_refused(tmp_path, monkeypatch, told):
    """On a read-only file system the removal of a temporary file that was never made was a traceback."""
    finished(tmp_path / "runs", RunConfig())

    def refused(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("sims.system.files.open", refused, raising=False)
    monkeypatch.setattr("pathlib.Path.unlink", refused)
    status, _, said = told("export", tmp_path / "runs", "--to", tmp_path / "x.csv")
    assert status == 2
    assert "x.csv cannot be written (Read-only file system)" in said


def test_a_folder_that_takes_nothing_is_refused_before_the_work(tmp_path, monkeypatch, told):
    monkeypatch.setattr("os.access", lambda *_: False)
    status, out, said = told("theory", "T1", "--out", tmp_path / "t.html")
    assert (status, out) == (2, "")
    assert said == f"speclens: {tmp_path} is not writable; choose another --out or change its permissions\n"


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("bands runs", "choose another --out or change its permissions"),
        ("demo --out runs/a/b", "choose another --out or change its permissions"),
        ("train small --steps 1 --out runs", "choose another --out or change its permissions"),
        ("export runs --to runs/x.csv", "choose another --to or change its permissions"),
        # Beside the runs is where this page lies.
        ("report runs", "change its permissions"),
    ],
)
def test_the_remedy_of_a_place_is_the_option_that_names_it(tmp_path, monkeypatch, told, line, remedy):
    finished(tmp_path / "runs", RunConfig())
    monkeypatch.chdir(tmp_path)

    def refused(path, *_, **__):
        raise OSError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("sims.system.files.open", refused, raising=False)
    status, out, said = told(*line.split())
    assert (status, out) == (2, "")
    assert said.splitlines()[-1].endswith(f"; {remedy}")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    # Before anything is read: none and lm do not exist.
    for words in (
        *("demo --out file", "demo --out file/below", "carry-over none lm --out file/page.html"),
        "reproduce all --runs none --out file",
    ):
        status, _, said = told(*words.split())
        assert (status, said.partition(" lies below, ")[2]) == (2, "a file; choose another --out\n")


@pytest.mark.parametrize(
    "line",
    [
        "report",
        "ls",
        "bands",
        "robustness",
        "compare",
        "theory --against",
        "reproduce all --runs",
        "windows",
        "carry-over",
    ],
)
def test_a_folder_that_is_not_there_is_told_so(tmp_path, monkeypatch, told, line):
    monkeypatch.chdir(tmp_path)
    status, _, said = told(*line.split(), "nosuch", *["nosuch"] * (line == "carry-over"))
    assert status == 2
    assert re.search(r"nosuch (does not exist|cannot be listed \(No such file or directory\)); give ", said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "show",
        "report",
        "look",
        "inspect",
        "compare",
        "data",
        "windows",
        "train lm --data",
        "demo --config",
        "ls",
    ],
)
def test_a_name_that_no_file_can_have_is_one_short_line(tmp_path, monkeypatch, told, line):
    monkeypatch.chdir(tmp_path)
    status, _, said = told(*line.split(), "x" * 5000 + ".yaml")
    assert (status, len(said.splitlines())) == (2, 1)
    assert re.search(r"… \(5,\d{3} characters\)", said)
    assert "File name too long" in said
    assert len(said) < 200


def test_a_path_below_a_folder_that_may_not_be_entered_is_one_line(monkeypatch, told):
    def denied(arguments):
        raise PermissionError(errno.EACCES, "Permission denied", arguments[-1])

    # Of root nothing is kept.
    monkeypatch.setattr(cli, "parse", denied)
    status, _, said = told("ls", "closed/runs")
    remedy = "change its permissions, or give another path"
    assert said == f"speclens: closed/runs cannot be reached (Permission denied); {remedy}\n"
    assert status == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "bench --out nodir/b.json",
            "nodir/b.json would lie in nodir, which is no folder; choose another --out or",
        ),
        ("bench --out there", "there is a folder; choose another --out"),
        ("windows nowhere --figure nodir/x.svg", "choose another --figure or make that first"),
        ("windows nowhere --figure x.pdf", "x.pdf ends in '.pdf'"),
        ("windows nowhere --out nodir/x.csv --figure x.svg", "choose another --out or make that first"),
        ("export there --to nodir/x.csv", "choose another --to or make that first"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, told, words, says):
    """The option of that file is named, and not another one for files that was left out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    monkeypatch.setattr("sims.bench.benchmark.run_benchmarks", lambda quick: pytest.fail("it has run"))
    status, out, said = told(*words.split())
    assert (status, out) == (2, "")
    assert says in said
