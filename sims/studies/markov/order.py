"""When eigenfunctions of an operator are learned, and whether those of large eigenvalues come first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sims.analysis.resampling import DRAWS, TIE, spearman, standard_ranks

HALF = 0.5
RUN = ["stage", "seed", "run_id"]


def crossing(steps: Sequence[float], shares: Sequence[float], level: float = HALF) -> float:
    """Return the step at which a share first reaches a level, linear between looks; infinite where it never does.

    >>> crossing([0, 10, 20], [0.0, 0.4, 0.6]), crossing([0, 10], [0.0, 0.4])
    (15.0, inf)
    """
    above = np.flatnonzero(np.asarray(shares, float) >= level)
    if not len(above):
        return math.inf
    k = int(above[0])
    if k == 0:
        return float(steps[0])
    low, high = shares[k - 1], shares[k]
    part = (level - low) / (high - low) if math.isfinite(low) else 1.0
    return float(steps[k - 1] + part * (steps[k] - steps[k - 1]))


def learning_times(eigenfunctions: pd.DataFrame) -> pd.DataFrame:
    """Return when each run learns each eigenfunction.

    Args:
        eigenfunctions: of `MarkovTables`.

    Returns:
        stage, seed, run_id, operator, position, index, eigenvalue, time (step at which the share reaches ½; infinite
        where it never does), mean_share (over the looks after the start, those below 0 as 0), last_share.
    """
    rows = []
    by = [*RUN, "operator", "position", "index"]
    for key, own in eigenfunctions.sort_values("step").groupby(by, sort=False):
        shares = own["share"].to_numpy(float)
        found = {
            "eigenvalue": own["eigenvalue"].iloc[0],
            "time": crossing(own["step"].tolist(), shares.tolist()),
            # A share below 0 tells as little as 0; where states hardly vary it may be anything below.
            "mean_share": np.maximum(shares[1:], 0.0).mean() if len(shares) > 1 else math.nan,
            "last_share": shares[-1],
        }
        rows.append({**dict(zip(by, key, strict=True)), **found})
    return pd.DataFrame(rows, columns=[*by, "eigenvalue", "time", "mean_share", "last_share"])


def order_by_run(times: pd.DataFrame, of: str = "time") -> pd.DataFrame:
    """Return how each run's times (or shares) are ordered by eigenvalue.

    Args:
        times: of `learning_times`.
        of: the column that is ranked; eigenfunctions that are never learned share the last rank.

    Returns:
        stage, seed, run_id, operator, value (mean over positions of Spearman's correlation with the eigenvalue; NaN
        where every position has one rank), learned (eigenfunctions whose share reached ½), of (how many there are).
    """
    rows = []
    for key, own in times.groupby([*RUN, "operator"], sort=False):
        each = [
            float(spearman(at[of].to_numpy(), at["eigenvalue"].to_numpy()))
            for _, at in own.groupby("position", sort=False)
        ]
        known = [rho for rho in each if math.isfinite(rho)]
        counts = {"learned": int(np.isfinite(own["time"]).sum()), "of": len(own)}
        rows.append(
            {**dict(zip([*RUN, "operator"], key, strict=True))}
            | {"value": float(np.mean(known)) if known else math.nan}
            | counts
        )
    return pd.DataFrame(rows, columns=[*RUN, "operator", "value", "learned", "of"])


def order_permutation(times: pd.DataFrame, draws: int = DRAWS) -> float:
    """Test the order by permuting eigenfunctions, within each position and in all seeds alike.

    All seeds see the same eigenfunctions: whatever makes one of them hard makes it hard in all seeds, so that an order
    that the seeds share is one observation.

    Args:
        times: of one stage and operator.
        draws: permutations.

    Returns:
        Two-sided p of the mean over seeds and positions of Spearman's correlation; NaN where nothing is ranked.
    """
    rng = np.random.default_rng(0)
    observed, drawn = [], []
    for _, at in times.groupby("position", sort=False):
        wide = at.pivot_table(index="index", columns="run_id", values="time", dropna=False).to_numpy().T
        eigenvalues = standard_ranks(at.groupby("index")["eigenvalue"].first().to_numpy())
        orders = rng.permuted(np.tile(eigenvalues, (draws, 1)), axis=1)
        ranks = standard_ranks(wide[[len(np.unique(row)) > 1 for row in wide]])
        if len(ranks) and np.isfinite(eigenvalues).all():
            observed.append(eigenvalues @ ranks.mean(axis=0))
            drawn.append(orders @ ranks.mean(axis=0))
    if not observed:
        return math.nan
    extreme = np.abs(np.mean(drawn, axis=0)) >= abs(np.mean(observed)) - TIE
    return float((1 + extreme.sum()) / (1 + draws))
