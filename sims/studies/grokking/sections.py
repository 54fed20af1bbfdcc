"""The sections of the page."""

from __future__ import annotations

from dataclasses import astuple, fields

import numpy as np
import pandas as pd

from sims.analysis.alarms import GROKS
from sims.analysis.early_warning import BOUND
from sims.analysis.resampling import holm
from sims.pages.number import ABSENT, cell, interval
from sims.pages.page import Cells, Section
from sims.pages.table import Table
from sims.studies.grokking.answers import ARITHMETIC, DECIDED_AT, SIGNALS, Answers
from sims.studies.grokking.figures import accuracy_figure, area_figure, lead_figure, signal_figure
from sims.studies.grokking.published import Claim, claims
from sims.studies.grokking.study import STUDY
from theory.decision import side

# Accuracies are measured more often than signals.
LATER_LOOKS = (
    "Times of a run are those of the looks at which the signal was measured, and may come a look later than those of "
    "all looks."
)


def with_kinds(answers: Answers) -> pd.DataFrame:
    """Return the looks as they were measured, with the kind of their run."""
    return answers.measured.merge(answers.outcomes[["run", "kind"]], on="run")


def titles(answers: Answers) -> dict[str, str]:
    """Return the titles of the measured signals, baselines last, which are marked."""
    return {
        name: SIGNALS[name].title + (" °" if SIGNALS[name].baseline else "")
        for name in (*answers.candidates, *answers.baselines)
    }


@STUDY.figure("runs", "Which runs generalise, and when?", order=10)
def runs(answers: Answers) -> Section:
    """Show accuracies by kind of run, and the times of memorisation and generalisation."""
    found, looks = answers.outcomes, with_kinds(answers)
    order = list(dict.fromkeys(sorted(found["kind"], key=lambda k: (k != GROKS, k))))
    rows = []
    for (kind, group), own in sorted(
        found.groupby(["kind", "group"]), key=lambda pair: order.index(pair[0][0])
    ):
        rows.append((kind, group, str(len(own)), *(_range(own[name]) for name in ("t_mem", "t_50", "t_90"))))
    return Section(
        text="A look is a step at which accuracies or signals are measured. A run memorises (t_mem) at the first of "
        "two looks with training accuracy of 0.98 or more, and generalises where test accuracy 0.9 is held in the same "
        "way. It groks if it generalises at least twice as late as it memorised, "
        "with a test accuracy of at most 0.5 at memorisation. Runs that were meant to generalise and did not within "
        "their steps are controls of their own kind; runs that generalised at once, or diverged, are compared with "
        "nothing.",
        figure=accuracy_figure(looks, order),
        caption="Grey: training accuracy; blue: test accuracy; one line a run. The axis of steps is linear up to 100.",
        table=Table(
            ("kind", "operation", "runs", "memorised at", "test 0.5 at", "test 0.9 at"),
            tuple(rows),
            text=(0, 1),
        ),
        tables={"outcomes": found, "looks": answers.measured},
    )


@STUDY.figure("areas", "Does a signal tell runs that grok from those that only memorise?", order=20)
def areas(answers: Answers) -> Section:
    """Show areas under the curve at equal times after memorisation, by type of control."""
    rocs = answers.rocs
    at = rocs[rocs["time"] == DECIDED_AT]
    rows = [
        (
            titles(answers)[r["signal"]],
            r["control"],
            f"{r['positives']} / {r['negatives']}",
            interval(r["auc_others"], r["others_low"], r["others_high"]) if r["status"] == "ok" else ABSENT,
            cell(r["auc"]),
            r["reason"],
        )
        for r in at.to_dict("records")
    ]
    return Section(
        text="Each signal is read at an equal time after memorisation, only in runs whose test accuracy is below 0.1 "
        "there. The area under the curve is the chance that a run that groks ranks above a control: 0.5 is chance, 1 "
        "is perfect. The direction in which a run is judged is that of all other runs, so an area far below 0.5 means "
        "that the direction is not the same among the runs. Each type of control is compared alone: a signal can tell "
        "runs without weight decay apart and know nothing of generalisation. Claims are decided at "
        f"{DECIDED_AT} steps after memorisation; the bound of the rule is dashed.",
        figure=area_figure(rocs, titles(answers), BOUND),
        caption="Points: area with the direction of other runs; lines: 95 %, the wider of two intervals. Grey: chance. "
        "°: trivial baselines.",
        table=Table(
            ("signal", "control", "runs that grok / controls", "area [95 %]", "raw area", "why not"),
            tuple(rows),
            text=(0, 1, 2, 5),
        ),
        blocks=(Cells(_bounds(answers), f"Signals whose area lies above {BOUND} for sure, at each time"),),
        tables={"areas": rocs, "areas-other-operations": answers.transfer, "scores": answers.scores},
    )


