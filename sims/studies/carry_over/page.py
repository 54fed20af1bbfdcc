"""Toy and language models on one page: which findings carry over, and what these runs cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from sims.analysis.caveats import provenance_notes
from sims.analysis.runs import Runs
from sims.pages.number import counted, headed, verb
from sims.pages.page import Page, Tone
from sims.pages.write import beside, provenance_rows, write_page
from sims.runs.store import RunFolder
from sims.studies.carry_over.carry_over import AGREES, CANNOT_TELL, DISAGREES, alone
from sims.studies.carry_over.sections import Sides, reading
from sims.studies.carry_over.study import PAGE
from sims.studies.glance import glance
from sims.studies.study import sections
from sims.system.provenance import provenance

TITLE = "Spectral Lens: do the toy’s findings carry over to language models?"
TONES: Mapping[str, Tone] = {AGREES: "good", DISAGREES: "bad", CANNOT_TELL: "open"}


def write_comparison(sides: Sides, page: Path, command: str) -> pd.DataFrame:
    """Write the page, and a folder of its name with figures (SVG, PNG) and tables (CSV).

    Args:
        sides: the runs.
        page: an .html file.
        command: the command that makes it again.

    Returns:
        The answers (of `carry_over`).

    Raises:
        StoreError: something cannot be written.
    """
    answers = sides.answers
    content = Page(
        title=TITLE,
        subtitle=f"Toy: {_described(sides.toy)}. Language model: {_described(sides.text)}.",
        lead=_lead(answers),
        glance=glance(sides.text),
        links=[
            beside("Toy runs", sides.toy_folder, page.parent),
            beside("Language-model runs", sides.text_folder, page.parent),
        ],
        warnings=_warnings(sides),
        findings=_findings(answers),
        sections=sections(PAGE, sides),
        provenance=_provenance(sides, command),
        tones=TONES,
    )
    write_page(content, page, files=page.with_suffix(""))
    return answers


def _lead(answers: pd.DataFrame) -> str:
    counts = answers["verdict"].value_counts()
    same, other, unknown = (counts.get(verdict, 0) for verdict in (AGREES, DISAGREES, CANNOT_TELL))
    return (
        f"Of {counted(len(answers), 'question')} to toy and language models, {same} {verb(same, 'has', 'have')} the "
        f"same answer, {other} a different one, and {unknown} cannot be told."
    )


def _findings(answers: pd.DataFrame) -> list[str]:
    lines = []
    for verdict, said in ((DISAGREES, "Does not carry over"), (AGREES, "Carries over")):
        for r in answers[answers["verdict"] == verdict].to_dict("records"):
            both = f"toy {reading(r, 'toy')}, language model {reading(r, 'text')}"
            denied = verdict == AGREES and r["toy_value"] < 0
            statement = f"on neither side: {r['statement']}" if denied else r["statement"]
            lines.append(f"{said}: {statement} ({both}; {r['unit']}).")
    # One run's own numbers are worth reading, as long as nobody takes them for a finding.
    seen = answers[(answers["text_seeds"] == 1) & answers["text_value"].notna() & answers["text_low"].isna()]
    if len(seen):
        values = "; ".join(
            f"{r['question']} {r['text_value']:+.3g} ({r['what']}: {r['unit']})"
            for r in seen.to_dict("records")
        )
        lines.append(f"Seen in this run, without an interval over seeds: {values}.")
    unknown = answers[answers["verdict"] == CANNOT_TELL]
    if len(unknown):
        names = ", ".join(dict.fromkeys(unknown["question"]))
        lines.append(f"Cannot be told from these runs ({len(unknown)} of {len(answers)}): {names}.")
    return lines


def _warnings(sides: Sides) -> list[str]:
    found = []
    for name, runs in (("toy", sides.toy), ("language model", sides.text)):
        if alone(runs):
            found.append(
                f"The {name} has one run of each cell. It cannot show how much of a difference between its stages or "
                "batch sizes is the seed, so none of them is established, whatever its size. What one run can tell: "
                "what its own trajectory did, and whether its own token families concentrate beyond chance."
            )
        if runs.incomplete:
            left = len(runs.incomplete)
            found.append(f"{counted(left, 'run')} of the {name} {verb(left)} not complete and left out.")
        found += side_notes(name, runs)
    if sides.text.differing:
        shown = ", ".join(sides.text.differing[:6])
        found.append(
            f"The language-model runs differ in more than stage, batch size, rate and seed: {shown}."
        )
    found.append(
        "The sides differ beyond size and data: the toy’s samples are last positions of fixed sequences, a language "
        "model’s by default every token, which are not independent within a sequence; the toy’s concentration is that "
        "of its bands, a language model’s that of token families in its embedding and head, as its text has no known "
        "state at each position."
    )
    return found


def side_notes(name: str, runs: Runs) -> list[str]:
    """Return what a reader must know of how the runs of one side were made."""
    return [f"{name[0].upper()}{name[1:]}: {note}" for note in provenance_notes(runs)]


def _described(runs: Runs) -> str:
    table = runs.runs
    return (
        f"{counted(len(table), 'run')}, {headed('stage', table['stage'].unique())}, "
        f"{headed('batch size', sorted(table['batch_size'].unique()))}, {counted(table['seed'].nunique(), 'seed')}"
    )


def _provenance(sides: Sides, command: str) -> list[tuple[str, str]]:
    known = provenance_rows(provenance("cpu"))
    rows = [("command", command), ("versions", known["versions"]), ("source", known["source"])]
    places = (("toy", sides.toy, sides.toy_folder), ("language model", sides.text, sides.text_folder))
    for name, runs, folder in places:
        first = RunFolder(folder / min(runs.runs["run_id"]))
        identity = first.identity()
        model = identity["train"].get("model")
        rows += [
            (f"{name}: runs", str(folder)),
            (f"{name}: first run", f"{first.path.name}, model {model}"),
            (f"{name}: measurements", ", ".join(f"{k} {v}" for k, v in identity["measure"].items())),
        ]
    return rows
