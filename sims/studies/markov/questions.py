"""The questions of the study, and their answers: one row a question and stage, corrected for their number.

A question compares one number of each seed with a limit that was fixed beforehand. It holds, or fails, if its p-value
is at most 5 % after Holm's correction over all questions of the study and its interval leaves the limit out, and is
open otherwise. Bounds that must be true
of every checkpoint are decided by the worst one, without an interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.bounds import ROUNDING, worst_ratio
from sims.analysis.intervals import seed_intervals, t_test
from sims.analysis.ranges import CORRELATION, POSITIVE, REAL, Range
from sims.analysis.resampling import holm, seed_jackknife
from sims.analysis.variance import LARGEST, seeds_needed
from sims.measure.surplus import KINDS, Kind
from sims.studies.markov.curves import beyond_trend, run_permutation
from sims.studies.markov.measured import LAW, MarkovTables
from sims.studies.markov.order import learning_times, order_by_run, order_permutation
from theory.decision import side

HOLDS, FAILS, OPEN = VERDICTS = ("holds", "fails", "open")
SIGNIFICANT = 0.05
EVERY_STAGE = "all"
# Until the predictions are this close to the law (nats), their excess of entropy is compared with their excess loss.
CLOSE = 0.3
# Of the ratio of the two around 1.
APART = 0.2


class Evidence:
    """The tables that several questions read, made once.

    Args:
        tables: what was measured.
    """

    def __init__(self, tables: MarkovTables) -> None:
        self.tables = tables

    @cached_property
    def looks(self) -> pd.DataFrame:
        """Return one row a run and look: kl, gap (mean of its sizes over positions), signed, bound, ratio; nats."""
        own = self.tables.predictions.assign(size=lambda t: t["gap"].abs())
        means = _over_positions(own, ["kl", "size", "gap", "bound"])
        means = means.rename(columns={"gap": "signed", "size": "gap"})
        return means.assign(ratio=means["gap"] / means["kl"])

    @cached_property
    def aligned(self) -> pd.DataFrame:
        """Return one row a run and look: means over positions of the numbers of `alignment`."""
        names = ["value", "null", "last_token", "decoded", "head", "kl", "turned_kl"]
        return _over_positions(self.tables.alignment, names)

    @cached_property
    def times(self) -> pd.DataFrame:
        """Return when each run learns each eigenfunction (of `learning_times`)."""
        return learning_times(self.tables.eigenfunctions)

    @property
    def stages(self) -> list[str]:
        """Return the stages in their order."""
        return list(dict.fromkeys(self.tables.predictions["stage"]))


@dataclass(frozen=True)
class Question:
    """One statement, to be decided for each stage.

    Attributes:
        name: permanent.
        statement: what "holds" means.
        measured: the number of each seed, with its unit.
        above: whether the statement claims values above the limit, and not below it.
        limit: see there.
        read: returns stage, seed, value; one row a run.
        within: the values that it can take.
        chance: a p-value of one stage that is needed besides that over seeds; None where there is none.
    """

    name: str
    statement: str
    measured: str
    above: bool
    limit: float
    read: Callable[[Evidence], pd.DataFrame]
    within: Range = REAL
    chance: Callable[[Evidence, str], float] | None = None

    @property
    def predicted(self) -> str:
        """Return the claimed side of the limit: "above 0"."""
        return f"{'above' if self.above else 'below'} {self.limit:g}"


def _over_positions(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return means over positions, one row a run and look; one that is missing at a position has none."""
    by = ["stage", "seed", "run_id", "step", "tokens"]
    means = table.groupby(by, sort=False)[names].agg(lambda values: values.to_numpy().mean())
    return means.reset_index()


def _ends(table: pd.DataFrame, value: Callable[[pd.Series, pd.Series], float]) -> pd.DataFrame:
    """Return one number a run, from its first and its last look; a run that diverged before the end has none."""
    rows = []
    for _, stage in table.groupby("stage", sort=False):
        ends = [stage["step"].min(), stage["step"].max()]
        for (name, seed), own in stage.groupby(["stage", "seed"], sort=False):
            looks = own.set_index("step")
            if set(ends) <= set(looks.index):
                first, last = (looks.loc[step] for step in ends)
                rows.append({"stage": name, "seed": seed, "value": value(first, last)})
    return pd.DataFrame(rows, columns=["stage", "seed", "value"])


def _largest_deviation(evidence: Evidence) -> pd.DataFrame:
    looks = evidence.looks
    # At the start an untied head is zero: predictions are uniform, and the ratio is 1 by definition.
    later = looks["step"] > looks.groupby("run_id")["step"].transform("min")
    # A look without numbers may be the worst one: its run has no largest deviation.
    far = looks[~(looks["kl"] < CLOSE) & later]
    away = far.assign(value=(far["ratio"] - 1).abs())
    return (
        away.groupby(["stage", "seed"], sort=False)["value"].agg(lambda v: v.to_numpy().max()).reset_index()
    )


