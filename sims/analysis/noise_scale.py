"""Fit what a larger batch costs in tokens, D(B) = D_min·(1 + B/B_noise), to the tokens that runs needed."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from sims.analysis.resampling import LEVEL, seed_jackknife
from sims.system.errors import MeasureError
from theory.fits import LEAST_SIZES, fit_batch_curve, lack_of_fit, profile_interval


def noise_scale(table: pd.DataFrame) -> pd.DataFrame:
    """Fit D_min and B_noise of each stage, with intervals and a test of the form.

    The model is ln D = μ_s + ln(1 + B/B_noise) + ε with an offset a seed, ε independent with equal variance. B_noise
    has its profile interval (the values whose residual sum of squares passes an F-test against the best one), which
    shows where the data have no bound: at infinity when D does not rise with B, at 0 when it is proportional to B.
    D_min = exp(mean μ_s), corrected for bias and with its interval by leaving out one seed at a time. Batch sizes are
    compared at the learning rates of the runs; D_min and B_noise are those of tuned runs only if each was tuned.

    Args:
        table: columns stage, batch_size, seed, target, tokens (of `tokens_to`).

    Returns:
        One row a stage: stage, target, sizes, seeds (those with every batch size), d_min (tokens), d_min_low,
        d_min_high (NaN below three seeds), b_noise (sequences), b_noise_low, b_noise_high, r2 (of ln D about the seeds'
        means), p_form (lack-of-fit F-test of the two-parameter curve against a free mean for each batch size; small
        speaks against the form; NaN with one seed), status ("ok", "flagged") and reason.

    Raises:
        MeasureError: fewer than three batch sizes with a seed in common, several targets in a stage, two runs of one
            seed and batch size, or tokens that are not positive and finite.

    Source: the hyperbola (S/S_min − 1)(E/E_min − 1) = 1 of McCandlish et al., arXiv 1812.06162, read for tokens at one
    batch size.
    """
    return pd.DataFrame([_fit_stage(str(stage), own) for stage, own in table.groupby("stage", sort=False)])


def _fit_stage(stage: str, own: pd.DataFrame) -> dict[str, object]:
    _check(stage, own)
    wide = own.pivot(index="seed", columns="batch_size", values="tokens").dropna()
    if wide.shape[1] < LEAST_SIZES or wide.empty:
        raise MeasureError(
            f"D(B) of stage {stage} needs ≥ {LEAST_SIZES} batch sizes that share a seed (two parameters fit any two); "
            f"there are {own['batch_size'].nunique()} sizes and {len(wide)} seeds with all of them: train more sizes"
        )
    sizes, logs = wide.columns.to_numpy(float), np.log(wide.to_numpy(float))
    curve = fit_batch_curve(sizes, logs)
    low, high = profile_interval(sizes, logs, curve, LEVEL)

    def log_minimum(kept) -> float:
        return float(fit_batch_curve(sizes, logs[list(kept)]).offsets.mean())

    minimum = seed_jackknife(range(len(logs)), log_minimum)
    total = float(((logs - logs.mean(axis=1, keepdims=True)) ** 2).sum())
    reason = ""
    if sides := ["above"] * math.isinf(high) + ["below"] * (low == 0.0):
        reason = f"the batch sizes {sizes[0]:.0f}…{sizes[-1]:.0f} do not bound B_noise from {' and from '.join(sides)}"
    return {
        "stage": stage,
        "target": own["target"].iloc[0],
        "sizes": len(sizes),
        "seeds": len(logs),
        "d_min": float(np.exp(minimum.value)),
        "d_min_low": float(np.exp(minimum.low)),
        "d_min_high": float(np.exp(minimum.high)),
        "b_noise": curve.noise_scale,
        "b_noise_low": low,
        "b_noise_high": high,
        "r2": 1 - curve.rss / total if total > 0 else math.nan,
        "p_form": lack_of_fit(logs, curve),
        "status": "flagged" if reason else "ok",
        "reason": reason,
    }


def _check(stage: str, own: pd.DataFrame) -> None:
    tokens = own["tokens"].dropna().to_numpy(float)
    wrong = tokens[~(np.isfinite(tokens) & (tokens > 0))]
    if wrong.size:
        raise MeasureError(
            f"tokens of stage {stage} are {wrong[0]:g} in {wrong.size} runs; they must be positive and finite: leave "
            "out the runs that do not reach the target"
        )
    if own["target"].nunique() > 1:
        raise MeasureError(
            f"stage {stage} has {own['target'].nunique()} targets; a curve has one: pass the tokens to one loss"
        )
    twice = own[own.duplicated(["seed", "batch_size"])]
    if len(twice):
        seed, size = twice.iloc[0][["seed", "batch_size"]]
        raise MeasureError(
            f"stage {stage} has several runs of seed {seed} and batch size {size}; leave one of each, at one "
            "learning rate"
        )
