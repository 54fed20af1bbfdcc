"""What a tracker is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Passes what one run finds to a tracking tool, beside the parquet files, which stay the record.

    Made as `Tracker(folder, project)`: its own folder, which it may fill as it likes, and a name for what its runs have
    in common. What needs the tool's package goes into `started`. Any exception switches the tracker off.

    The calls come in this order: started, logged any number of times, ended. A run that pauses is ended, and started
    again under the same name when it goes on; after a kill it is started again without having been ended, and some
    steps are logged twice.
    """

    def __init__(self, folder: Path, project: str) -> None: ...

    def started(self, run_id: str, config: Mapping[str, Any]) -> None:
        """A run begins or goes on; config is nested plain JSON."""
        ...

    def logged(self, step: int, numbers: Mapping[str, float]) -> None:
        """Finite numbers of one step, by names such as "activation/final/rankme"."""
        ...

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """The run has come to an end, or pauses: "ended" says which; step and val_loss as far as they are known."""
        ...
