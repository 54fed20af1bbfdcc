"""Runs are told apart by their configuration, and pages say when they were not made alike."""

import json
import shutil
from dataclasses import replace

import pytest
from listed import finished, unsealed

from sims import cli
from sims.analysis.caveats import caveats, provenance_notes
from sims.analysis.origins import distinct
from sims.analysis.runs import load
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig, LmRun
from sims.runs.store import RunFolder, run_folders
from sims.studies.overview.side_by_side import show_side_by_side
from sims.system.errors import QueryError, StoreError
from toymodel.config import RunConfig

VERSIONS = {"spectral-lens": "0.1.0", "torch": "2.1"}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")


def made(out, seeds=(0, 1), **origin):
    """Complete runs of one cell, with what their provenance says."""
    for seed in seeds:
        folder = finished(out, RunConfig(stage="muon", seed=seed), (4.0, 3.0, 2.0 + seed))
        record = {"versions": VERSIONS, "git": None, "device_name": "a processor", "python": "3.11", **origin}
        (folder.path / "provenance.json").write_text(json.dumps(record))
    return out


def copy_of(out, seed, name, into=None):
    run = next(f for f in run_folders(out) if f.identity()["train"]["seed"] == seed)
    return shutil.copytree(run.path, (into or out) / name)


@pytest.mark.parametrize("name", ["aaa", "zzz", "untied-b32-lr0.1-s9-0123456789"])
def test_a_copy_under_another_name_is_no_other_seed(tmp_path, capsys, name):
    copy_of(made(tmp_path), 0, name)
    runs = load(tmp_path)
    assert sorted(runs.runs["seed"]) == [0, 1]
    # The folder that has the run's own name counts.
    assert name not in set(runs.runs["run_id"])
    assert list(runs.copies) == [name]
    assert any(name in note for note in caveats(runs))
    show_side_by_side((tmp_path,))
    told = capsys.readouterr()
    assert "2.500 [" in told.out.replace("2.5 [", "2.500 [")
    assert f"{name} (as muon-" in told.err


def test_copies_in_folders_that_are_given_together_count_once(tmp_path, capsys):
    one = made(tmp_path / "one")
    copy_of(one, 0, "other-name", tmp_path / "two")
    copy_of(
        one, 1, next(f.path.name for f in run_folders(one) if f.path.name.find("-s1-") > 0), tmp_path / "two"
    )
    show_side_by_side((one, tmp_path / "two"))
    told = capsys.readouterr()
    assert "2 folders of runs that count already are left out" in told.err
    assert "runs  2" in told.out or "runs\t2" in told.out


def test_each_shows_copies_too_unless_their_names_are_equal(tmp_path, capsys):
    one = made(tmp_path / "one")
    copy_of(one, 0, "again")
    show_side_by_side((one,), each=True)
    assert "again" in capsys.readouterr().out
    shutil.copytree(one, tmp_path / "two")
    with pytest.raises(QueryError, match="one name"):
        show_side_by_side((one, tmp_path / "two"), each=True)


def test_a_renamed_run_without_its_original_counts(tmp_path):
    made(tmp_path)
    first = run_folders(tmp_path)[0].path
    first.rename(tmp_path / "renamed")
    assert len(load(tmp_path).runs) == 2
    assert not load(tmp_path).copies


def test_checkpoints_measured_under_two_names_or_on_two_texts_are_one_run(tmp_path):
    run = LmRun("a", "gpt", 8, None, 0, 10, 64, {"layers": 2}, ((10, "ckpt.pt", 99),), "text")
    folders = []
    for changed in (
        run,
        replace(run, name="b", data="other"),
        replace(run, name="c", seed=1),
    ):
        folder = RunFolder(tmp_path / changed.name)
        folder.start(changed, RunConfig(), {})
        folder.finish({"ended": "finished", "step": 10, "tokens": 640, "val_loss": None, "seconds": {}})
        folders.append(folder)
    found = distinct(folders)
    assert [f.path.name for f in found.folders] == ["a", "c"]
    assert found.copies == {"b": "a"}


def test_language_models_trained_on_other_texts_are_other_runs(tmp_path):
    """The digest of the shards is no part of the name of a run: one of two such folders has been renamed."""
    run = LmConfig("tiny", "rope", 256, 16, 8, 4, data="0" * 64)
    folders = [RunFolder(tmp_path / name) for name in ("one", "other", "copy")]
    for folder, data in zip(folders, ("0", "1", "1"), strict=True):
        folder.start(replace(run, data=data * 64), LmMeasureConfig(), {})
        folder.finish({"ended": "finished", "step": 4, "tokens": 512, "val_loss": None, "seconds": {}})
    found = distinct(folders)
    assert [f.path.name for f in found.folders] == ["one", "other"]
    assert found.copies == {"copy": "other"}


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ({"versions": {**VERSIONS, "spectral-lens": "0.2.0"}}, "spectral-lens 0.1.0 (2 runs), 0.2.0 (1 run)"),
        ({"versions": {**VERSIONS, "torch": "2.2"}}, "torch 2.1 (2 runs), 2.2 (1 run)"),
        ({"device_name": "another"}, "processor a processor (2 runs), another (1 run)"),
        ({"git": {"commit": "0123456789abcdef", "dirty": True}}, "0123456789ab with changes (1 run)"),
    ],
)
def test_runs_that_were_not_made_alike_are_named(tmp_path, origin, said):
    made(tmp_path)
    assert not provenance_notes(load(tmp_path))
    made(tmp_path, seeds=(2,), **origin)
    (note,) = provenance_notes(load(tmp_path))
    assert said in note


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"versions": 3}', None])
def test_a_page_is_made_of_runs_of_unknown_origin_and_says_so(tmp_path, undrawn, capsys, text):
    made(tmp_path)
    file = run_folders(tmp_path)[0].path / "provenance.json"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    assert cli.main(["report", str(tmp_path)]) == 0
    assert "1 of 2 runs does not record" in capsys.readouterr().out
    assert "1 of 2 runs does not record" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("file", "change", "fault"),
    [
        ("run.json", lambda d: d["train"].update(stage="nowhere"), "nowhere"),
        ("run.json", lambda d: d["train"].pop("lr"), "lr"),
        ("run.json", lambda d: d["train"].update(task={}), "task"),
        ("run.json", lambda d: d.update(format=99), "99"),
        ("run.json", lambda d: d["measure"].update(pooling="none"), "pooling"),
        ("run.json", lambda d: d["measure"].update(windows=3), "run.json"),
        ("done.json", lambda d: d.pop("seconds"), "seconds"),
        ("done.json", lambda d: d.update(ended="somehow"), "somehow"),
        ("done.json", lambda d: d.update(val_loss="low"), "val_loss"),
    ],
)
def test_a_damaged_configuration_is_named_before_anything_is_drawn(
    tmp_path, monkeypatch, capsys, file, change, fault
):
    made(tmp_path)
    path = run_folders(tmp_path)[1].path / file
    unsealed(path.parent)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    monkeypatch.setattr("sims.studies.overview.finish.write_report", lambda *_: pytest.fail("drawn"))
    assert cli.main(["report", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert fault in told
    assert path.parent.name in told
    with pytest.raises(StoreError):
        load(tmp_path)
