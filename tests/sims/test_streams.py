"""What the command line does when nobody takes its output: one line and a status, no traceback."""

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


def shell(line, runs):
    command = f"{sys.executable} -m sims.cli {line.replace('RUNS', str(runs))}"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


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


def test_a_reader_that_leaves_is_no_error(runs):
    found = shell("ls RUNS --json | head -c 3", runs)
    assert (found.stdout, found.stderr) == ('[{"', "")


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