def _order(evidence: Evidence) -> pd.DataFrame:
    return order_by_run(evidence.times[evidence.times["operator"] == LAW])


def _order_chance(evidence: Evidence, stage: str) -> float:
    times = evidence.times
    return order_permutation(times[(times["operator"] == LAW) & (times["stage"] == stage)])


def _surplus(kind: Kind) -> Callable[[Evidence], pd.DataFrame]:
    """Return a reader of what training adds to the surplus that a probe finds."""

    def read(evidence: Evidence) -> pd.DataFrame:
        own = evidence.tables.surplus
        return _ends(own[own["probe"] == kind], lambda first, last: last["share"] - first["share"])

    return read


QUESTIONS: Sequence[Question] = (
    Question(
        "C1.falls",
        "Training brings the entropy of the predictions closer to that of the task (Theorem 5.2).",
        "mean gap of entropies over positions, last look less first, nats",
        above=False,
        limit=0.0,
        read=lambda e: _ends(e.looks, lambda first, last: last["gap"] - first["gap"]),
    ),
    Question(
        "C1.ratio",
        f"The gap of entropies is the excess loss, within {APART:.0%}, at every look with an excess of {CLOSE} nats or "
        "more.",
        "largest |gap/excess − 1| over looks after the start",
        above=False,
        limit=APART,
        read=_largest_deviation,
        within=POSITIVE,
    ),
    Question(
        "C2.rises",
        "Training raises the share of √p that the states hold.",
        "mean share over positions, last look less first",
        above=True,
        limit=0.0,
        read=lambda e: _ends(e.aligned, lambda first, last: last["value"] - first["value"]),
    ),
    Question(
        "C2.permuted",
        "At the end the states hold more of √p than they do of that of permuted contexts.",
        "mean share over positions at the last look, less that of permuted contexts",
        above=True,
        limit=0.0,
        read=lambda e: _ends(e.aligned, lambda first, last: last["value"] - last["null"]),
    ),
    Question(
        "C2.last",
        "At the end the states hold more of √p than the last token tells.",
        "mean share over positions at the last look, less that of the last token, one-hot",
        above=True,
        limit=0.0,
        read=lambda e: _ends(e.aligned, lambda first, last: last["value"] - last["last_token"]),
    ),
    Question(
        "C3.order",
        "Eigenfunctions with larger eigenvalues are learned earlier.",
        "Spearman’s correlation of the step at which R² reaches ½ with the eigenvalue, mean over positions",
        above=False,
        limit=0.0,
        read=_order,
        within=CORRELATION,
        chance=_order_chance,
    ),
    *(
        Question(
            f"C4.{kind}",
            f"Training raises what the states know of the token after the next one, as a probe ({kind}) reads it.",
            "gain of the probe over the law of a token given the one before it, as a share of what all tokens read "
            "tell; last look less that of the untrained model",
            above=True,
            limit=0.0,
            read=_surplus(kind),
        )
        for kind in KINDS
    ),
)


def answers(tables: MarkovTables, questions: Sequence[Question] = QUESTIONS) -> pd.DataFrame:
    """Answer every question for every stage.

    Returns:
        question, stage, statement, measured, predicted, value, low, high (95 % over seeds; NaN where there is none),
        seeds, p, p_holm (NaN for bounds), verdict (holds, fails or open), needs (what would decide an open one).
    """
    evidence = Evidence(tables)
    rows = [_bound(evidence), _follows(evidence)]
    for question in questions:
        found = question.read(evidence)
        rows += [_answered(question, evidence, found, stage) for stage in evidence.stages]
    table = pd.DataFrame(rows).sort_values("question", kind="stable", ignore_index=True)
    table["p_holm"] = holm(table["p"].to_numpy(float))
    tests = int(table["p"].notna().sum())
    judged = [_judged(row, tests) for row in table.to_dict("records")]
    table["verdict"] = [verdict for verdict, _ in judged]
    table["needs"] = [needs for _, needs in judged]
    columns = ["question", "stage", "statement", "measured", "predicted", "value", "low", "high", "seeds"]
    return table[[*columns, "p", "p_holm", "verdict", "needs"]]


