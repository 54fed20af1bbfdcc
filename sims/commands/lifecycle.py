"""`speclens lifecycle`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sims.sweep.options import LocalOptions
from sims.system.errors import QueryError
from sims.system.files import check_folder, page_folder
from sims.system.given import check_seeds, given

SEEDS = 3
DEFAULT, FULL = "lifecycle", "lifecycle-full"


@dataclass(frozen=True)
class Lifecycle:
    """Ask how the spectra of weights develop over training and depth, and which blocks a model can lose.

    Trains three seeds of transformers of 4 to 12 blocks, with the singular values of every weight matrix every 25
    steps, and puts six published claims (arXiv 2604.22778) to a test with a null: waves of compression, lasting
    gradients over depth, Q and K against V and O, two timescales, the growth of spread with depth, and spectra as a
    guide to the removal of blocks. After an interruption, the same command continues. With RUNS nothing is trained.

    Profiles (--profile):

    - quick: small transformers on modular walks, 18 runs, minutes on two CPU cores.
    - full: language models of 51 to 314 million parameters, two schedules, 18 runs on --data; for a GPU.

    Examples:
        speclens lifecycle
        speclens lifecycle --dry-run
        speclens lifecycle --profile full --dry-run
        speclens lifecycle --profile full --data fineweb
        speclens lifecycle lifecycle
        speclens lifecycle lm-runs --data shards
        speclens lifecycle pythia-160m --out pythia-page
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of runs with exponents of weights over training (`--measure.tails`), or folders of checkpoints of one
    training run each (named step<N>, as those of Pythia), to ask instead."""
    out: Path | None = None
    """Folder for the runs and, below it, for the page; by default lifecycle, or lifecycle-full. With RUNS that of the
    page alone, by default RUNS/page of the first."""
    profile: Literal["quick", "full"] = "quick"
    """Which runs: quick, or full (a GPU's)."""
    seeds: int = SEEDS
    """Seeds of each setting, six of either profile. Most rules need three; with fewer these claims are not resolved."""
    data: Path | None = None
    """Folder of the token shards of language models, on whose validation part blocks are removed; --profile full trains
    on them."""
    removal: bool = True
    """Remove blocks of the last stored models and measure the loss, with every set of up to half of the blocks."""
    dry_run: bool = False
    """Show the runs and how long they take on this machine, and stop; nothing is written."""
    options: Annotated[LocalOptions, tyro.conf.arg(name="")] = field(default_factory=LocalOptions)

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        if self.runs and given(self, ("seeds", "dry_run", "profile")):
            raise QueryError(
                "RUNS exist already; leave out --profile, --seeds and --dry-run, which are about training them"
            )
        check_folder(self._page)

    @property
    def _default(self) -> Path:
        return Path(FULL if self.profile == "full" else DEFAULT)

    @property
    def _page(self) -> Path:
        return page_folder(self.out, next(iter(self.runs), None), self._default)

    def run(self) -> int:
        """Train, read, print and write the page; return 0, or 1 where a run failed."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.pages.terminal import print_notes, print_place
        from sims.studies.claims import claim_table, print_claims
        from sims.studies.lifecycle.answers import LifeAnswers
        from sims.studies.lifecycle.measured import lifecycle_data
        from sims.studies.lifecycle.page import TITLE, write_lifecycle
        from sims.studies.lifecycle.published import claims
        from sims.studies.lifecycle.removal import removals
        from sims.studies.lifecycle.sources import runs_in, sources
        from sims.studies.lifecycle.study import PAGE
        from sims.studies.stored import run_notes
        from sims.studies.study import profiles
        from sims.sweep.show import show_failures

        console, failed = Console(), {}
        out = self.out or self._default
        profile, seeds = profiles(PAGE)[self.profile](), range(self.seeds)
        with answering(self.options.json) as answer:
            if self.dry_run:
                profile.show(seeds, self.data, self.options, console, answer)
                return 0
            if not self.runs:
                failed = profile.train(seeds, self.data, self.options, out, console)
                show_failures(failed, console)
            runs, page = self.runs or (out,), self._page
            data = lifecycle_data(sources(runs, page, console), ", ".join(map(str, runs)))
            removed = removals(data, console, self.data) if self.removal else None
            answers = LifeAnswers(data, removed if removed and removed.models else None)
            notes = [
                *data.notes,
                *(removed.notes if removed else ()),
                *(note for p in runs if runs_in(p) for note in run_notes(p)),
            ]
            written = write_lifecycle(answers, runs, page, notes)
            found = list(claims(answers))
            if answer is None:
                print_claims(TITLE, found, console)
            else:
                answer |= {"claims": claim_table(found), "notes": notes, "failed": failed, "page": written}
            print_notes(notes, console)
            print_place(written, console)
        return 1 if failed else 0
