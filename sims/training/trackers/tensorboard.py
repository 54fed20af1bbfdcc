"""TensorBoard: one folder of event files a run. See them with `tensorboard --logdir FOLDER/trackers/tensorboard`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sims.system.extras import require

PACKAGE = "tensorboard"


class TensorBoard:
    """Scalars by step; the configuration and the outcome as text."""

    def __init__(self, folder: Path, project: str) -> None:
        self.folder = folder
        self.writer: Any = None

    def started(self, run_id: str, config: Mapping[str, Any]) -> None:
        """The event file is opened with the first numbers, when the step is known."""
        require(PACKAGE, PACKAGE)
        self.run_id, self.config = run_id, config

    def logged(self, step: int, numbers: Mapping[str, float]) -> None:
        """One scalar a number."""
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # A run that goes on repeats what a killed process had logged after its last stored state.
            self.writer = SummaryWriter(str(self.folder / self.run_id), purge_step=step or None)
            self.writer.add_text("configuration", _block(self.config), step)
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()
        self.step = step

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.add_text("outcome", _block(outcome), self.step)
            self.writer.close()


def _block(data: Mapping[str, Any]) -> str:
    return "```\n" + json.dumps(data, indent=1) + "\n```"
