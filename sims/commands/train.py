"""`speclens train`: one configuration of any size, for one or more seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from sims.commands.demo import finish
from sims.runs.measure_config import MeasureConfig
from sims.sweep.presets import PUBLISHED, PUBLISHED_MEASURE, SMALL, SMALL_MEASURE
from sims.sweep.sweep_run import SweepRun, run_all
from sims.sweep.work import ToyWork
from sims.training.toy_runner import chosen_device
from toymodel.config import RunConfig


@dataclass(frozen=True)
class _Train:
    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    measure: MeasureConfig
    seeds: tuple[int, ...] = ()
    """Seeds to train, as one ensemble on a GPU; by default the one of --seed."""
    out: Path = Path("runs")
    """Folder that holds one folder a run, and the report."""
    workers: int | None = None
    """Processes of one thread each; by default one a core (one on a GPU)."""
    device: str | None = None
    """cpu, cuda or cuda:N; by default the GPU where there is one."""

    def execute(self) -> int:
        console = Console()
        configs = [replace(self.run, seed=s) for s in self.seeds or (self.run.seed,)]
        campaign = SweepRun(
            configs,
            ToyWork(self.measure, chosen_device(self.device)),
            self.out,
            {"campaign": "train"},
            self.workers,
        )
        return finish(self.out, run_all(campaign, console), console)


@dataclass(frozen=True)
class Published(_Train):
    """Start from the published size, task and budget (V=1024, T=64, d=128, 2 layers, 5,000 steps)."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")] = PUBLISHED
    measure: MeasureConfig = PUBLISHED_MEASURE


@dataclass(frozen=True)
class Small(_Train):
    """Start from the demo's size (V=64, T=32, d=64, 2 layers): a minute on one core."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")] = SMALL
    measure: MeasureConfig = SMALL_MEASURE


@dataclass(frozen=True)
class Train:
    """Train and measure one configuration for one or more seeds.

    Examples:
        speclens train small --stage muon --seeds 0 1 2
        speclens train published --stage untied --batch-size 32 --lr 6e-4 --target-loss 2.0 --seeds 0 1 2
        speclens train published --stage rope --task.components-max 3 --task.pareto 1.5 --out mixtures
    """

    preset: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Published, tyro.conf.subcommand("published")]
        | Annotated[Small, tyro.conf.subcommand("small")]
    ]

    def run(self) -> int:
        """Run it; 0 when every run is complete."""
        return self.preset.execute()
