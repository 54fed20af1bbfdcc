"""Runs that failed or diverged: commands without an option for it try the former again, and reasons are told."""

import io
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from sims.commands.train import toy
from sims.runs.store import RunFolder
from sims.studies.overview.finish import finish
from sims.sweep import named_runs
from sims.sweep.options import LocalOptions
from sims.training.snapshot import of_members
from toymodel.training import Snapshot as EnsembleSnapshot


def by_train(config, measuring, out, monkeypatch):
    monkeypatch.setattr("sims.studies.overview.finish.finish", lambda out, failed, *_: len(failed))
    options = toy._Options(workers=1)
    return toy.Small(run=config, measure=measuring, out=out, options=options).execute()


def by_name(config, measuring, out, monkeypatch):
    monkeypatch.setattr(named_runs, "show_time", lambda *_: None)
    options, console = LocalOptions(workers=1), Console(quiet=True)
    return len(named_runs.train_named([config], measuring, options, out, {"campaign": "train"}, console))


@pytest.mark.parametrize("command", [by_train, by_name])
def test_a_command_tries_a_run_again_that_failed(tmp_path, tiny_run, tiny_measure, monkeypatch, command):
    config, measuring = tiny_run(), tiny_measure()
    folder = RunFolder(tmp_path / config.run_id)
    folder.start(config, measuring, {})
    folder.fail("the sky fell", "")
    assert command(config, measuring, tmp_path, monkeypatch) == 0
    assert folder.done
    assert not folder.failed


def test_where_all_runs_failed_the_reason_is_all_that_is_told(tmp_path, tiny_run, tiny_measure):
    config = tiny_run()
    RunFolder(tmp_path / config.run_id).start(config, tiny_measure(), {})
    told = io.StringIO()
    assert finish(tmp_path, {config.run_id: "the sky fell"}, Console(file=told, width=200)) == 1
    assert told.getvalue() == f"failed: {config.run_id}: the sky fell\n"


@pytest.mark.parametrize(
    ("train", "val", "said"), [(0.5, math.nan, "validation"), (math.inf, 1.0, "training")]
)
def test_a_run_that_diverges_says_which_loss_is_no_number(tiny_run, train, val, said):
    found = EnsembleSnapshot(
        *(3, 24, (tiny_run(),) * 2, (train, 0.5), (val, 0.5), ("diverged", None), {}),
        ensemble=SimpleNamespace(configs=[]),
    )
    first, second = (snapshot.reason for _, snapshot in of_members(found))
    assert first == f"the {said} loss is {val if said == 'validation' else train}"
    assert second == ""