def _answered(question: Question, evidence: Evidence, found: pd.DataFrame, stage: str) -> dict[str, Any]:
    own = found[(found["stage"] == stage) & found["value"].notna()]
    label = {"question": question.name, "stage": stage, "statement": question.statement}
    row = label | {"measured": question.measured, "predicted": question.predicted, "seeds": len(own)}
    nothing = dict.fromkeys(("value", "low", "high", "p", "spread"), math.nan)
    if own.empty:
        return row | nothing | {"claimed": 0, "limit": question.limit, "by_chance": False}
    mean = seed_intervals(own, ["stage"], within=question.within).iloc[0]
    p, by_chance = t_test(own["value"] - question.limit), False
    if question.chance is not None:
        # Both have to be excluded: that the seeds agree by chance, and that the eigenfunctions do.
        chance = question.chance(evidence, stage)
        p, by_chance = float(np.max([p, chance])), chance > SIGNIFICANT
    claimed = 1 if (mean["mean"] > question.limit) == question.above else -1
    return row | {
        "value": float(mean["mean"]),
        "low": float(mean["low"]),
        "high": float(mean["high"]),
        "p": p,
        "spread": float(own["value"].std()),
        "claimed": claimed,
        "limit": question.limit,
        "by_chance": by_chance,
    }


def _bound(evidence: Evidence) -> dict[str, Any]:
    """Answer whether every gap of entropies is below its bound."""
    own = evidence.tables.predictions
    worst, missing = worst_ratio(own["gap"], own["bound"])
    broken = worst > 1 + ROUNDING
    return {
        "question": "C1.bound",
        "stage": EVERY_STAGE,
        "statement": "The gap of entropies is never above its bound E[T ln(V − 1) + h₂(T)].",
        "measured": f"largest |gap|/bound over {len(own) - missing:,} looks at a position"
        + (f", {missing:,} without numbers" if missing else ""),
        "predicted": "at most 1",
        # What is missing may be worse, unless the bound is broken without it.
        "value": worst if broken or not missing else math.nan,
        "low": math.nan,
        "high": math.nan,
        "seeds": int(own["seed"].nunique()),
        "p": math.nan,
        "spread": math.nan,
        "claimed": -1 if broken else 1,
        "limit": 1.0,
        "by_chance": False,
    }


def _follows(evidence: Evidence) -> dict[str, Any]:
    """Answer whether runs that are ahead in loss are ahead in alignment, by permuting whole runs within their stages.

    Stages differ in both numbers, for whatever reason, and their seeds are no replicates of that.
    """
    looks = evidence.looks.merge(evidence.aligned[["run_id", "step", "value"]], on=["run_id", "step"])
    looks = looks[looks["step"] > looks["step"].min()]
    shares, losses = (looks.pivot_table(index="run_id", columns="step", values=v) for v in ("value", "kl"))
    complete = shares.columns[shares.notna().all() & losses.notna().all()]
    shares, losses = shares[complete], losses[complete]
    own = looks.groupby("run_id")[["seed", "stage"]].first().reindex(shares.index)
    seeds, stages = own["seed"], own["stage"].to_numpy()

    def beyond(of: Sequence[int]) -> float:
        chosen = seeds.isin(list(of)).to_numpy()
        return beyond_trend(shares.to_numpy()[chosen], losses.to_numpy()[chosen], stages[chosen])

    labels = sorted(set(seeds))
    found = seed_jackknife(labels, beyond, CORRELATION.change)
    return {
        "question": "C2.loss",
        "stage": EVERY_STAGE,
        "statement": "Of the runs of a stage, those with less excess loss at a step have states that hold more of √p.",
        "measured": "Spearman’s correlation of the mean share with the excess loss over runs and looks, less its mean "
        "where runs are permuted within their stages, each with its whole curve; p by these permutations",
        "predicted": "below 0",
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "seeds": len(labels),
        "p": run_permutation(shares.to_numpy(), losses.to_numpy(), stages),
        "spread": math.nan,
        "claimed": 1 if beyond(labels) < 0 else -1,
        "limit": 0.0,
        "by_chance": False,
    }


def _judged(row: Mapping[Any, Any], tests: int) -> tuple[str, str]:
    """Return the verdict, and what an open question needs, as one of so many tests."""
    if math.isnan(row["value"]):
        return OPEN, "runs in which this can be measured"
    # The others are decided without an interval over seeds.
    apart = row["question"] in ("C1.bound", "C2.loss") or side(row["low"], row["high"], row["limit"]) != 0
    bound = math.isnan(row["p"]) and row["question"] == "C1.bound"
    if apart and (bound or row["p_holm"] <= SIGNIFICANT):
        return (HOLDS if row["claimed"] > 0 else FAILS), ""
    if row["seeds"] < 2:
        return OPEN, "at least two seeds"
    if row["question"] == "C2.loss":
        return OPEN, "more runs"
    if row["by_chance"]:
        return OPEN, "more eigenfunctions, not seeds: an order by chance is as strong"
    if not row["spread"] > 0:
        return OPEN, "seeds that differ"
    away = abs(row["value"] - row["limit"])
    variances, level = np.array([row["spread"] ** 2, 0.0, 0.0, 0.0]), 1 - SIGNIFICANT / tests
    needed = seeds_needed(away, variances, 1, 1, new_bands=False, level=level)
    more = None if needed is None else max(needed, row["seeds"] + 1)
    return OPEN, f"more than {LARGEST:,} seeds" if more is None else f"about {more} seeds"
