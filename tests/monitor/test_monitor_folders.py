"""The folder of a monitored run: read by every command, continued, completed after a kill; trackers and functions."""

import gc
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import weakref
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch
from test_monitor_training import Convolutions, Decoder, images, tokens
from torch import nn

from sims.analysis.origins import distinct
from sims.analysis.runs import load
from sims.cli import main
from sims.monitor import Monitor, RunMetadata, WatchedConfig, complete_run
from sims.monitor.momenta import momenta_of
from sims.monitor.outputs import _free
from sims.runs.folders import listing
from sims.runs.store import RunFolder, run_folders
from sims.studies.overview.findings import lead
from sims.system.errors import MeasureError, StoreError

SMALL = WatchedConfig(update_window=3)


def loop(model, optimizer, monitor, steps):
    for _ in range(steps):
        x, y = tokens()
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(loss=loss)


def make(to, state=None, seed=0, **options):
    torch.manual_seed(seed)
    model = Decoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    options = {"every": 3, "optimizer": optimizer, "measure": SMALL, **options}
    return model, optimizer, Monitor(model, tokens(), to=to, state=state, **options)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("watched") / "runs"
    for seed in (0, 1):
        model, optimizer, monitor = make(
            out, seed=seed, tokens_per_step=192, run=RunMetadata(stage="decoder", batch_size=24, seed=seed)
        )
        loop(model, optimizer, monitor, 12)
        monitor.close()
    return out


def test_the_lowest_loss_of_watched_models_is_that_on_the_probe(two_runs):
    runs = load(two_runs)
    stages = dict(zip(runs.runs["run_id"], ("plain", "gated"), strict=True))
    tables = {
        name: getattr(runs, name).assign(stage=lambda table: table["run_id"].map(stages))
        for name in ("runs", "rows", "spectra")
    }
    assert re.match(
        r"(plain|gated) ends at the lowest mean loss on the probe \(", lead(replace(runs, **tables))
    )


def test_folders_are_named_by_paths_and_texts_alike(two_runs):
    assert load(str(two_runs)).rows.equals(load(two_runs).rows)
    assert listing(str(two_runs)).equals(listing(two_runs))
    assert [folder.path for folder in run_folders(str(two_runs))] == sorted(two_runs.iterdir())
    with pytest.raises(StoreError, match="does not exist; give a folder of runs"):
        load("nowhere")


