"""Ask whether one series goes before another, and by how many snapshots.

Both series are detrended in the same way, and correlated at lags of both signs. Positive lags mean that the first
series is earlier. Series that drift slowly have large correlations by chance, the more so when one is a mean over
rolling windows; and the largest of many lags is larger still. The test therefore keeps the largest |r| of all lags, and
compares it with that of permuted blocks no shorter than a window. A window's number is a mean over W updates: stamped
with the end of its window it comes (W−1)/2 snapshots late, so that lags are also reported with the stamp at the centre.

Sources: arXiv 2603.15678 (the lags, with cubic detrending); Politis and Romano, J. Amer. Stat. Assoc. 89 (1994),
the stationary bootstrap; Westfall and Young (1993), the largest statistic of a permutation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from sims.analysis.lagged import (
    DEGREES,
    Detrend,
    block_length,
    common,
    correlations,
    detrended,
    permuted,
    resampled,
    too_short,
)
from sims.analysis.verdicts import LEAST_SEEDS, Verdict, agreeing, require_columns, require_labels
from sims.system.errors import MeasureError

Stamp = Literal["end", "centre"]

LAGS = 5
DRAWS = 9_999
RESAMPLES = 1_999
SIGNIFICANT = 0.05
# Blocks that a test must have.
LEAST_BLOCKS = 3


@dataclass(frozen=True, eq=False)
class LagCoupling:
    """Hold how two series of one run are coupled at lags of both signs.

    Attributes:
        window: W of the first series, in snapshots.
        stamp: where a window's number stands in time, at its end or its centre.
        detrend: what was taken out of both series.
        points: snapshots at which both are known.
        curve: one row a lag: lag (in snapshots, positive where the first series is earlier), r, pairs.
        lag, r: the lag of the largest |r|, and r there; NaN where not resolved, as all numbers below.
        low, high: its 95 % interval.
        negative_lag, negative_low, negative_high: the lag of the most negative r, with its interval.
        p: of the largest |r| over all lags.
        block: length of the permuted blocks, in snapshots.
        status: "ok" or "not resolved".
        reason: why it is not resolved.
    """

    window: int
    stamp: Stamp
    detrend: Detrend
    points: int
    curve: pd.DataFrame
    lag: float = math.nan
    r: float = math.nan
    low: float = math.nan
    high: float = math.nan
    negative_lag: float = math.nan
    negative_low: float = math.nan
    negative_high: float = math.nan
    p: float = math.nan
    block: int = 0
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""

    @property
    def sentence(self) -> str:
        """Return the result as one sentence."""
        head = f"Window {self.window}, stamped at its {self.stamp} ({self.detrend})"
        if self.status != "ok":
            return f"{head}: not resolved ({self.reason})."
        far = "significant" if self.p < SIGNIFICANT else "not significant"
        return (
            f"{head}: largest |r| {abs(self.r):.2f} at lag {self.lag:g} [{self.low:g}, {self.high:g}], "
            f"{far} over all lags (p = {self.p:.3g}, blocks of {self.block})."
        )

    def row(self) -> dict[str, object]:
        """Return all but the curve as a row of a table, with the sentence."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "curve"}
        return {**row, "sentence": self.sentence}


