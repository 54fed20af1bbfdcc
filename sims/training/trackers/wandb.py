"""Report runs to Weights & Biases, offline by default.

Set WANDB_MODE=online to upload while training, or upload later with `wandb sync FOLDER/trackers/wandb/wandb/*`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sims.system.extras import require

PACKAGE = "wandb"


class WandB:
    """Write a run of the same name and id, its outcome as summary."""

    def __init__(self, folder: Path, project: str) -> None:
        self.folder = folder
        self.project = project

    def started(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Open the run; several may be open in one process."""
        wandb = require(PACKAGE, PACKAGE)
        mode = os.environ.get("WANDB_MODE", "offline")
        self.run = wandb.init(
            project=self.project,
            dir=str(self.folder),
            id=run_id,
            name=run_id,
            config=dict(config),
            mode=mode,
            reinit="create_new",
            # Offline, earlier parts of a run are unknown; the upload joins runs of one id.
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True, save_code=False
            ),
        )

    def logged(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write one history row per step."""
        self.run.log(dict(numbers), step=step)

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """Write the summary and close the run."""
        self.run.summary.update(dict(outcome))
        self.run.finish(exit_code=int(outcome.get("ended") == "failed"))
