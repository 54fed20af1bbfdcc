"""`speclens train small` and `published`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from sims.runs.measure_config import MeasureConfig
from sims.sweep.options import LocalOptions, check_seeds
from sims.sweep.presets import PUBLISHED, PUBLISHED_MEASURE, SMALL, SMALL_MEASURE
from sims.sweep.task_options import TaskKind
from sims.system.command_options import ConfigFileOrRun
from toymodel.config import RunConfig
from toymodel.tasks import DEFAULT_KIND


@dataclass(frozen=True)
class _Options(LocalOptions):
    config: ConfigFileOrRun = None


@dataclass(frozen=True)
class _Train:
    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    measure: MeasureConfig
    task_kind: TaskKind = DEFAULT_KIND
    seeds: tuple[int, ...] | None = None
    """Seeds to train, on a GPU as one ensemble; by default the one of --seed."""
    out: Path = Path("runs")
    """Folder for the run folders and the report."""
    options: Annotated[_Options, tyro.conf.arg(name="")] = field(default_factory=_Options)

    def __post_init__(self) -> None:
        check_seeds(self.seeds)

    def execute(self) -> int:
        """Train the runs; return 0 when every run is complete, else 1."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.studies.overview.finish import finish
        from sims.sweep.sweep_run import SweepRun, run_all
        from sims.sweep.unread import notes
        from sims.training.toy_runner import chosen_device

        console = Console()
        options, device = self.options, chosen_device(self.options.device)
        work = options.work(self.measure, device)
        configs = [replace(self.run, seed=s) for s in self.seeds or (self.run.seed,)]
        sweep = SweepRun(configs, work, self.out, {"campaign": "train"}, options.workers, retry_failed=True)
        usual = type(self).__dataclass_fields__

        def tell() -> None:
            if self.seeds is not None and self.run.seed not in (*self.seeds, usual["run"].default.seed):
                warnings.warn(f"seed is {self.run.seed} and not trained: --seeds names others", stacklevel=2)
            for note in notes(configs, usual["run"].default, self.measure, usual["measure"].default):
                warnings.warn(note, stacklevel=2)

        with answering(options.json) as answer:
            return finish(self.out, run_all(sweep, console, tell), console, answer)


@dataclass(frozen=True)
class Published(_Train):
    """Start from the published size (V=1024, T=64, d=128, 2 layers; 5,000 steps)."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")] = PUBLISHED
    measure: MeasureConfig = PUBLISHED_MEASURE


@dataclass(frozen=True)
class Small(_Train):
    """Start from the demo's size (V=64, T=32, d=64, 2 layers): a minute on one core."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")] = SMALL
    measure: MeasureConfig = SMALL_MEASURE
