"""`speclens show`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Show:
    """Show one run: configuration, provenance, outcome, time of each part, last measurements, files.

    Examples:
        speclens show runs/untied-b32-lr0.0006-s0-1a2b3c4d5e
        speclens show runs/untied-b32-lr0.0006-s0-1a2b3c4d5e --everything
    """

    folder: tyro.conf.Positional[Path]
    """The folder of one run."""
    everything: bool = False
    """Also the numbers of gradients and weights, and every file by name."""
    json: bool = False
    """One JSON object on stdout in place of tables, with everything."""

    def run(self) -> int:
        """Print the run; return 0."""
        from sims.pages.answer import answering
        from sims.runs.describe import describe
        from sims.studies.overview.one_run import show_run

        with answering(self.json) as answer:
            found = describe(self.folder)
            if answer is None:
                show_run(found, self.everything)
            else:
                answer |= vars(found)
        return 0
