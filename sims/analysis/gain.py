"""Ask what a signal adds to simple baselines when it predicts which runs grok.

Two logistic models are compared, one with the baselines and one with the signal besides, by how well each predicts runs
that it was not fitted to. A signal that merely repeats a baseline, such as the gradient norm, adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd

from sims.analysis.alarms import GROKS, controls_of
from sims.analysis.verdicts import require_columns
from sims.system.errors import MeasureError

DRAWS = 999
RIDGE = 1.0
# Of each class; leaving one run out must leave two of its class.
LEAST_RUNS = 3
STEPS = 12
# A spread below this share of the values is one of rounding.
ROUNDING = 1e-9
EPS = float(np.finfo(float).eps)
CHUNK = 50


@dataclass(frozen=True)
class Gain:
    """Hold what a signal adds to the baselines.

    Attributes:
        signal: its name.
        runs, positives: all runs, and those that grok.
        without, with_signal: mean log score of runs left out, in nats (0 is perfect, −ln 2 a coin).
        gain: the difference in nats a run; NaN where not resolved, as all numbers.
        p: share of permutations with a gain at least as large.
        status: "ok" or "not resolved".
        reason: why it is not resolved.
    """

    signal: str
    runs: int
    positives: int
    without: float = math.nan
    with_signal: float = math.nan
    gain: float = math.nan
    p: float = math.nan
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""

    @property
    def sentence(self) -> str:
        """Return the result as one sentence."""
        if self.status != "ok":
            return f"What {self.signal} adds to the baselines is not resolved ({self.reason})."
        return (
            f"{self.signal} adds {self.gain:+.3f} nats a run to the baselines (p = {self.p:.3g}, {self.positives} of "
            f"{self.runs} runs grok)."
        )

    def row(self) -> dict[str, object]:
        """Return the fields and the sentence as a row of a table."""
        return {**asdict(self), "sentence": self.sentence}


def signal_gain(
    table: pd.DataFrame,
    signal: str,
    baselines: Sequence[str],
    *,
    target: str = "groks",
    ridge: float = RIDGE,
    draws: int = DRAWS,
    seed: int = 0,
) -> Gain:
    """Compare predictions with and without a signal, on runs left out one at a time.

    Both models are logistic regressions with penalty ½·ridge·‖w‖² on columns scaled to unit variance among the runs
    that they are fitted to; the offset is free. The test permutes among runs what the baselines do not explain of the
    signal (its least-squares residual), so that a relation of the signal to the baselines stays as it is.

    Args:
        table: one row a run, all read at one time (see `wide_scores`): the target (true where the run groks), the
            signal, the baselines.
        signal, baselines: columns.
        target: column.
        ridge: the penalty.
        draws: permutations; the smallest p-value is 1/(draws + 1).
        seed: of the permutations.

    Returns:
        `Gain`, not resolved with fewer than three runs in a class, or where the signal is
        constant or determined by the baselines.

    Raises:
        MeasureError: a missing column, a run without target, a value that is not finite, no baseline, or an argument
            outside its range.
    """
    require_columns(table, [target, signal, *baselines])
    if not baselines or signal in baselines or ridge <= 0 or draws < 1:
        raise MeasureError(
            f"baselines {list(baselines)}, ridge {ridge:g}, draws {draws}: pass at least one baseline other than "
            "the signal, a positive ridge and at least one draw"
        )
    if table[target].isna().any():
        raise MeasureError(
            f"{target} is missing in {int(table[target].isna().sum())} runs; say of each whether it groks"
        )
    y = table[target].to_numpy(bool).astype(float)
    base, own = table[list(baselines)].to_numpy(float), table[signal].to_numpy(float)
    if not (np.isfinite(base).all() and np.isfinite(own).all()):
        raise MeasureError("a signal or a baseline is not finite; leave out the runs that lack one")
    n, positives = len(y), int(y.sum())
    if min(positives, n - positives) < LEAST_RUNS:
        reason = f"{positives} runs grok and {n - positives} do not; {LEAST_RUNS} of each are needed"
        return Gain(signal, n, positives, status="not resolved", reason=reason)
    own, level = _centred(own)
    base = _centred(base)[0]
    if not own.any():
        return Gain(signal, n, positives, status="not resolved", reason="the signal is the same in all runs")
    design = np.column_stack([np.ones(n), base])
    explained = design @ np.linalg.lstsq(design, own, rcond=None)[0]
    rest = own - explained
    if n <= design.shape[1] or np.abs(rest).max() <= max(ROUNDING, n * EPS * float(level)):
        return Gain(signal, n, positives, status="not resolved", reason="the baselines determine the signal")
    without = float(_scores(base[None], y, ridge)[0])
    generator = np.random.default_rng(seed)
    orders = [np.arange(n), *(generator.permutation(n) for _ in range(draws))]
    signals = explained + rest[np.stack(orders)]
    columns = [
        _scores(
            np.concatenate([np.broadcast_to(base, (len(s), *base.shape)), s[:, :, None]], axis=2), y, ridge
        )
        for s in np.split(signals, range(CHUNK, len(signals), CHUNK))
    ]
    found = np.concatenate(columns)
    p = float((found >= found[0] - 1e-12).mean())
    return Gain(signal, n, positives, without, float(found[0]), float(found[0] - without), p)


def wide_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores read at one time as one row a run, for `signal_gain`.

    Runs that lack a signal there are left out, as are those that neither grok nor are controls that do not.

    Args:
        scores: rows of `sims.analysis.alarm_rocs.scores_at` of one clock and time.

    Returns:
        run, group, kind ("groks" or the type of control), groks, and a column for each signal.

    Raises:
        MeasureError: several times.
    """
    if len(scores[["clock", "time"]].drop_duplicates()) != 1:
        raise MeasureError(
            "the scores are of several times, or none; pass those of one that was fixed beforehand"
        )
    grok = (scores["outcome"] == GROKS) & (scores["control"] == "")
    kept = scores.assign(kind=controls_of(scores).where(~grok, GROKS)).dropna(subset=["kind", "value"])
    wide = kept.pivot(index=["run", "group", "kind"], columns="signal", values="value").dropna().reset_index()
    wide.columns.name = None
    return wide.assign(groks=wide["kind"] == GROKS)


