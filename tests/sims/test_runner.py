"""A run that is killed again and again ends with the numbers of one that was not."""

import multiprocessing as mp
import os
import random
import signal
from contextlib import suppress

import pandas as pd
import pytest

from sims.runs.columns import WHICH
from sims.runs.store import RunFolder
from sims.system.errors import MeasureError
from sims.training import recorder
from sims.training.recorder import write_progress
from sims.training.toy_runner import run_group


def table(out, config):
    rows = RunFolder(out / config.run_id).rows()
    return rows.sort_values(["step", "object", "quantity", "site", *WHICH], ignore_index=True)


def _run_and_die(configs, measuring, out, operations):
    """Run, storing at every evaluation, and kill the own process at a given file operation."""
    left = [operations]

    def counted(real):
        def call(*arguments):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        return call

    # Deaths fall before an fsync (half a file under its temporary name) or before a rename (a whole one).
    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    run_group(configs, measuring, out, store_every=0.0)


def test_a_run_is_recorded(tmp_path, tiny_run, tiny_measure):
    config = tiny_run()
    run_group([config], tiny_measure(), tmp_path)
    folder = RunFolder(tmp_path / config.run_id)
    outcome = folder.outcome
    assert (outcome["ended"], outcome["step"], outcome["tokens"]) == ("finished", 12, 12 * 8 * 8)
    assert set(outcome["seconds"]) == {"training", "evaluation", "measurement", "writing"}
    rows = folder.rows()
    assert rows.query("quantity == 'val_loss'")["step"].tolist() == [0, 3, 6, 9, 12]
    assert rows.query("quantity == 'train_loss'")["step"].tolist() == [3, 6, 9, 12]
    assert set(rows.query("quantity == 'h_peak'")["step"]) == {0, 6, 12}
    assert outcome["val_loss"] == rows.query("quantity == 'val_loss'")["value"].iloc[-1]
    assert [int(p.stem[5:]) for p in folder.checkpoints()] == [0, 6, 12]
    spectra = folder.spectra()
    assert set(spectra["object"]) == {"activation", "gradient", "weight"}
    final = spectra.query("object == 'activation' and step == 12").iloc[0]
    assert (final["n"], final["d"], bool(final["centred"]), len(final["values"])) == (64, 16, True, 16)


def test_the_first_evaluations_are_measured_besides(tmp_path, tiny_run, tiny_measure):
    config = tiny_run(eval_every=2, steps=10)
    measuring = tiny_measure(every=6, early=2, gradient_sequences=0, causal_sequences=0)
    run_group([config], measuring, tmp_path)
    rows = RunFolder(tmp_path / config.run_id).rows()
    assert sorted(rows.query("quantity == 'h_peak'")["step"].unique()) == [0, 2, 4, 6, 10]
    with pytest.raises(MeasureError, match="early is -1"):
        tiny_measure(early=-1)


def test_a_complete_run_is_left_alone(tmp_path, tiny_run, tiny_measure):
    config = tiny_run()
    run_group([config], tiny_measure(), tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / config.run_id).rglob("*") if p.is_file()}
    run_group([config], tiny_measure(), tmp_path)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / config.run_id).rglob("*") if p.is_file()} == before


def test_company_does_not_change_what_is_measured(tmp_path, tiny_run, tiny_measure):
    configs = [tiny_run(seed=s, lr=lr) for s, lr in ((0, 3e-3), (1, 1e-3), (2, 1e-2))]
    run_group(configs, tiny_measure(), tmp_path / "together")
    for config in configs:
        run_group([config], tiny_measure(), tmp_path / "alone")
        pd.testing.assert_frame_equal(table(tmp_path / "together", config), table(tmp_path / "alone", config))


