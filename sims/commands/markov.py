"""`speclens markov`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sims.sweep.options import LocalOptions
from sims.system.errors import QueryError
from sims.system.files import check_folder, page_folder
from sims.system.given import check_seeds

SEEDS = 5
MOST_CONTEXTS = 10**6
DEFAULT = "markov"


@dataclass(frozen=True)
class Markov:
    """Ask whether states learn the predictive operator of the task, whose law is known exactly.

    Trains five seeds of the four stages and measures the stored checkpoints: entropies of predictions against the
    exact law, how much of it the states hold, and in which order its eigenfunctions are learned (arXiv 2507.19247).
    About fifteen minutes on two free CPU cores. After an interruption, the same command continues. With --runs nothing
    is trained.

    Examples:
        speclens markov
        speclens markov --dry-run
        speclens markov --runs demo
    """

    out: Path | None = None
    """Folder for the runs and, below it, for the page; by default markov. With --runs that of the page alone, by
    default RUNS/markov."""
    runs: Path | None = None
    """A folder of runs with checkpoints to measure instead: of `speclens demo`, `train` or `sweep`."""
    seeds: int = SEEDS
    """Seeds of each stage. Intervals are over seeds: with fewer than five little is decided."""
    contexts: int = 2_048
    """Sequences outside training on which models are compared with the law."""
    batch_size: int | None = None
    """Measure the runs of this batch size; by default the smallest."""
    dry_run: bool = False
    """Show the runs and how long they take on this machine, and stop; nothing is written."""
    options: Annotated[LocalOptions, tyro.conf.arg(name="")] = field(default_factory=LocalOptions)

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        if not 1 <= self.contexts <= MOST_CONTEXTS:
            raise QueryError(f"--contexts is {self.contexts}; it must lie in 1 … {MOST_CONTEXTS:,}")
        if self.runs is not None and (self.dry_run or self.seeds != SEEDS):
            raise QueryError("--runs names existing runs; leave out --seeds and --dry-run, which train them")
        check_folder(self._page)

    @property
    def _page(self) -> Path:
        return page_folder(self.out, self.runs, Path(DEFAULT), DEFAULT)

    def run(self) -> int:
        """Train, measure, print and write the page; return 0, or 1 where a run failed."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.pages.terminal import print_notes, print_place
        from sims.studies.markov.measured import MarkovPlan, measure_runs
        from sims.studies.markov.page import print_answers, write_markov
        from sims.studies.markov.preset import LABEL, markov_configs, markov_measurements
        from sims.studies.markov.questions import Evidence, answers
        from sims.studies.markov.sections import MarkovData
        from sims.studies.stored import run_notes
        from sims.sweep.named_runs import show_named, train_named
        from sims.sweep.show import show_failures

        console, failed = Console(), {}
        out = self.out or Path(DEFAULT)
        configs, measuring = markov_configs(range(self.seeds)), markov_measurements()
        with answering(self.options.json) as answer:
            if self.dry_run:
                show_named(configs, measuring, self.options, console, answer)
                return 0
            if self.runs is None:
                failed = train_named(configs, measuring, self.options, out, LABEL, console)
                show_failures(failed, console)
            runs = self.runs or out
            tables = measure_runs(runs, MarkovPlan(self.contexts, self.batch_size), console)
            data, notes = MarkovData(Evidence(tables), answers(tables)), run_notes(runs)
            page = write_markov(data, runs, self._page, notes)
            if answer is None:
                print_answers(data.answers, console)
            else:
                answer |= {"answers": data.answers, "notes": notes, "failed": failed, "page": page}
            print_notes(notes, console)
            print_place(page, console)
        return 1 if failed else 0
