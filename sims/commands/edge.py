"""`speclens edge`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sims.sweep.options import LocalOptions
from sims.system.errors import QueryError
from sims.system.files import check_folder, page_folder
from sims.system.given import check_seeds, given

SEEDS = 4
DEFAULT, FULL = "edge", "edge-full"


@dataclass(frozen=True)
class Edge:
    """Ask whether windows of parameter updates have a spectral edge beyond noise, as was published.

    Trains four seeds of AdamW at two widths and of Muon, with windows of updates at every snapshot, and puts each
    published claim (arXiv 2603.15678) to a test with a null: the edge itself, k* by size, three phases, the lag that
    turns with the window, the error of sketches. About six minutes on two free CPU cores. After an interruption, the
    same command continues. With --runs nothing is trained.

    Profiles (--profile):

    - quick: small transformers on modular walks, 12 runs.
    - full: language models of 51 and 124 million parameters, 8 runs on --data; for a GPU.

    Examples:
        speclens edge
        speclens edge --dry-run
        speclens edge --profile full --dry-run
        speclens edge --profile full --data fineweb
        speclens edge --runs edge
    """

    out: Path | None = None
    """Folder for the runs and, below it, for the page; by default edge, or edge-full. With --runs that of the page
    alone, by default RUNS/page."""
    profile: Literal["quick", "full"] = "quick"
    """Which runs: quick, or full (a GPU's)."""
    data: Path | None = None
    """Folder of the token shards that --profile full trains on (`speclens data`)."""
    runs: Path | None = None
    """A folder of runs with windows of updates to ask instead, toy or language models (`--measure.updates`)."""
    seeds: int = SEEDS
    """Seeds of each setting: three, or the two sizes of --profile full. Most rules need four; with fewer these claims
    are not resolved."""
    group: str | None = None
    """Parameters whose windows are asked: trunk, all, attention, embedding, adamw or muon; by default the first of
    trunk, all, attention, muon, adamw and embedding that all runs have."""
    dry_run: bool = False
    """Show the runs and how long they take on this machine, and stop; nothing is written."""
    options: Annotated[LocalOptions, tyro.conf.arg(name="")] = field(default_factory=LocalOptions)

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        if self.runs is not None and (found := given(self, ("seeds", "dry_run", "profile", "data"))):
            raise QueryError(f"--runs names existing runs; leave out {', '.join(found)}: about training")
        if self.data is not None and self.profile == "quick":
            raise QueryError("--data is text for language models; add --profile full, or leave it out")
        check_folder(self._page)

    @property
    def _default(self) -> Path:
        return Path(FULL if self.profile == "full" else DEFAULT)

    @property
    def _page(self) -> Path:
        return page_folder(self.out, self.runs, self._default)

    def run(self) -> int:
        """Train, read, print and write the page; return 0, or 1 where a run failed."""
        from rich.console import Console

        from sims.pages.answer import answering
        from sims.pages.terminal import print_notes, print_place
        from sims.studies.claims import claim_table, print_claims
        from sims.studies.edge.answers import EdgeAnswers
        from sims.studies.edge.measured import edge_data
        from sims.studies.edge.page import TITLE, write_edge
        from sims.studies.edge.published import claims
        from sims.studies.edge.study import PAGE
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
            if self.runs is None:
                failed = profile.train(seeds, self.data, self.options, out, console)
                show_failures(failed, console)
            runs = self.runs or out
            answers, notes = EdgeAnswers(edge_data(runs, self.group)), run_notes(runs)
            page = write_edge(answers, runs, self._page, notes)
            found = list(claims(answers))
            if answer is None:
                print_claims(TITLE, found, console)
            else:
                answer |= {"claims": claim_table(found), "shares": answers.shares, "lags": answers.lags}
                answer |= {"notes": [*answers.data.notes, *notes], "failed": failed, "page": page}
            print_notes([*answers.data.notes, *notes], console)
            print_place(page, console)
        return 1 if failed else 0
