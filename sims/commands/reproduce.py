"""`speclens reproduce`: the paper's toy figures, with seeds and intervals, beside the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from sims.commands.demo import show_failures
from sims.commands.sweep import show_plan
from sims.studies.paper.figure_data import gather
from sims.studies.paper.page import CHAIN_TITLE, LANGUAGE_TITLE, TITLE, five, tally, write
from sims.studies.paper.profiles import profile
from sims.studies.paper.sections import every, sections
from sims.studies.paper.study import PAGE
from sims.studies.paper.verdicts import DISAGREES
from sims.studies.study import figures, profiles
from sims.sweep.sweep_run import SweepRun, run_all
from sims.sweep.work import ToyWork
from sims.system.machine import cores
from sims.training.defaults import SECONDS_BETWEEN_STATES
from sims.training.toy_runner import chosen_device


def figure_choice() -> Any:
    """Return the type of a figure's name; the registry of studies knows them when the command is parsed."""
    return Literal[(*figures(PAGE), "all")]


def profile_choice() -> Any:
    """Return the type of a profile's name, likewise."""
    return Literal[tuple(profiles(PAGE))]


@dataclass(frozen=True)
class Reproduce:
    """Train what the paper's toy figures need, and set our numbers beside the published ones.

    Writes reproduction.html and reproduction.md (findings, verdicts, figures) into the folder, and figures (SVG, PNG)
    and tables (CSV) into its reproduction/. Only runs that are missing are trained; a complete folder is only analysed.
    Interrupt it at any time; the same command goes on. Beside the paper's figures stand, from stored checkpoints,
    concentration on many bands (bands, sequence), the seeds that a stage difference needs (seeds), and which
    conclusions move with the measurement (robustness).

    --runs takes language models too (`speclens bridge train --measure`, `speclens bridge measure`): their page is of
    their own, without the toy's published numbers and without what needs its probe bands. `layers` needs runs measured
    at several sites, as theirs are.

    quick: a smaller model and task, 36 runs, minutes on two CPU cores; directions are compared, numbers are not.
    chain: the later stages (value_mix … attn_scale) at that size, 33 runs: their losses, gains and taxonomy.
    published: the published size, 3 seeds (run A at its learning rates, run B with its scan); for a GPU.
    extended: the same with 5 seeds and the full scan of 5 learning-rate factors around two scaling rules.

    Examples:
        speclens reproduce all --dry-run
        speclens reproduce all
        speclens reproduce fig4b fig11b --out figures
        speclens reproduce all --profile chain --out chain
        speclens reproduce fig4a --profile published --device cuda
        speclens reproduce all --runs demo --out demo-figures
        speclens reproduce all --runs lm-runs --out lm-figures
    """

    figures: tyro.conf.Positional[tuple[figure_choice(), ...]] = ("all",)  # pyright: ignore[reportInvalidTypeForm]
    """Which figures; all when none is given."""
    profile: profile_choice() = "quick"  # pyright: ignore[reportInvalidTypeForm]
    """Which runs."""
    out: Path = Path("reproduction")
    """Folder for the runs, the figures and the page."""
    runs: Path | None = None
    """Train nothing: analyse the complete runs of this folder instead (made by any command), and write to --out."""
    dry_run: bool = False
    """Show the runs and what they cost, and stop."""
    retry_failed: bool = False
    """Try again the runs that failed before."""
    workers: int | None = None
    """Processes of one thread each; by default one a core (on a GPU this process alone)."""
    device: str | None = None
    """cpu, cuda or cuda:N; by default the GPU where there is one."""
    scheduler: str | None = None
    """Address of a dask scheduler (tcp://HOST:PORT) whose workers do the work."""
    store_every: float = SECONDS_BETWEEN_STATES
    """Seconds between stored states of a run."""

    def run(self) -> int:
        """Run it; 0 when every run is complete."""
        console = Console()
        failed: dict[str, str] = {}
        names = self._named()
        if self.runs is None:
            chosen = profile(self.profile)
            names = names or chosen.figures
            configs = chosen.configs(names)
            device = chosen_device(self.device, elsewhere=self.scheduler is not None)
            workers = self.workers or (1 if device.startswith("cuda") else cores())
            if self.dry_run:
                show_plan(configs, device, workers, None, console)
                return 0
            campaign = SweepRun(
                configs,
                ToyWork(chosen.measuring, device, self.store_every),
                self.out,
                {"campaign": "reproduce", "profile": self.profile},
                workers,
                self.scheduler,
                retry_failed=self.retry_failed,
            )
            failed = run_all(campaign, console)
            show_failures(failed, console)
        self._report(names, console)
        return 1 if failed else 0

    def _named(self) -> tuple[str, ...]:
        """The figures that were asked for; none where all were."""
        return () if "all" in self.figures else tuple(self.figures)

    def _report(self, names: Sequence[str], console: Console) -> None:
        material = gather(self.runs or self.out)
        found = sections(names or every(material), material)
        name = "other runs" if self.runs else self.profile
        title = LANGUAGE_TITLE if material.language else CHAIN_TITLE if name == "chain" else TITLE
        path = write(found, material, self.out, self._command(), name, title)
        checks = [c for section in found for c in section.checks] if title == TITLE else []
        if not material.language:
            console.print(f"published beside ours: {tally(checks)}", soft_wrap=True, highlight=False)
        for c in checks:
            if c.verdict == DISAGREES:
                told = f"  disagrees: {c.published.statement} ({c.published.source}): {c.reason}"
                console.print(told, soft_wrap=True, highlight=False)
        for k, finding in enumerate(five([f for s in found for f in s.findings]), start=1):
            stance = f" [dim]({finding.stance})[/]" if title == TITLE and finding.stance else ""
            console.print(f"{k}. {finding.text}{stance}", soft_wrap=True, highlight=False)
        console.print(f"page: {path}", soft_wrap=True)

    def _command(self) -> str:
        """What makes the page again, wherever it is put."""
        source = f"--runs {self.runs.name}" if self.runs else f"--profile {self.profile}"
        return f"speclens reproduce {' '.join(self.figures) or 'all'} {source}"
