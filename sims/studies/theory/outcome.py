"""What came of asking one claim of trained models, and how a verdict is reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sims.analysis.intervals import seed_intervals
from sims.analysis.ranges import REAL, Range
from sims.analysis.variance import LARGEST, seeds_needed
from theory.predictions import Prediction, judge

HOLDS, FAILS, NOT_TESTABLE = "holds", "fails", "not testable on these runs"


@dataclass(frozen=True, eq=False)
class Outcome:
    """One question to trained models, answered.

    Attributes:
        claim: id of the claim (T8.order).
        question: what is asked, in words, and of which runs.
        unit: what the effect is, with its unit.
        effect, low, high: the measured effect and its 95 % interval over seeds; NaN where there is none.
        predicted: what the claim, or its null, says, in words.
        runs, seeds, checkpoints: how many took part.
        verdict: ``holds``, ``fails`` or ``not testable on these runs``.
        reason: why, in words.
        needs: what would decide an open question, such as "about 9 seeds"; empty where the reason says it.
        figure: the evidence; None where there is nothing to draw.
    """

    claim: str
    question: str
    unit: str
    effect: float
    low: float
    high: float
    predicted: str
    runs: int
    seeds: int
    checkpoints: int
    verdict: str
    reason: str
    figure: Figure | None = None
    needs: str = ""

    @property
    def asked(self) -> tuple[str, str]:
        """Return the question and the runs that it is asked of; these are empty where it is asked of all."""
        question, _, of = self.question.partition(" [")
        return question, of.removesuffix("]")


@dataclass(frozen=True)
class Question:
    """A question of `theory.predictions`, narrowed to some runs.

    Attributes:
        prediction: the question and its relation.
        of: which runs ("untied", "ranks 10–40, muon"); empty for all.
        predicted: the predicted or null value in words.
    """

    prediction: Prediction
    predicted: str
    of: str = ""

    @property
    def text(self) -> str:
        """Return the question in words, with the runs it is asked of."""
        return self.prediction.question + (f" [{self.of}]" if self.of else "")

    def untestable(self, reason: str, used: pd.DataFrame | None = None) -> Outcome:
        """Return the outcome where a premise is not met or nothing was measured."""
        return self._outcome(math.nan, math.nan, math.nan, NOT_TESTABLE, reason, used, None)

    def exact(
        self,
        effect: float,
        holds: bool,
        reason: str,
        used: pd.DataFrame,
        figure: Figure | None = None,
        *,
        missing: int = 0,
    ) -> Outcome:
        """Return the outcome of an identity or inequality that its worst case decides; it needs no interval.

        Args:
            effect: the worst case; NaN decides nothing.
            holds: whether it holds in the worst case.
            reason, used, figure: as of `Outcome`.
            missing: cases without a number. One may be worse than all others: what holds without them is open.
        """
        if math.isnan(effect) or (holds and missing):
            open_ = f"{missing or 'all'} of {len(used)} cases have no number, and may be worse; {reason}"
            return self._outcome(math.nan, math.nan, math.nan, NOT_TESTABLE, open_, used, figure)
        verdict = HOLDS if holds else FAILS
        return self._outcome(effect, math.nan, math.nan, verdict, reason, used, figure)

    def over_seeds(
        self,
        used: pd.DataFrame,
        value: str = "value",
        figure: Figure | None = None,
        trained: Callable[[float], float] = float,
    ) -> Outcome:
        """Return the outcome of a mean with an interval over seeds.

        Args:
            used: one row a measurement with `seed`, `run_id`, optionally `step`, and the column `value`. Rows of one
                seed are averaged first, so that the interval counts seeds and nothing else. Rows without a number
                are left out.
            trained: how many seeds to train, for so many to be read.
        """
        used = used.dropna(subset=[value])
        if used.empty:
            return self.untestable("nothing was measured that this could be asked of, or it has no number")
        mean, low, high, seeds = seed_mean(used, value, self.prediction.range)
        if seeds < 2:
            least = int(trained(2))
            reason = f"one seed has no interval (its value is {mean:.4g}); train at least {least}"
            one = self._outcome(mean, low, high, NOT_TESTABLE, reason, used, figure)
            return replace(one, needs=f"at least {least} seeds")
        judged = judge(self.prediction, low, mean, high)
        if judged.outcome != "not testable":
            return self._outcome(mean, low, high, judged.outcome, judged.reason, used, figure)
        outcome = self._outcome(mean, low, high, NOT_TESTABLE, judged.reason, used, figure)
        spread = float(used.groupby("seed")[value].mean().std())
        return replace(outcome, needs=seeds_that_decide(self.prediction, mean, spread, trained))

    def _outcome(
        self,
        effect: float,
        low: float,
        high: float,
        verdict: str,
        reason: str,
        used: pd.DataFrame | None,
        figure: Figure | None,
    ) -> Outcome:
        runs, seeds, checkpoints = (0, 0, 0) if used is None else counts(used)
        return Outcome(
            self.prediction.claim,
            self.text,
            self.prediction.measured,
            effect,
            low,
            high,
            self.predicted,
            runs,
            seeds,
            checkpoints,
            verdict,
            reason,
            figure,
        )


def seeds_that_decide(
    prediction: Prediction, mean: float, spread: float, trained: Callable[[float], float] = float
) -> str:
    """Say how many seeds would decide a question, if their mean and spread stay what they are.

    Args:
        prediction: the question.
        mean, spread: of the seeds, the spread as a standard deviation.
        trained: how many seeds to train, for so many to be read.
    """
    if not spread > 0:
        return "seeds that differ"
    # As far as intervals reach: on their own scale, so that as many seeds as there are never decide.
    away = min(prediction.range.reach(mean, limit) for limit in prediction.limits)
    needed = seeds_needed(away, np.array([spread**2, 0.0, 0.0, 0.0]), 1, 1, new_bands=False)
    return f"more than {LARGEST:,} seeds" if needed is None else f"about {trained(needed):.0f} seeds"


def seed_mean(
    table: pd.DataFrame, value: str = "value", within: Range = REAL
) -> tuple[float, float, float, int]:
    """Return mean, 95 % bounds over seeds (NaN for one seed) and number of seeds; each seed counts once.

    Args:
        table: columns seed and `value`.
        within: the values that it can take.
    """
    per_seed = table.groupby("seed")[value].mean().reset_index().assign(all=0)
    row = seed_intervals(per_seed, ["all"], value, within).iloc[0]
    mean, low, high = float(row["mean"]), float(row["low"]), float(row["high"])
    # Equal seeds make an interval of width 0, whose ends may differ from the mean by rounding.
    return mean, min(low, mean), max(high, mean), int(row["n"])


def counts(table: pd.DataFrame) -> tuple[int, int, int]:
    """Count the runs, seeds and checkpoints (a run at a step) behind a table.

    Args:
        table: columns run_id and seed; step where rows are checkpoints, otherwise a run counts as one. Rows about
            several runs name them in one run_id, separated by spaces.
    """
    runs = {name for names in table["run_id"] for name in str(names).split()}
    marks: Sequence[str] = ["run_id", "step"] if "step" in table else ["run_id"]
    return len(runs), int(table["seed"].nunique()), len(table[list(marks)].drop_duplicates())
