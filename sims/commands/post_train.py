"""`speclens post-train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sims.sweep.options import LocalOptions
from sims.system.errors import QueryError
from sims.system.files import check_folder

SEEDS, MOST_SEEDS = 6, 1_000
STEPS, LR = 200, 1e-4
DEFAULT = "post-train"


@dataclass(frozen=True)
class PostTrain:
    """Ask what post-training does to the geometry of states and to answers, against plain training.

    Trains six seeds of a small transformer on modular walks, and goes on from the weights of each in four ways: more of
    the same sequences (plain), sequences of one band (SFT), pairs of a true and an impossible next token (DPO), rewards
    for possible continuations (RLVR). RankMe, α-ReQ, losses on rare bands, distinct continuations and pass@k are
    measured before and after, and published claims (arXiv 2509.23024) are set against the plain steps. A few minutes on
    two free CPU cores. After an interruption, the same command continues. With --runs no run is trained first.

    Examples:
        speclens post-train
        speclens post-train --dry-run
        speclens post-train --runs post-train --steps 400 --out longer
    """

    out: Path | None = None
    """Folder for the runs, with the page below it (post-train); with --runs that of the page alone (RUNS/page)."""
    runs: Path | None = None
    """A folder of toy runs on modular walks (one walk, no noise) with checkpoints to post-train instead."""
    seeds: int = SEEDS
    """Seeds of the runs. The rule needs four; with fewer every claim is not resolved."""
    steps: int = STEPS
    """Updates of each post-training."""
    lr: float = LR
    """Learning rate of each post-training, a seventh of that of the runs."""
    dry_run: bool = False
    """Show the runs and how long they take on this machine, and stop; nothing is written."""
    options: Annotated[LocalOptions, tyro.conf.arg(name="")] = field(default_factory=LocalOptions)

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise QueryError(f"--seeds is {self.seeds}; it is the number of seeds, 1 to {MOST_SEEDS:,}")
        if not 1 <= self.steps <= 1_000_000:
            raise QueryError(f"--steps is {self.steps}; it is a number of updates, 1 to 1,000,000")
        if not 0 < self.lr < 1:
            raise QueryError(f"--lr is {self.lr}; a learning rate is above 0 and below 1, such as {LR:g}")
        if self.runs is not None and (self.dry_run or self.seeds != SEEDS):
            raise QueryError(
                "--runs names runs that are there; leave out --seeds and --dry-run, which train them"
            )
        check_folder(self.out or self.runs or Path(DEFAULT))

    def run(self) -> int:
        """Train, post-train, print and write the page; return 0, or 1 where a run failed."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.studies.claims import claim_table, print_claims
        from sims.studies.post_train.answers import PostAnswers
        from sims.studies.post_train.measured import Item, Plan, post_data, settings_of
        from sims.studies.post_train.page import TITLE, write_post_train
        from sims.studies.post_train.preset import LABEL, base_configs, base_measurements
        from sims.studies.post_train.published import claims
        from sims.studies.stored import run_notes
        from sims.sweep.named_runs import show_named, train_named
        from sims.sweep.show import show_failures

        console, failed = Console(), {}
        out = self.out or (self.runs / "page" if self.runs else Path(DEFAULT))
        configs, measuring = base_configs(range(self.seeds)), base_measurements()

        def told(done: int, every: int, item: Item) -> None:
            console.print(
                f"{done} of {every}: {item.folder.name} {item.arm}", highlight=False, soft_wrap=True
            )

        with answering(self.options.json) as answer:
            if self.dry_run:
                show_named(configs, measuring, self.options, console, answer)
                return 0
            if self.runs is None:
                failed = train_named(configs, measuring, self.options, out, LABEL, console)
                show_failures(failed, console)
            runs, settings = self.runs or out, settings_of(self.steps, self.lr)
            workers = self.options.processes("cpu")
            answers = PostAnswers(post_data(runs, settings, Plan(), workers, told))
            notes = [*answers.data.notes, *run_notes(runs)]
            page = write_post_train(answers, runs, out if self.runs else out / "page", notes)
            found = list(claims(answers))
            if answer is None:
                print_claims(TITLE, found, console)
            else:
                answer |= {"claims": claim_table(found), "changes": answers.changes, "levels": answers.levels}
                answer |= {"notes": notes, "failed": failed, "page": page}
            for note in notes:
                console.print(f"[yellow]note:[/] {note}", highlight=False, soft_wrap=True)
            console.print(f"page: {page}", highlight=False, soft_wrap=True)
        return 1 if failed else 0
