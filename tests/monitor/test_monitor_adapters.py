"""The callbacks of Hugging Face and Lightning, and accelerate: interrupted trainings continue their run."""

from types import SimpleNamespace

import lightning
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sims.monitor import Monitor
from sims.monitor.huggingface import MonitorCallback as HuggingFaceCallback
from sims.monitor.lightning import MonitorCallback as LightningCallback
from sims.runs.store import run_folders

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


class Rows(torch.utils.data.Dataset):
    def __init__(self):
        self.tokens = torch.randint(31, (64, 9), generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, k):
        return {"input_ids": self.tokens[k], "labels": self.tokens[k]}


def hugging_face(folder, runs, steps, resume=None, **more):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=16, n_embd=16, n_layer=2, n_head=2))
    options = TrainingArguments(
        str(folder),
        max_steps=8,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        save_steps=4,
        report_to=[],
        disable_tqdm=True,
        logging_steps=1,
        **more,
    )
    callback = HuggingFaceCallback(every=2, to=runs)

    class Stop(type(callback).__mro__[1]):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop |= state.global_step >= steps

    trainer = Trainer(model, options, train_dataset=Rows(), callbacks=[callback, Stop()])
    trainer.train(resume_from_checkpoint=resume)
    return callback.monitor


def test_a_trainer_that_resumes_continues_the_run(tmp_path):
    whole = hugging_face(tmp_path / "a", tmp_path / "whole", 8)
    rows = whole.frame()
    assert set(rows["step"]) == {0, 2, 4, 6, 8}
    assert whole.folder.spec.tokens_per_step == 4 * 2 * 8
    assert whole.folder.spec.steps == 8
    first = hugging_face(tmp_path / "b", tmp_path / "cut", 4)
    assert first.folder.done
    # As if the process had been killed at step 4: the folder is incomplete.
    (folder,) = run_folders(tmp_path / "cut")
    parts = folder.path / "parts"
    parts.mkdir()
    for name in ("rows", "spectra"):
        table = pd.read_parquet(folder.path / f"{name}.parquet")
        for step, own in table.groupby("step"):
            own.to_parquet(parts / f"{name}-{step:09d}.parquet")
        (folder.path / f"{name}.parquet").unlink()
    (folder.path / "done.json").unlink()
    text = (folder.path / "run.json").read_text()
    (folder.path / "run.json").write_text(text.replace('"steps": 4', '"steps": 8'))
    again = hugging_face(tmp_path / "b", tmp_path / "cut", 8, resume=str(tmp_path / "b" / "checkpoint-4"))
    assert [f.path.name for f in run_folders(tmp_path / "cut")] == [folder.path.name]
    pd.testing.assert_frame_equal(again.frame(), rows)


def begun(tmp_path, probe=None, **handed):
    """Begin to watch as a Trainer does that has made 500 steps."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=16, n_embd=16, n_layer=1, n_head=2))
    options = TrainingArguments(str(tmp_path), per_device_train_batch_size=4, report_to=[])
    # Reduced where memory was short.
    state = TrainerState(global_step=500, max_steps=600, train_batch_size=2)
    callback = HuggingFaceCallback(probe, every=200, to=None)
    callback.on_train_begin(
        options,
        state,
        TrainerControl(),
        model=model,
        optimizer=torch.optim.SGD(model.parameters()),
        train_dataloader=DataLoader(Rows(), batch_size=4),
        **handed,
    )
    assert callback.monitor is not None
    return callback.monitor


def test_a_model_that_was_trained_without_a_monitor_is_not_at_its_start(tmp_path):
    """Also where the Trainer resumes from another folder than its own."""
    rows = begun(tmp_path).frame()
    assert set(rows["step"]) == {500}
    assert set(rows["tokens"]) == {500 * 2 * 8}


def test_a_probe_of_training_data_is_told(tmp_path):
    """A Trainer has no evaluation data to hand over before it has evaluated."""
    held_out = DataLoader(Rows(), batch_size=4)
    assert any("no validation loss" in note for note in begun(tmp_path).notes)
    for monitor in (begun(tmp_path, held_out), begun(tmp_path, eval_dataloader=held_out)):
        assert not any("no validation loss" in note for note in monitor.notes)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def lightning_run(runs, callback, **more):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(40, 6), torch.randint(3, (40,)))
    trainer = lightning.Trainer(
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
        callbacks=[callback],
        **more,
    )
    trainer.fit(Module(), DataLoader(data, batch_size=4))
    return trainer


def test_lightning_counts_optimiser_steps_and_takes_the_last_reading(tmp_path):
    data = torch.randn(12, 6), torch.randint(3, (12,))
    callback = LightningCallback(data, every=2, to=tmp_path)
    trainer = lightning_run(tmp_path, callback, max_epochs=1, accumulate_grad_batches=2)
    assert trainer.global_step == 5
    rows = callback.monitor.frame()
    assert set(rows["step"]) == {0, 2, 4, 5}
    assert callback.monitor.folder.done
    state = callback.state_dict()
    again = LightningCallback(data)
    again.load_state_dict(state)
    assert again._saved["step"] == 5


def test_lightning_goes_on_from_a_checkpoint_without_a_monitor():
    module = Module()
    trainer = SimpleNamespace(
        estimated_stepping_batches=10, optimizers=[torch.optim.Adam(module.parameters())], global_step=4
    )
    callback = LightningCallback(torch.randn(12, 6), every=2, to=None)
    callback.on_train_start(trainer, module)
    for trainer.global_step in (5, 6):
        callback.on_train_batch_end(trainer, module, None, None, 0)
    assert set(callback.monitor.frame()["step"]) == {4, 6}


def test_an_exception_of_lightning_is_noted(tmp_path):
    class Failing(Module):
        def training_step(self, batch, index):
            if index == 3:
                raise ZeroDivisionError("lost")
            return super().training_step(batch, index)

    callback = LightningCallback(every=2, to=tmp_path)
    trainer = lightning.Trainer(
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
        callbacks=[callback],
        max_epochs=1,
    )
    data = TensorDataset(torch.randn(40, 6), torch.randint(3, (40,)))
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Failing(), DataLoader(data, batch_size=4))
    assert "ZeroDivisionError: lost" in callback.monitor.folder.outcome["notes"]


def test_accelerate(tmp_path):
    def train(watched):
        torch.manual_seed(0)
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        data = TensorDataset(torch.randn(64, 6), torch.randint(3, (64,)))
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))
        model, optimizer, loader = accelerator.prepare(
            model,
            torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            DataLoader(data, batch_size=4, shuffle=True),
        )
        monitor = Monitor(model, data[:16], every=2, to=tmp_path, optimizer=optimizer) if watched else None
        losses = []
        for x, y in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(x), y)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            if watched and accelerator.sync_gradients:
                monitor.step()
            losses.append(loss.item())
        if watched:
            monitor.close()
        return losses, monitor

    plain, _ = train(False)
    seen, monitor = train(True)
    assert seen == plain
    assert set(monitor.frame()["step"]) == {0, 2, 4, 6, 8}
    assert monitor._updates.momenta == {"sgd": 0.9}
