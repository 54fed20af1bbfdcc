"""A format is one file and one line: a made-up one is inspected, listed, loaded and measured."""

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from formats import sequences as drawn
from torch import nn

from sims import cli
from sims.measure.engine import measure
from sims.measure.toy import MeasurementData
from sims.models import formats
from sims.models.checkpoint_info import CheckpointInfo, CheckpointOptions
from sims.models.checkpoints import CheckpointRun, inspect, load
from sims.models.formats.format import LoadedModule
from sims.models.layout import Layout, Projection
from sims.runs.measure_config import MeasureConfig
from toymodel.errors import CheckpointError

VOCAB, WIDTH = 29, 16


class Bigrams(nn.Module):
    """Logits from the present token only."""

    def __init__(self, embed, inner, head):
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(embed)
        self.inner, self.head = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, VOCAB, bias=False)
        self.inner.weight, self.head.weight = nn.Parameter(inner), nn.Parameter(head)

    def forward(self, tokens):
        return self.head(self.inner(self.embed(tokens)))


class Npz:
    """Models in files of numpy."""

    looks_like = "arrays of numpy (.npz)"

    def recognises(self, source):
        return source.path.suffix == ".npz"

    def inspect(self, source, options):
        with np.load(source.path) as data:
            return CheckpointInfo(source.path, "npz", int(data["step"]), None)

    def load(self, source, options):
        with np.load(source.path) as data:
            tensors = [torch.from_numpy(data[name]) for name in ("embed", "inner", "head")]
        matrices = {name: Projection(name) for name in ("embed", "inner", "head")}
        layout = Layout({"embed": "embed", "final": "inner"}, matrices, head="head")
        return LoadedModule(Bigrams(*tensors), layout, {"order": 2})

    def checkpoints(self, folder):
        return list(folder.glob("*.npz"))


@pytest.fixture
def registered(monkeypatch):
    module = ModuleType("sims.models.formats.npz")
    module.FORMAT = Npz()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, "npz"))


def written(path, step, seed=0):
    draw = np.random.default_rng(seed)
    shapes = {"embed": (VOCAB, WIDTH), "inner": (WIDTH, WIDTH), "head": (VOCAB, WIDTH)}
    arrays = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(path, step=step, **arrays)
    return arrays


def test_a_made_up_format_is_inspected_loaded_and_measured(registered, tmp_path, capsys):
    arrays = written(tmp_path / "late.npz", 20)
    written(tmp_path / "early.npz", 5)
    (tmp_path / "notes.txt").write_text("no checkpoint")
    assert inspect(tmp_path / "late.npz").step == 20
    run = CheckpointRun.of(tmp_path)
    assert run.steps == (5, 20)
    subject = run[1]
    assert dict(subject.about) == {"kind": "npz", "path": str(tmp_path / "late.npz"), "order": 2}
    logits = arrays["embed"][drawn()[:, :-1]] @ arrays["inner"].T @ arrays["head"].T
    expected = torch.from_numpy(logits).log_softmax(-1)
    torch.testing.assert_close(subject.log_probs(drawn()), expected, atol=1e-4, rtol=1e-4)
    assert dict(subject.input_sites) == {"inner": "inner.in", "head": "final"}
    config = MeasureConfig(
        sites=subject.sites, pooling="token", windows=((1, 8),), gradient_matrices=("inner",)
    )
    rows = measure(subject, MeasurementData(config, drawn(), probes=()))
    measured = {(row["object"], row["site"]) for row in rows.rows if row["status"] == "ok"}
    assert measured == {
        ("activation", "embed"),
        ("activation", "final"),
        ("gradient", "inner"),
        *(("weight", name) for name in arrays),
    }
    assert cli.main(["bridge", "inspect", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "npz" in shown
    assert "5, 20" in shown


def test_a_format_that_is_not_registered_is_refused_with_those_that_are(tmp_path):
    written(tmp_path / "model.npz", 1)
    known = r"known are files of this package; folders of Hugging Face .*; nanoGPT's .*; states of the GPT-2"
    with pytest.raises(CheckpointError, match=rf"ends in '\.npz'.*{known}"):
        load(tmp_path / "model.npz", CheckpointOptions(step=1))
    with pytest.raises(CheckpointError, match=rf"holds no checkpoint; {known}"):
        CheckpointRun.of(tmp_path)


def test_states_for_resuming_are_no_checkpoints_of_a_run_folder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "state.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        CheckpointRun.of(tmp_path)


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        # A whole toy run loads none: tests/sims/test_startup.py.
        pytest.param("sims.training.toy_runner", "sims.models.formats", marks=pytest.mark.slow),
        ("sims.models.checkpoints", "transformers"),
    ],
)
def test_formats_are_loaded_only_when_a_checkpoint_is_read(modules, absent):
    script = f"import sys, {modules}\nassert not [m for m in sys.modules if m.startswith({absent!r})]"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.slow
def test_transformers_is_imported_only_for_folders_of_hugging_face(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    script = (
        "import sys\nfrom pathlib import Path\nfrom sims.models.checkpoints import inspect\n"
        f"try: inspect(Path({str(tmp_path / 'a.pt')!r}))\nexcept Exception as e: print(e)\n"
        "assert 'sims.models.formats.huggingface' in sys.modules\n"
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