def lag_coupling(
    table: pd.DataFrame,
    *,
    window: int,
    x: str = "value",
    y: str = "loss",
    stamp: Stamp = "end",
    detrend: Detrend = "cubic",
    lags: int = LAGS,
    draws: int = DRAWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> LagCoupling:
    """Correlate two series of one run at lags −L…L, with a test over all lags and an interval of the lag.

    r(l) is Pearson's correlation of x_t with y_{t+l}, both residuals of the same detrending. The test permutes the
    detrended x in circular blocks of max(W, 1/(1−ρ)) snapshots, ρ its first-order correlation, detrends again, and
    compares the largest |r| over lags. The interval is that of the largest |r| in stationary bootstrap resamples of
    (x_t, y_{t−L}, …, y_{t+L}), with the same mean block; it contains the observed lag.

    Blocks break the slow part of a series: where both series are strongly correlated (first order 0.9, besides the
    window's mean), independent ones have p ≤ 0.05 in up to 12 % of runs; with differences in up to 5 %.

    Args:
        table: one row a snapshot, at equal distances: step; x of the window that ends there (NaN before the first
            full window); y.
        window: W, in rows of the table.
        x, y: names of the columns.
        stamp: "centre" shifts x by (W−1)/2 snapshots; for even W its lags are halves.
        detrend: "cubic" or "linear" polynomials, or first "differences".
        lags: L.
        draws: permutations; the smallest p-value is 1/(draws + 1).
        resamples: of the bootstrap.
        seed: of both.

    Returns:
        `LagCoupling`, not resolved with its reason where a series is constant after detrending, has missing values
        between its ends, or is too short for the lags or for three blocks.

    Raises:
        MeasureError: a column that is missing, unequal steps, or an argument outside its range.
    """
    _check(table, window, (x, y, "step"), stamp, detrend, lags, draws, resamples)
    known = table.sort_values("step")
    first, half = known[x].to_numpy(float), 0.0
    if stamp == "centre":
        whole = (window - 1) // 2
        first = np.concatenate([first[whole:], np.full(whole, np.nan)])[: len(first)]
        half = (window - 1) / 2 - whole
    grid = np.arange(-lags, lags + (0 if half else 1))
    a, b, missing = common(first, known[y].to_numpy(float))
    refused = LagCoupling(window, stamp, detrend, len(a), pd.DataFrame(columns=["lag", "r", "pairs"]))
    if missing:
        return _refused(
            refused, f"{missing} of {len(a)} snapshots between the first and the last are missing"
        )
    a, b, reason = detrended(a, b, detrend)
    reason = reason or too_short(len(a), lags, detrend)
    if reason:
        return _refused(refused, reason)
    block = block_length(a, window)
    observed = correlations(a[None], b, grid)[0]
    curve = pd.DataFrame({"lag": grid + half, "r": observed, "pairs": len(a) - np.abs(grid)})
    if len(a) < LEAST_BLOCKS * block:
        short = f"{len(a)} points hold fewer than {LEAST_BLOCKS} blocks of {block}; train longer or look more often"
        return _refused(replace(refused, points=len(a), curve=curve, block=block), short)
    generator = np.random.default_rng(seed)
    null = permuted(a, b, grid, block, DEGREES[detrend], draws, generator)
    p = (1 + int((null >= np.abs(observed).max() * (1 - 1e-12)).sum())) / (1 + draws)
    drawn = resampled(a, b, grid, block, resamples, generator)
    most, least = int(np.abs(observed).argmax()), int(observed.argmin())
    own = _interval(grid[np.abs(drawn).argmax(axis=1)], grid[most])
    negative = _interval(grid[drawn.argmin(axis=1)], grid[least])
    return LagCoupling(
        *(window, stamp, detrend, len(a), curve),
        *(float(grid[most] + half), float(observed[most]), own[0] + half, own[1] + half),
        *(float(grid[least] + half), negative[0] + half, negative[1] + half),
        p,
        block,
    )


def lag_couplings(
    table: pd.DataFrame,
    *,
    stamps: Sequence[Stamp] = ("end", "centre"),
    detrends: Sequence[Detrend] = ("cubic", "linear", "differences"),
    **options: str | int,
) -> pd.DataFrame:
    """Return `lag_coupling` of every seed and window, with both stamps and every detrending.

    Args:
        table: as in `lag_coupling`, with the columns seed and window besides.
        stamps, detrends: which of them.
        options: further arguments of `lag_coupling`.

    Returns:
        One row for each: seed, the fields of `LagCoupling` but the curve, and its sentence.

    Raises:
        MeasureError: an empty table, no column seed or window, or as `lag_coupling`.
    """
    require_labels(table, ("seed", "window"))
    if table.empty:
        raise MeasureError("the table is empty; pass windows of at least one run")
    rows = []
    for (seed_, window), own in table.groupby(["seed", "window"], sort=True):
        for stamp in stamps:
            for detrend in detrends:
                found = lag_coupling(own, window=int(window), stamp=stamp, detrend=detrend, **options)  # pyright: ignore
                rows.append({"seed": seed_, **found.row()})
    return pd.DataFrame(rows)


def lag_flip(
    couplings: pd.DataFrame,
    first: int = 10,
    second: int = 20,
    *,
    stamp: Stamp = "end",
    detrend: Detrend = "cubic",
    negative: bool = False,
) -> Verdict:
    """Say whether the lag has opposite signs at two window lengths.

    Shown if, in at least three of four seeds, the intervals of the lag at both windows lie on opposite sides of 0 (in
    the same order), and the largest |r| is significant at both. Not shown if so many lie on one side of 0 at both
    windows, or the other way round, that no three of four can; not resolved otherwise.

    Args:
        couplings: the result of `lag_couplings`.
        first, second: the window lengths.
        stamp, detrend: which of its rows.
        negative: whether to take the lag of the most negative r, as published, instead of that of the largest |r|.
    """
    claim = f"The lag changes its sign between windows of {first} and {second} (stamped at the {stamp})"
    chosen = couplings[(couplings["stamp"] == stamp) & (couplings["detrend"] == detrend)]
    name = "negative_" if negative else ""
    by_seed = {
        seed: {int(row["window"]): row for row in own.to_dict("records")}
        for seed, own in chosen[chosen["window"].isin([first, second])].groupby("seed")
    }
    usable = {
        seed: (rows[first], rows[second])
        for seed, rows in by_seed.items()
        if {first, second} <= set(rows) and all(rows[w]["status"] == "ok" for w in (first, second))
    }
    if len(usable) < LEAST_SEEDS:
        told = [
            f"seed {s}: {r['reason']}" for s, rows in by_seed.items() for r in rows.values() if r["reason"]
        ]
        why = f"; {told[0]}" if told else ""
        return Verdict(
            claim,
            "not resolved",
            f"{len(usable)} seeds have both lags, and the rule needs {LEAST_SEEDS}{why}",
        )
    sure = {s: all(r["p"] < SIGNIFICANT for r in both) for s, both in usable.items()}
    signs = {s: tuple(_sign(row, name) for row in both) for s, both in usable.items()}
    flips = {x: sum(sure[s] and pair == (-x, x) for s, pair in signs.items()) for x in (-1, 1)}
    hits = max(flips.values())
    same = sum(sure[s] and a * b > 0 for s, (a, b) in signs.items())
    needed = agreeing(len(usable))
    crossing = sum(a * b < 0 for a, b in signs.values())
    reason = (
        f"{hits} of {len(usable)} seeds, {needed} needed; the largest |r| is significant at both windows in "
        f"{sum(sure.values())}, and the intervals lie on opposite sides of 0 in {crossing}"
    )
    if hits >= needed:
        return Verdict(claim, "shown", reason)
    # Seeds that are the other way round, or on one side, cannot become hits.
    refuted = len(usable) - same - min(flips.values()) < needed
    return Verdict(claim, "not shown" if refuted else "not resolved", f"{reason}, on the same side in {same}")


def _sign(row: dict[Any, Any], name: str) -> int:
    """Return −1 where the interval of a lag lies below 0, 1 where it lies above it, else 0."""
    low, high = row[f"{name}low"], row[f"{name}high"]
    return -1 if high < 0 else int(low > 0)


def _refused(found: LagCoupling, reason: str) -> LagCoupling:
    return replace(found, status="not resolved", reason=reason)


def _check(
    table: pd.DataFrame,
    window: int,
    names: Sequence[str],
    stamp: str,
    detrend: str,
    lags: int,
    draws: int,
    resamples: int,
) -> None:
    require_columns(table, names)
    if stamp not in get_args(Stamp) or detrend not in DEGREES:
        raise MeasureError(
            f"stamp is {stamp!r} and detrend {detrend!r}; choose end or centre, and {', '.join(DEGREES)}"
        )
    if window < 2 or lags < 1 or draws < 1 or resamples < 1:
        raise MeasureError(
            f"window {window}, lags {lags}, draws {draws}, resamples {resamples}: at least 2, 1, 1 and 1"
        )
    apart = np.diff(np.sort(table["step"].to_numpy(float)))
    if len(apart) and (not apart.min() > 0 or apart.max() - apart.min() > 1e-9 * apart.max()):
        raise MeasureError(
            f"the steps are {apart.min():g} to {apart.max():g} apart; a lag in snapshots needs equal distances: "
            "leave out the others, and pass one run at a time"
        )


def _interval(drawn: np.ndarray, observed: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(min(low, observed)), float(max(high, observed))
