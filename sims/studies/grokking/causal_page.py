"""The page of `speclens grokking --causal`: what happens to grokking where its supposed causes are taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from rich.console import Console

from sims.analysis.arms import MARGIN, ArmRatio, arm_ratio, delays_more, shifts_apart
from sims.analysis.verdicts import Verdict
from sims.pages.number import ABSENT, counted, interval
from sims.pages.page import Page, Section, Statement
from sims.pages.table import Table
from sims.pages.terminal import rich_table
from sims.pages.write import beside, made_here, write_folder
from sims.studies.claims import OPEN, TONES
from sims.studies.grokking.causal_figures import causal_figure
from sims.studies.grokking.causal_runs import (
    ARMS,
    AT_ALARM,
    DRIFT,
    EDGE,
    ELSEWHERE,
    EVEN,
    FOR_GOOD,
    PULSE,
    RANDOM,
    UNCHANGED,
)

TITLE = "Does what warns of grokking also matter for it?"
ALARM_CLAIM = "Taking weight decay away at the alarm delays grokking more than at other times"
EDGE_CLAIM = "Taking the directions above the edge away changes the time of grokking, beyond their energy"
# Added after the runs of the others were seen.
DRIFT_CLAIM = "Taking the directions above the edge away does more than taking the mean update away"
RULE = (
    "Times of grokking are compared by their ratio, paired by seed, with Student's 95 % interval of the mean "
    "logarithm; at least four seeds. A claim is shown if the whole interval lies on one side of 1 (for the edge: on "
    "the same side against random directions and against evenly shorter updates). It is not shown if the interval "
    "excludes a change by a tenth, or lies on the opposite side; it is open otherwise. Of two runs that do not grok "
    "within their steps nothing is compared; of one that does not the number of steps counts, a lower bound. The "
    "comparison with the mean update was added after the other runs were seen."
)


@dataclass(frozen=True, eq=False)
class CausalAnswers:
    """Hold when every run groks, and what the rule says of it.

    Args:
        times: rows of `causal_runs.times_of`.
    """

    times: pd.DataFrame

    @cached_property
    def arms(self) -> dict[str, ArmRatio]:
        """Return how much later than the unchanged runs those of each arm grok."""
        present = set(self.times["arm"])
        return {arm: arm_ratio(self.times, arm, UNCHANGED) for arm in ARMS if arm in present - {UNCHANGED}}

    @cached_property
    def pairs(self) -> list[ArmRatio]:
        """Return the comparisons that decide: the alarm, the edge against both kinds of equal energy, and the drift."""
        pairs = ((AT_ALARM, ELSEWHERE), (EDGE, RANDOM), (EDGE, EVEN), (EDGE, DRIFT))
        return [arm_ratio(self.times, arm, other) for arm, other in pairs]

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Return the verdicts on the claims."""
        alarm, random, even, drift = self.pairs
        return [
            delays_more(ALARM_CLAIM, alarm),
            shifts_apart(EDGE_CLAIM, [random, even]),
            delays_more(DRIFT_CLAIM, drift),
        ]

    @cached_property
    def by_run(self) -> pd.DataFrame:
        """Return the times with their ratio to the unchanged run of the seed."""
        own = self.times[self.times["arm"] == UNCHANGED].set_index("seed")["time"]
        return self.times.assign(ratio=self.times["time"] / self.times["seed"].map(own))

    def groks(self, arm: str) -> str:
        """Return how many runs of an arm grok within their steps."""
        own = self.times[self.times["arm"] == arm]
        return f"{int(own['reached'].sum())} of {len(own)}"


def write_causal(answers: CausalAnswers, runs: Path, folder: Path, notes: Sequence[str]) -> Path:
    """Write `folder`/index.html and tables.md, the figure (SVG, PNG) and tables (CSV); return the page.

    Args:
        answers: times of all runs, and what the rule says of them.
        runs: folder of the runs.
        folder: made if it does not exist.
        notes: what a reader must know before believing the numbers.

    Raises:
        StoreError: something cannot be written.
    """
    seeds = answers.times["seed"].nunique()
    page = Page(
        title=TITLE,
        subtitle=f"{counted(seeds, 'seed')} of a small network on addition modulo 47, each trained as it is and again "
        "with one thing changed. Up to the change both runs are identical. A signal may warn of grokking and have no "
        "part in it; here the part is taken away (arXiv 2602.16746, 2603.15678).",
        lead=" ".join(verdict.sentence for verdict in answers.verdicts),
        glance=glance(answers),
        links=[beside("Source runs", runs, folder)],
        warnings=notes,
        rule=RULE,
        findings=[Statement(v.sentence, v.outcome != OPEN) for v in answers.verdicts],
        sections=[changes(answers), comparisons(answers)],
        provenance=made_here(),
        tones=TONES,
        paper="2603.15678",
    )
    return write_folder(page, folder)


