"""`speclens reproduce`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sims.sweep.options import SweepOptions
from sims.system.given import given, refuse
from toymodel.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from sims.pages.answer import Answer


@dataclass(frozen=True)
class Reproduce:
    """Reproduce the paper's toy figures and compare with its published numbers.

    Trains the runs that are missing; a complete folder is only analysed. Writes reproduction.html and reproduction.md
    with findings, verdicts and figures into the folder, and figures (SVG, PNG) and tables (CSV) into its reproduction/.
    After an interruption, the same command continues.

    Figures: fig1a, fig3, fig4a, fig4b, fig7, fig9, fig11a, fig11b, fig18, layers, data, tables. From stored
    checkpoints: bands and sequence (concentration on many bands), seeds (how many a stage difference needs), robustness
    (which conclusions depend on the measurement). `layers` needs runs measured at several sites, `data` runs on several
    sets of data (task.seed).

    --runs takes language models too (`speclens train lm --measure`, `speclens measure --data`): they get a page of
    their own kind, without the toy's published numbers and without figures that need its probe bands.

    Profiles (--profile):

    - quick: a smaller model and task, 36 runs, minutes on two CPU cores; directions are compared, numbers are not.
    - chain: the later stages (value_mix … attn_scale) at that size, 33 runs: their losses, gains and taxonomy.
    - published: the published size (run A at its learning rates with 5 seeds, untied and muon also on 5 further data
      seeds, run B with its scan and 3 seeds); for a GPU.
    - extended: the same with 5 seeds and the full scan of 5 learning-rate factors around two scaling rules.

    The last two are trained in instalments: cell by cell in the order of their worth, for --hours at most. The same
    command continues, and the page is made of the runs that are complete. A cell is a stage and a batch size: untied:32
    of run A, untied:32:B of run B, untied:32:D on other data. --keep stores finished runs without checkpoints in a few
    megabytes; --runs makes the page from them.

    Examples:
        speclens reproduce all --dry-run
        speclens reproduce all
        speclens reproduce fig4b fig11b --out figures
        speclens reproduce all --profile chain --out chain
        speclens reproduce fig4a --profile published --device cuda
        speclens reproduce all --profile published --out published --dry-run
        speclens reproduce all --profile published --out published --cells untied:32 untied:128 --hours 1
        speclens reproduce all --profile published --out published --keep kept --hours 1
        speclens reproduce all --runs kept --out page
        speclens reproduce all --runs demo --out demo-figures
        speclens reproduce all --runs lm-runs --out lm-figures
    """

    figures: tyro.conf.Positional[tuple[str, ...]] = ("all",)
    """Names of figures, or all."""
    profile: str = "quick"
    """Which runs: quick, chain, published or extended."""
    out: Path = Path("reproduction")
    """Folder for the runs, the figures and the page."""
    cells: tuple[str, ...] = ()
    """Only these cells, in this order, such as untied:32 (run A), muon:64:B (run B) or untied:32:D (other data)."""
    hours: float | None = None
    """Train no longer than this (0: not at all): what is under way is stored, and the same command continues."""
    keep: Path | None = None
    """Small folder of finished runs, for git: its runs are not trained again, and those that end are added to it."""
    runs: Path | None = None
    """Train nothing: analyse the complete runs of this folder instead (made by any command), and write to --out."""
    dry_run: bool = False
    """Show the runs and what they cost, and stop."""
    options: Annotated[SweepOptions, tyro.conf.arg(name="")] = field(default_factory=SweepOptions)

    def __post_init__(self) -> None:
        if self.runs is not None:
            names = ("profile", "cells", "hours", "keep", "dry_run")
            refuse(given(self, names), "only for training; --runs trains nothing")
        if self.hours is not None and not 0 <= self.hours < math.inf:
            raise ConfigError(f"--hours is {self.hours}; it must be 0 (train nothing) or more")

    def run(self) -> int:
        """Train, analyse and write the page; return 0 when every run is complete, else 1."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.runs.store import run_folders
        from sims.studies.paper.study import PAGE
        from sims.studies.paper.terminal import report
        from sims.studies.study import check_names, figures, profiles
        from sims.system.files import check_folder

        check_names("figure", self.figures, (*figures(PAGE), "all"))
        check_names("--profile", (self.profile,), profiles(PAGE))
        if not self.dry_run:
            check_folder(self.out / "reproduction")
            if self.keep is not None:
                check_folder(self.keep)
        console = Console()
        names = () if "all" in self.figures else self.figures
        failed: Mapping[str, str] = {}
        with answering(self.options.json) as answer:
            if self.runs is None:
                from sims.studies.paper.profiles import profile

                names = names or profile(self.profile).figures
                failed = self._train(names, console, answer)
                if self.dry_run:
                    return 0
            if self.hours is not None and not (
                self.out.exists() and any(f.done for f in run_folders(self.out))
            ):
                console.print("no run is complete yet; the page is made of complete runs", soft_wrap=True)
                if answer is not None:
                    answer["failed"], answer["page"] = dict(failed), None
                return 1 if failed else 0
            kind = "other runs" if self.runs else self.profile
            report(self.runs or self.out, names, self.out, self._command(), kind, console, answer)
            if answer is not None:
                answer["failed"] = dict(failed)
        return 1 if failed else 0

    def _train(self, names: Sequence[str], console: Console, answer: Answer | None) -> Mapping[str, str]:
        """Train what the figures need and return {run id: error}; with --dry-run, show it only."""
        from sims.studies.paper.cells import chosen
        from sims.studies.paper.instalments import add_to, shares, show_cells, sweep_of, take_from, train
        from sims.studies.paper.profiles import profile
        from sims.sweep.show import show_failures, show_plan
        from sims.sweep.sweep_run import check_place
        from sims.training.toy_runner import chosen_device

        wanted, options = profile(self.profile), self.options
        known = wanted.cells(names)
        cells = {cell: known[cell] for cell in chosen(self.cells, known)}
        device = chosen_device(options.device, elsewhere=options.scheduler is not None)
        workers = options.processes(device)
        if self.dry_run:
            configs = wanted.configs(names)
            configs = [c for c in configs if any(c in own for own in cells.values())]
            if not wanted.instalments or answer is not None:
                show_plan(configs, device, workers, None, console, answer)
            if wanted.instalments:
                show_cells(shares(cells, self.out, self.keep), wanted, device, workers, console, answer)
            return {}
        if self.keep is not None:
            # Before runs are copied into a folder that does not take them.
            check_place(sweep_of(cells, wanted, options, device, self.out))
            take_from(self.keep, known, wanted, self.out, console)
        failed = train(cells, wanted, options, device, self.out, self.hours, console)
        show_failures(failed, console)
        if self.keep is not None:
            add_to(self.keep, known, wanted, self.out, console)
        return failed

    def _command(self) -> str:
        """Return the line that makes the page again, also after the folder was moved."""
        source = f"--runs {self.runs.name}" if self.runs else f"--profile {self.profile}"
        return f"speclens reproduce {' '.join(self.figures) or 'all'} {source}"