@pytest.mark.parametrize(
    "command",
    [
        ["ls"],
        ["ls", "--verify"],
        ["report"],
        ["compare", "decoder-1", "decoder-2"],
        ["show", "decoder-1"],
        ["reproduce", "all", "--runs"],
    ],
)
def test_commands_read_the_folder(two_runs, tmp_path, undrawn, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    first, *names = command if command[0] in ("compare", "show") else (command[0], *command[1:])
    if names and command[0] in ("compare", "show"):
        arguments = [first, *(str(two_runs / name) for name in names)]
    else:
        arguments = [*command, str(two_runs)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    # Two seeds are one cell of `compare`, which names neither.
    assert {"compare": "runs\t2", "reproduce": "reproduction.html"}.get(first, "decoder") in shown


def test_a_report_shows_what_was_watched(two_runs, undrawn, capsys):
    assert main(["report", str(two_runs)]) == 0
    page = (two_runs / "report.html").read_text()
    assert "2 runs: stage decoder; batch size 24; 2 seeds." in page
    assert "language models and watched models" in page
    assert "class Decoder" in page
    for title in (
        "Losses",
        "Activation spectra by site",
        "Layer by layer",
        "Gradient spectra",
        "Weight spectra",
    ):
        assert f"{title}</h2>" in page
    assert "modular" not in page
    assert "H_peak" not in page
    # Whether its probe was held out, only its reader knows.
    assert "Mean final loss on the probe at B = 24" in page
    assert "held-out" not in page
    # Nor does anybody but the reader know what the loss is.
    assert "in nats where they are cross-entropies" in page
    # 12 steps of 192 tokens are no part of a million that is worth a number.
    assert re.search(r"<td[^>]*>2,?304</td>", page)


@pytest.mark.parametrize("probe", [pytest.param(None, marks=pytest.mark.slow), tokens()])
def test_runs_with_the_settings_left_as_they_are_stand_for_themselves(tmp_path, undrawn, capsys, probe):
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = Decoder()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        monitor = Monitor(model, probe, to=tmp_path, every=2, optimizer=optimizer, measure=SMALL)
        loop(model, optimizer, monitor, 4)
        monitor.close()
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "2 runs, each for itself: decoder-1, decoder-2." in page
    assert "no interval is over seeds: stage Decoder at B = 1 has 2 runs of seed 0" in page
    assert ("Activation spectra by site" in page) == (probe is not None)
    assert "Weight spectra</h2>" in page


def test_the_folder_holds_the_run_as_it_was(two_runs):
    folders = run_folders(two_runs)
    assert [f.path.name for f in folders] == ["decoder-1", "decoder-2"]
    spec = folders[0].spec
    assert (spec.stage, spec.batch_size, spec.lr, spec.seed, spec.steps) == ("decoder", 24, 1e-2, 0, 12)
    rows = folders[0].rows()
    assert set(rows["step"]) == {0, 3, 6, 9, 12}
    assert (rows["tokens"] == rows["step"] * 192).all()
    assert set(rows["object"]) == {"loss", "activation", "gradient", "weight", "update", "normalised_update"}
    assert {"val_loss", "train_loss"} <= set(rows[rows["object"] == "loss"]["quantity"])
    assert "the monitor took" in folders[0].outcome["notes"]


def test_runs_of_one_configuration_are_two_runs(tmp_path):
    for _ in range(2):
        *_, monitor = make(tmp_path)
        monitor.close()
    assert main(["compare", *(str(f.path) for f in run_folders(tmp_path))]) == 0
    assert len(distinct(run_folders(tmp_path)).folders) == 2


@pytest.mark.parametrize("ended", ["killed", "closed", "by an error"])
def test_a_continued_run_has_the_rows_of_an_undisturbed_one(tmp_path, ended):
    torch.manual_seed(0)
    model, optimizer, monitor = make(tmp_path / "whole")
    loop(model, optimizer, monitor, 10)
    monitor.close()

    model, optimizer, monitor = make(tmp_path / "cut")
    loop(model, optimizer, monitor, 5)
    stored = {
        "model": {k: v.clone() for k, v in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "monitor": monitor.state_dict(),
        "random": torch.get_rng_state(),
    }
    torch.save(stored, tmp_path / "checkpoint.pt")
    # Later looks belong to steps that are taken again.
    loop(model, optimizer, monitor, 3)
    if ended == "killed":
        monitor._closed = True
        monitor._outputs._lock.close()
    elif ended == "closed":
        monitor.close()
    else:
        monitor.__exit__(ZeroDivisionError, ZeroDivisionError("lost"), None)

    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.manual_seed(0)
    model, probe = Decoder(), tokens()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    # A schedule changes the rate; the run stays the one that began.
    optimizer.param_groups[0]["lr"] = 5e-3
    torch.set_rng_state(saved["random"])
    monitor = Monitor(
        model, probe, every=3, to=tmp_path / "cut", optimizer=optimizer, measure=SMALL, state=saved["monitor"]
    )
    optimizer.param_groups[0]["lr"] = 1e-2
    loop(model, optimizer, monitor, 5)
    monitor.close()

    (whole,), (cut,) = run_folders(tmp_path / "whole"), run_folders(tmp_path / "cut")
    pd.testing.assert_frame_equal(cut.rows(), whole.rows())
    pd.testing.assert_frame_equal(cut.spectra(), whole.spectra())


def test_a_folder_that_holds_the_run_is_refused(tmp_path):
    *_, monitor = make(tmp_path, run=RunMetadata(name="mine"))
    monitor.close()
    with pytest.raises(StoreError, match="holds a run already; choose another name"):
        make(tmp_path, run=RunMetadata(name="mine"))


def test_the_state_of_another_model_is_refused(tmp_path):
    model, optimizer, monitor = make(tmp_path)
    loop(model, optimizer, monitor, 4)
    state = monitor.state_dict()
    monitor.close()
    other = nn.Linear(5, 5)
    with pytest.raises(MeasureError, match="pass the state of this model's monitor"):
        Monitor(
            other, to=None, optimizer=torch.optim.SGD(other.parameters(), lr=1), measure=SMALL, state=state
        )


def test_what_is_not_measured_is_named(tmp_path):
    alone = Monitor(nn.Linear(6, 6), (torch.randn(9, 6), torch.randn(9, 6)), to=None)
    assert any("activations left out: the model is one layer" in note for note in alone.notes)
    monitor = Monitor(Convolutions(), images(), to=None)
    assert any(
        "gradients of features.0, features.3" in note and "not linear" in note for note in monitor.notes
    )
    assert any("batch size (1), seed (0)" in note for note in monitor.notes)

    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.down, self.up = nn.Linear(6, 6), nn.Linear(6, 2), nn.Linear(2, 6)
            self.base.requires_grad_(False)

        def forward(self, x):
            return self.base(x) + self.up(self.down(x))

    found = Monitor(Adapted(), (torch.randn(9, 6), torch.randn(9, 6)), to=None).frame()
    assert set(found[found["object"] == "gradient"]["site"]) == {"down", "up"}
    assert set(found[found["object"] == "weight"]["site"]) == {"base", "down", "up"}


SCRIPT = """
    import sys, torch
    from torch import nn
    from sims.monitor import Monitor

    model = nn.Linear(4, 4)
    monitor = Monitor(model, every=1, to=sys.argv[1])
    monitor.step()
    monitor.step()
    {end}
"""


@pytest.mark.parametrize(
    "end",
    [
        "raise ValueError('lost')",
        *(pytest.param(end, marks=pytest.mark.slow) for end in ("pass", "monitor = None", "sys.exit(3)")),
    ],
)
def test_a_script_that_does_not_close_leaves_a_complete_folder(tmp_path, end):
    source = textwrap.dedent(SCRIPT.format(end=end))
    subprocess.run([sys.executable, "-c", source, str(tmp_path)], check=False, timeout=300)
    (folder,) = run_folders(tmp_path)
    assert folder.done
    assert folder.outcome["step"] == 2
    assert set(folder.rows()["step"]) == {0, 1, 2}
    assert ("ValueError: lost" in folder.outcome["notes"]) == ("lost" in end)


@pytest.mark.slow
def test_the_folder_of_a_killed_process_is_completed(tmp_path):
    source = textwrap.dedent(SCRIPT.format(end=f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"))
    done = subprocess.run([sys.executable, "-c", source, str(tmp_path)], check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    (folder,) = run_folders(tmp_path)
    assert not folder.done
    assert "sims.monitor.complete_run completes it" in listing(tmp_path)["reason"][0]
    assert complete_run(folder.path).done
    assert set(folder.rows()["step"]) == {0, 1, 2}
    assert "without closing its monitor" in folder.outcome["notes"]
    before = (folder.path / "done.json").read_bytes()
    complete_run(folder.path)
    assert (folder.path / "done.json").read_bytes() == before


def test_processes_that_begin_at_once_take_different_names(tmp_path):
    """Both found the same number free, and the second ended with its training."""
    out = tmp_path / "runs"
    assert [_free(out, "linear-") for _ in range(2)] == ["linear-1", "linear-2"]
    assert _free(None, "linear-") == "linear-1"


def test_a_monitor_that_is_dropped_completes_its_folder_and_frees_the_model(tmp_path):
    model, _, monitor = make(tmp_path)
    freed = weakref.ref(model)
    monitor.step()
    del model, monitor, _
    gc.collect()
    assert freed() is None
    (folder,) = run_folders(tmp_path)
    assert folder.done


def test_an_error_of_the_training_is_passed_on_and_noted(tmp_path):
    def training():
        with Monitor(nn.Linear(3, 3), every=1, to=tmp_path) as monitor:
            monitor.step()
            raise ZeroDivisionError("in the loop")

    with pytest.raises(ZeroDivisionError):
        training()
    (folder,) = run_folders(tmp_path)
    assert "ended after step 1 by ZeroDivisionError: in the loop" in folder.outcome["notes"]


def test_functions_get_the_numbers_by_name(tmp_path):
    found = {}
    monitor = Monitor(
        nn.Linear(6, 6), every=2, to=[tmp_path, lambda step, numbers: found.update({step: numbers})]
    )
    monitor.step()
    monitor.step()
    monitor.close()
    assert set(found) == {0, 2}
    assert any(name.startswith("weight/") and name.endswith("/rankme") for name in found[2])


def test_a_function_that_fails_is_switched_off():
    def failing(step, numbers):
        raise OSError("no network")

    with pytest.warns(RuntimeWarning, match="no network"):
        monitor = Monitor(nn.Linear(6, 6), every=1, to=failing)
    monitor.step()
    monitor.close()


def test_tensorboard(tmp_path):
    monitor = Monitor(nn.Linear(6, 6), every=1, to=["tensorboard", tmp_path])
    monitor.step()
    monitor.close()
    assert list((tmp_path / "trackers" / "tensorboard").rglob("events*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"every": 0}, "every is 0; it must be an integer"),
        ({"every": 2.5}, "every is 2.5"),
        ({"budget": 1.5}, "budget is 1.5; it is a share"),
        ({"tokens_per_step": 0}, "tokens_per_step is 0"),
        ({"state": {"step": 3, "looked": 0}}, "state is a dict without"),
        ({"layers": "attention.*"}, "'attention.\\*' names no part"),
        ({"probe": torch.zeros(1, 9, dtype=torch.long)}, "the probe has 1 samples"),
        ({"probe": (torch.zeros(4, 8), torch.zeros(5, 8))}, "tensors of 4, 5 samples"),
        ({"probe": (1, 2, 3)}, "a tuple of 3"),
        ({"probe": "text"}, "a str without tensors; pass tensors"),
        ({"probe": {"input_ids": torch.zeros(3, 4).long(), "attention_mask": torch.eye(4)[:3]}}, "padded"),
        ({"probe": torch.zeros(4, 9)}, "cannot be run on the probe"),
        ({"to": 3}, "to is 3; pass a folder"),
        ({"to": ""}, "to is ''; pass a folder"),
        ({"losses": lambda model, batch: 3.0}, "losses of 2 samples are float"),
        ({"losses": lambda model, batch: model(batch[0]).detach().sum((1, 2))}, "detached from the model"),
        ({"losses": lambda model, batch: 1 / 0}, "losses= cannot be run on the probe .ZeroDivisionError"),
        ({"to": ["a", "b"]}, "names 2 folders"),
        ({"measure": {"pooling": "first"}}, "pooling is 'first'"),
        ({"measure": {"memory": 0.0}}, "memory is 0.0 GB"),
        ({"measure": {"update_window": 1}}, "update_window is 1"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)

    def made(probe=None, measure=None, **settings):
        settings["measure"] = WatchedConfig(**measure) if measure else None
        return Monitor(Decoder(), tokens() if probe is None else probe, **settings)

    with pytest.raises(MeasureError, match=message):
        made(**change)
    assert not os.listdir(tmp_path)


def test_a_model_that_is_none_is_refused():
    model: Any = {"weight": torch.zeros(3, 3)}
    with pytest.raises(MeasureError, match=r"must be a torch\.nn\.Module"):
        Monitor(model, tokens(), to=None)


def test_a_disk_that_is_full_does_not_end_the_training(tmp_path, monkeypatch):
    *_, monitor = make(tmp_path)

    def full(*args, **kwargs):
        raise StoreError("the disk is full")

    monkeypatch.setattr(RunFolder, "keep_part", full)
    monitor.step()
    monitor.step()
    with pytest.warns(RuntimeWarning, match="disk is full"):
        monitor.step()
    monkeypatch.undo()
    monitor.close()
    assert any("disk is full" in note for note in monitor.notes)


def test_layers_are_chosen_by_name_or_pattern():
    monitor = Monitor(Decoder(), tokens(), layers=["blocks.1", "head"], to=None)
    sites = {o: set(own["site"]) for o, own in monitor.frame().groupby("object")}
    assert sites["activation"] == {"blocks.1"}
    assert {s.split(".")[0] for s in sites["weight"]} == {"blocks", "head"}
    assert not any(s.startswith("blocks.0") for s in sites["weight"])


def test_loaders_and_functions_as_probes():
    x, y = images()
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    model = Convolutions()
    before = torch.get_rng_state()
    monitor: Any = Monitor(model, loader, every=1, to=None)
    assert {s["n"] for s in monitor._recent.spectra if s["object"] == "gradient"} == {24}
    assert torch.equal(torch.get_rng_state(), before)
    calls = []
    monitor = Monitor(model, lambda: calls.append(1) or (x, y), every=1, to=None)
    monitor.step()
    monitor.step()
    assert len(calls) >= 3


def test_two_optimisers_of_one_kind_are_two_groups():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    optimizers = [torch.optim.Adam(model[name].parameters(), betas=(0.5, 0.9)) for name in "ab"]
    momenta, group_of = momenta_of(dict(model.named_parameters()), optimizers)
    assert momenta == {"adam 1": 0.5, "adam 2": 0.5}
    assert group_of["a.weight"] == "adam 1"
    assert group_of["b.bias"] == "adam 2"


def test_momenta_of_several_optimisers():
    model = Decoder()
    named = dict(model.named_parameters())
    matrices = [p for n, p in named.items() if p.ndim == 2]
    others = [p for n, p in named.items() if p.ndim != 2]
    optimizers = [
        torch.optim.SGD(
            [{"params": matrices[:2], "momentum": 0.9}, {"params": matrices[2:], "momentum": 0.5}], lr=1
        ),
        torch.optim.Adam(others, betas=(0.8, 0.99)),
    ]
    momenta, group_of = momenta_of(named, optimizers)
    assert momenta == {"sgd 0.9": 0.9, "sgd 0.5": 0.5, "adam": 0.8}
    assert set(group_of) == set(named)


def test_nothing_heavy_is_imported():
    source = (
        "import sys, sims.monitor;"
        "print([m for m in ('dask', 'distributed', 'matplotlib', 'sympy', 'transformers', 'lightning', 'pandas') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=300
    )
    assert json.loads(done.stdout.replace("'", '"')) in ([], ["pandas"])
