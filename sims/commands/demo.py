"""`speclens demo`: the four stages, measured, in one report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from sims.commands.compare import Compare
from sims.studies.overview.findings import nothing_to_report, report_runs
from sims.studies.overview.page import write_report
from sims.studies.overview.terminal import print_summary
from sims.sweep.demo import demo_configs, demo_measurements
from sims.sweep.sweep_run import SweepRun, run_all
from sims.sweep.work import ToyWork
from sims.training.toy_runner import chosen_device
from toymodel.errors import ConfigError


@dataclass(frozen=True)
class Demo:
    """Train the four stages at two batch sizes, measure them, and write report.html.

    Takes a few minutes on two CPU cores. Interrupt it at any time; the same command goes on.

    Examples:
        speclens demo
        speclens demo --out my-demo --seeds 3
    """

    out: Path = Path("demo")
    """Folder for the runs and the report."""
    seeds: int = 2
    """Seeds a stage and batch size. Intervals are over seeds: two are wide, three begin to tell stages apart."""
    workers: int | None = None
    """Processes of one thread each; by default one a core (one on a GPU)."""
    device: str | None = None
    """cpu, cuda or cuda:N; by default the GPU where there is one."""

    def run(self) -> int:
        """Run it; 0 when every run is complete."""
        if self.seeds < 1:
            raise ConfigError(f"--seeds is {self.seeds}; it must be at least 1")
        console = Console()
        configs = demo_configs(range(self.seeds))
        campaign = SweepRun(
            configs,
            ToyWork(demo_measurements(), chosen_device(self.device)),
            self.out,
            {"campaign": "demo"},
            self.workers,
        )
        return finish(self.out, run_all(campaign, console), console)


def show_failures(failed: Mapping[str, str], console: Console) -> None:
    """One line a run that failed."""
    for name, error in failed.items():
        console.print(f"[red]failed:[/] {name}: {escape(error)}", soft_wrap=True)


def finish(out: Path, failed: Mapping[str, str], console: Console) -> int:
    """Summary, report and the names of what failed; the exit status.

    Runs that a report cannot compare are set side by side instead, cell by cell.
    """
    show_failures(failed, console)
    runs, notes = report_runs(out)
    reason = nothing_to_report(runs)
    if reason is None:
        print_summary(runs, notes, console)
        console.print(f"report: {write_report(out, runs, notes)}", soft_wrap=True)
    else:
        Compare((out,)).run()
        console.print(f"no report: {reason}", soft_wrap=True, highlight=False)
    return 1 if failed else 0
