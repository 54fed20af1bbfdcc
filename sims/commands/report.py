"""`speclens report`: rebuild the page of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from sims.commands.demo import finish


@dataclass(frozen=True)
class Report:
    """Print the summary of a folder of runs and rebuild its report.html.

    Examples:
        speclens report demo
    """

    folder: tyro.conf.Positional[Path]
    """A folder made by `speclens demo` or `speclens train`."""

    def run(self) -> int:
        """Run it."""
        return finish(self.folder, {}, Console())
