"""Runs with something odd: weights that are no numbers, steps with the same weights, checkpoints added later."""

import json
import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from formats import LENGTH, VOCAB, nanogpt_checkpoint
from processes import forked, result

from sims import cli
from sims.analysis.caveats import caveats
from sims.analysis.matched import matched_spectra
from sims.analysis.runs import load
from sims.measure import added
from sims.runs.store import RunFolder
from sims.system.errors import StoreError
from sims.text.shards import write_shard

FC = "_orig_mod.transformer.h.1.mlp.c_fc.weight"
FLAGS = (
    "--tokens",
    "240",
    "--length",
    str(LENGTH),
    "--batch",
    "96",
    "--gradient-sequences",
    "4",
    "--families",
)


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "text_val_000000.bin"
    write_shard(path, np.random.default_rng(0).integers(0, VOCAB, 400))
    return path


def written(folder, step, seed=None, change=None):
    folder.mkdir(exist_ok=True)
    data = nanogpt_checkpoint(step=step, seed=step if seed is None else seed)
    for name, tensor in data["model"].items():
        if change is not None:
            change(name, tensor)
    torch.save(data, folder / f"step{step}.pt")


def measure(path, shard, out, *more):
    return cli.main(["measure", str(path), "--data", str(shard), "--out", str(out), *FLAGS, *more])


def one_nan(name, tensor):
    if name == FC:
        tensor[3, 5] = torch.nan


def huge(name, tensor):
    if name == FC:
        tensor *= 1e38


def zero(name, tensor):
    tensor.zero_()


def inf(name, tensor):
    if name == FC:
        tensor[0] = torch.inf
        tensor[1, :2] = torch.nan


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (one_nan, "step 200: transformer.h.1.mlp.c_fc.weight has 1 NaN of 1024"),
        (inf, "step 200: transformer.h.1.mlp.c_fc.weight has 2 NaN and 16 Inf of 1024"),
        (huge, r"step 200: the states at blocks.1 have "),
    ],
)
def test_a_step_without_numbers_has_its_row_and_the_others_are_measured(
    tmp_path, shard, capsys, change, says
):
    for step in (100, 300):
        written(tmp_path / "run", step)
    written(tmp_path / "run", 200, change=change)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    assert f"note: {says}" in capsys.readouterr().err
    folder = RunFolder(tmp_path / "runs" / "run")
    rows = folder.rows()
    (row,) = rows[rows["step"] == 200].to_dict("records")
    assert (row["quantity"], row["status"], np.isnan(row["value"])) == ("val_loss", "diverged", True)
    assert row["reason"].startswith(says)
    assert set(folder.spectra()["step"]) == {100, 300}
    assert folder.outcome["ended"] == "finished"
    runs = load(tmp_path / "runs")
    assert list(runs.values("val_loss")["step"]) == [100, 300]
    assert bool(runs.values("val_loss")["value"].notna().all())
    assert len(matched_spectra(runs)) == 1
    assert any(note.startswith(f"run: {says}") for note in caveats(runs))


def test_a_run_whose_last_step_has_no_numbers_has_diverged(tmp_path, shard, capsys):
    written(tmp_path / "run", 100)
    written(tmp_path / "run", 200, change=one_nan)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    assert "diverged: step 200: transformer.h.1.mlp.c_fc.weight has 1 NaN of 1024" in capsys.readouterr().out
    outcome = RunFolder(tmp_path / "runs" / "run").outcome
    assert (outcome["ended"], outcome["val_loss"]) == ("diverged", None)
    assert cli.main(["ls", str(tmp_path / "runs")]) == 0
    assert "\tdiverged\t" in (listed := capsys.readouterr().out)
    assert "step 200: transformer.h.1.mlp.c_fc.weight has 1 NaN of 1024" in listed


def test_a_model_of_zeros_says_where_nothing_varies(tmp_path, shard):
    written(tmp_path / "run", 100, change=zero)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    rows = RunFolder(tmp_path / "runs" / "run").rows()
    assert rows["value"][rows["status"] == "ok"].notna().all()
    reasons = rows[(rows["object"] == "activation") & (rows["site"] == "final")]["reason"]
    assert [r.startswith("the states at final: the spectrum is all zeros") for r in reasons] == [True]


