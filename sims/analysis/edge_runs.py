"""Say whether runs have a spectral edge, where it lies, and whether it lies elsewhere at another scale.

All counts are over disjoint windows: two windows that share updates have nearly the same edge. A window spans W updates
of some steps each; windows are used whose last steps are at least this span apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sims.analysis.resampling import RESAMPLES, TIE
from sims.analysis.verdicts import LEAST_SEEDS, Verdict, agreeing, apart, require_columns, require_labels
from sims.pages.number import counted
from sims.system.errors import MeasureError

# A window has an edge below this p-value, and a run if more than this share of its windows has one.
LEVEL = 0.01
SHARE = 0.2
LEAST_WINDOWS = 5
# Two scales with the same k* have a p-value above this one.
SAME, DRAWS = 0.05, 999
# All exchanges of whole seeds are counted up to so many of them.
EXACT_SEEDS = 12
# What two scales must have in common before their k* are compared.
CONDITIONS = ("most", "travel", "row_normalised")


def edge_runs(windows: pd.DataFrame, *, span: float, p: str | Sequence[str] = "p") -> pd.DataFrame:
    """Say of each run whether it has an edge.

    A run has an edge if more than 20 % of its disjoint windows have p < 0.01, and a binomial test rejects that only 1 %
    do (p < 0.01).

    Args:
        windows: one row a window: run, step (of its last update), p-values of its gap.
        span: steps that a window covers: W times the steps of an update.
        p: column of the p-values, or several (such as those of two numbers of independent directions) that must all be
            below 0.01.

    Returns:
        One row a run: run, windows (disjoint), edges, share, p_binomial, edge (whether it has one), status, reason (not
        resolved below five disjoint windows, or with p-values that are missing), sentence.

    Raises:
        MeasureError: no or a missing column, two windows of a run at one step, or a p-value outside [0, 1].
    """
    names = [p] if isinstance(p, str) else list(p)
    if not names:
        raise MeasureError("there is no column of p-values; name at least one")
    require_columns(windows, ["run", "step", *names])
    require_labels(windows, ["run", "step"])
    if windows.empty:
        raise MeasureError("there are no windows; pass those of at least one run")
    rows = []
    for run, own in windows.groupby("run", sort=False):
        values = _disjoint(own, span, str(run))[names].to_numpy(float)
        if ((values < 0) | (values > 1)).any():
            raise MeasureError(f"run {run} has a p-value outside [0, 1]; pass p-values of the gap")
        row = {"run": run, "windows": len(values), "edges": 0, "share": math.nan, "p_binomial": math.nan}
        reason = ""
        if len(values) < LEAST_WINDOWS:
            reason = f"{len(values)} disjoint windows of {span:g} steps, and the rule needs {LEAST_WINDOWS}"
        elif np.isnan(values).any():
            reason = f"{int(np.isnan(values).any(axis=1).sum())} of {len(values)} windows have no p-value"
        if reason:
            told = f"Whether run {run} has an edge is not resolved ({reason})."
            rows.append({**row, "edge": False, "status": "not resolved", "reason": reason, "sentence": told})
            continue
        edges = int((values < LEVEL).all(axis=1).sum())
        share, tested = (
            edges / len(values),
            float(stats.binomtest(edges, len(values), LEVEL, "greater").pvalue),
        )
        has = share > SHARE and tested < LEVEL
        counted = f"{edges} of {len(values)} disjoint windows have p < {LEVEL}"
        told = f"Run {run} has {'an' if has else 'no'} edge: {counted}."
        row |= {"edges": edges, "share": share, "p_binomial": tested}
        rows.append({**row, "edge": has, "status": "ok", "reason": "", "sentence": told})
    return pd.DataFrame(rows)


def edge_mode(
    windows: pd.DataFrame, *, span: float, k: str = "k", resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Return the most frequent k* over the disjoint windows of all seeds, with a 95 % interval.

    The interval resamples seeds, and within each the first windows of moving blocks of a span: windows at random
    places, as many as there are disjoint ones; of one seed it knows of the spread of its windows alone. Of several
    equally frequent k* the smallest is taken.

    Args:
        windows: one row a window: seed, step, k*.
        span: as in `edge_runs`.
        k: the column.
        resamples, seed: of the bootstrap.

    Returns:
        k, share (of disjoint windows that have it), low, high, windows, seeds, sentence.

    Raises:
        MeasureError: a missing column, two windows of a seed at one step, no windows, or a k* that is no whole number.
    """
    require_columns(windows, ["seed", "step", k])
    require_labels(windows, ["seed", "step"])
    found = windows[k].to_numpy(float)
    if not len(found) or not (np.isfinite(found) & (found >= 1) & (found % 1 == 0)).all():
        raise MeasureError(
            "there are no windows, or a k* is missing or no whole number from 1; leave such windows out"
        )
    groups = [own.sort_values("step") for _, own in windows.groupby("seed", sort=True)]
    disjoint = [_disjoint(own, span, str(own["seed"].iloc[0]))[k].to_numpy(int) for own in groups]
    series = [own[k].to_numpy(int) for own in groups]
    observed, most = np.concatenate(disjoint), int(found.max())
    generator = np.random.default_rng(seed)
    counts = np.zeros((resamples, most + 1))
    for i in range(resamples):
        for s in generator.integers(len(series), size=len(series)):
            starts = generator.integers(len(series[s]), size=len(disjoint[s]))
            counts[i] += np.bincount(series[s][starts], minlength=most + 1)
    low, high = np.quantile(counts.argmax(axis=1), [0.025, 0.975], method="nearest")
    mode = int(np.bincount(observed).argmax())
    low, high, share = int(min(low, mode)), int(max(high, mode)), float((observed == mode).mean())
    of = f"{counted(len(observed), 'disjoint window')} of {counted(len(series), 'seed')}"
    told = f"k* is {mode} [{low}, {high}] in {share:.0%} of {of}."
    return {
        "k": mode,
        "share": share,
        "low": low,
        "high": high,
        "windows": len(observed),
        "seeds": len(series),
        "sentence": told,
    }


