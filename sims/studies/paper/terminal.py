"""The page of the reproduction: written, and its main results printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sims.analysis.caveats import provenance_notes, uneven_sizes
from sims.pages.answer import Answer
from sims.pages.terminal import print_notes, print_place
from sims.studies.paper.figure_data import gather
from sims.studies.paper.page import CHAIN_TITLE, LANGUAGE_TITLE, TITLE, all_checks, five, tally, write
from sims.studies.paper.sections import every, sections
from sims.studies.paper.verdicts import DISAGREES, record


def report(
    runs: Path,
    names: Sequence[str],
    out: Path,
    command: str,
    profile: str,
    console: Console,
    answer: Answer | None = None,
) -> None:
    """Write the page and print its verdicts and findings.

    Args:
        runs: folder of the runs.
        names: of figures; all that the runs allow if empty.
        out: folder of the page.
        command: line that makes the page again; shown on it.
        profile: of the runs, or "other runs".
        console: where to print.
        answer: gets published (each number beside ours), findings, notes and page, in place of the console.

    Raises:
        StoreError: no complete run there, or the page cannot be written.
        ConfigError: a figure that these runs never allow.
    """
    material = gather(runs)
    found = sections(names or every(material), material)
    title = LANGUAGE_TITLE if material.language else CHAIN_TITLE if profile == "chain" else TITLE
    path = write(found, material, out, command, profile, title)
    checks = all_checks(found, material) if title == TITLE else []
    findings = five([f for s in found for f in s.findings])
    notes = [*provenance_notes(material.everything), *uneven_sizes(material.everything)]
    if answer is not None:
        stated = [{k: getattr(f, k) for k in ("text", "stance", "figure")} for f in findings]
        answer |= {"published": [record(c) for c in checks], "findings": stated, "notes": notes, "page": path}
        return
    if not material.language:
        console.print(f"published beside ours: {tally(checks)}", soft_wrap=True, highlight=False)
    for c in checks:
        if c.verdict == DISAGREES:
            text = f"  disagrees: {c.published.statement} ({c.published.source}): {c.reason}"
            console.print(text, soft_wrap=True, highlight=False)
    for k, finding in enumerate(findings, start=1):
        stance = f" [dim]({finding.stance})[/]" if title == TITLE and finding.stance else ""
        console.print(f"{k}. {finding.text}{stance}", soft_wrap=True, highlight=False)
    print_notes(notes, console)
    print_place(path, console)