def test_steps_with_the_same_weights_are_named(tmp_path, shard, capsys):
    for step in (0, 1, 512):
        written(tmp_path / "equal", step, seed=7)
    written(tmp_path / "equal", 600)
    assert measure(tmp_path / "equal", shard, tmp_path / "runs") == 0
    assert "note: steps 0, 1, 512 have the same weights\n" in capsys.readouterr().err
    for command in ("ls", "compare"):
        assert cli.main([command, str(tmp_path / "runs")]) == 0
        printed = capsys.readouterr()
        assert "steps 0, 1, 512 have the same weights" in printed.out + printed.err
    assert "equal: steps 0, 1, 512 have the same weights." in caveats(load(tmp_path / "runs"))


def test_steps_that_share_a_shard_are_named(tmp_path, shard, capsys):
    kept = nanogpt_checkpoint(seed=3)["model"]

    def shared(name, tensor):
        if ".h.2." in name:
            tensor.copy_(kept[name])

    for step in (10, 20, 30):
        written(tmp_path / "run", step, change=shared if step < 30 else None)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    said = capsys.readouterr().err
    assert "note: steps 10, 20 share 12 of 52 tensors: transformer.h.2." in said
    assert "30" not in said.split("note: ")[1].split(":")[0]


def test_a_run_of_different_weights_has_no_notes(tmp_path, shard, capsys):
    for step in (10, 20):
        written(tmp_path / "run", step)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    assert "note" not in capsys.readouterr().err
    assert "notes" not in RunFolder(tmp_path / "runs" / "run").outcome


@pytest.mark.parametrize("before", [(100,), (100, 300)])
@pytest.mark.parametrize(
    "new", [pytest.param(50, marks=pytest.mark.slow), 200, pytest.param(400, marks=pytest.mark.slow)]
)
def test_an_added_checkpoint_is_measured_and_the_others_are_not(tmp_path, shard, before, new, capsys):
    for step in before:
        written(tmp_path / "run", step)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    capsys.readouterr()
    written(tmp_path / "run", new)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    said = capsys.readouterr().err
    assert f"step {new} (" in said
    assert not any(f"step {step} (" in said for step in before)
    assert measure(tmp_path / "run", shard, tmp_path / "whole") == 0
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["run"]
    one, two = RunFolder(tmp_path / "runs" / "run"), RunFolder(tmp_path / "whole" / "run")
    pd.testing.assert_frame_equal(one.rows(), two.rows())
    pd.testing.assert_frame_equal(one.spectra(), two.spectra())
    assert one.identity() == two.identity()
    outcomes = [{k: v for k, v in f.outcome.items() if k != "seconds"} for f in (one, two)]
    assert outcomes[0] == outcomes[1]
    assert {p.name for p in one.path.iterdir()} == {p.name for p in two.path.iterdir()}


@pytest.mark.parametrize("after", ["write_records", "write_json"])
def test_a_kill_while_a_run_is_taken_up_loses_nothing(tmp_path, shard, after):
    written(tmp_path / "run", 100)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    written(tmp_path / "run", 200)

    def killed():
        setattr(added, after, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        return measure(tmp_path / "run", shard, tmp_path / "runs")

    assert result(forked(killed)) == -signal.SIGKILL
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    assert measure(tmp_path / "run", shard, tmp_path / "whole") == 0
    one, two = RunFolder(tmp_path / "runs" / "run"), RunFolder(tmp_path / "whole" / "run")
    pd.testing.assert_frame_equal(one.rows(), two.rows())
    pd.testing.assert_frame_equal(one.spectra(), two.spectra())


def test_a_changed_or_lost_checkpoint_is_still_another_run(tmp_path, shard, capsys):
    for step in (100, 200):
        written(tmp_path / "run", step)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    (tmp_path / "run" / "step100.pt").unlink()
    written(tmp_path / "run", 300)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 2
    assert "holds a run of another configuration" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "runs" / "run" / "parts", ignore_errors=True)
    assert measure(tmp_path / "run", shard, tmp_path / "runs", "--top-k", "2") == 2