def _bounds(answers: Answers) -> Table:
    """Return which signals tell a type of control from runs that grok, by time after memorisation."""
    rocs, rows = answers.rocs, []
    for time, control in rocs[["time", "control"]].drop_duplicates().itertuples(index=False):
        own = rocs[(rocs["time"] == time) & (rocs["control"] == control) & (rocs["status"] == "ok")]
        sure = [
            r["signal"] for r in own.to_dict("records") if side(r["others_low"], r["others_high"], BOUND) > 0
        ]
        rows.append(
            (
                f"{time:g}",
                str(control),
                ", ".join(titles(answers)[name] for name in answers.candidates if name in sure) or ABSENT,
                ", ".join(titles(answers)[name] for name in answers.baselines if name in sure) or ABSENT,
            )
        )
    heads = ("steps after memorisation", "control", "signals", "trivial baselines")
    return Table(heads, tuple(rows), text=(1, 2, 3))


@STUDY.figure("signals", "What do the signals do over training?", order=30)
def signals(answers: Answers) -> Section:
    """Show every signal over training, by kind of run."""
    names = titles(answers)
    logs = [name for name in names if SIGNALS[name].log]
    return Section(
        text="Whatever grows in runs that grok and in runs that memorise random labels alike is no sign of "
        "generalisation.",
        figure=signal_figure(with_kinds(answers), names, logs, GROKS),
        caption="Median over runs of a kind; shaded: the middle half. °: trivial baselines.",
        table=Table(
            ("signal", "what it is"),
            tuple((title, SIGNALS[name].meaning) for name, title in names.items()),
            (0, 1),
        ),
    )


@STUDY.figure("leads", "How early is the warning, and how often is it false?", order=40)
def leads(answers: Answers) -> Section:
    """Show lead times of alarms whose thresholds come from other runs, and false alarms of controls."""
    rows = []
    for name, own in answers.leads.groupby("signal", sort=False):
        by_kind = {row["kind"]: row for row in own.to_dict("records")}
        grok, rest = by_kind[GROKS], by_kind["all"]
        if grok["status"] != "ok":
            rows.append((titles(answers)[str(name)], ABSENT, ABSENT, ABSENT, str(grok["reason"])))
            continue
        false = (
            interval(rest["share"], rest["share_low"], rest["share_high"])
            if rest["status"] == "ok"
            else ABSENT
        )
        rows.append(
            (
                titles(answers)[str(name)],
                f"{grok['alarms']:.0f} of {grok['runs']:.0f}",
                interval(grok["median_lead"], grok["median_low"], grok["median_high"], 0),
                false,
                "",
            )
        )
    return Section(
        text="An alarm is two looks in a row beyond a threshold. Threshold and direction of a run are chosen on all "
        "other runs, such that at most one in ten of their controls has an alarm anywhere; how many of all controls "
        "have a false one follows from that, whatever the signal is. The lead is the number of steps from the "
        "alarm to test accuracy 0.9; a run without an alarm before it counts as 0. An alarm may go off "
        "before memorisation, as that of the training loss can: it then says how hard a task is, not that it "
        f"will be learned late. {LATER_LOOKS}",
        table=Table(
            (
                "signal",
                "runs warned",
                "median lead in steps [95 %]",
                "false alarms, all controls [95 %]",
                "why not",
            ),
            tuple(rows),
            text=(0, 1, 4),
        ),
        tables={"leads": answers.leads},
    )


