"""`speclens report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from sims.system.files import check_folder


@dataclass(frozen=True)
class Report:
    """Print the summary of a folder of runs and write its report.html again.

    Examples:
        speclens report demo
    """

    folder: tyro.conf.Positional[Path]
    """A folder made by `speclens demo`, `train` or `sweep`."""
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""

    def __post_init__(self) -> None:
        if self.folder.is_dir():
            check_folder(self.folder)

    def run(self) -> int:
        """Print and write; return 0."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.studies.overview.finish import finish

        with answering(self.json) as answer:
            return finish(self.folder, {}, Console(), answer)