def _centred(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return columns without their mean, the largest entry of each 1 in size, and the largest before in these units.

    Columns that vary by rounding alone are 0.
    """
    # Division by a power of two is exact, and keeps sums within float64.
    size = np.ldexp(1.0, np.maximum(np.frexp(np.abs(values).max(axis=0))[1] - 1, -1022))
    values = values / size
    centred = values - values.mean(axis=0)
    spread, level = np.abs(centred).max(axis=0), np.abs(values).max(axis=0)
    known = spread > ROUNDING * level
    spread = np.where(known, spread, 1.0)
    return np.where(known, centred / spread, 0.0), level / spread


def _scores(features: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Return the mean log score of runs left out one at a time, (sets,), of feature sets (sets, n, p)."""
    sets, n, _ = features.shape
    kept = ~np.eye(n, dtype=bool)
    # (sets, n folds, n runs, p), scaled by the mean and spread of the runs of the fold.
    mean = (features.sum(axis=1, keepdims=True) - features) / (n - 1)
    scaled = features[:, None] - mean[:, :, None]
    spread = np.sqrt(np.einsum("sfnp,fn->sfp", scaled**2, kept.astype(float)) / (n - 1))
    tiny = ROUNDING * np.maximum(np.abs(features).max(axis=1, keepdims=True), 1e-300)
    scaled *= np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > tiny)[:, :, None]
    scaled = np.concatenate([np.ones((sets, n, n, 1)), scaled], axis=3)
    weights = _fitted(scaled, y, kept.astype(float), ridge)
    own = np.einsum("siip,sip->si", scaled, weights)
    return -np.logaddexp(0.0, np.where(y > 0, -own, own)).mean(axis=1)


def _fitted(scaled: np.ndarray, y: np.ndarray, kept: np.ndarray, ridge: float) -> np.ndarray:
    """Fit penalised logistic regressions by Newton's method, (sets, folds, p)."""
    width = scaled.shape[3]
    penalty = np.full(width, ridge)
    # A hair of a penalty keeps the offset of the equations solvable.
    penalty[0] = 1e-8
    weights = np.zeros((*scaled.shape[:2], width))
    for _ in range(STEPS):
        margin = np.einsum("sfnp,sfp->sfn", scaled, weights)
        probability = 1 / (1 + np.exp(-np.clip(margin, -30, 30)))
        slope = np.einsum("sfnp,sfn->sfp", scaled, kept * (y - probability)) - penalty * weights
        curvature = kept * np.maximum(probability * (1 - probability), 1e-6)
        hessian = np.einsum("sfnp,sfn,sfnq->sfpq", scaled, curvature, scaled, optimize=True)
        hessian += np.diag(penalty)
        step = np.linalg.solve(hessian, slope[..., None])[..., 0]
        # Newton steps of a logistic fit overshoot far from the optimum.
        weights += step / np.maximum(1.0, np.abs(step).max(axis=2, keepdims=True) / 2.0)
    return weights
