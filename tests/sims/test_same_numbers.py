"""The script that compares two folders of runs value by value."""

import importlib.util
import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from listed import finished, unsealed

from sims.runs.store import RunFolder, write_records
from toymodel.config import RunConfig

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("same_numbers", TESTS / "studies" / "same_numbers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["same_numbers"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair(tmp_path):
    """Two equal folders of two runs, with a checkpoint each."""
    for seed in (0, 1):
        config = RunConfig(seed=seed)
        folder = finished(tmp_path / "old", config)
        weights = {"embed": torch.arange(6.0).view(2, 3), "step": torch.tensor(7)}
        folder.keep_checkpoint(config, 20, weights)
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    return tmp_path / "old", tmp_path / "new"


def first(folder):
    return RunFolder(sorted(folder.iterdir())[0])


def change_rows(run, change):
    unsealed(run.path)
    rows = change(run.rows()).astype(object)
    write_records(run.path, "rows", rows.where(rows.notna() | (rows != rows), None).to_dict("records"))


def test_equal_folders_are_equal_whatever_the_clock_says(script, pair, capsys):
    run = first(pair[1])
    outcome = {**run.outcome, "seconds": {"training": 99.0}}
    (run.path / "done.json").write_text(json.dumps(outcome))
    (run.path / "provenance.json").write_text("{}")
    tallies = script.compare(*pair)
    assert all(tally.same and tally.compared for tally in tallies.values())
    assert script.main([str(p) for p in pair]) == 0
    assert "checkpoints\t14\t14\t0\t0" in capsys.readouterr().out


def test_folders_of_two_formats_are_equal(script):
    assert script.main([str(TESTS / "data" / f"format-{version}") for version in (1, 2)]) == 0


def test_a_last_bit_is_a_difference(script, pair, capsys):
    def change(rows):
        chosen = (rows["quantity"] == "alpha") & (rows["step"] == 10)
        return rows.assign(
            value=rows["value"].where(~chosen, math.nextafter(rows.loc[chosen, "value"].item(), 9))
        )

    change_rows(first(pair[1]), change)
    tallies = script.compare(*pair)
    changed = {kind for kind, tally in tallies.items() if not tally.same}
    assert changed == {"rows"}
    assert tallies["rows"].compared - tallies["rows"].equal == 1
    assert 0 < tallies["rows"].largest < 1e-15
    assert script.main([str(p) for p in pair]) == 1


def test_losses_outcomes_checkpoints_and_texts_count(script, pair):
    run = first(pair[1])
    config, _ = run.configs()
    change_rows(
        run,
        lambda rows: rows.assign(
            value=rows["value"].where(rows["object"] != "loss", rows["value"] * 2),
            status=rows["status"].where(rows["quantity"] != "rankme", "flagged"),
        ),
    )
    (run.path / "done.json").write_text(json.dumps({**run.outcome, "tokens": 1}))
    run.keep_checkpoint(config, 20, {"embed": -torch.arange(6.0).view(2, 3), "step": torch.tensor(7)})
    tallies = script.compare(*pair)
    assert tallies["losses"].largest == 0.5
    assert tallies["rows"].largest == tallies["outcomes"].largest == math.inf
    # The sign of 0 is a bit, too.
    assert tallies["checkpoints"].compared - tallies["checkpoints"].equal == 6


def test_what_is_missing_is_named(script, pair, capsys):
    runs = [RunFolder(path) for path in sorted(pair[1].iterdir())]
    change_rows(runs[0], lambda rows: rows[rows["quantity"] != "top_share"])
    config, _ = runs[0].configs()
    runs[0].keep_checkpoint(config, 20, {"embed": torch.zeros(2, 2), "step": torch.tensor(7)})
    shutil.rmtree(runs[1].path)
    assert script.main([str(p) for p in pair]) == 1
    said = capsys.readouterr().out
    assert f"missing of runs: {runs[1].path.name} (in the first only)" in said
    assert "top_share activation final" in said
    assert "embed is torch.float32 (2, 3) and torch.float32 (2, 2)" in said


def test_misuse_is_said(script, pair, tmp_path, capsys):
    assert script.main(["one"]) == 2
    (tmp_path / "empty").mkdir()
    assert script.main([str(pair[0]), str(tmp_path / "empty")]) == 2
    assert "holds no run folder" in capsys.readouterr().err
