"""`speclens post-train`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sims.studies.post_train.orders import LEAST_ORDER, MOST_ORDER
from sims.sweep.options import LocalOptions
from sims.system.errors import QueryError
from sims.system.files import check_folder, page_folder
from sims.system.given import check_seeds, given, refuse

if TYPE_CHECKING:
    from rich.console import Console

    from sims.pages.answer import Answer
    from sims.studies.post_train.measured import Item

SEEDS = 6
STEPS = 200
ORDER = 3
DEFAULT = "post-train"


@dataclass(frozen=True)
class PostTrain:
    """Ask what post-training does to the geometry of states and to answers, against plain training.

    Trains six seeds of a small transformer on modular walks, and goes on from the weights of each in four ways: more of
    the same sequences (plain), sequences of one band (SFT), pairs of a true and an impossible next token (DPO), rewards
    for possible continuations (RLVR). RankMe, α-ReQ, losses on rare bands, distinct continuations and pass@k are
    measured before and after, and published claims (arXiv 2509.23024) are set against the plain steps. A few minutes on
    two free CPU cores. After an interruption, the same command continues. With --runs no run is trained first.

    Language models go on on the shards that they were trained on (--data): SFT has documents of one kind, DPO next
    tokens that never follow the two before them in the training text, and a continuation is right if all its 3-grams
    occur in that text. On a CPU, in float32.

    Examples:
        speclens post-train
        speclens post-train --dry-run
        speclens post-train --runs post-train --steps 400 --out longer
        speclens post-train --runs lm --data shards
        speclens post-train --runs lm --data shards --narrow poems --order 4 --out poems-page
    """

    out: Path | None = None
    """Folder for the runs, with the page below it (post-train); with --runs that of the page alone (RUNS/page)."""
    runs: Path | None = None
    """A folder of runs with checkpoints to post-train instead: of toys on modular walks (one walk, no noise), or of
    language models."""
    data: Path | None = None
    """Language models: folder of the token shards that they were trained on."""
    narrow: Path | None = None
    """Language models: folder of shards of narrow text for SFT; by default documents of one kind from DATA."""
    order: int = ORDER
    """Language models: n; a continuation is right if all its n-grams occur in the training text."""
    seeds: int = SEEDS
    """Seeds of the runs. The rule needs four; with fewer every claim is not resolved."""
    steps: int = STEPS
    """Updates of each post-training."""
    lr: float | None = None
    """Learning rate of each post-training; by default 1e-4, a seventh of that of the runs; of language models a
    tenth of that of the runs."""
    dry_run: bool = False
    """Show the runs, or those of --runs, and how long they take on this machine, and stop; nothing is written."""
    options: Annotated[LocalOptions, tyro.conf.arg(name="")] = field(default_factory=LocalOptions)

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        if not 1 <= self.steps <= 1_000_000:
            raise QueryError(f"--steps is {self.steps}; it is a number of updates, 1 to 1,000,000")
        if self.lr is not None and not 0 < self.lr < 1:
            raise QueryError(f"--lr is {self.lr}; a learning rate is above 0 and below 1, such as 0.0001")
        if self.lr is not None:
            from toymodel.posttrain.config import PostTraining

            # Refuses what float32 does not hold, before runs are trained.
            PostTraining("plain", lr=self.lr)
        if not LEAST_ORDER <= self.order <= MOST_ORDER:
            raise QueryError(
                f"--order is {self.order}; n-grams of {LEAST_ORDER} to {MOST_ORDER} tokens are looked up"
            )
        if self.runs is not None and self.seeds != SEEDS:
            raise QueryError("--runs names existing runs; leave out --seeds, which trains them")
        if self.runs is None and self.data is not None:
            raise QueryError("--data is the text of language models; name their folder by --runs")
        if self.data is None:
            refuse(given(self, ("narrow", "order")), "only for language models; name their text with --data")
        check_folder(self._page)

    @property
    def _page(self) -> Path:
        return page_folder(self.out, self.runs, Path(DEFAULT))

    def run(self) -> int:
        """Train, post-train, print and write the page; return 0, or 1 where a run failed."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.pages.terminal import print_notes, print_place
        from sims.studies.claims import claim_table, print_claims
        from sims.studies.post_train.answers import PostAnswers
        from sims.studies.post_train.measured import all_items, post_data
        from sims.studies.post_train.page import TITLE, write_post_train
        from sims.studies.post_train.preset import LABEL, base_configs, base_measurements
        from sims.studies.post_train.published import claims
        from sims.studies.stored import run_notes
        from sims.sweep.named_runs import show_named, train_named
        from sims.sweep.show import show_failures
        from sims.training.post_training import TextOptions

        console, failed = Console(), {}
        out = self.out or Path(DEFAULT)
        configs, measuring = base_configs(range(self.seeds)), base_measurements()
        text = None if self.data is None else TextOptions(self.data, self.narrow, self.order)

        def told(done: int, every: int, item: Item) -> None:
            line = f"{done} of {every}: {item.folder.name} {item.arm}"
            console.print(line, highlight=False, soft_wrap=True, markup=False)

        with answering(self.options.json) as answer:
            if self.dry_run and self.runs is None:
                show_named(configs, measuring, self.options, console, answer)
                return 0
            if self.runs is None:
                failed = train_named(configs, measuring, self.options, out, LABEL, console)
                show_failures(failed, console)
            runs, workers = self.runs or out, self.options.processes("cpu")
            left_out: list[str] = []
            items, settings = all_items(runs, self.steps, self.lr, text, left_out)
            if self.dry_run:
                self._show_time(items, left_out, workers, console, answer)
                return 0
            answers = PostAnswers(post_data(items, settings, left_out, workers, told))
            notes = [*answers.data.notes, *run_notes(runs)]
            page = write_post_train(answers, runs, self._page, notes)
            found = list(claims(answers))
            if answer is None:
                print_claims(TITLE, found, console)
            else:
                answer |= {"claims": claim_table(found), "changes": answers.changes, "levels": answers.levels}
                answer |= {"signals": {run: asdict(own) for run, own in answers.data.signals.items()}}
                answer |= {"notes": notes, "failed": failed, "page": page}
            print_notes(notes, console)
            print_place(page, console)
        return 1 if failed else 0

    def _show_time(
        self, items: list[Item], notes: list[str], workers: int, console: Console, answer: Answer | None
    ) -> None:
        """Print how long post-training of existing runs takes; nothing is written."""
        from sims.pages.number import counted
        from sims.pages.terminal import print_notes
        from sims.studies.post_train.measured import seconds_of
        from sims.sweep.progress import duration

        names = list(dict.fromkeys(item.folder.name for item in items))
        seconds = seconds_of(items) / min(workers, len(items))
        if answer is not None:
            answer |= {"runs": names, "workers": workers, "seconds": seconds, "notes": notes}
        console.print(
            f"{counted(len(names), 'run')}, each measured before and after {counted(self.steps, 'update')} of four "
            f"kinds: about {duration(seconds)} on {counted(workers, 'worker')} of this machine as it is now (timed "
            "just now), less for what is stored already",
            soft_wrap=True,
            highlight=False,
        )
        print_notes(notes, console)
