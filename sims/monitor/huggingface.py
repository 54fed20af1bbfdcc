"""A callback that watches the models of a Hugging Face Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sims.models.probe import first_batch
from sims.models.undisturbed import undisturbed
from sims.monitor.monitor import Monitor
from sims.runs.lm_measure_config import RunMetadata

STATE = "spectral_monitor.pt"
TRAINED_ON = (
    "the probe is of the training data, so that its loss is no validation loss; for another pass probe=, such as "
    "trainer.get_eval_dataloader()"
)


class MonitorCallback(TrainerCallback):
    """Watch the model of a Trainer: ``Trainer(…, callbacks=[MonitorCallback(to="runs")])``.

    The state of the monitor is saved with every checkpoint, and a Trainer that resumes from one in its output_dir
    continues the run; from another folder, or a checkpoint without this state, a run of its own begins at that step.

    Args:
        probe: what the model is measured on, as `Monitor` takes it, such as ``trainer.get_eval_dataloader()``. Without
            it some samples of the training data are taken, which a note says: a Trainer hands no evaluation data over
            before it has evaluated.
        options: further arguments of `Monitor`. Those that the Trainer knows (optimizer, steps, run, tokens_per_step)
            are taken from it where they are not given.
    """

    def __init__(self, probe: Any = None, **options: Any) -> None:
        self.probe, self.options = probe, options
        self.monitor: Monitor | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        train_dataloader: Any = None,
        eval_dataloader: Any = None,
        **more: Any,
    ) -> None:
        """Begin to watch, or continue where the checkpoint was saved."""
        probe = self.probe
        if probe is None:
            probe = eval_dataloader if eval_dataloader is not None else train_dataloader
        probe = getattr(probe, "base_dataloader", probe)  # of accelerate's wrapper
        with undisturbed(model):
            batch = probe if callable(probe) else first_batch(probe)
        # Of a process, which may have several devices, and reduced where memory was short.
        batch_size = state.train_batch_size or args.train_batch_size
        a_step = batch_size * args.gradient_accumulation_steps * args.world_size
        known = {
            "tokens_per_step": _targets(batch) * a_step or None,
            "optimizer": optimizer,
            "steps": state.max_steps,
            "run": RunMetadata(batch_size=a_step, lr=args.learning_rate, seed=args.seed),
            "state": _saved(args, state),
        }
        self.monitor = Monitor(model, batch, **{**known, **self.options})
        if self.probe is None and eval_dataloader is None:
            self.monitor.note(TRAINED_ON)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Tell the monitor of an optimiser step."""
        if self.monitor is not None:
            self.monitor.step(state.global_step)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Save the state of the monitor with the checkpoint."""
        folder = _checkpoint(args, state)
        if self.monitor is not None and state.is_world_process_zero and folder.is_dir():
            torch.save(self.monitor.state_dict(), folder / STATE)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Look for the last time, and complete the folder."""
        if self.monitor is not None:
            self.monitor.close()


def _targets(batch: Any) -> int:
    """Return the targets of one sequence of the probe; 0 where that is not known."""
    tokens = batch.get("input_ids") if isinstance(batch, Mapping) else None
    return 0 if tokens is None else max(tokens.shape[1] - 1, 0)


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"


def _saved(args: TrainingArguments, state: TrainerState) -> dict[str, Any] | None:
    """Return the monitor's state in the checkpoint that the Trainer resumes from, or its step; None at the start."""
    file = _checkpoint(args, state) / STATE
    if state.global_step == 0:
        return None
    if not file.is_file():
        return {"step": state.global_step}
    return torch.load(file, map_location="cpu", weights_only=True)
