"""`speclens rates`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sims.sweep.options import LocalOptions
from sims.system.errors import QueryError
from sims.system.files import check_folder, page_folder
from sims.system.given import check_seeds, given

if TYPE_CHECKING:
    from toymodel.config import RunConfig

SEEDS = 5
SHUFFLES, MOST_SHUFFLES = 10, 1_000
MOST_STEPS = 1_000_000
DEFAULT = "rates"
# Options about training.
TRAINING = ("profile", "stage", "seeds", "steps", "shuffles", "shuffled", "dry_run")


@dataclass(frozen=True)
class Rates:
    """Ask whether a learning rate for each matrix, by the spectrum of its weights, lowers the loss.

    Trains a small transformer with one rate and with multipliers by Hill's exponent (alpha), by FARMS, by depth, by
    FARMS reversed, and by ten shuffles of FARMS, each at three base rates for five seeds: 225 runs, ten minutes on two
    free CPU cores. Each arm is compared with one rate at its own best base rate, paired over seeds, and a score is
    credited with what it saves only if it beats its shuffles. After an interruption, the same command continues. With
    RUNS nothing is trained: arms, base rates and seeds are those of the runs there.

    Examples:
        speclens rates
        speclens rates --dry-run
        speclens rates --stage rope muon --out rates-of-two
        speclens rates rates lm-runs
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of runs to ask instead: toys or language models, trained with and without `--rates`."""
    out: Path | None = None
    """Folder for the runs and, below it, for the page; by default rates. With RUNS that of the page alone, by default
    RUNS/page of the first."""
    profile: Literal["quick", "full"] = "quick"
    """Size of the runs: quick (300 steps of 16 sequences), full (500 steps of 64 longer ones: ten times the work)."""
    stage: tuple[Literal["rope", "muon", "untied"], ...] = ("rope",)
    """Stages: rope (AdamW), muon, untied (Muon with a separate head)."""
    seeds: int = SEEDS
    """Seeds of every arm and base rate. The rule needs five; with fewer every claim on the loss is not resolved."""
    steps: int | None = None
    """Steps of every run; by default those of the profile."""
    shuffles: int = SHUFFLES
    """Shuffles of each score. The rule needs ten; with fewer nothing is credited."""
    shuffled: tuple[Literal["alpha", "farms"], ...] = ("farms",)
    """Scores that are shuffled; one that is not is credited with nothing."""
    dry_run: bool = False
    """Show the runs and how long they take on this machine, and stop; nothing is written."""
    options: Annotated[LocalOptions, tyro.conf.arg(name="")] = field(default_factory=LocalOptions)

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        if not 0 <= self.shuffles <= MOST_SHUFFLES:
            raise QueryError(
                f"--shuffles is {self.shuffles}; it is a number of draws, 0 to {MOST_SHUFFLES:,}"
            )
        if self.steps is not None and not 1 <= self.steps <= MOST_STEPS:
            raise QueryError(f"--steps is {self.steps}; it is a number of updates, 1 to {MOST_STEPS:,}")
        if not self.stage or len(set(self.stage)) < len(self.stage):
            raise QueryError(
                f"--stage is {' '.join(self.stage) or 'empty'}; name each stage once, such as rope muon"
            )
        if len(set(self.shuffled)) < len(self.shuffled):
            raise QueryError(f"--shuffled is {' '.join(self.shuffled)}; name each score once")
        if self.runs and (training := given(self, TRAINING)):
            raise QueryError(
                f"RUNS exist already; leave out {', '.join(training)}, which is about training them"
            )
        check_folder(self._page)

    @property
    def _page(self) -> Path:
        return page_folder(self.out, next(iter(self.runs), None), Path(DEFAULT))

    def run(self) -> int:
        """Train, read, print and write the page; return 0, or 1 where a run failed."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.pages.terminal import print_notes, print_place, rich_table
        from sims.studies.claims import claim_table
        from sims.studies.rates.answers import RatesAnswers
        from sims.studies.rates.measured import rates_data
        from sims.studies.rates.page import TITLE, TONES, lead, write_rates
        from sims.studies.rates.preset import label, rates_measurements
        from sims.studies.rates.published import claims
        from sims.studies.rates.sections import summary_table
        from sims.sweep.named_runs import show_named, train_named
        from sims.sweep.show import show_failures

        console, failed = Console(), {}
        out = self.out or Path(DEFAULT)
        with answering(self.options.json) as answer:
            if not self.runs:
                configs = self._configs()
                measuring = rates_measurements(self.profile, self.steps)
                if self.dry_run:
                    show_named(configs, measuring, self.options, console, answer)
                    return 0
                purpose = label(self.profile, self.steps)
                failed = train_named(configs, measuring, self.options, out, purpose, console)
                show_failures(failed, console)
            runs = self.runs or (out,)
            answers = RatesAnswers(rates_data(runs))
            notes = list(answers.data.notes)
            written = write_rates(answers, runs, self._page, notes)
            if answer is None:
                console.print(rich_table(TITLE, summary_table(answers, notes=False), TONES))
                console.print(lead(answers), highlight=False)
            else:
                answer |= {
                    "claims": claim_table(list(claims(answers))),
                    "summary": answers.summary,
                    "shuffles": answers.shuffles,
                    "controls": answers.controls,
                    "spreads": answers.changes,
                    "missing": answers.missing,
                    "failed": failed,
                    "notes": notes,
                    "page": written,
                }
            print_notes(notes, console)
            print_place(written, console)
        return 1 if failed else 0

    def _configs(self) -> list[RunConfig]:
        from sims.studies.rates.preset import rates_configs

        return rates_configs(
            self.stage,
            range(self.seeds),
            profile=self.profile,
            steps=self.steps,
            shuffles=self.shuffles,
            shuffled=self.shuffled,
        )
