"""`speclens reproduce`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sims.sweep.options import SweepOptions
from sims.system.errors import QueryError
from sims.system.given import given, refuse

if TYPE_CHECKING:
    from rich.console import Console

    from sims.pages.answer import Answer


@dataclass(frozen=True)
class Reproduce:
    """Reproduce the paper's toy figures and compare with its published numbers.

    Trains the runs that are missing; a complete folder is only analysed. Writes reproduction.html and reproduction.md
    with findings, verdicts and figures into the folder, and figures (SVG, PNG) and tables (CSV) into its reproduction/.
    After an interruption, the same command continues.

    Figures: fig1a, fig3, fig4a, fig4b, fig7, fig9, fig11a, fig11b, fig18, layers, tables. From stored checkpoints:
    bands and sequence (concentration on many bands), seeds (how many a stage difference needs), robustness (which
    conclusions depend on the measurement). `layers` needs runs measured at several sites.

    --runs takes language models too (`speclens train lm --measure`, `speclens measure --data`): they get a page of
    their own kind, without the toy's published numbers and without figures that need its probe bands.

    Profiles (--profile):

    - quick: a smaller model and task, 36 runs, minutes on two CPU cores; directions are compared, numbers are not.
    - chain: the later stages (value_mix … attn_scale) at that size, 33 runs: their losses, gains and taxonomy.
    - published: the published size, 3 seeds (run A at its learning rates, run B with its scan); for a GPU.
    - extended: the same with 5 seeds and the full scan of 5 learning-rate factors around two scaling rules.

    Examples:
        speclens reproduce all --dry-run
        speclens reproduce all
        speclens reproduce fig4b fig11b --out figures
        speclens reproduce all --profile chain --out chain
        speclens reproduce fig4a --profile published --device cuda
        speclens reproduce all --runs demo --out demo-figures
        speclens reproduce all --runs lm-runs --out lm-figures
    """

    figures: tyro.conf.Positional[tuple[str, ...]] = ("all",)
    """Names of figures, or all."""
    profile: str = "quick"
    """Which runs: quick, chain, published or extended."""
    out: Path = Path("reproduction")
    """Folder for the runs, the figures and the page."""
    runs: Path | None = None
    """Train nothing: analyse the complete runs of this folder instead (made by any command), and write to --out."""
    dry_run: bool = False
    """Show the runs and what they cost, and stop."""
    options: Annotated[SweepOptions, tyro.conf.arg(name="")] = field(default_factory=SweepOptions)

    def __post_init__(self) -> None:
        if self.runs is not None:
            refuse(given(self, ("profile", "dry_run")), "only for training; --runs trains nothing")

    def run(self) -> int:
        """Train, analyse and write the page; return 0 when every run is complete, else 1."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.studies.paper.study import PAGE
        from sims.studies.paper.terminal import report
        from sims.studies.study import figures, profiles

        _check("figure", self.figures, (*figures(PAGE), "all"))
        _check("--profile", (self.profile,), profiles(PAGE))
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
            kind = "other runs" if self.runs else self.profile
            report(self.runs or self.out, names, self.out, self._command(), kind, console, answer)
            if answer is not None:
                answer["failed"] = dict(failed)
        return 1 if failed else 0

    def _train(self, names: Sequence[str], console: Console, answer: Answer | None) -> Mapping[str, str]:
        """Train what the figures need and return {run id: error}; with --dry-run, show it only."""
        from sims.studies.paper.profiles import profile
        from sims.sweep.show import show_failures, show_plan
        from sims.sweep.sweep_run import SweepRun, run_all
        from sims.training.toy_runner import chosen_device

        chosen, options = profile(self.profile), self.options
        configs = chosen.configs(names)
        device = chosen_device(options.device, elsewhere=options.scheduler is not None)
        workers = options.processes(device)
        if self.dry_run:
            show_plan(configs, device, workers, None, console, answer)
            return {}
        sweep = SweepRun(
            configs,
            options.work(chosen.measuring, device),
            self.out,
            {"campaign": "reproduce", "profile": self.profile},
            workers,
            options.scheduler,
            retry_failed=options.retry_failed,
        )
        failed = run_all(sweep, console)
        show_failures(failed, console)
        return failed

    def _command(self) -> str:
        """Return the line that makes the page again, also after the folder was moved."""
        source = f"--runs {self.runs.name}" if self.runs else f"--profile {self.profile}"
        return f"speclens reproduce {' '.join(self.figures) or 'all'} {source}"


def _check(what: str, given: Sequence[str], known: Sequence[str] | Mapping[str, object]) -> None:
    """Raise QueryError for a name that the registry of studies does not have."""
    for name in given:
        if name not in known:
            raise QueryError(f"{what} {name!r} does not exist; choose from {', '.join(known)}")