def edge_scales(
    windows: pd.DataFrame,
    first: str,
    second: str,
    *,
    span: float,
    k: str = "k",
    draws: int = DRAWS,
    seed: int = 0,
) -> Verdict:
    """Say whether k* differs between two scales.

    Shown if the modes over disjoint windows differ in the same direction in at least three of four seeds, and the
    shares of each k* differ more than between windows that are permuted among the scales of each seed, and than between
    scales that are exchanged in whole seeds (p < 0.05 both): modes of noise are spread over several k*, and often
    differ in the same direction in three of four seeds; and windows of a run are alike, so that two runs of one scale
    differ as well. Fewer than six seeds have too few exchanges: what windows show is then not resolved. Both scales
    must have the same J (`most`), the same steps between snapshots times learning rate (`travel`), and updates divided
    by their lengths (`row_normalised`): each of these moves k* by itself.

    Args:
        windows: one row a window: scale, seed, step, k*, most, travel, row_normalised.
        first, second: two values of scale.
        span: as in `edge_runs`.
        k: the column.
        draws, seed: of the permutations.

    Raises:
        MeasureError: a missing column or scale, or as `edge_mode`.
    """
    require_columns(windows, ["scale", "seed", "step", k, *CONDITIONS])
    require_labels(windows, ["scale", "seed", "step"])
    chosen = windows[windows["scale"].isin([first, second])]
    for scale in (first, second):
        if not (chosen["scale"] == scale).any():
            raise MeasureError(
                f"there is no scale {scale}; there are {', '.join(map(str, windows['scale'].unique()))}"
            )
    claim = f"k* differs between {first} and {second}"
    if reason := _unlike(chosen):
        return Verdict(claim, "not resolved", reason)
    modes: dict[str, dict[Any, Any]] = {
        scale: {
            seed: edge_mode(own, span=span, k=k, resamples=1)["k"]
            for seed, own in chosen[chosen["scale"] == scale].groupby("seed")
        }
        for scale in (first, second)
    }
    seeds = sorted(set(modes[first]) & set(modes[second]))
    if len(seeds) < LEAST_SEEDS:
        return Verdict(
            claim, "not resolved", f"{len(seeds)} seeds have both scales, and the rule needs {LEAST_SEEDS}"
        )
    signs = [int(np.sign(modes[second][s] - modes[first][s])) for s in seeds]
    hits, needed = max(signs.count(1), signs.count(-1)), agreeing(len(seeds))
    whole = [edge_mode(chosen[chosen["scale"] == scale], span=span, k=k) for scale in (first, second)]
    told = " and ".join(
        f"{w['k']} [{w['low']}, {w['high']}] at {s}" for w, s in zip(whole, (first, second), strict=True)
    )
    pairs = [
        [_disjoint(own[own["scale"] == scale], span, str(s))[k].to_numpy(int) for scale in (first, second)]
        for s, own in chosen[chosen["seed"].isin(seeds)].groupby("seed")
    ]
    p = _same_shares(pairs, draws, seed)
    reason = (
        f"{told}; the modes differ in the same direction in {hits} of {len(seeds)} seeds, {needed} needed; "
        f"p = {p:.2g} that both have the same k*, below {SAME} needed"
    )
    if hits < needed or not p < SAME:
        return Verdict(claim, "not shown", reason)
    exchanged, least = _exchanged_seeds(pairs)
    reason += f"; p = {exchanged:.2g} if scales are exchanged in whole seeds"
    if not least < SAME:
        return Verdict(claim, "not resolved", f"{reason}, and {len(seeds)} seeds have none below {least:.2g}")
    return Verdict(claim, "shown" if exchanged < SAME else "not shown", reason)


