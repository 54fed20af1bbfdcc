"""`speclens theory`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from sims.sweep.options import check_workers
from sims.system.command_options import ConfigFile
from sims.system.errors import EngineError
from sims.system.files import check_folder, check_page
from sims.system.given import given, refuse

PAGE = Path("theory.html")


@dataclass(frozen=True)
class Theory:
    """Verify the claims of the mechanistic model, or test them on trained runs.

    Every claim is true, false or undecided. With --against, claims are tested on trained runs instead: they hold,
    fail or cannot be tested there (about half a second per checkpoint).

    Exit status: 0 all true, 1 a claim is false, 3 a claim is undecided, 2 a name is unknown. With --against: 0
    whenever the analysis ran (a failing prediction is a finding), 2 for bad input.

    Examples:
        speclens theory
        speclens theory T8 --plot
        speclens theory T6.law T9 --profile full --out report
        speclens theory --against demo
    """

    claims: tyro.conf.Positional[tuple[str, ...]] = ()
    """Claim ids (T8.boundary) or families (T8); all when none is given."""
    against: Path | None = None
    """A folder of runs, made by `speclens demo` or `speclens train`, to test the claims on."""
    profile: Literal["quick", "full"] = "quick"
    """quick: under a minute. full: many more cases and draws, minutes. Not used with --against."""
    out: Path | None = PAGE
    """The page to write: an .html file, or a folder that gets theory.html (theory-against.html with --against)."""
    plot: bool = False
    """Also write each claim's figures as PNG."""
    seed: int = 0
    """Seed of the drawn cases and of every simulation. Not used with --against, where nothing is drawn."""
    workers: int | None = None
    """Processes of one thread each; by default one per core. Verdicts do not depend on it. Not used with --against."""
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""
    config: ConfigFile = None

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if self.seed < 0:
            raise EngineError(f"--seed is {self.seed}; it must be 0 or positive")
        if self.against is not None:
            refuse(given(self, ("profile", "seed")), "not used with --against, where nothing is drawn")
            refuse(given(self, ("workers",)), "not used with --against, which works in one process")
        if self.out is not None:
            (check_page if self.out.suffix == ".html" else check_folder)(self.out)

    def run(self) -> int:
        """Verify or test, and return the exit status."""
        from sims.pages.answer import answering
        from sims.studies.theory.verification import run, run_against
        from sims.system.machine import cores

        with answering(self.json) as answer:
            if self.against is not None:
                out = Path("theory-against.html") if self.out == PAGE else self.out
                return run_against(self.against, self.claims, out, self.plot, answer=answer)
            workers = self.workers or cores()
            return run(self.claims, self.profile, self.out, self.plot, self.seed, workers, answer=answer)
