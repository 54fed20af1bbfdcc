"""`speclens bridge measure`: from text and checkpoints to tables, whoever shares the work and whatever kills it."""

import json
import os
import signal
import socket
import traceback

import numpy as np
import pandas as pd
import pytest
import torch
from formats import LENGTH, WIDTH, nanogpt_checkpoint

from sims import cli
from sims.analysis import load, matched_spectra, phases
from sims.bridge import CheckpointRun, ToySubject
from sims.bridge.shards import shard_files, write_shard
from sims.bridge.text.tokenizer import END, FILES
from sims.checkpoint_runner import Labels, measure_checkpoints, text_run
from sims.config import MeasureConfig
from sims.errors import MeasureError, StoreError
from sims.listing import listing
from sims.measure.text import prepare_text
from sims.measure.text_gradients import Blocks
from sims.ranks import Ranks, torchrun_ranks
from sims.store import RunFolder
from sims.text_config import TextMeasureConfig
from spectra import covariance_spectrum
from toymodel import Ensemble, ModelConfig, RunConfig, TaskConfig

VOCABULARY = 259
STEPS = (250, 500, 750)
SMALL = TextMeasureConfig(
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
    identity = text_run(run, run[0], Labels(**labels), config.length, [shards])
    folder = RunFolder(path / identity.run_id)
    measure_checkpoints(run, identity, instruments, folder, ranks, tell, keep_seconds=0)
    return folder


@pytest.fixture(scope="module")
def measured(checkpoints, shards, tmp_path_factory):
    return measure(checkpoints, shards, tmp_path_factory.mktemp("runs"), seed=1)


def forked(work):
    """Start work in a process of its own; returns its id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


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
    with pytest.raises(StoreError, match="holds a run of a language model"):
        measured.configs()


@pytest.mark.parametrize("after", [3, 9, 20])
def test_a_killed_process_goes_on_to_the_same_bits(measured, checkpoints, shards, tmp_path, after):
    told = []

    def fatal(*where):
        told.append(where)
        if len(told) == after:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = forked(lambda: measure(checkpoints, shards, tmp_path, tell=fatal, seed=1))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
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
    monkeypatch.setattr("sims.measure.text.plan_blocks", five_blocks)

    def rank(r):
        os.environ.update(
            RANK=str(r), LOCAL_RANK=str(r), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
        with torchrun_ranks("cpu") as ranks:
            assert ranks == Ranks(r, 2)
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
        measure(checkpoints, shards, out, TextMeasureConfig(**{**SMALL.__dict__, "top_k": 2}), seed=1)
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


def test_from_text_to_a_measured_run_by_commands(checkpoints, tmp_path, capsys):
    pytest.importorskip("tokenizers")
    tokens = [*letters(), "th", "the", END]
    (tmp_path / FILES[0]).write_text(json.dumps({t: i for i, t in enumerate(tokens)}), "utf-8")
    (tmp_path / FILES[1]).write_text("#version: 0.2\nt h\nth e\n", "utf-8")
    text = tmp_path / "text"
    text.mkdir()
    generator = np.random.default_rng(0)
    for i in range(60):
        words = generator.choice(["the", "cat", "saw", "7", "dogs", "9", "by", "sea"], 30)
        (text / f"{i:02d}.txt").write_text(" ".join(words))
    own = ("--vocabulary", str(tmp_path))
    data = ("bridge", "data", str(text), "--out", str(tmp_path / "shards"), *own)
    assert cli.main([*data, "--val", "0.5"]) == 0
    families = ("--families", "digits", "vowels=a,e,i,o,u")
    command = (
        "bridge",
        "measure",
        str(checkpoints),
        "--data",
        str(tmp_path / "shards"),
        *FLAGS,
        *own,
        *families,
    )
    assert cli.main([*command, "--out", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr()
    assert "step 750 (3 of 3): gradients 1 of 1" in said.err
    assert "h_peak\ttable\tembed\tdigits" in said.out
    assert len(shard_files(tmp_path / "shards", "val")) == 1
    rows = load(tmp_path / "runs").rows
    assert {"digits", "vowels"} <= set(rows[rows["quantity"] == "h_peak"]["detail"])
    # What is given differently is refused before any work, in one line.
    assert cli.main([*command, "--out", str(tmp_path / "runs"), "--families", "months"]) == 2
    assert "' January' of family 'months' is 8 tokens in this vocabulary" in capsys.readouterr().err


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
        Labels(**change)


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
    small = TextMeasureConfig(
        tokens=200, length=8, batch=64, windows=((1, 10),), gradient_sequences=6, families=("some=a,b,c,d",)
    )
    run = CheckpointRun.of(toy.path / "checkpoints")
    shards = [tmp_path / "text_val_000000.bin"]
    instruments = prepare_text(small, shards, lambda word: [ord(word) % 24])
    identity = text_run(run, run[0], Labels(), 8, shards)
    assert (identity.stage, identity.batch_size, identity.lr, identity.seed) == ("untied", 4, 2e-3, 3)
    assert (identity.name, identity.steps, identity.tokens_per_step) == (config.run_id, 20, 32)
    folder = RunFolder(tmp_path / "runs" / identity.run_id)
    measure_checkpoints(run, identity, instruments, folder)
    spectra = folder.spectra()
    own = spectra[(spectra["object"] == "activation") & (spectra["site"] == "blocks.1")]["values"].iloc[0]
    subject = ToySubject.of_weights(config, weights, 20)
    (seen,) = subject.activations(instruments.take(instruments.which), ("blocks.1",))
    np.testing.assert_allclose(own, covariance_spectrum(seen["blocks.1"].flatten(0, 1)).values, rtol=1e-8)
    # Tokens are those of training, which the checkpoint says.
    assert set(folder.rows()["tokens"]) == {20 * 32}