def _distance(parts: Sequence[Sequence[np.ndarray]]) -> float:
    """Return the distance of the shares of each k* at two scales.

    Args:
        parts: for each seed, k* of the windows of both scales.
    """
    shares = [np.concatenate([pair[i] for pair in parts]) for i in (0, 1)]
    most = max(int(k.max()) for k in shares)
    one, two = (np.bincount(k, minlength=most + 1) / len(k) for k in shares)
    return float(np.abs(one - two).sum())


def _unlike(windows: pd.DataFrame) -> str:
    """Say which condition of two scales moves k* by itself; empty where none does."""
    for name in CONDITIONS[:2]:
        values = windows[name].to_numpy(float)
        if not np.ptp(values) <= 1e-9 * np.abs(values).max():
            return (
                f"{name} differs ({', '.join(f'{v:g}' for v in np.unique(values))}), which moves k* by itself"
            )
    if not windows["row_normalised"].astype(bool).all():
        return "the updates are not divided by their lengths, which move k* by themselves"
    return ""


def _same_shares(pairs: Sequence[Sequence[np.ndarray]], draws: int, seed: int) -> float:
    """Return the p-value of the distance of two distributions of k*, by permutations of windows within seeds.

    Args:
        pairs: as in `_distance`.
    """
    generator = np.random.default_rng(seed)
    observed, reached = _distance(pairs), 0
    for _ in range(draws):
        mixed = [generator.permutation(np.concatenate(pair)) for pair in pairs]
        parts = [np.split(own, [len(pair[0])]) for own, pair in zip(mixed, pairs, strict=True)]
        reached += _distance(parts) >= observed - TIE
    return (1 + reached) / (1 + draws)


def _exchanged_seeds(pairs: Sequence[Sequence[np.ndarray]]) -> tuple[float, float]:
    """Return the p-value of the distance by exchanging the scales of whole seeds, and the smallest possible one.

    All exchanges are counted up to 12 seeds, and those of 4,095 drawn above.

    Args:
        pairs: as in `_distance`.
    """
    seeds = len(pairs)
    # An exchange in all seeds leaves the distance as it is: the first one keeps its scales.
    if seeds <= EXACT_SEEDS:
        turns = [(0, *rest) for rest in product((0, 1), repeat=seeds - 1)]
    else:
        drawn = np.random.default_rng(seeds).integers(2, size=(2**EXACT_SEEDS - 1, seeds))
        turns = [(0,) * seeds, *drawn.tolist()]
    found = np.array(
        [
            _distance([pair[::-1] if turned else pair for pair, turned in zip(pairs, turn, strict=True)])
            for turn in turns
        ]
    )
    return float((found >= found[0] - TIE).mean()), 1 / len(turns)


def _disjoint(own: pd.DataFrame, span: float, name: str) -> pd.DataFrame:
    """Return windows of a run that end at least a span apart, the first one among them."""
    if not span > 0:
        raise MeasureError(f"span is {span}; give the steps that a window covers")
    if own["step"].duplicated().any():
        raise MeasureError(
            f"{name} has two windows at a step; pass one group of parameters and one W at a time"
        )
    own = own.sort_values("step")
    return own.iloc[apart(own["step"].to_numpy(float), span)]
