"""`speclens theory`: verify the claims of the mechanistic model, or ask them of trained runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.progress import Progress

from sims.pages.style import to_png
from sims.studies.theory.claims_page import print_table, section, write_claims
from sims.studies.theory.figures.claims import PICTURES, agreement
from sims.studies.theory.pool import ordered_map
from sims.system.errors import EngineError
from sims.system.machine import cores
from theory.claims import select
from theory.verify import Verdict, verify

# What the shell sees: a false claim is worse than one that could not be decided, and neither is a pass.
PASSED, FALSE, UNKNOWN, MISUSED = 0, 1, 3, 2
PAGE = Path("theory.html")


def run(
    claims: tuple[str, ...],
    profile: Literal["quick", "full"],
    out: Path | None,
    plot: bool,
    seed: int = 0,
    workers: int = 1,
    console: Console | None = None,
) -> int:
    """Verify, print the table, and write what was asked for.

    Args:
        claims: ids or families; empty for all.
        profile: ``"quick"`` (under a minute) or ``"full"`` (minutes).
        out: file or folder of theory.html; None writes no page.
        plot: also write one PNG a claim beside the page (or in the current folder).
        seed: of the drawn cases and of every simulation.
        workers: processes; the verdicts do not depend on their number.
        console: where the table goes; the terminal by default.

    Returns:
        0 when all claims are true, 1 when one is false, 3 when none is false but one is unknown, 2 for an
        unknown name.
    """
    # A pipe has no width of its own; 80 columns would break every number.
    console = console or (Console() if sys.stdout.isatty() else Console(width=160))
    try:
        chosen = select(*claims)
    except KeyError as error:
        print(f"speclens: {error.args[0]}", file=sys.stderr)
        return MISUSED
    with (
        ordered_map(min(workers, len(chosen))) as each,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        check = partial(verify, profile=profile, generator_seed=seed)
        verdicts = list(progress.track(each(check, chosen), len(chosen), description="verifying"))
        print_table(verdicts, console)
        if out is not None:
            sections = progress.track(each(section, verdicts), len(chosen), description="drawing")
            console.print(f"page: {write_claims(verdicts, sections, profile, seed, out)}", highlight=False)
    if plot:
        for path in _plots(verdicts, out):
            console.print(f"figure: {path}", highlight=False)
    states = {v.status for v in verdicts}
    return FALSE if "false" in states else UNKNOWN if "unknown" in states else PASSED


def _plots(verdicts: list[Verdict], out: Path | None) -> list[Path]:
    folder = Path() if out is None else out.parent if out.suffix == ".html" else out
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for v in verdicts:
        figures = {v.claim.id: agreement(v)} if v.results else {}
        if v.claim.id in PICTURES:
            figures[f"{v.claim.id}-law"] = PICTURES[v.claim.id]()
        for name, figure in figures.items():
            path = folder / f"{name}.png"
            to_png(figure, path)
            paths.append(path)
    return paths


def run_against(
    source: Path, claims: tuple[str, ...], out: Path | None, plot: bool, console: Console | None = None
) -> int:
    """Ask the claims of the runs below a folder, print the table, and write what was asked for.

    Args:
        source: a folder made by `speclens demo` or `speclens train`.
        claims: ids or families; empty for all.
        out: file or folder of theory-against.html; None writes no page.
        plot: also write one PNG an outcome beside the page (or in the current folder).
        console: where the table goes; the terminal by default.

    Returns:
        0 whatever the verdicts: a failing prediction is a finding. 2 for an unknown name.

    Raises:
        StoreError: no complete run there, or the page cannot be written.
        CheckpointError: a damaged checkpoint.
    """
    from sims.studies.theory.checkpoint_tables import gather
    from sims.studies.theory.page import print_outcomes, write_against
    from sims.studies.theory.questions import answer

    console = console or (Console() if sys.stdout.isatty() else Console(width=200))
    evidence = gather(source, console)
    outcomes = answer(evidence)
    chosen = [o for o in outcomes if not claims or any(_asked(o.claim, c) for c in claims)]
    if not chosen:
        known = ", ".join(dict.fromkeys(o.claim for o in outcomes))
        print(f"speclens: no question about {', '.join(claims)}; there are {known}", file=sys.stderr)
        return MISUSED
    print_outcomes(chosen, console)
    if out is not None:
        path = write_against(evidence, chosen, source, out)
        console.print(f"page: {path}", highlight=False, soft_wrap=True)
    if plot:
        folder = Path() if out is None else out.parent if out.suffix == ".html" else out
        for i, outcome in enumerate(chosen):
            if outcome.figure is not None:
                path = folder / f"against-{i:02d}-{outcome.claim.split()[0].rstrip(',')}.png"
                to_png(outcome.figure, path)
                console.print(f"figure: {path}", highlight=False, soft_wrap=True)
    return PASSED


def _asked(claim: str, name: str) -> bool:
    """Whether a question about "T6.order, T7.flatter" is about the family T7, or the claim T7.flatter."""
    return any(word == name or word.startswith(f"{name}.") for word in claim.replace(",", " ").split())


@dataclass(frozen=True)
class Theory:
    """Verify the claims of the mechanistic model and say which are true, false or undecided.

    With --against, ask them of trained runs instead and say which hold, fail or cannot be tested there
    (about half a second a checkpoint).

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
    """A folder of runs, made by `speclens demo` or `speclens train`, to ask the claims of."""
    profile: Literal["quick", "full"] = "quick"
    """quick: under a minute. full: many more cases and draws, minutes. Says nothing about --against."""
    out: Path | None = PAGE
    """The page to write: an .html file, or a folder that gets theory.html (theory-against.html with --against)."""
    plot: bool = False
    """Also write each claim's figures as PNG."""
    seed: int = 0
    """Seed of the drawn cases and of every simulation. Says nothing about --against, where nothing is drawn."""
    workers: int | None = None
    """Processes of one thread each; by default one a core. The verdicts do not depend on it."""

    def run(self) -> int:
        """Run it."""
        if self.against is not None:
            out = Path("theory-against.html") if self.out == PAGE else self.out
            return run_against(self.against, self.claims, out, self.plot)
        workers = cores() if self.workers is None else self.workers
        if workers < 1:
            raise EngineError(f"--workers is {workers}; it must be at least 1")
        return run(self.claims, self.profile, self.out, self.plot, self.seed, workers)
