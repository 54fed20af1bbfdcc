"""`speclens demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sims.sweep.demo import SEEDS
from sims.sweep.options import LocalOptions
from sims.system.given import check_seeds


@dataclass(frozen=True)
class Demo:
    """Train eight seeds of the four stages, measure them, and write report.html.

    The report says which differences of the stages are decided, and what would decide the others. Takes about five
    minutes on two CPU cores: the first line says how long on this machine, and so does --dry-run, which then stops.
    After an interruption, the same command continues.

    Examples:
        speclens demo
        speclens demo --dry-run
        speclens demo --out my-demo --seeds 12
        speclens demo --track tensorboard
    """

    out: Path = Path("demo")
    """Folder for the runs and the report."""
    seeds: int = SEEDS
    """Seeds of each stage. Intervals are over seeds: with fewer than five little is decided."""
    dry_run: bool = False
    """Show the runs and how long they take on this machine, and stop; nothing is written."""
    options: Annotated[LocalOptions, tyro.conf.arg(name="")] = field(default_factory=LocalOptions)

    def __post_init__(self) -> None:
        check_seeds(self.seeds)

    def run(self) -> int:
        """Train and report; return 0 when every run is complete, else 1."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.studies.overview.finish import finish
        from sims.sweep.demo import LABEL, demo_configs, demo_measurements
        from sims.sweep.named_runs import show_named, train_named

        console = Console()
        configs, measuring = demo_configs(range(self.seeds)), demo_measurements()
        with answering(self.options.json) as answer:
            if self.dry_run:
                show_named(configs, measuring, self.options, console, answer)
                return 0
            failed = train_named(configs, measuring, self.options, self.out, LABEL, console)
            return finish(self.out, failed, console, answer)
