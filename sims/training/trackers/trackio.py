"""Report runs to Trackio, in one SQLite file.

Show it with `TRACKIO_DIR=FOLDER/trackers/trackio trackio show`. Trackio fixes its folder at import: a process that
trains in two folders reports both to the first one.
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
    """Write a Trackio run of the same name, continued if it exists."""

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

        # Trackio closes the open run of its context when it opens another: each run gets a context. Its output would
        # disturb the progress display.
        with redirect_stdout(io.StringIO()):
            self.run = contextvars.copy_context().run(open_run)

    def logged(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write one row per step."""
        self.run.log(dict(numbers), step=step)

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """Wait until everything is stored; Trackio stores no outcome."""
        with redirect_stdout(io.StringIO()):
            self.run.finish()
