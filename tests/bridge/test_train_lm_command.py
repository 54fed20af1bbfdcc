"""`speclens bridge train`: killed, stopped, on two ranks, measured while it trains, read again."""

import json
import os
import re
import signal
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from processes import forked, result
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_runs import VOCABULARY, arguments, assert_equal_runs, kill_at, make_shards, with_hook

from sims import cli
from sims.analysis.runs import load
from sims.models.checkpoints import CheckpointRun
from sims.models.transformer import TransformerSubject
from sims.runs.columns import WHICH
from sims.runs.folders import listing
from sims.runs.lm_config import lm_config
from sims.runs.measurement_checkpoint import MeasurementCheckpoint
from sims.runs.store import RunFolder, run_folders
from sims.sweep.progress import clock
from sims.training.lm_runner import LmSetup, train_run
from sims.training.trainer import Trainer
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig
from toymodel.ensemble import Ensemble
from toymodel.errors import CheckpointError
from toymodel.reference import PlainNetwork


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("lm") / "shards")


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """The folder of a run that nothing has stopped."""
    out = tmp_path_factory.mktemp("whole")
    assert cli.main(arguments(shards, out, "--stage", "untied")) == 0
    (folder,) = run_folders(out)
    return folder


def test_killed_and_stopped_it_goes_on_to_the_same_bits(whole, shards, tmp_path):
    args = arguments(shards, tmp_path / "out", "--stage", "untied", "--store-every", "0")
    log = tmp_path / "log"
    assert result(forked(lambda: with_hook(kill_at(3, signal.SIGKILL), args), log)) == -signal.SIGKILL
    (folder,) = run_folders(tmp_path / "out")
    assert not folder.done
    assert result(forked(lambda: with_hook(kill_at(6, signal.SIGTERM), args), log)) == 128 + signal.SIGTERM
    assert "stopped; everything finished is kept, and the same command goes on" in log.read_text()
    # The kill lost the third step only.
    assert [int(n) for n in re.findall(r"after step (\d+)", log.read_text())] == [3, 4, 5, 6]
    with safe_open(folder.path / "state.safetensors", "pt") as file:
        assert file.metadata()["step"] == "6"
    assert listing(tmp_path / "out")["status"].tolist() == ["waiting"]
    assert cli.main(args) == 0
    assert_equal_runs(folder, whole)
    assert not (folder.path / "state.safetensors").exists()


def test_the_file_of_a_run_makes_it_again(whole, shards):
    for source in (whole.path / "config.yaml", whole.path):
        again = cli.parse(["train", "lm", "--data", str(shards), "--config", str(source)]).preset
        assert again.grid("bfloat16") == [replace(whole.spec, data="")]


