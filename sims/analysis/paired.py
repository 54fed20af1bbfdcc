"""Two stages side by side at equal loss, over every summary that both have: Muon against Adam, for instance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from sims.analysis.cells import LEVELS, at_losses, loss_curves, loss_levels, paired_runs, transitions
from sims.analysis.intervals import seed_intervals
from sims.analysis.resampling import benjamini_hochberg, holm
from sims.analysis.runs import Runs
from sims.errors import MeasureError

SUMMARIES = ("rankme", "alpha", "top_share", "stable_rank", "participation_ratio")
OBJECTS = ("activation", "weight", "gradient")
SUMMARY = ["object", "site", "quantity", "detail"]
SIGNIFICANT = 0.05


def compare_stages(
    runs: Runs,
    before: str,
    after: str,
    *,
    objects: Sequence[str] = OBJECTS,
    quantities: Sequence[str] = SUMMARIES,
    levels: int = LEVELS,
) -> pd.DataFrame:
    """Differences after − before of each summary at equal loss, paired by batch size and seed.

    Each run is read where it first reaches the common loss quantiles of its batch size (linear in the loss); the mean
    over quantiles and batch sizes is taken within each seed, and the paired t-test counts seeds. The family of tests is
    all rows of the table. With three seeds the t-test leans on normality: it has two degrees of freedom.

    Args:
        before, after: the stages.
        objects, quantities: of the stored summaries.
        levels: loss quantiles.

    Returns:
        object, site, quantity, detail, sizes, n (seeds), before, after (means), difference, low, high (95 % Student-t),
        p (two-sided paired t; NaN with one seed or where the differences do not vary), p_holm, q (Benjamini–Hochberg),
        verdict ("up", "down" or "cannot tell" at p_holm ≤ 0.05).

    Raises:
        MeasureError: a stage without runs, no batch size and seed in common, no common range of losses, or no summary
            in common.
    """
    transitions(runs, [(before, after)])
    rows = runs.rows[
        runs.rows["object"].isin(objects)
        & runs.rows["quantity"].isin(quantities)
        & (runs.rows["status"] != "not fitted")
    ]
    read = [
        part
        for size, both in paired_runs(runs, before, after)
        for part in _at_common_losses(runs, rows, size, both, levels)
    ]
    table = pd.DataFrame(read)
    if table.empty:
        raise MeasureError(
            f"{before} and {after} have no summary of {', '.join(objects)} in common; measure both the same way"
        )
    index = [*SUMMARY, "batch_size", "seed"]
    wide = table.pivot_table(index=[*index, "level"], columns="side", values="value", sort=False)
    # A loss counts where both sides have the summary there: matrices that start at zero have none at first.
    wide = wide.reindex(columns=["before", "after"]).dropna()
    paired = wide.groupby(index, sort=False).mean().reset_index()
    # Only seeds that have the summary at every batch size that any seed has it at.
    sizes = paired.groupby(SUMMARY, sort=False)["batch_size"].transform("nunique")
    paired = paired[paired.groupby([*SUMMARY, "seed"], sort=False)["batch_size"].transform("nunique") == sizes]
    per_seed = paired.groupby([*SUMMARY, "seed"], sort=False).agg(
        before=("before", "mean"), after=("after", "mean"), sizes=("batch_size", "nunique")
    )
    per_seed = per_seed.assign(difference=per_seed["after"] - per_seed["before"]).reset_index()
    return _tested(per_seed)


def _tested(per_seed: pd.DataFrame) -> pd.DataFrame:
    means = per_seed.groupby(SUMMARY, sort=False)[["sizes", "before", "after"]].mean().reset_index()
    found = seed_intervals(per_seed, SUMMARY, "difference").drop(columns=["min", "max"])
    found = means.merge(found.rename(columns={"mean": "difference"}), on=SUMMARY)
    spread = per_seed.groupby(SUMMARY, sort=False)["difference"].std().to_numpy(float)
    error = spread / np.sqrt(found["n"])
    varies = error > 1e-12 * found["difference"].abs()
    t = np.divide(found["difference"], error, out=np.full(len(found), math.nan), where=varies.to_numpy())
    found["p"] = 2 * stats.t.sf(np.abs(t), np.maximum(found["n"] - 1, 1))
    found["p_holm"] = holm(found["p"].to_numpy(float))
    found["q"] = benjamini_hochberg(found["p"].to_numpy(float))
    found["verdict"] = np.where(
        found["p_holm"] <= SIGNIFICANT, np.where(found["difference"] > 0, "up", "down"), "cannot tell"
    )
    order = [*SUMMARY, "sizes", "n", "before", "after", "difference", "low", "high", "p", "p_holm", "q", "verdict"]
    return found.astype({"sizes": int})[order]


def _at_common_losses(
    runs: Runs, rows: pd.DataFrame, size: int, both: pd.DataFrame, levels: int
) -> list[dict[str, object]]:
    curves = loss_curves(runs, measured=True)
    sides = {run: side for side in ("before", "after") for run in both[side]}
    wanted = loss_levels([curves[r] for r in sides], levels)
    found = []
    for keys, own in rows[rows["run_id"].isin(sides)].groupby([*SUMMARY, "run_id"], sort=False):
        run = str(keys[-1])
        joined = own.merge(curves[run][["step", "value"]], on="step", suffixes=("", "_loss")).sort_values("step")
        values = at_losses(joined["value_loss"].to_numpy(float), joined["value"].to_numpy(float), wanted)
        label = dict(zip(SUMMARY, keys[:-1], strict=True))
        seed = own["seed"].iloc[0]
        found += [
            {**label, "batch_size": size, "seed": seed, "side": sides[run], "level": k, "value": value}
            for k, value in enumerate(values)
        ]
    return found