def test_a_checkpoint_that_was_replaced_after_it_was_measured_is_named(tmp_path, shard, capsys):
    """Of the same name and size: its rows are those of the earlier weights."""
    for step in (100, 200):
        written(tmp_path / "run", step)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    assert "written after" not in capsys.readouterr().err
    written(tmp_path / "run", 100, seed=9)
    later = (tmp_path / "runs" / "run" / "done.json").stat().st_mtime + 5
    os.utime(tmp_path / "run" / "step100.pt", (later, later))
    with pytest.warns(UserWarning, match=r"step100\.pt was written after it was measured"):
        assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    # A checkpoint that is added does not hide it.
    written(tmp_path / "run", 300)
    with pytest.warns(UserWarning, match=r"step100\.pt was written after it was measured"):
        assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0


@pytest.mark.parametrize("seconds", [-5, 0, 5])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_replaced_checkpoint_is_known_by_its_content(tmp_path, shard, recwarn, seconds, replaced):
    """Whatever its time says: one that is copied back keeps its own, one that is touched has a new one."""
    for step in (100, 200):
        written(tmp_path / "run", step)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    file = tmp_path / "run" / "step100.pt"
    time = file.stat().st_mtime_ns + seconds * 10**9
    written(tmp_path / "run", 100, seed=9 if replaced else None)
    os.utime(file, ns=(time, time))
    recwarn.clear()
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    assert [str(w.message)[:40] for w in recwarn if "step100.pt was written" in str(w.message)] == (
        [f"{file} was written"[:40]] if replaced else []
    )


def test_inspect_of_a_folder_says_what_measure_says(tmp_path, capsys):
    for step in (0, 1, 512):
        written(tmp_path / "run", step, seed=7)
    written(tmp_path / "run", 600, change=one_nan)
    written(tmp_path / "run", 700)
    assert cli.main(["inspect", str(tmp_path / "run"), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert notes == [
        "step 600: transformer.h.1.mlp.c_fc.weight has 1 NaN of 1024",
        "steps 0, 1, 512 have the same weights",
    ]
    file = tmp_path / "run" / "step1.pt"
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    assert cli.main(["inspect", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "steps 0, 512 have the same weights" in said
    assert f"step 1: {file}" in said


def test_a_step_other_than_the_recorded_one_is_refused(tmp_path, shard, capsys):
    written(tmp_path / "run", 100)
    path = tmp_path / "run" / "step100.pt"
    for line in (
        ["inspect", str(path)],
        ["measure", str(path), "--data", str(shard), "--out", str(tmp_path / "runs")],
    ):
        assert cli.main([*line, "--step", "7"]) == 2
        assert "is of step 100, and --step is 7" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert cli.main(["inspect", str(path), "--step", "100"]) == 0


def test_damage_is_found_before_a_run_is_taken_up(tmp_path, shard):
    written(tmp_path / "run", 100)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 0
    table = tmp_path / "runs" / "run" / "rows.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    written(tmp_path / "run", 200)
    assert measure(tmp_path / "run", shard, tmp_path / "runs") == 2
    with pytest.raises(StoreError, match=r"rows\.parquet cannot be read"):
        RunFolder(table.parent).rows()


def test_an_option_that_contradicts_the_checkpoint_is_refused(tmp_path, shard, capsys):
    """Recorded values were taken without a word, and the option passed over."""
    written(tmp_path / "run", 100)
    path = tmp_path / "run" / "step100.pt"
    content = torch.load(path)
    recorded = content["model_args"]["n_head"]
    content["config"] = {"gradient_accumulation_steps": 5, "batch_size": 2, "block_size": 10}
    torch.save(content, path)
    for line in (
        ["inspect", str(path)],
        ["measure", str(path), "--data", str(shard), "--out", str(tmp_path / "runs")],
    ):
        assert cli.main([*line, "--heads", str(recorded + 1)]) == 2
        assert f"records heads {recorded}, and --heads is {recorded + 1}" in capsys.readouterr().err
        assert cli.main([*line, "--tokens-per-step", "99"]) == 2
        assert "records tokens per step 100, and --tokens-per-step is 99" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert cli.main(["inspect", str(path), "--heads", str(recorded), "--tokens-per-step", "100"]) == 0
