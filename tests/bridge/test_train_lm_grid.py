"""Grids of language models through the sweep engine: one after the other, several at once, halved."""

import os
import signal
from types import SimpleNamespace

import distributed
import pytest
import torch
from training_runs import VOCABULARY, arguments, assert_equal_runs, make_shards

from sims import cli
from sims.analysis.runs import load
from sims.cli import parse
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder, run_folders
from sims.sweep.engine import select_gpu
from sims.training.trainer import Trainer


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("lm") / "shards")


def test_a_grid_goes_through_all_runs_once(shards, tmp_path, capsys):
    args = arguments(shards, tmp_path, "--stage", "rope", "--seeds", "0", "1", "--checkpoints", "1.0")
    args.insert(args.index("--batch-tokens") + 2, "256")
    assert cli.main(args) == 0
    captured = capsys.readouterr()
    table = [line.split("\t") for line in captured.out.splitlines()]
    assert table[0][:6] == ["stage", "batch tokens", "lr", "seed", "ended", "steps"]
    assert [[row[i] for i in (0, 1, 3, 4, 5)] for row in table[1:]] == [
        ["rope", batch, seed, "finished", steps]
        for batch, steps in (("128", "10"), ("256", "5"))
        for seed in ("0", "1")
    ]
    assert cli.main(args) == 0
    again = capsys.readouterr()
    assert "4 of 4 runs are already complete" in again.err
    assert again.out == captured.out
    runs = load(tmp_path)
    assert set(runs.runs["batch_size"]) == {8, 16}
    assert runs.differing == ()
    last = runs.values("val_loss").groupby("run_id")["step"].max()
    assert last.to_dict() == dict(zip(runs.runs["run_id"], runs.runs["step"], strict=True))


def test_a_signal_in_the_last_step_leaves_the_next_run_alone(shards, tmp_path, monkeypatch):
    update = Trainer.update

    def ask(self):
        update(self)
        # Once: a second signal would end the process.
        if self.step == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "update", ask)
    args = arguments(shards, tmp_path, "--stage", "rope", "muon", "--checkpoints", "1")
    assert cli.main(args) == 128 + signal.SIGTERM
    (folder,) = run_folders(tmp_path)
    assert folder.done
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def ended(out):
    """Learning rates by how their runs ended."""
    found = {}
    for folder in run_folders(out):
        found.setdefault(folder.outcome["ended"], set()).add(folder.identity()["train"]["lr"])
    return found


@pytest.mark.slow
def test_several_at_once_and_halved_are_those_of_one_after_the_other(shards, tmp_path, capfd):
    rates = ["--lr", "1e-5", "1e-4", "--seeds", "0", "1", "--checkpoints", "0.5", "1"]
    args = [arguments(shards, tmp_path / out, "--stage", "muon", *rates) for out in ("whole", "halved")]
    assert cli.main(args[0]) == 0
    capfd.readouterr()
    assert cli.main([*args[1], "--halving", "2", "--workers", "2"]) == 0
    shown = capfd.readouterr()
    assert [line.split("\t")[4] for line in shown.out.splitlines()[1:]] == ["pruned"] * 2 + ["finished"] * 2
    # Workers say nothing; the one that was called says where all of them stand.
    assert "val " not in shown.err
    assert ended(tmp_path / "halved") == {"pruned": {1e-5}, "finished": {1e-4}}
    kept = [f for f in run_folders(tmp_path / "halved") if f.outcome["ended"] == "finished"]
    assert len(kept) == 2
    for folder in kept:
        assert_equal_runs(folder, RunFolder(tmp_path / "whole" / folder.path.name))


def test_halving_waits_for_what_failed_and_says_what_was_pruned(shards, tmp_path, capsys, monkeypatch):
    gradients = Trainer.gradients

    def full(self):
        if self.config.lr == 1e-4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return gradients(self)

    grid = arguments(shards, tmp_path, "--stage", "muon", "--lr", "1e-5", "1e-4", "--checkpoints", "1")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "gradients", full)
        assert cli.main([*grid, "--halving", "2"]) == 1
    assert "(halving waits for it)" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "halving-0.json").exists()
    assert cli.main([*grid, "--halving", "2"]) == 0
    assert ended(tmp_path) == {"pruned": {1e-5}, "finished": {1e-4}}
    capsys.readouterr()
    assert cli.main(grid) == 0
    assert "1 of them was pruned by an earlier --halving and stays so" in capsys.readouterr().err


def test_learning_rates_scale_with_the_batch(shards, tmp_path, capsys):
    args = arguments(shards, tmp_path / "out", "--stage", "rope", "--dry-run", "--lr-rule", "sqrt")
    args.insert(args.index("--batch-tokens") + 2, "512")
    assert cli.main(args) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0][:3] == ["stage", "batch tokens", "learning rates"]
    # 2e-3 is that of the tier's own 4,096 tokens.
    assert {row[1]: row[2] for row in rows[1:]} == {"128": "0.000354", "512": "0.000707"}
    assert not (tmp_path / "out").exists()


def test_looks_are_at_equal_distances_in_ln_step_at_every_batch_size(shards, tmp_path):
    """Shares of the run of one batch size are no such looks of another, which has more steps or fewer."""
    args = arguments(shards, tmp_path / "out", "--looks", "5")
    args.insert(args.index("--batch-tokens") + 2, "64")
    given = {"length": 16, "tokens": 1_280, "looks": 5}
    for config in parse(args).preset.grid("float32"):
        alone = LmConfig.of_tier("tiny", "muon", VOCABULARY, batch_tokens=config.tokens_per_step, **given)
        assert config.checkpoint_steps == alone.checkpoint_steps


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "0", "0"], "the seeds hold 0 more than once"),
        (["--lr", "1e-3", "1e-3"], "the learning rates hold 0.001 more than once"),
        (["--halving", "2"], "at least two learning rates"),
        (["--workers", "0"], "--workers is 0"),
    ],
)
def test_grids_that_cannot_be_are_refused(more, message, shards, tmp_path, capsys):
    assert cli.main(arguments(shards, tmp_path / "out", *more)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*/checkpoints/*"))


def test_a_run_that_fails_leaves_the_others_alone(shards, tmp_path, capsys, monkeypatch):
    gradients = Trainer.gradients

    def full(self):
        if self.config.seed == 0:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return gradients(self)

    args = arguments(shards, tmp_path, "--seeds", "0", "1", "--checkpoints", "1")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "gradients", full)
        assert cli.main(args) == 1
    shown = capsys.readouterr()
    assert "lower --micro-batch from 8 to 4, or pass --recompute" in shown.err
    assert [line.split("\t")[3] for line in shown.out.splitlines()] == ["seed", "1"]
    # The remedy is another option of the same command, which needs no other to try again.
    assert cli.main([*args, "--micro-batch", "4"]) == 0
    assert [folder.done for folder in run_folders(tmp_path)] == [True, True]


def test_several_cards_are_shared_out_among_the_workers_of_a_machine(monkeypatch):
    taken, names = [], iter((0, 1, 2, "tcp://elsewhere"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(distributed, "get_worker", lambda: SimpleNamespace(name=next(names)))
    for _ in range(4):
        select_gpu()
    assert taken == [0, 1, 0]

    def nowhere():
        raise ValueError("no worker found")

    # Work in the driver itself.
    monkeypatch.setattr(distributed, "get_worker", nowhere)
    select_gpu()
    assert taken == [0, 1, 0]
