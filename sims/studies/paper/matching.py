"""Token gains and divergences at matched losses, taken as the published numbers were.

Published is a mean over five losses: the quartiles, ends included, of the losses at which the compared runs were
measured, within the range that all of them have. A run stands with its measurement of the nearest loss, and the
untrained model is one of them. Measurements are those every 250 steps of 5,000, and the last. Our own comparisons
interpolate, take losses inside of the range and leave the untrained model out (`gains_by_seed`,
`transition_divergence`). Stages differ most where one of them is hardly trained, so that these are other numbers.

Source: the public tables and code of arXiv 2605.05683 (toy model, columns loss_proximal_…).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.cells import paired_runs, transitions
from sims.analysis.intervals import complete_seeds, seed_intervals
from sims.analysis.matched import measured_spectra
from sims.analysis.ranges import DIVERGENCE, GAIN
from sims.analysis.runs import Runs
from sims.analysis.transitions import TRANSITION, mean_over_batches, reasons
from spectra import js_divergence

LEVELS = 5
NONE_IN_COMMON = "no losses in common"


def matched_losses(losses: Sequence[np.ndarray]) -> np.ndarray:
    """Return the losses at which runs are compared, rising; none where they have no range in common.

    Args:
        losses: (k,) of each run, at its measurements.

    >>> matched_losses([np.array([7.0, 3.0, 2.0]), np.array([5.0, 4.0, 1.0])])
    array([2.  , 2.75, 3.5 , 4.25, 5.  ])
    """
    low, high = max(own.min() for own in losses), min(own.max() for own in losses)
    pooled = np.concatenate(losses)
    inside = pooled[(pooled >= low) & (pooled <= high)]
    if not inside.size:
        return np.empty(0)
    return np.unique(np.quantile(inside, np.linspace(0.0, 1.0, LEVELS)))


def nearest(losses: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the index of the measurement whose loss is nearest to each level; of several the first."""
    return np.abs(losses[:, None] - levels).argmin(axis=0)


def matched_transitions(
    runs: Runs, pairs: Sequence[tuple[str, str]] | None, every: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return token gains and divergences between two stages, runs of equal seed compared (see the module).

    Args:
        pairs: stages (before, after); None takes successive ones.
        every: optimiser steps between the measurements that count.

    Returns:
        Gains, and JS (nats): each before, after, n (seeds), mean, low, high (95 % over seeds; the mean over batch sizes
        is taken within each seed first), reason (why they are missing, or "").
    """
    looks = _looks(measured_spectra(runs), every)
    rows: list[dict[str, Any]] = []
    for before, after in transitions(runs, pairs):
        for size, both in paired_runs(runs, before, after):
            label = {"before": before, "after": after, "batch_size": size}
            for seed, first, second in both[["seed", "before", "after"]].itertuples(index=False):
                rows.append({**label, "seed": seed, **_compared(looks, str(first), str(second), size)})
    by_seed = pd.DataFrame(rows)
    means, why = mean_over_batches(by_seed, ["gain", "js"]), reasons(by_seed, TRANSITION)
    gains, divergences = (
        seed_intervals(means, TRANSITION, name, within).merge(why, on=TRANSITION)
        for name, within in (("gain", GAIN), ("js", DIVERGENCE))
    )
    return gains, divergences


def matched_batches(runs: Runs, every: int) -> pd.DataFrame:
    """Return divergences between batch sizes of a stage (see the module); all of one seed are read at the same losses.

    Returns:
        stage, small, large, n (seeds), mean, low, high (JS in nats, 95 % over seeds). Left out are seeds that have no
        losses in common, or that lack a batch size of their stage: they would be read at other losses.
    """
    measured = measured_spectra(runs)
    looks = _looks(measured, every)
    label = complete_seeds(measured.drop_duplicates("run_id"), ["stage"], ["batch_size"])
    rows = []
    for (stage, seed), own in label.groupby(["stage", "seed"], sort=False):
        names = dict(zip(own["batch_size"], own["run_id"], strict=True))
        there = [looks[run] for run in names.values()]
        levels = matched_losses([look["own_loss"].to_numpy(float) for look in there])
        for small, large in combinations(sorted(names), 2):
            if levels.size:
                js = _divergences(looks[names[small]], looks[names[large]], levels)
                rows.append({"stage": stage, "small": small, "large": large, "seed": seed, "js": js.mean()})
    by = ["stage", "small", "large"]
    return seed_intervals(pd.DataFrame(rows, columns=[*by, "seed", "js"]), by, "js", DIVERGENCE)


def _looks(measured: pd.DataFrame, every: int) -> Mapping[str, pd.DataFrame]:
    """Return the measurements of each run that are nearest to the multiples of a number of steps, and its last one."""
    found = {}
    for run, own in measured.groupby("run_id", sort=False):
        steps = own["step"].to_numpy()
        wanted = np.append(np.arange(0, steps[-1], every), steps[-1])
        found[str(run)] = own.iloc[np.unique(np.abs(steps[:, None] - wanted).argmin(axis=0))]
    return found


def _compared(looks: Mapping[str, pd.DataFrame], first: str, second: str, size: int) -> dict[str, Any]:
    """Return gain and divergence of two runs, each the mean over the matched losses; NaN with the reason."""
    if without := [run for run in (first, second) if run not in looks]:
        return {"gain": np.nan, "js": np.nan, "reason": f"B = {size}: no spectrum of {without[0]} is stored"}
    one, other = looks[first], looks[second]
    levels = matched_losses([own["own_loss"].to_numpy(float) for own in (one, other)])
    if not levels.size:
        return {"gain": np.nan, "js": np.nan, "reason": f"B = {size}: {NONE_IN_COMMON}"}
    before, after = (
        own["tokens"].to_numpy(float)[nearest(own["own_loss"].to_numpy(float), levels)]
        for own in (one, other)
    )
    trained = (before > 0) & (after > 0)
    gains = before[trained] / after[trained] - 1
    return {
        "gain": gains.mean() if gains.size else np.nan,
        "js": _divergences(one, other, levels).mean(),
        "reason": "" if gains.size else f"B = {size}: no loss in common after the start",
    }


def _divergences(one: pd.DataFrame, other: pd.DataFrame, levels: np.ndarray) -> np.ndarray:
    """Return the JS (levels,) of the spectra of two runs at their measurements of the nearest losses."""
    first, second = (
        own["values"].iloc[nearest(own["own_loss"].to_numpy(float), levels)] for own in (one, other)
    )
    return np.array([js_divergence(np.asarray(a), np.asarray(b)) for a, b in zip(first, second, strict=True)])
