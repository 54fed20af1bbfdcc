"""Compare how far outcomes spread over model seeds with how far they spread over data seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sims.analysis.cells import CELL, keep, usable
from sims.analysis.intervals import LEVEL, ROUNDING
from sims.analysis.resampling import holm
from sims.analysis.runs import Runs
from sims.system.errors import MeasureError

TOKENS, LOSS, PEAK, RANK = "million_tokens", "val_loss", "h_peak", "rankme"
MORE, LESS, CANNOT_TELL = "more", "less", "cannot be told"
SIGNIFICANT = 0.05


def outcomes(runs: Runs) -> pd.DataFrame:
    """Return what became of each run; those that diverged are left out.

    Args:
        runs: of one learning rate a cell, with one run for each model seed and data seed (task.seed).

    Returns:
        stage, batch_size, seed, data_seed, quantity, value, one row for each. Quantities: "million_tokens" (to the
        target, where all runs of the cell reached it), "val_loss" (final, in nats, where one did not), "h_peak" (mean
        over training and over the probe bands that all runs of the cell have, in the training data or not), "rankme"
        (of what the head reads, at the end). What was not measured is left out.

    Raises:
        MeasureError: all runs diverged.
    """
    alive = runs.runs.loc[~runs.runs["ended"].isin(["diverged", "pruned"]), "run_id"]
    data_seeds = {name: runs.configs[name]["task"]["seed"] for name in alive}
    if not data_seeds:
        raise MeasureError("all runs diverged or were pruned")
    peaks = _peaks(keep(runs, data_seeds))
    parts = []
    for data_seed in sorted(set(data_seeds.values())):
        own = keep(runs, [name for name, seed in data_seeds.items() if seed == data_seed])
        parts.append(_outcomes(own, peaks).assign(data_seed=data_seed))
    table = pd.concat(parts, ignore_index=True)
    # Tokens of a run that stopped short are those of its budget.
    short = table["quantity"].eq(TOKENS) & table["ended"].ne("target")
    missed = short.groupby([table[name] for name in CELL]).transform("any")
    table = table[~(table["quantity"].eq(TOKENS) & missed) & ~(table["quantity"].eq(LOSS) & ~missed)]
    return table[[*CELL, "seed", "data_seed", "quantity", "value"]].reset_index(drop=True)


def _peaks(runs: Runs) -> pd.Series:
    """Return the mean H_peak of each run over training, over the bands that all runs of its cell have."""
    rows = runs.values("h_peak", "probe")
    # Other data can have other frequent bands. Whether a band is one of training is a matter of the data, too.
    have = rows.groupby([*CELL, "band", "regime"])["run_id"].transform("nunique")
    every = rows.groupby(CELL)["run_id"].transform("nunique")
    return rows[have == every].groupby("run_id")["value"].mean()


def _outcomes(runs: Runs, peaks: pd.Series) -> pd.DataFrame:
    """Return the outcomes of runs on the same data: stage, batch_size, seed, ended, quantity, value."""
    alive = usable(runs)
    found = {
        TOKENS: alive.set_index("run_id")["tokens"] / 1e6,
        LOSS: alive.set_index("run_id")["val_loss"],
        PEAK: peaks,
    }
    ranks = runs.values("rankme", "activation", "final").sort_values("step", kind="stable")
    found[RANK] = ranks.groupby("run_id")["value"].last()
    tables = [
        alive[["run_id", *CELL, "seed", "ended"]].assign(
            quantity=name, value=alive["run_id"].map(values).astype(float)
        )
        for name, values in found.items()
    ]
    return pd.concat(tables, ignore_index=True).dropna(subset=["value"])


def grouped(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of each cell and quantity that differ in one seed alone.

    Args:
        table: as of `outcomes`.

    Returns:
        Its columns and group: "model" (the data seed with the most model seeds), or "data" (the model seed with the
        most further data seeds).
    """
    parts = []
    for _, own in table.groupby([*CELL, "quantity"], sort=False):
        main = own.groupby("data_seed")["seed"].nunique().idxmax()
        others = own[own["data_seed"] != main]
        parts.append(own[own["data_seed"] == main].assign(group="model"))
        if len(others):
            most = others.groupby("seed")["data_seed"].nunique().idxmax()
            parts.append(others[others["seed"] == most].assign(group="data"))
    return pd.concat(parts, ignore_index=True) if parts else table.assign(group="")


