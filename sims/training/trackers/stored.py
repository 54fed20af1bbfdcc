"""Report runs that are complete already."""

from __future__ import annotations

from collections.abc import Sequence

from sims.runs.store import RunFolder
from sims.training.trackers.registry import named, track


def report(folder: RunFolder, names: Sequence[str]) -> None:
    """Report the measured numbers of a complete run to trackers, step by step; a second report is a second run there.

    Args:
        folder: of the run; the trackers write beside it.
        names: of trackers.
    """
    with track(names, folder.path.parent) as trackers:
        tracked = trackers.started(folder.path.name, folder.identity())
        for step, rows in folder.rows().groupby("step"):
            found = ({str(k): v for k, v in row.items()} for row in rows.to_dict("records"))
            tracked.logged(int(str(step)), named(found))
        tracked.ended(folder.outcome)
