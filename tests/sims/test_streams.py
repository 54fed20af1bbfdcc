"""What the command line does when nobody takes its output: one line and a status, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from listed import finished

from sims.system.errors import StoreError
from sims.system.files import make_folder, read_json
from toymodel.config import RunConfig

FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    finished(out, RunConfig())
    return out


def shell(line, runs, **environment):
    command = f"{sys.executable} -m sims.cli {line.replace('RUNS', str(runs))}"
    binary = "PYTHONIOENCODING" in environment
    return subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=not binary,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("line", ["ls RUNS", "ls RUNS --json", "show RUNS/*", "ls --help", "--version"])
def test_a_full_disk_behind_the_output_is_one_line(line, runs):
    found = shell(f"{line} > /dev/full", runs)
    assert found.returncode == 2
    assert found.stderr.splitlines() == [
        "speclens: the output cannot be written (No space left on device); write it to another place"
    ]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed, runs):
    found = shell(f"ls RUNS {closed}", runs)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize(
    "encoding", [pytest.param(name, marks=pytest.mark.slow) for name in ("ascii", "latin-1", "utf-16")]
)
def test_an_output_that_lacks_characters_gets_their_numbers(encoding, tmp_path):
    for seed in (0, 1):
        finished(tmp_path, RunConfig(stage="rope", seed=seed))
        finished(tmp_path, RunConfig(stage="muon", seed=seed))
    for line, status in (("report RUNS", 0), ("ls RUNS/baseline→", 2)):
        found = shell(f"{line} 2>&1", tmp_path, PYTHONIOENCODING=encoding)
        said = found.stdout.decode(encoding if status == 0 else "latin-1")
        assert (found.returncode, "Traceback" in said) == (status, False)
        if status == 0:
            assert ("rope → muon" if encoding == "utf-16" else r"rope \u2192 muon") in said


@pytest.mark.slow
def test_a_locale_of_ascii_reads_and_writes_the_same_page(tmp_path):
    finished(tmp_path, RunConfig())
    page = tmp_path / "report.html"
    assert shell("report RUNS", tmp_path).returncode == 0
    before = page.read_bytes()
    found = shell("report RUNS", tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (found.returncode, found.stderr) == (0, "")
    assert page.read_bytes() == before


def test_a_full_disk_behind_the_errors_leaves_the_status(runs):
    assert shell("ls RUNS/nowhere 2> /dev/full", runs).returncode == 2


def test_a_current_folder_that_is_gone_is_one_line(runs, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    line = f"cd {away} && rmdir {away} && {sys.executable} -m sims.cli show demo"
    found = subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].startswith("speclens: the current folder does not exist")


def test_a_reader_that_leaves_is_no_error(runs):
    found = shell("ls RUNS --json | head -c 3", runs)
    assert (found.stdout, found.stderr) == ('[{"', "")


@pytest.mark.parametrize(
    "streams",
    [("stdout", "stderr"), *(pytest.param((name,), marks=pytest.mark.slow) for name in ("stdout", "stderr"))],
    ids=" ".join,
)
def test_a_reader_that_leaves_at_once_changes_no_status_and_no_work(runs, streams):
    """As `… | head -1`, and `… 2>&1 | head -1`, where the reader is faster: the work is done and 0 stays 0."""
    reading, writing = os.pipe()
    os.close(reading)
    table = runs / "rows.csv"
    table.unlink(missing_ok=True)
    lines = (
        (["export", str(runs), "--to", str(table)], 0),
        (["ls", str(runs), "--json"], 0),
        (["--help"], 0),
        (["ls", "--nothing"], 2),
    )
    for line, status in lines:
        ends = {name: writing if name in streams else subprocess.PIPE for name in ("stdout", "stderr")}
        found = subprocess.run([sys.executable, "-m", "sims.cli", *line], text=True, check=False, **ends)
        assert found.returncode == status, line
        assert "Traceback" not in (found.stdout or "") + (found.stderr or "")
        assert "Broken" not in (found.stderr or "")
    os.close(writing)
    assert table.exists()


def test_json_nested_without_end_is_named(tmp_path):
    file = tmp_path / "run.json"
    file.write_text("[" * 200_000)
    with pytest.raises(StoreError, match=r"run\.json is not valid JSON"):
        read_json(file)


def test_new_folders_are_synced_with_their_parents(tmp_path, monkeypatch):
    """A folder that only the memory knows is lost, with all that is written in it, when the power fails."""
    synced = []
    monkeypatch.setattr("sims.system.files._sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b")
    assert set(synced) == {tmp_path, tmp_path / "a"}
    synced.clear()
    make_folder(tmp_path / "a" / "b")
    assert not synced
