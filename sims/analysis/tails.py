"""Compare tail exponents of different batch sizes at matched loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.cells import LABEL, loss_curves, loss_range, read_at_losses, usable
from sims.analysis.intervals import seed_intervals
from sims.analysis.ranges import POSITIVE
from sims.analysis.resampling import trend_permutation
from sims.analysis.runs import Runs
from sims.system.errors import MeasureError

SIGNIFICANT = 0.05


def matched_exponents(runs: Runs) -> pd.DataFrame:
    """Return exponents of the final states where each run first reaches a common loss, interpolated in the loss.

    The loss is for each stage the lowest of `loss_range` at its measurements.

    Returns:
        One row a run and fitted window: run_id, stage, batch_size, lr, seed, window, loss, alpha. Left out are windows
        not fitted at the measurements around that loss.

    Raises:
        MeasureError: no exponent was measured there, or the runs of a stage share no range of losses.
    """
    curves = loss_curves(runs, measured=True)
    fitted = runs.values("alpha", "activation", "final")
    fitted = fitted[fitted["run_id"].isin(curves)]
    if fitted.empty:
        raise MeasureError(
            "no fitted exponent of activation spectra at 'final'; measure some (measure.windows)"
        )
    levels = {
        stage: loss_range([curves[r] for r in own["run_id"]])[1]
        for stage, own in usable(runs).groupby("stage", sort=False)
    }
    rows: list[dict[str, Any]] = []
    for run, own in fitted.assign(key=fitted["window"]).groupby("run_id", sort=False):
        label = {name: own[name].iloc[0] for name in LABEL}
        level = levels[label["stage"]]
        alpha = read_at_losses(own, curves[str(run)], np.array([level])).iloc[0]
        rows += [{**label, "window": window, "loss": level, "alpha": a} for window, a in alpha.items()]
    columns = [*LABEL, "window", "loss", "alpha"]
    found = pd.DataFrame(rows, columns=columns).dropna(subset=["alpha"]).reset_index(drop=True)
    if found.empty:
        raise MeasureError(
            "no exponent of activation spectra at 'final' was fitted at a loss that all runs of a stage reach; "
            "measure earlier or more often"
        )
    return found


def tail_by_batch(exponents: pd.DataFrame) -> pd.DataFrame:
    """Return the mean exponent of each cell and window over seeds.

    Args:
        exponents: the result of `matched_exponents`.

    Returns:
        stage, window, batch_size, loss, seeds, alpha, low, high (95 % Student-t over seeds), min, max.
    """
    table = seed_intervals(exponents, ["stage", "window", "batch_size", "loss"], "alpha", POSITIVE)
    return table.rename(columns={"n": "seeds", "mean": "alpha"})


def tail_trend(exponents: pd.DataFrame) -> pd.DataFrame:
    """Test whether the exponent follows the batch size at matched loss.

    The test is Page's: the mean over seeds of the Spearman correlation of α with B, against all orders of the batch
    sizes within each seed. It assumes that, did batch size not matter, the runs of one seed could have come in any
    order. The slope and its interval count seeds.

    Args:
        exponents: the result of `matched_exponents`.

    Returns:
        One row for each stage and window: stage, window, loss, sizes, seeds (those with every batch size), rho, p,
        p_min, slope (α per doubling of B), low, high (95 % Student-t over seeds), steeper ("smaller batch", "larger
        batch" or, at p > 0.05, "cannot tell"). Nothing is corrected for the number of rows.

    Raises:
        MeasureError: fewer than two batch sizes with a seed in common.
    """
    rows = []
    for (stage, window), own in exponents.groupby(["stage", "window"], sort=False):
        wide = own.pivot_table(index="seed", columns="batch_size", values="alpha").dropna()
        if wide.shape[1] < 2 or wide.empty:
            raise MeasureError(
                f"the trend of stage {stage}, ranks {window} needs ≥ 2 batch sizes that share a seed; there are "
                f"{own['batch_size'].nunique()} sizes and {len(wide)} seeds with all of them: train more"
            )
        values = wide.to_numpy(float)
        rho, p, p_min = trend_permutation(values)
        slopes = np.polyfit(np.log2(wide.columns.to_numpy(float)), values.T, 1)[0]
        slope = seed_intervals(pd.DataFrame({"all": 0, "value": slopes}), ["all"]).iloc[0]
        rows.append(
            {
                "stage": stage,
                "window": window,
                "loss": own["loss"].iloc[0],
                "sizes": wide.shape[1],
                "seeds": len(wide),
                "rho": rho,
                "p": p,
                "p_min": p_min,
                "slope": slope["mean"],
                "low": slope["low"],
                "high": slope["high"],
                "steeper": _steeper(rho, p),
            }
        )
    return pd.DataFrame(rows)


def _steeper(rho: float, p: float) -> str:
    if not p <= SIGNIFICANT:
        return "cannot tell"
    return {1.0: "larger batch", -1.0: "smaller batch"}.get(float(np.sign(rho)), "cannot tell")
