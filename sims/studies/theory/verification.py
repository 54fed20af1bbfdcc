"""Verification of the claims, and their test on trained runs, with the results in the terminal."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress

from sims.pages.answer import Answer
from sims.pages.style import to_png
from sims.pages.terminal import print_notes, print_place
from sims.studies.theory.claims_page import print_table, record, section, write_claims
from sims.studies.theory.figures.claims import PICTURES, agreement
from sims.system.files import make_folder, write_atomic
from sims.system.plain import without_long_words
from sims.system.pool import ordered_map
from theory.claims import select
from theory.predictions import PREDICTIONS
from theory.verification import Verdict, verify

# Exit statuses: a false claim is worse than an undecided one, and neither is a pass.
PASSED, FALSE, UNKNOWN, MISUSED = 0, 1, 3, 2


def run(
    claims: tuple[str, ...],
    profile: Literal["quick", "full"],
    out: Path | None,
    plot: bool,
    seed: int = 0,
    workers: int = 1,
    console: Console | None = None,
    answer: Answer | None = None,
) -> int:
    """Verify claims, print the table, and write the page and the figures.

    Args:
        claims: ids or families; empty for all.
        profile: ``"quick"`` (under a minute) or ``"full"`` (minutes).
        out: file or folder of theory.html; None writes no page.
        plot: also write one PNG a claim beside the page (or in the current folder).
        seed: of the drawn cases and of every simulation.
        workers: processes; the verdicts do not depend on their number.
        console: where the table goes; the terminal by default.
        answer: gets the table of claims, in place of the console.

    Returns:
        0 when all claims are true, 1 when one is false, 3 when none is false but one is unknown, 2 for an
        unknown name.
    """
    # A pipe has no width of its own; 80 columns would break every number.
    console = console or (Console() if sys.stdout.isatty() else Console(width=160))
    try:
        chosen = select(*claims)
    except KeyError as error:
        print(f"speclens: {without_long_words(error.args[0])}", file=sys.stderr)
        return MISUSED
    with (
        ordered_map(min(workers, len(chosen)), ["sims.studies.theory.claims_page"]) as each,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        check = partial(verify, profile=profile, generator_seed=seed)
        verdicts = list(progress.track(each(check, chosen), len(chosen), description="verifying"))
        if answer is None:
            print_table(verdicts, console)
        else:
            answer |= {"profile": profile, "seed": seed, "claims": [record(v) for v in verdicts]}
        if out is not None:
            sections = progress.track(each(section, verdicts), len(chosen), description="drawing")
            print_place(write_claims(verdicts, sections, profile, seed, out), console)
    if plot:
        for path in _plots(verdicts, out):
            console.print(f"figure: {path}", highlight=False, soft_wrap=True, markup=False)
    states = {v.status for v in verdicts}
    return FALSE if "false" in states else UNKNOWN if "unknown" in states else PASSED


def _plots(verdicts: list[Verdict], out: Path | None) -> list[Path]:
    folder = Path() if out is None else out.parent if out.suffix == ".html" else out
    make_folder(folder)
    paths = []
    for v in verdicts:
        figures = {v.claim.id: agreement(v)} if v.results else {}
        if v.claim.id in PICTURES:
            figures[f"{v.claim.id}-law"] = PICTURES[v.claim.id]()
        for name, figure in figures.items():
            path = folder / f"{name}.png"
            write_atomic(path, lambda file, figure=figure: to_png(figure, file))
            paths.append(path)
    return paths


def run_against(
    source: Path,
    claims: tuple[str, ...],
    out: Path | None,
    plot: bool,
    answer: Answer | None = None,
) -> int:
    """Test the claims on the runs of a folder, print the table, and write the page and the figures.

    Args:
        source: a folder made by `speclens demo` or `speclens train`.
        claims: ids or families; empty for all.
        out: file or folder of theory-against.html; None writes no page.
        plot: also write one PNG an outcome beside the page (or in the current folder).
        answer: gets the outcomes and notes, in place of the console.

    Returns:
        0 whatever the verdicts: a failing prediction is a finding. 2 for an unknown name.

    Raises:
        StoreError: no complete run there, or the page cannot be written.
        CheckpointError: a damaged checkpoint.
    """
    known = dict.fromkeys(prediction.claim for prediction in PREDICTIONS.values())
    if unknown := [name for name in claims if not any(_asked(claim, name) for claim in known)]:
        asked = without_long_words(", ".join(unknown))
        print(f"speclens: no question about {asked}; there are {', '.join(known)}", file=sys.stderr)
        return MISUSED
    from sims.analysis.caveats import provenance_notes
    from sims.studies.theory.checkpoint_tables import gather
    from sims.studies.theory.page import print_outcomes, write_against
    from sims.studies.theory.questions import answer as answered

    console = Console() if sys.stdout.isatty() else Console(width=200)
    evidence = gather(source, console)
    outcomes = answered(evidence)
    chosen = [o for o in outcomes if not claims or any(_asked(o.claim, c) for c in claims)]
    notes = [*provenance_notes(evidence.runs), *evidence.notes]
    if answer is None:
        print_outcomes(chosen, console)
    else:
        outcomes = [{k: v for k, v in vars(o).items() if k != "figure"} for o in chosen]
        answer |= {"outcomes": outcomes, "notes": notes}
    print_notes(notes, console)
    if out is not None:
        path = write_against(evidence, chosen, source, out)
        print_place(path, console)
    if plot:
        folder = make_folder(Path() if out is None else out.parent if out.suffix == ".html" else out)
        for i, outcome in enumerate(chosen):
            if outcome.figure is not None:
                path = folder / f"against-{i:02d}-{outcome.claim.split()[0].rstrip(',')}.png"
                write_atomic(path, lambda file, drawn=outcome.figure: to_png(drawn, file))
                console.print(f"figure: {path}", highlight=False, soft_wrap=True, markup=False)
    return PASSED


def _asked(claim: str, name: str) -> bool:
    """Return whether a question about "T6.order, T7.flatter" is about the family T7, or the claim T7.flatter."""
    return any(word == name or word.startswith(f"{name}.") for word in claim.replace(",", " ").split())
