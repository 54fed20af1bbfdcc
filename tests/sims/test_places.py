"""Where nothing can be written a command says so before anything else, and before any work."""

import json

import numpy as np
import pytest

from sims import cli
from sims.sweep import named_runs
from sims.text.shards import write_shard

# Options of a command, and of them the one that chooses the place.
WRITING = [
    ("sweep small", "--out"),
    ("train small", "--out"),
    ("train lm --data shards --tokens 20000", "--out"),
    ("demo", "--out"),
    ("rates", "--out"),
    ("edge", "--out"),
    ("grokking", "--out"),
    ("grokking --profile full", "--out"),
    ("grokking --causal", "--out"),
    ("markov", "--out"),
    ("lifecycle", "--out"),
    ("post-train", "--out"),
    ("reproduce all", "--out"),
    ("reproduce all --profile published", "--keep"),
    ("bands runs", "--out"),
    ("robustness runs", "--out"),
    ("phases runs", "--out"),
    ("edge --runs runs", "--out"),
    ("prune runs", "--out"),
    ("measure runs --data shards", "--out"),
    ("look runs", "--out"),
    ("theory", "--out"),
    ("records runs", "--out"),
    ("data text", "--out"),
    ("data --source debian", "--out"),
    ("data --source shards shards --null shuffled", "--out"),
    ("bench", "--out"),
]


def refused(line, capsys):
    """What a command says that is refused before it prints anything."""
    assert cli.main(line.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with a file, some text and shards, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs", "shards", "text"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "text" / "note.txt").write_text("hello " * 100)
    for split in ("train", "val"):
        write_shard(tmp_path / "shards" / f"some_{split}_000000.bin", np.arange(2**15) % 100)
    return tmp_path


@pytest.mark.parametrize(("line", "option"), WRITING)
def test_a_place_below_a_file_is_refused_before_anything_is_said(line, option, capsys):
    told = refused(f"{line} {option} file/x", capsys)
    assert told.startswith("speclens: file/x")
    assert option in told


@pytest.mark.parametrize(
    ("line", "page"),
    [
        ("rates runs", "page"),
        ("edge --runs runs", "page"),
        ("grokking --runs runs", "page"),
        ("markov --runs runs", "markov"),
        ("lifecycle runs", "page"),
        ("post-train --runs runs", "page"),
        ("phases runs", "page"),
        ("bands runs", "bands"),
        ("robustness runs", "robustness"),
        ("prune shards --out runs", "page"),
        ("reproduce all --out runs", "reproduction"),
    ],
)
def test_a_file_in_place_of_the_folder_of_the_page_is_refused_before_the_runs_are_read(
    here, line, page, capsys
):
    (here / "runs" / page).touch()
    assert f"runs/{page} is, or lies below, a file; choose another --out" in refused(line, capsys)


@pytest.mark.parametrize("line", ["theory --out there.html", "carry-over runs runs --out there.html"])
def test_a_folder_in_place_of_a_page_is_refused(here, line, capsys):
    (here / "there.html").mkdir()
    assert "there.html is a folder; choose another --out" in refused(line, capsys)


@pytest.mark.parametrize(
    "line",
    ["sweep small", "train small --newton-schulz exact", "train lm --data shards --tokens 20000", "demo"],
)
def test_a_folder_of_other_runs_is_refused_before_plans_and_notes(here, line, capsys):
    (here / "runs" / "campaign.json").write_text(json.dumps({"campaign": "other"}))
    assert "other" in refused(f"{line} --out runs", capsys)


def test_a_rate_that_trains_nothing_is_refused_before_the_runs_train(capsys):
    assert "which float32 does not hold" in refused("post-train --lr 1e-46", capsys)


def test_a_folder_of_the_last_network_is_refused_before_the_first_trains(here, monkeypatch, capsys):
    monkeypatch.setattr(named_runs, "run_all", lambda *_: pytest.fail("trained"))
    (here / "runs" / "transformer").mkdir()
    (here / "runs" / "transformer" / "campaign.json").write_text(json.dumps({"campaign": "other"}))
    assert "runs/transformer" in refused("grokking --profile full --out runs", capsys)


def test_kept_runs_are_not_copied_into_a_folder_of_other_runs(here, monkeypatch, capsys):
    monkeypatch.setattr("sims.studies.paper.instalments.take_from", lambda *_: pytest.fail("copied"))
    (here / "runs" / "campaign.json").write_text(json.dumps({"campaign": "other"}))
    refused("reproduce all --out runs --keep kept", capsys)