def glance(answers: CausalAnswers) -> Section:
    """Return the picture of the first screen."""
    arms = pd.DataFrame([ratio.row() for ratio in answers.arms.values()])
    pairs = pd.DataFrame([{**r.row(), "title": f"{r.arm} /\n{r.other}"} for r in answers.pairs])
    return Section(
        name="at-a-glance",
        title="At a glance",
        figure=causal_figure(answers.by_run, arms, pairs, MARGIN),
        caption="Left: each run under a change, beside its seed unchanged. Right: the comparisons that decide; "
        "dashed: a change by a tenth. Black: means over seeds with 95 % intervals.",
    )


def changes(answers: CausalAnswers) -> Section:
    """Show every arm: what is changed, and when its runs grok."""
    rows = []
    for arm, what in ARMS.items():
        own = answers.times[answers.times["arm"] == arm]
        if own.empty:
            continue
        ratio = answers.arms.get(arm)
        known = own.loc[own["reached"], "time"]
        times = f"{known.min():,.0f}–{known.max():,.0f}" if len(known) else ABSENT
        told = ABSENT if ratio is None else interval(ratio.ratio, ratio.low, ratio.high, 2)
        rows.append((arm, what, answers.groks(arm), times, told))
    return Section(
        name="changes",
        title="What is changed, and when do the runs grok?",
        text="Runs grok at the first of two looks with test accuracy 0.9. A change of weight decay counts only beside "
        f"the same one at other times: {PULSE} steps without decay cost something whenever they come. Directions above "
        "the edge are compared with updates that lose the same energy elsewhere. Equal energy in one step is not equal "
        "movement: updates add up along the directions above the edge, and cancel in others, so that these hold a few "
        "per cent of one step and nearly all of the movement over a window. The mean update is that movement alone.",
        table=Table(
            ("runs", "change", "grok", "at step", "time / unchanged [95 %]"),
            tuple(rows),
            text=(0, 1, 2, 3, 4),
        ),
        tables={"times": answers.by_run},
    )


def comparisons(answers: CausalAnswers) -> Section:
    """Show the comparisons that decide."""
    rows = tuple(
        (r.arm, r.other, str(r.seeds), interval(r.ratio, r.low, r.high, 2), str(r.bounded))
        for r in answers.pairs
    )
    verdicts = tuple((v.claim, v.outcome, v.reason) for v in answers.verdicts)
    return Section(
        name="comparisons",
        title="Which of two changes delays more?",
        text=f"That runs without decay from the alarm on grok in {answers.groks(FOR_GOOD)} cases says that decay is "
        "needed after the alarm, not that the alarm marks a special time.",
        table=Table(
            ("runs", "beside", "seeds", "ratio of times [95 %]", "of them lower bounds"), rows, text=(0, 1, 3)
        ),
        tables={"comparisons": pd.DataFrame([r.row() for r in answers.pairs]), "verdicts": _frame(verdicts)},
    )


def _frame(rows: Sequence[tuple[str, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["claim", "outcome", "reason"])


def print_causal(answers: CausalAnswers, console: Console) -> None:
    """Print arms and verdicts as tables."""
    arms = tuple(
        (arm, answers.groks(arm), interval(r.ratio, r.low, r.high, 2)) for arm, r in answers.arms.items()
    )
    console.print(rich_table(TITLE, Table(("change", "grok", "time / unchanged [95 %]"), arms), {}))
    verdicts = tuple((v.claim, v.outcome, v.reason) for v in answers.verdicts)
    console.print(rich_table("", Table(("claim", "verdict", "why"), verdicts, text=(0, 1, 2)), TONES))


def answer_of(answers: CausalAnswers) -> Mapping[str, object]:
    """Return the numbers for --json."""
    return {
        "arms": [ratio.row() for ratio in answers.arms.values()],
        "comparisons": [ratio.row() for ratio in answers.pairs],
        "verdicts": [verdict.row() for verdict in answers.verdicts],
        "times": answers.times,
    }
