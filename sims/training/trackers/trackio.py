"""Trackio: one SQLite file. See it with `TRACKIO_DIR=FOLDER/trackers/trackio trackio show`.

Trackio fixes its folder when it is imported: a process that follows two folders writes both to the first one.
"""

from __future__ import annotations

import contextvars
import io
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from sims.system.extras import require

PACKAGE = "trackio"


class Trackio:
    """One run of the same name; it is gone on with when it was there before."""

    def __init__(self, folder: Path, project: str) -> None:
        self.folder = folder
        self.project = project

    def started(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Open the run; several may be open in one process."""
        os.environ.setdefault("TRACKIO_DIR", str(self.folder))
        trackio = require(PACKAGE, PACKAGE)

        def open_run() -> Any:
            return trackio.init(
                project=self.project,
                name=run_id,
                config=dict(config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

        # It closes the current run of its context when it opens another, and prints what a sweep need not read.
        with redirect_stdout(io.StringIO()):
            self.run = contextvars.copy_context().run(open_run)

    def logged(self, step: int, numbers: Mapping[str, float]) -> None:
        """One row a step."""
        self.run.log(dict(numbers), step=step)

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """Wait until everything is stored. Trackio has no place for an outcome; its numbers are logged already."""
        with redirect_stdout(io.StringIO()):
            self.run.finish()