def ranks_of(count, args, tmp_path, hook=lambda rank, step: None):
    """Exit codes and logs of the command on several ranks that meet over gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def rank(r):
        os.environ.update(
            RANK=str(r),
            LOCAL_RANK=str(r),
            WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        gradients = Trainer.gradients

        def hooked(self):
            hook(r, self.step + 1)
            return gradients(self)

        Trainer.gradients = hooked
        return cli.main(args)

    logs = [tmp_path / f"rank{r}" for r in range(count)]
    children = [forked(lambda r=r: rank(r), logs[r]) for r in range(count)]
    return [result(pid) for pid in children], [log.read_text() for log in logs]


def losses_of(folder):
    return folder.rows().query("object == 'loss'").sort_values(["quantity", "step"])["value"].to_numpy()


def test_two_ranks_give_the_losses_of_one(whole, shards, tmp_path):
    args = arguments(shards, tmp_path / "out", "--stage", "untied", "--micro-batch", "2")
    codes, logs = ranks_of(2, args, tmp_path)
    assert codes == [0, 0], logs
    (folder,) = run_folders(tmp_path / "out")
    np.testing.assert_allclose(losses_of(folder), losses_of(whole), rtol=2e-4)
    # Only one of them says anything.
    assert "loss" in logs[0]
    assert logs[1] == ""


def test_a_lost_rank_is_named_and_one_rank_alone_goes_on(whole, shards, tmp_path):
    args = arguments(shards, tmp_path / "out", "--stage", "untied", "--store-every", "0")

    def lose(rank, step):
        if rank == 1 and step == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    codes, logs = ranks_of(2, args, tmp_path, lose)
    assert codes == [2, -signal.SIGKILL], logs
    assert "rank 0 of 2 has lost another one" in logs[0]
    assert "goes on from step 3, also with another number of ranks" in logs[0]
    assert listing(tmp_path / "out")["status"].tolist() == ["failed"]
    assert cli.main(args) == 0
    (folder,) = run_folders(tmp_path / "out")
    np.testing.assert_allclose(losses_of(folder), losses_of(whole), rtol=2e-4)


def test_a_signal_to_one_rank_stops_all(shards, tmp_path):
    args = arguments(shards, tmp_path / "out", "--stage", "rope")

    def ask(rank, step):
        if rank == 1 and step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    codes, logs = ranks_of(2, args, tmp_path, ask)
    assert codes == [143, 143], logs
    (folder,) = run_folders(tmp_path / "out")
    with safe_open(folder.path / "state.safetensors", "pt") as file:
        assert file.metadata()["step"] == "2"


MEASURING = (
    *("--checkpoints", "0", "1", "--measure", "--measuring.tokens", "512", "--measuring.batch", "128"),
    *("--measuring.gradient-sequences", "8"),
)


def test_what_is_measured_while_it_trains_is_what_is_measured_afterwards(shards, tmp_path):
    assert cli.main(arguments(shards, tmp_path / "out", "--stage", "untied", *MEASURING)) == 0
    (folder,) = run_folders(tmp_path / "out")
    after = ["bridge", "measure", str(folder.path), "--data", str(shards), "--out", str(tmp_path / "after")]
    after += [a.replace("measuring.", "") for a in MEASURING[4:]]
    assert cli.main([*after, "--families", "--device", "cpu"]) == 0
    (measured,) = run_folders(tmp_path / "after")
    keys = ["step", "object", "site", "quantity", *WHICH]
    ours, theirs = (f.rows().query("object != 'loss'").set_index(keys)["value"] for f in (folder, measured))
    assert len(ours) > 50
    assert ours.sort_index().equals(theirs.sort_index())
    spectra = folder.spectra()
    assert set(spectra["step"]) == {0, 10}
    assert {"activation", "gradient", "weight"} == set(spectra["object"])
    assert load(tmp_path / "out").runs["stage"].tolist() == ["untied"]


@pytest.mark.slow
def test_killed_while_it_measures_it_neither_trains_nor_passes_over_the_tokens_again(
    shards, tmp_path, monkeypatch
):
    more = ("--stage", "untied", *MEASURING)
    assert cli.main(arguments(shards, tmp_path / "whole", *more)) == 0
    args, log = arguments(shards, tmp_path / "out", *more), tmp_path / "log"

    def keep_and_die(self, state, keep=MeasurementCheckpoint.keep):
        keep(self, state)
        # The end of the pass over the tokens of the last checkpoint: gradients are still to come.
        if self.step == 10:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(MeasurementCheckpoint, "keep", keep_and_die)
        assert result(forked(lambda: cli.main(args), log)) == -signal.SIGKILL
    monkeypatch.setattr(TransformerSubject, "activations", lambda *_: pytest.fail("a pass over the tokens"))
    monkeypatch.setattr(Trainer, "gradients", lambda _: pytest.fail("a step"))
    assert cli.main(args) == 0
    (whole,), (folder,) = (run_folders(tmp_path / name) for name in ("whole", "out"))
    assert_equal_runs(folder, whole)
    assert folder.spectra().equals(whole.spectra())


@pytest.mark.parametrize("by", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_signal_while_a_state_is_stored_or_a_model_measured_doubles_nothing(
    by, shards, tmp_path, monkeypatch
):
    more = ("--stage", "rope", "--store-every", "0", *MEASURING, "--checkpoints", "0.5", "1")
    assert cli.main(arguments(shards, tmp_path / "whole", *more)) == 0
    args, log = arguments(shards, tmp_path / "out", *more), tmp_path / "log"
    stored = RunFolder.keep_state

    def struck(self, config, step, state, seconds, upto=None):
        # Each step has two parts: 10 before its measurement, 11 after it. Part 11 is there, its state still to come.
        if step == 5 and upto == 11 and by == signal.SIGKILL:
            os.kill(os.getpid(), by)
        stored(self, config, step, state, seconds, upto)
        if step == 5 and upto == 10 and by == signal.SIGTERM:
            os.kill(os.getpid(), by)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "keep_state", struck)
        assert result(forked(lambda: cli.main(args), log)) == (128 + by if by == signal.SIGTERM else -by)
    assert ("once more ends it at once" in log.read_text()) == (by == signal.SIGTERM)
    (folder,) = run_folders(tmp_path / "out")
    with safe_open(folder.path / "state.safetensors", "pt") as file:
        assert (file.metadata()["step"], file.metadata()["upto"]) == ("5", "10")
    assert cli.main(args) == 0
    (whole,) = run_folders(tmp_path / "whole")
    assert_equal_runs(folder, whole)
    assert folder.spectra().equals(whole.spectra())


def test_a_run_that_another_process_has_ended_is_left_alone(whole, shards, monkeypatch):
    monkeypatch.setattr(Trainer, "__init__", lambda *_: pytest.fail("it is trained again"))
    config = lm_config(whole.identity()["train"])
    assert train_run(config, whole, LmSetup(shards)) == "ended"
    assert whole.done


def test_ranks_refuse_a_folder_of_something_else(shards, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "campaign.json").write_text(json.dumps({"campaign": "sweep"}))
    codes, logs = ranks_of(2, arguments(shards, out, "--micro-batch", "2"), tmp_path)
    assert codes == [2, 2], logs
    assert "belongs to another campaign (campaign is 'sweep' there, 'language models' here)" in logs[0]
    assert "campaign" not in logs[1]
    assert not run_folders(out)


def test_checkpoints_are_subjects(whole, tmp_path):
    run = CheckpointRun.of(whole.path)
    assert run.steps == (0, 1, 2, 5, 10)
    subject = run[-1]
    assert isinstance(subject, TransformerSubject)
    assert subject.tokens == 1_280
    drawn = torch.randint(VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(0))
    plain = PlainNetwork("untied", subject.config.sizes, load_file(whole.checkpoints()[-1]))
    assert float(subject.losses(drawn).mean()) == pytest.approx(float(plain.loss(drawn)), rel=1e-5)


def test_a_file_without_all_weights_is_refused(whole, tmp_path):
    source = whole.checkpoints()[-1]
    weights = load_file(source)
    del weights["embed"]
    with safe_open(source, "pt") as file:
        save_file(weights, tmp_path / "step10.safetensors", file.metadata())
    with pytest.raises(CheckpointError, match=r"\(embed missing.*take a file of checkpoints"):
        CheckpointRun.of(tmp_path)[0]


def test_inspect_says_what_a_checkpoint_is(whole, capsys):
    file = whole.checkpoints()[-1]
    assert cli.main(["bridge", "inspect", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["tokens"], found["tier"], found["stage"]) == (10, 1_280, "tiny", "untied")
    assert found["parameters"] == 2 * 128 * 64 + 12 * 4 * 64**2
    assert found["matrices"]["blocks.3.mlp.fc"] == [256, 64]


def test_run_folders_are_looked_at(whole, capsys):
    assert cli.main(["bridge", "inspect", str(whole.path)]) == 0
    shown = capsys.readouterr().out
    assert "planned steps\t10" in shown
    assert f"checkpoints\t{len(whole.checkpoints())}" in shown
    assert cli.main(["compare", str(whole.path.parent)]) == 0
    assert "untied" in capsys.readouterr().out
    assert cli.main(["report", str(whole.path.parent)]) == 0
    shown = capsys.readouterr().out
    assert "untied" in shown
    assert "report.html" in shown


def test_a_profile_stores_nothing(shards, tmp_path, capsys):
    assert cli.main(arguments(shards, tmp_path / "out", "--profile", "2", "--peak-tflops", "1")) == 0
    header, row = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    values = dict(zip(header, row, strict=True))
    seconds, rate, used = (float(values[name]) for name in ("s a step", "tokens/s", "MFU %"))
    assert rate == pytest.approx(128 / seconds, rel=1e-2)
    # Three times two operations an entry of 12·4·64² and 128·64, and half of 17 positions of 4·64 in four blocks.
    flops = 3 * (2 * (12 * 4 * 64**2 + 128 * 64) + 4 * 4 * 64 * 8.5)
    assert used == pytest.approx(100 * rate * flops / 1e12, abs=0.06)
    assert not (tmp_path / "out").exists()


def test_measurements_are_no_afterthought(whole, shards, capsys):
    args = arguments(shards, whole.path.parent, "--stage", "untied", *MEASURING[3:])
    assert cli.main(args) == 2
    assert f"was trained without --measure; measure its checkpoints by `speclens measure {whole.path}" in (
        capsys.readouterr().err
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_here_is_named(shards, tmp_path, capsys):
    assert cli.main(arguments(shards, tmp_path, "--device", "cuda")) == 2
    assert "sees 0 GPUs here; take --device cpu" in capsys.readouterr().err


def test_out_of_memory_names_the_setting(shards, tmp_path, capsys, monkeypatch):
    def full(self):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Trainer, "gradients", full)
    assert cli.main(arguments(shards, tmp_path)) == 1
    message = capsys.readouterr().err
    assert "lower --micro-batch from 8 to 4, or pass --recompute" in message
    assert listing(tmp_path)["status"].tolist() == ["failed"]
    monkeypatch.undo()
    assert cli.main(arguments(shards, tmp_path)) == 0
    assert listing(tmp_path)["status"].tolist() == ["done"]


def test_a_run_that_diverges_says_what_to_try(shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Trainer, "gradients", lambda self: float("nan"))
    assert cli.main(arguments(shards, tmp_path)) == 0
    captured = capsys.readouterr()
    assert "the training loss is nan" in captured.err
    assert "lower --lr" in captured.err
    assert "diverged" in captured.out
    assert listing(tmp_path)["status"].tolist() == ["diverged"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--stage", "nowhere"], "unknown stage 'nowhere'"),
        (["--rates", "nobody"], "rates.by is 'nobody'; rates are uniform, or by alpha"),
        (["--micro-batch", "3"], "take --micro-batch 2"),
        (["--length", "700"], "no sequence of 700"),
        (
            ["--measure", "--measuring.length", "16", "--measuring.tokens", "100000"],
            "asks for 6250 sequences",
        ),
        (["--measure", "--measuring.loss-tokens", "128"], "loss of a run in training, which would have two"),
        (["--profile", "0"], "--profile is 0; time at least 1 step"),
        (["--profile", "1", "--halving", "2"], "leave out --halving"),
        (["--store-every", "-1"], "--store-every is -1"),
        (["--device", "tpu"], "choose cpu, cuda or cuda:N"),
        (["--scheduler", "here"], "is no address of a dask scheduler"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(more, message, shards, tmp_path, capsys):
    args = arguments(shards, tmp_path / "out", *more)
    if "--length" in more:
        args += ["--batch-tokens", "1400"]
    assert cli.main(args) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*/checkpoints/*"))


def test_clock():
    assert [clock(s) for s in (5.2, 65, 3_725)] == ["5 s", "1 min 05 s", "1 h 02 min"]


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        cli.main(["bridge", "train", "--help"])
    assert "torchrun --nproc-per-node 8 -m sims.cli train lm" in capsys.readouterr().out


def test_checkpoints_of_the_toy_are_read_too(tmp_path):
    task = TaskConfig(vocab=24, length=8, train=400, val=64, test=8)
    config = RunConfig("untied", task, ModelConfig(16, 2, 2), eval_size=8)
    ensemble = Ensemble([config])
    (tmp_path / "checkpoints").mkdir()
    RunFolder(tmp_path).keep_checkpoint(config, 3, ensemble.weights(0))
    subject = CheckpointRun.of(tmp_path / "checkpoints")[0]
    assert (subject.step, subject.tokens) == (3, 3 * config.tokens_per_step)
    assert torch.equal(subject.matrices["embed"], ensemble.params["embed"][0])
