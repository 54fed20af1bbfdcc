"""Define the interface of trackers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Report one run to a tracking tool, in addition to its parquet files.

    The calls come in this order: started, logged any number of times, ended. A run that pauses is ended, and started
    again under the same name when it continues; after a kill it is started again without having been ended, and some
    steps are logged twice. An exception in any call switches the tracker off.

    Args:
        folder: for files of this tracker only.
        project: a name that the runs of a folder share.
    """

    # A constructor does not import the package of its tool: `started` does.
    def __init__(self, folder: Path, project: str) -> None: ...

    def started(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Start a run, or continue it; `config` is plain nested JSON."""
        ...

    def logged(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log finite numbers of a step by names like "activation/final/rankme"."""
        ...

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """End or pause the run.

        Args:
            outcome: "ended" holds the reason; "step" and "val_loss" where they are known.
        """
        ...
