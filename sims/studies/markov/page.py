"""The page of `speclens markov`: which statements of the Markov-categorical view hold for trained models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from sims.pages.number import interval
from sims.pages.page import Page, Section, Statement, Tone
from sims.pages.table import Table
from sims.pages.terminal import rich_table, toned
from sims.pages.write import beside, made_here, write_folder
from sims.studies.markov.figures import glance_figure
from sims.studies.markov.questions import EVERY_STAGE, FAILS, HOLDS, OPEN, VERDICTS
from sims.studies.markov.sections import MarkovData, law_times
from sims.studies.markov.study import PAGE
from sims.studies.study import sections

TITLE = "Do states learn the predictive operator of the task?"
TONES: Mapping[str, Tone] = {HOLDS: "good", FAILS: "bad", OPEN: "open"}
# Questions of the lead, and what they say where they hold.
LEAD = {
    "C1.falls": "the entropy of the predictions approaches that of the task",
    "C2.rises": "the states come to hold the law of the next token",
    "C3.order": "eigenfunctions with larger eigenvalues are learned earlier",
    "C4.mlp": "the states come to know more of the token after the next one",
}


def write_markov(data: MarkovData, runs: Path, folder: Path, notes: Sequence[str]) -> Path:
    """Write `folder`/index.html and tables.md, figures (SVG, PNG) and tables (CSV); return the page.

    Args:
        data: what was measured and answered.
        runs: folder of the runs.
        folder: made if it does not exist.
        notes: what a reader must know before believing the numbers.

    Raises:
        StoreError: something cannot be written.
    """
    evidence = data.evidence
    predictions = evidence.tables.predictions
    page = Page(
        title=TITLE,
        subtitle=f"{predictions['run_id'].nunique()} runs: stages {', '.join(evidence.stages)}; "
        f"{predictions['seed'].nunique()} seeds; {predictions.groupby('run_id')['step'].nunique().max()} looks. The "
        "Markov-categorical view of language modelling (arXiv 2507.19247), put to a task whose law is known exactly.",
        lead=lead(data.answers),
        glance=Section(
            name="at-a-glance",
            title="At a glance",
            figure=glance_figure(evidence.looks, evidence.aligned, law_times(evidence)),
            caption="Left: difference of the entropies of predictions and task (dotted: its bound). Middle: share of "
            "the next-token law that the final states explain (grey: permuted contexts; dash-dotted: the last token "
            "alone). Right: when each eigenfunction of the predictive operator is learned. Thin lines are seeds.",
        ),
        links=[beside("Source runs", runs, folder)],
        warnings=notes,
        findings=list(statements(data.answers)),
        sections=sections(PAGE, data),
        provenance=made_here(),
        tones=TONES,
    )
    return write_folder(page, folder)


def lead(answers: pd.DataFrame) -> str:
    """Return the verdict in one sentence: in how many stages each main statement holds."""
    parts = []
    for name, said in LEAD.items():
        own = answers[answers["question"] == name]
        if len(own):
            counts = own["verdict"].value_counts()
            against = f" (in {counts[FAILS]} the opposite)" if FAILS in counts else ""
            parts.append(f"{said} in {counts.get(HOLDS, 0)}{against}")
    stages = answers.loc[answers["stage"] != EVERY_STAGE, "stage"].nunique()
    text = "; ".join(parts)
    return f"Of {stages} stage{'s' * (stages != 1)}, {text}."


def statements(answers: pd.DataFrame) -> Iterator[Statement]:
    """Yield one sentence for each question and verdict: what holds, what fails, then what is open."""
    for verdict in VERDICTS:
        for name, own in answers[answers["verdict"] == verdict].groupby("question", sort=False):
            told = "; ".join(_told(r) for r in own.to_dict("records"))
            text = f"{own['statement'].iloc[0]} {verdict.capitalize()}: {told} ({name})."
            needs = "; ".join(f"{r['needs']} ({r['stage']})" for r in own.to_dict("records") if r["needs"])
            yield Statement(text, verdict != OPEN, needs)


def _told(row: Mapping[Any, Any]) -> str:
    stage = "" if row["stage"] == EVERY_STAGE else f"{row['stage']} "
    return f"{stage}{interval(row['value'], row['low'], row['high'])}"


def print_answers(answers: pd.DataFrame, console: Console) -> None:
    """Print the answers as a table."""
    rows = tuple(
        (r["question"], r["stage"], interval(r["value"], r["low"], r["high"]), r["predicted"], r["verdict"])
        for r in answers.to_dict("records")
    )
    table = Table(("question", "stage", "measured [95 %]", "predicted", "verdict"), rows, text=(0, 1, 3, 4))
    console.print(rich_table(TITLE, table, TONES))
    for name, own in answers.groupby("question", sort=False):
        console.print(
            f"{toned('', {}, str(name))} {own['statement'].iloc[0]}", highlight=False, soft_wrap=True
        )
