"""`speclens demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sims.sweep.options import LocalOptions
from toymodel.errors import ConfigError


@dataclass(frozen=True)
class Demo:
    """Train the four stages at two batch sizes, measure them, and write report.html.

    Takes a few minutes on two CPU cores. After an interruption, the same command continues.

    Examples:
        speclens demo
        speclens demo --out my-demo --seeds 3
        speclens demo --track tensorboard
    """

    out: Path = Path("demo")
    """Folder for the runs and the report."""
    seeds: int = 2
    """Seeds for each stage and batch size. Intervals are over seeds: with two they are wide, three begin to separate
    the stages."""
    options: Annotated[LocalOptions, tyro.conf.arg(name="")] = field(default_factory=LocalOptions)

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"--seeds is {self.seeds}; it must be at least 1")

    def run(self) -> int:
        """Train and report; return 0 when every run is complete, else 1."""
        from rich.console import Console

        from sims.studies.overview.finish import finish
        from sims.sweep.demo import demo_configs, demo_measurements
        from sims.sweep.sweep_run import SweepRun, run_all
        from sims.sweep.work import ToyWork
        from sims.training.toy_runner import chosen_device

        console = Console()
        device = chosen_device(self.options.device)
        sweep = SweepRun(
            demo_configs(range(self.seeds)),
            ToyWork(demo_measurements(), device, trackers=self.options.track, graphs=self.options.graphs),
            self.out,
            {"campaign": "demo"},
            self.options.workers,
        )
        return finish(self.out, run_all(sweep, console), console)
