"""The page of `speclens grokking`: which signals warn of late generalisation, and what the controls say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from sims.analysis.alarms import GROKS
from sims.analysis.early_warning import BOUND, LEAST_RUNS
from sims.pages.number import cell, counted, verb
from sims.pages.page import Page, Section, Statement
from sims.pages.table import Table
from sims.pages.terminal import rich_table
from sims.pages.write import beside, made_here, write_folder
from sims.studies.claims import OPEN, TONES, VERDICTS
from sims.studies.grokking.answers import (
    DECIDED_AT,
    DEFECT_32,
    SIGNALS,
    Answers,
)
from sims.studies.grokking.figures import glance_figure
from sims.studies.grokking.published import claims
from sims.studies.grokking.sections import titles, with_kinds
from sims.studies.grokking.study import PAGE
from sims.studies.study import sections
from theory.decision import side

TITLE = "Does anything warn of grokking before it happens?"
RULE = (
    "A signal is an early warning if, against every type of control with eight runs or more, the lower bound of its "
    "area under the curve is above 0.7, in one direction for all types, and it adds to the baselines (p < 0.05). It is "
    "none if it is larger than in some types of control and smaller than in others, or if the whole interval of its "
    "area lies between 0.3 and 0.7 against one type; it is open otherwise. Its own p counts; Holm's p over all signals "
    "stands in the table of gains."
)


def write_grokking(answers: Answers, runs: Path, folder: Path, notes: Sequence[str]) -> Path:
    """Write `folder`/index.html and tables.md, figures (SVG, PNG) and tables (CSV); return the page.

    Args:
        answers: looks of all runs, and what the rules say of them.
        runs: folder of the runs.
        folder: made if it does not exist.
        notes: what a reader must know before believing the numbers.

    Raises:
        StoreError: something cannot be written.
    """
    found = answers.outcomes
    counts = found["kind"].value_counts()
    at = answers.rocs[answers.rocs["time"] == DECIDED_AT]
    page = Page(
        title=TITLE,
        subtitle=f"{len(found)} runs of modular arithmetic: "
        + ", ".join(
            f"{n} {'that grok' if kind == GROKS else f'controls ({kind})'}" for kind, n in counts.items()
        )
        + ". Grokking means to generalise long after all training examples are memorised; controls memorise and never "
        "do (arXiv 2602.16746, 2602.16967, 2604.07380).",
        lead=lead(answers),
        glance=Section(
            name="at-a-glance",
            title="At a glance",
            figure=glance_figure(with_kinds(answers), at, answers.sounded, titles(answers), GROKS, BOUND),
            caption="Left: every run. Middle: chance that a run that groks ranks above a control, read "
            f"{DECIDED_AT} steps after memorisation (grey: chance; dashed: bound of the rule; °: trivial baselines). "
            "Right: share of runs in which the published alarm goes off, in time where they grok. Lines: 95 %.",
        ),
        links=[beside("Source runs", runs, folder)],
        warnings=notes,
        rule=RULE,
        findings=list(statements(answers)),
        sections=sections(PAGE, answers),
        provenance=made_here(),
        tones=TONES,
        paper="2603.15678",
    )
    return write_folder(page, folder)


def lead(answers: Answers) -> str:
    """Return the verdict in two sentences: on the signals, and on the published alarm."""
    found = [v.outcome for v in answers.verdicts.values()]
    if not found:
        return f"{counted(answers.count(), 'run')} grok; no signal was measured that could warn of it."
    shown, refuted, unsure = (found.count(outcome) for outcome in VERDICTS)
    text = (
        f"{shown or 'None'} of {counted(len(found), 'signal')} of spectra and curvature {verb(shown)} shown to warn of "
        f"grokking; {refuted} {verb(refuted)} refuted, {unsure} open."
    )
    alarm = answers.confusion.get(DEFECT_32)
    if alarm is None or alarm.iloc[-1]["status"] != "ok":
        return text
    row = alarm.to_dict("records")[-1]
    return (
        f"{text} The published alarm, in its published arithmetic, goes off before {row['tp']} of "
        f"{row['tp'] + row['fn']} groks, and in {row['fp']} of {row['fp'] + row['tn']} runs that never grok."
    )


def statements(answers: Answers) -> Iterator[Statement]:
    """Yield what is shown, what is not, then what is open: each signal, then the published claims."""
    yield from _trivial(answers)
    for outcome in VERDICTS:
        for name, verdict in answers.verdicts.items():
            if verdict.outcome == outcome:
                title = SIGNALS[name].title
                yield Statement(
                    f"{title[:1].upper()}{title[1:]}: {outcome} ({verdict.reason}).", outcome != OPEN
                )
        for claim in claims(answers):
            if claim.outcome == outcome:
                figures = f"published {claim.published}; here {claim.here}; null: {claim.null}"
                yield Statement(f"{claim.claim}: {outcome} ({figures}).", outcome != OPEN)


def _trivial(answers: Answers) -> Iterator[Statement]:
    """Yield a sentence for each baseline that tells eight runs that grok, or more, from as many of every control."""
    at = answers.rocs[(answers.rocs["time"] == DECIDED_AT) & (answers.rocs["control"] != "all")]
    for name in answers.baselines:
        own = at[at["signal"] == name]
        same = own["direction"].nunique() == 1
        title = SIGNALS[name].title
        bounds = own[["others_low", "others_high"]].to_numpy(float)
        few = (own[["positives", "negatives"]] < LEAST_RUNS).any(axis=None)
        sure = (own["status"] == "ok").all() and all(side(low, high, BOUND) > 0 for low, high in bounds)
        if own.empty or few or not sure:
            continue
        area = f"{title}: smallest area {own['auc_others'].min():.2f}, from {own['others_low'].min():.2f}"
        if same:
            yield Statement(
                f"A trivial signal tells runs that grok from all types of control ({area}).", True
            )
        else:
            told = f"A trivial signal tells runs that grok from each type of control ({area}), but is larger than in"
            yield Statement(f"{told} some types and smaller than in others: no threshold warns of all.", True)


def print_answers(answers: Answers, console: Console) -> None:
    """Print outcomes of runs and the verdict on each signal as tables."""
    rows = tuple(
        (titles(answers)[name], verdict.outcome, cell(answers.gains[name].p), verdict.reason)
        for name, verdict in answers.verdicts.items()
    )
    found = answers.outcomes
    groups = tuple(
        (str(kind), str(len(own)), cell(own["t_mem"].median()), cell(own["t_90"].median()))
        for kind, own in sorted(found.groupby("kind"), key=lambda pair: pair[0] != GROKS)
    )
    table = Table(("runs", "number", "memorised at (median)", "test 0.9 at (median)"), groups)
    console.print(rich_table(TITLE, table, {}))
    table = Table(("signal", "early warning", "p of its gain", "why"), rows, text=(0, 1, 3))
    console.print(rich_table("", table, TONES))
