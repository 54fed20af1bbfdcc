"""Compare two stages at equal loss, over every summary that both have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from sims.analysis.cells import (
    LEVELS,
    levels_or_reason,
    loss_curves,
    paired_runs,
    read_at_losses,
    transitions,
)
from sims.analysis.intervals import complete_seeds, seed_intervals
from sims.analysis.resampling import benjamini_hochberg, holm
from sims.analysis.runs import NO_VALUE, Runs
from sims.analysis.summaries import range_in, tested
from sims.system.errors import MeasureError

OBJECTS = ("activation", "weight", "gradient")
SUMMARY = ["object", "site", "quantity", "window", "detail"]
SIGNIFICANT = 0.05


def compare_stages(
    runs: Runs,
    before: str,
    after: str,
    *,
    objects: Sequence[str] = OBJECTS,
    quantities: Sequence[str] | None = None,
    levels: int = LEVELS,
) -> pd.DataFrame:
    """Test the difference after − before of each summary at equal loss.

    Runs are paired by batch size and seed.

    Each run is read where it first reaches the common loss quantiles of its batch size (linear in the loss); the mean
    over quantiles and batch sizes is taken within each seed, and the paired t-test counts seeds. Batch sizes at which
    the runs have no losses in common are left out. The family of tests is all rows of the table. With three seeds the
    t-test leans on normality: it has two degrees of freedom.

    Args:
        before, after: the stages.
        objects, quantities: of the stored summaries; by default all of `sims.analysis.summaries` that have a null.
        levels: loss quantiles.

    Returns:
        object, site, quantity, window, detail, sizes, n (seeds), before, after (means), difference, low, high (95 %
        Student-t), p (two-sided paired t; NaN with one seed or where the differences do not vary), p_holm, q
        (Benjamini–Hochberg), verdict ("up", "down" or "cannot tell", at q ≤ 0.05), left_out (batch sizes without losses
        in common, and why).

    Raises:
        MeasureError: a stage without runs, no batch size and seed in common, no losses in common at any batch size, or
            no summary in common.
    """
    transitions(runs, [(before, after)])
    curves = loss_curves(runs, measured=True)
    chosen = runs.rows["object"].isin(objects) & runs.rows["quantity"].isin(quantities or tested())
    rows = runs.rows[chosen & ~runs.rows["status"].isin(NO_VALUE)]
    rows = rows.assign(key=rows["object"].str.cat(rows[SUMMARY[1:]], sep="|"))
    read, missing = {}, []
    for size, both in paired_runs(runs, before, after):
        wanted, reason = levels_or_reason([curves[r] for r in [*both["before"], *both["after"]]], levels)
        if reason:
            missing.append(f"B = {size}: {reason}")
        else:
            read[size] = _at_common_losses(rows, curves, both, wanted)
    left_out = "; ".join(missing)
    if not read:
        raise MeasureError(
            f"{before} and {after} have no losses in common ({left_out}); measure earlier or train longer"
        )
    paired = pd.concat(read, names=["batch_size"]).groupby(["key", "batch_size", "seed"]).mean().reset_index()
    if paired.empty:
        raise MeasureError(
            f"{before} and {after} have no summary of {', '.join(objects)} in common; measure both the same way"
        )
    paired = complete_seeds(paired, ["key"], ["batch_size"])
    if paired.empty:
        raise MeasureError(
            f"no seed has a summary of both {before} and {after} at every batch size; train the missing runs, or leave "
            "a batch size out"
        )
    per_seed = paired.groupby(["key", "seed"]).agg(
        before=("before", "mean"), after=("after", "mean"), sizes=("batch_size", "nunique")
    )
    per_seed = per_seed.assign(difference=per_seed["after"] - per_seed["before"]).reset_index()
    names = per_seed["key"].str.split("|", expand=True).set_axis(SUMMARY, axis=1)
    return _tested(pd.concat([names, per_seed], axis=1), runs).assign(left_out=left_out)


def _tested(per_seed: pd.DataFrame, runs: Runs) -> pd.DataFrame:
    means = per_seed.groupby(SUMMARY, sort=False)[["sizes", "before", "after"]].mean().reset_index()
    found = seed_intervals(per_seed, SUMMARY, "difference", lambda q: range_in(runs, q).change)
    found = found.drop(columns=["min", "max"])
    found = means.merge(found.rename(columns={"mean": "difference"}), on=SUMMARY)
    spread = per_seed.groupby(SUMMARY, sort=False)["difference"].std().to_numpy(float)
    error = spread / np.sqrt(found["n"])
    varies = error > 1e-12 * found["difference"].abs()
    t = np.divide(found["difference"], error, out=np.full(len(found), math.nan), where=varies.to_numpy())
    found["p"] = 2 * stats.t.sf(np.abs(t), np.maximum(found["n"] - 1, 1))
    found["p_holm"] = holm(found["p"].to_numpy(float))
    found["q"] = benjamini_hochberg(found["p"].to_numpy(float))
    found["verdict"] = np.where(
        found["q"] <= SIGNIFICANT, np.where(found["difference"] > 0, "up", "down"), "cannot tell"
    )
    order = [
        *SUMMARY,
        "sizes",
        "n",
        "before",
        "after",
        "difference",
        "low",
        "high",
        "p",
        "p_holm",
        "q",
        "verdict",
    ]
    return found.astype({"sizes": int})[order]


def _at_common_losses(
    rows: pd.DataFrame, curves: dict[str, pd.DataFrame], both: pd.DataFrame, wanted: np.ndarray
) -> pd.DataFrame:
    """Return summaries of the pairs of one batch size: columns before, after; index key, level, seed."""
    found = []
    for side in ("before", "after"):
        for seed, run in both[["seed", side]].itertuples(index=False):
            values = read_at_losses(rows[rows["run_id"] == run], curves[run], wanted)
            long = values.rename_axis("level").reset_index().melt("level", var_name="key")
            found.append(long.assign(seed=seed, side=side))
    table = pd.concat(found).pivot(index=["key", "level", "seed"], columns="side", values="value")
    # A loss counts where both sides have the summary there: matrices that start at zero have none at first.
    return table.reindex(columns=["before", "after"]).dropna()
