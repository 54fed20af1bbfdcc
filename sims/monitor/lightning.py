"""A callback that watches the models of a Lightning Trainer."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sims.monitor.monitor import Monitor


class MonitorCallback(Callback):
    """Watch the model of a Trainer: ``Trainer(callbacks=[MonitorCallback(batch, to="runs")])``.

    Steps are those of the optimiser (gradients may be accumulated). The last reading is taken when the training ends,
    and the state is part of the Trainer's checkpoints.

    Args:
        probe: a batch, as `Monitor` takes it; the model is called on it, not its training_step.
        options: further arguments of `Monitor`; optimizer and steps are taken from the Trainer where they are not
            given.
    """

    def __init__(self, probe: Any = None, **options: Any) -> None:
        self.probe, self.options = probe, options
        self.monitor: Monitor | None = None
        self._saved: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch, or continue where the checkpoint was saved."""
        steps = trainer.estimated_stepping_batches
        known = {
            "optimizer": list(trainer.optimizers),
            "steps": int(steps) if 0 < steps < float("inf") else 0,
            # A checkpoint of a training without this callback has steps, and no state of a monitor.
            "state": self._saved or ({"step": trainer.global_step} if trainer.global_step else None),
        }
        self.monitor = Monitor(pl_module, self.probe, **{**known, **self.options})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell the monitor of a step, where the optimiser has made one."""
        if self.monitor is not None:
            self.monitor.step(trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the last time, and complete the folder."""
        if self.monitor is not None:
            self.monitor.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Complete the folder with what was measured until then."""
        if self.monitor is not None:
            self.monitor.__exit__(type(exception), exception, exception.__traceback__)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the monitor."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from it when the training starts."""
        self._saved = state_dict or None
