"""How much scores differ between the slots of matrices (q, k, v, o, up, down), and between blocks."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from sims.analysis.intervals import mean_interval
from sims.analysis.ranges import Range
from spectra.arrays import largest, unit

PARTS = ("slots", "blocks")
# Of a share of variance, whose interval is cut there.
WITHIN = Range(0.0, 1.0, cut=True)
# A spread below this share of the scores is one of rounding.
ROUNDING = 1e-12
_NAME = re.compile(r"(blocks\.\d+)\.(.+)")
COLUMNS = ["by", "part", "models", "share", "low", "high", "noise", "noise_low", "noise_high"]


def variance_shares(scores: pd.DataFrame) -> dict[str, float]:
    """Return the shares of the variance of scores that lie between the means of slots, and between those of blocks.

    Σ n_g (mean_g − mean)² / Σ (score − mean)². With every slot in every block once, the rest of 1 is what neither slot
    nor block explains. Matrices outside the blocks, such as a head, have neither and are left out.

    Args:
        scores: one row a matrix: name, such as blocks.0.attn.q, and score.

    Returns:
        slots, blocks; NaN if all scores are equal, or a score of a block is missing.

    >>> own = pd.DataFrame({"name": ["blocks.0.q", "blocks.0.o", "blocks.1.q", "blocks.1.o"], "score": [1, 3, 2, 4]})
    >>> variance_shares(own)
    {'slots': 0.8, 'blocks': 0.2}
    """
    groups = scores["name"].str.extract(_NAME)
    inside = groups[0].notna().to_numpy()
    groups, values = groups[inside], scores["score"].to_numpy(float)[inside]
    if not (values.size and np.isfinite(values).all()) or np.ptp(values) <= ROUNDING * np.abs(values).max():
        return dict.fromkeys(PARTS, np.nan)
    # Exact division keeps squares within float64.
    values = values / unit(largest(values))
    total = float(((values - values.mean()) ** 2).sum())
    found = {}
    for part, keys in zip(PARTS, (groups[1], groups[0]), strict=True):
        means = pd.Series(values).groupby(keys.to_numpy()).transform("mean").to_numpy()
        between = float(((means - values.mean()) ** 2).sum())
        found[part] = between / total
    return found


def slot_table(scores: pd.DataFrame, noise: pd.DataFrame) -> pd.DataFrame:
    """Return the shares of `variance_shares` over models, beside those of Gaussian matrices of their shapes.

    Args:
        scores: model, by, name, score of matrices; rows of several methods and sparsities are equal, and count once.
        noise: the same with draw.

    Returns:
        One row a score that has a level of noise, and part (slots, blocks): by, part, models, share (mean over models)
        with low, high (95 % Student, cut at 0 and 1; NaN for one), noise (mean) with noise_low, noise_high (lowest and
        highest draw, each a mean over models). Matrices count that the score and all draws of noise have, and models
        whose scores and draws each differ between matrices; without one there is no row.
    """
    rows: list[dict[str, object]] = []
    for by, drawn in _once(noise, ["model", "by", "draw", "name"]).groupby("by", sort=False):
        own = _once(scores, ["model", "by", "name"])
        own, drawn = _common(own[own["by"] == by], drawn)
        if own.empty:
            continue
        shares, noisy = _shares(own, ["model"]), _shares(drawn, ["model", "draw"])
        # A model without a share would still be in the mean of the noise.
        without = {model for part in (shares, noisy) for model in part.loc[part["slots"].isna(), "model"]}
        shares, noisy = (part[~part["model"].isin(without)] for part in (shares, noisy))
        if shares.empty:
            continue
        levels = noisy.groupby("draw")[list(PARTS)].mean()
        for part in PARTS:
            share, low, high = mean_interval(shares[part].to_numpy(), WITHIN)
            row = {"by": by, "part": part, "models": len(shares), "share": share, "low": low, "high": high}
            level = levels[part]
            rows.append({**row, "noise": level.mean(), "noise_low": level.min(), "noise_high": level.max()})
    return pd.DataFrame(rows, columns=COLUMNS)


def _common(own: pd.DataFrame, drawn: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of the matrices that have a score, and one in every draw: others would be of other matrices."""
    keys, own, drawn = ["model", "name"], own.dropna(subset=["score"]), drawn.dropna(subset=["score"])
    draws = drawn.groupby(keys)["draw"].nunique()
    both = draws.index[draws == drawn["draw"].nunique()].intersection(pd.MultiIndex.from_frame(own[keys]))
    return tuple(part[pd.MultiIndex.from_frame(part[keys]).isin(both)] for part in (own, drawn))  # pyright: ignore


def _once(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return table.drop_duplicates(keys) if len(table) else pd.DataFrame(columns=[*keys, "score"])


def _shares(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {**dict(zip(keys, which, strict=True)), **variance_shares(own.reset_index(drop=True))}
        for which, own in table.groupby(keys, sort=False)
    )