def spreads(table: pd.DataFrame) -> pd.DataFrame:
    """Compare the spread over model seeds (one data set) with that over further data seeds (one model seed).

    The runs of the two groups are different ones. If an outcome is the sum of what the model seed, the data and both
    together do, each normal, the groups are independent, and the ratio of their variances has an F distribution.

    Args:
        table: as of `grouped`.

    Returns:
        One row for each cell and quantity with both groups: the cell, quantity, n_seeds, sd_seeds, n_data, sd_data,
        ratio (sd_data / sd_seeds), low, high (95 %), p (two-sided), p_holm (corrected for all rows), data_spread
        ("more", "less", "cannot be told") and reason (where no ratio can be formed).

    Raises:
        MeasureError: no cell has runs of other data.

    >>> rows = [("a", 8, s, 0, "h", v) for s, v in enumerate((1.0, 1.1, 0.9, 1.05))]
    >>> rows += [("a", 8, 0, d, "h", v) for d, v in enumerate((4.0, 9.0, 1.0, 6.0), 1)]
    >>> columns = ["stage", "batch_size", "seed", "data_seed", "quantity", "value"]
    >>> found = spreads(grouped(pd.DataFrame(rows, columns=columns)))
    >>> found[["n_seeds", "n_data", "data_spread"]].iloc[0].tolist()
    [4, 4, 'more']
    """
    records = []
    for (stage, size, quantity), own in table.groupby([*CELL, "quantity"], sort=False):
        seeds, data = (own.loc[own["group"] == name, "value"].to_numpy() for name in ("model", "data"))
        if len(data):
            records.append({"stage": stage, "batch_size": size, "quantity": quantity, **_ratio(seeds, data)})
    if not records:
        raise MeasureError(
            "all runs have the same data; train some cell with other data (task.seed) and one of its model seeds"
        )
    found = pd.DataFrame(records)
    found["p_holm"] = holm(found["p"].to_numpy())
    told = found["p_holm"] <= SIGNIFICANT
    found["data_spread"] = np.select([told & (found["ratio"] > 1), told], [MORE, LESS], CANNOT_TELL)
    return found


def _ratio(seeds: np.ndarray, data: np.ndarray) -> dict[str, Any]:
    """Return the ratio of two standard deviations with its F interval and p-value."""
    found = {
        "n_seeds": len(seeds),
        "sd_seeds": _sd(seeds),
        "n_data": len(data),
        "sd_data": _sd(data),
        **dict.fromkeys(("ratio", "low", "high", "p"), math.nan),
        "reason": "",
    }
    for name, values in (("model", seeds), ("further data", data)):
        if len(values) < 2:
            return found | {"reason": f"{len(values)} {name} seed, and a spread needs 2"}
        if not np.ptp(values) > ROUNDING * np.abs(values).max():
            return found | {"reason": f"the {len(values)} {name} seeds agree exactly"}
    ratio = found["sd_data"] / found["sd_seeds"]
    null = stats.f(len(data) - 1, len(seeds) - 1)
    tail = min(float(null.cdf(ratio**2)), float(null.sf(ratio**2)))
    low, high = (ratio / math.sqrt(float(null.ppf(q))) for q in (0.5 + LEVEL / 2, 0.5 - LEVEL / 2))
    return found | {"ratio": ratio, "low": low, "high": high, "p": min(1.0, 2 * tail)}


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan
