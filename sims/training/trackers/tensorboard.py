"""Report runs to TensorBoard, one folder of event files per run.

Show them with `tensorboard --logdir FOLDER/trackers/tensorboard`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sims.system.extras import require

PACKAGE = "tensorboard"


class TensorBoard:
    """Write scalars by step, and configuration and outcome as text."""

    def __init__(self, folder: Path, project: str) -> None:
        self.folder = folder
        self.writer: Any = None

    def started(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Remember the run; the event file is opened with the first numbers."""
        require(PACKAGE, PACKAGE)
        self.run_id, self.config = run_id, config

    def logged(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write one scalar per number."""
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # A continued run repeats the steps that a killed process had logged after its last stored state.
            self.writer = SummaryWriter(str(self.folder / self.run_id), purge_step=step or None)
            self.writer.add_text("configuration", _block(self.config), step)
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()
        self.step = step

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """Write the outcome and close the file."""
        if self.writer is not None:
            self.writer.add_text("outcome", _block(outcome), self.step)
            self.writer.close()


def _block(data: Mapping[str, Any]) -> str:
    return "```\n" + json.dumps(data, indent=1) + "\n```"