@STUDY.figure("gains", "What does a signal add to trivial ones?", order=50)
def gains(answers: Answers) -> Section:
    """Show the gain of every candidate beyond the baselines."""
    corrected = holm(np.array([gain.p for gain in answers.gains.values()]))
    rows = [
        (
            titles(answers)[name],
            f"{gain.positives} of {gain.runs}",
            *(cell(v) for v in (gain.without, gain.with_signal, gain.gain, gain.p, p)),
            gain.reason,
        )
        for (name, gain), p in zip(answers.gains.items(), corrected, strict=True)
    ]
    plain = ", ".join(SIGNALS[name].title for name in answers.baselines)
    return Section(
        text="Two logistic models predict whether a run groks, one from the baselines alone, one with the signal "
        f"besides; both are scored on runs left out, {DECIDED_AT} steps after memorisation. Baselines: {plain}. p is "
        "the share of permutations of what the baselines leave of the signal that gain as much.",
        table=Table(
            (
                "signal",
                "grok",
                "score without",
                "score with",
                "gain (nats a run)",
                "p",
                "Holm’s p",
                "why not",
            ),
            tuple(rows),
            text=(0, 1, 7),
        ),
    )


@STUDY.figure("published", "The published alarm and the published claims", order=60)
def published(answers: Answers) -> Section:
    """Show the published alarm rule on these runs, its leads, and the claims beside these runs."""
    if not answers.published:
        return Section(text="The commutator defect was not measured in these runs.")
    table = [
        found.assign(defect=ARITHMETIC[name]).drop(columns=["status", "sentence"])
        for name, found in answers.confusion.items()
    ]
    times = pd.concat([found.assign(defect=ARITHMETIC[name]) for name, found in answers.published.items()])
    warned = times[(times["kind"] == GROKS) & (times["lead"] > 0)]
    laws = {ARITHMETIC[name]: law for name, law in answers.laws.items()}
    drawn = {
        name: (law.c, law.b, law.constant) for name, law in laws.items() if name in set(warned["defect"])
    }
    return Section(
        text="The published alarm is the first look from the third on at which the defect is above 10 times its first "
        "values, and above 20. It is asked of the exact defect (two products with the Hessian, in float64) and of the "
        "published arithmetic, in which positions in float32 are subtracted: once the gradient is small against the "
        "rounding of the weights, that figure is rounding, and falls to 0. Balanced accuracy is the mean of two "
        "shares: the runs that grok that are warned, and the controls without an alarm; an alarm in every run, or in "
        "none, has 0.5. "
        f"{LATER_LOOKS} "
        + " ".join(f"{name[:1].upper()}{name[1:]}: {law.sentence}" for name, law in laws.items()),
        figure=lead_figure(warned, drawn) if drawn else None,
        caption="Leads of the published alarm against the time of grokking T. A law of leads has content only if it "
        "differs from T − t_mem (grey: an alarm at memorisation) and from T − const (dashed: one step for all).",
        table=Table(
            tuple(f.name for f in fields(Claim)),
            tuple(astuple(c) for c in claims(answers)),
            text=(0, 1, 2, 3, 4),
        ),
        blocks=(Cells(Table.of_frame(pd.concat(table)), "Hits and false alarms by type of control"),),
        tables={"published-alarms": times},
    )


def _range(values: pd.Series) -> str:
    known = values.dropna()
    if known.empty:
        return "never"
    low, high = known.min(), known.max()
    text = f"{low:,.0f}" if low == high else f"{low:,.0f}–{high:,.0f}"
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)})"