@pytest.mark.parametrize("draw", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2))])
def test_killed_at_random_moments_and_resumed(tmp_path, tiny_run, tiny_measure, draw):
    configs = [tiny_run(seed=s, steps=30, eval_every=2) for s in (0, 1)]
    measuring = tiny_measure(every=10)
    run_group(configs, measuring, tmp_path / "undisturbed")
    out, dice, kills = tmp_path / "killed", random.Random(draw), 0
    context = mp.get_context("fork")
    while not all(RunFolder(out / c.run_id).done for c in configs):
        # Between one file operation and a few evaluations' worth of them.
        process = context.Process(target=_run_and_die, args=(configs, measuring, out, dice.randint(1, 120)))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        kills += process.exitcode != 0
        assert kills < 100, "no progress between kills"
    assert kills >= 3
    for config in configs:
        pd.testing.assert_frame_equal(table(tmp_path / "undisturbed", config), table(out, config))
        assert not list((out / config.run_id).glob(".tmp-*"))
        assert len(RunFolder(out / config.run_id).spectra()) == len(
            RunFolder(tmp_path / "undisturbed" / config.run_id).spectra()
        )


def test_members_that_stand_at_different_steps_all_finish(tmp_path, tiny_run, tiny_measure, monkeypatch):
    configs = [tiny_run(seed=s) for s in (0, 1)]
    run_group(configs, tiny_measure(), tmp_path / "whole")
    real, stop_at = RunFolder.keep_state, {0: 3, 1: 6}

    def stop(self, config, step, state, seconds, upto):
        # The disk "fails" for one member earlier than for the other.
        if step > stop_at[config.seed]:
            raise KeyboardInterrupt
        real(self, config, step, state, seconds, upto)

    for k in (0, 1):
        monkeypatch.setattr(RunFolder, "keep_state", stop)
        with pytest.raises(KeyboardInterrupt):
            run_group([configs[k]], tiny_measure(), tmp_path / "mixed", store_every=0.0)
    monkeypatch.setattr(RunFolder, "keep_state", real)
    run_group(configs, tiny_measure(), tmp_path / "mixed")
    for config in configs:
        pd.testing.assert_frame_equal(table(tmp_path / "whole", config), table(tmp_path / "mixed", config))


def test_a_diverged_member_is_recorded_and_the_rest_go_on(tmp_path, tiny_run, tiny_measure):
    good, bad = tiny_run(stage="rope"), tiny_run(stage="rope", lr=2e38)
    run_group([good, bad], tiny_measure(), tmp_path)
    assert RunFolder(tmp_path / bad.run_id).outcome["ended"] == "diverged"
    assert RunFolder(tmp_path / bad.run_id).outcome["val_loss"] is None
    assert RunFolder(tmp_path / good.run_id).outcome["ended"] == "finished"
    # What it measured before it diverged is there.
    assert (RunFolder(tmp_path / bad.run_id).rows()["quantity"] == "h_peak").any()


def test_target_loss_ends_a_run_with_a_measurement(tmp_path, tiny_run, tiny_measure):
    config = tiny_run(target_loss=3.17, steps=200)
    run_group([config], tiny_measure(every=1000), tmp_path)
    folder = RunFolder(tmp_path / config.run_id)
    outcome = folder.outcome
    assert outcome["ended"] == "target"
    assert outcome["val_loss"] <= 3.17
    assert outcome["step"] < 200
    assert set(folder.rows().query("quantity == 'h_peak'")["step"]) == {0, outcome["step"]}


def test_progress_is_visible_from_outside(tmp_path, tiny_run, tiny_measure, monkeypatch):
    """The run waits after each update until it was read."""
    config, context = tiny_run(), mp.get_context("fork")
    path, (here, there) = tmp_path / config.run_id / "progress.json", context.Pipe()

    def write(*position, **more):
        write_progress(*position, **more)
        there.send(None)
        there.recv()

    monkeypatch.setattr(recorder, "write_progress", write)
    process = context.Process(target=run_group, args=([config], tiny_measure(), tmp_path))
    process.start()
    there.close()
    seen = set()
    with suppress(EOFError):
        while True:
            here.recv()
            seen.add(path.read_text())
            here.send(None)
    process.join()
    assert process.exitcode == 0
    assert len(seen) >= 2
