"""Follow Fourier concentration over training, by tokens and at common losses."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sims.analysis.cells import (
    LABEL,
    at_losses,
    levels_or_reason,
    loss_curves,
    usable,
)
from sims.analysis.runs import Runs
from sims.runs.columns import band_name
from sims.system.errors import MeasureError

# As tables name them: the stored quantity, and which of its rows.
QUANTITIES: dict[str, tuple[str, dict[str, str | bool]]] = {
    "H_peak": ("h_peak", {}),
    "H_S task": ("h_s", {"set": "task"}),
}


def concentration_rows(runs: Runs, quantity: str = "") -> pd.DataFrame:
    """Return the stored rows of H_peak and the task-band H_S of the final states.

    Their quantity is "H_peak" or "H_S task", their band the full name of a band ("31:20 clean unseen").

    Args:
        quantity: one of the two; by default both.
    """
    chosen = [quantity] if quantity else list(QUANTITIES)
    found = []
    for shown in chosen:
        stored, which = QUANTITIES[shown]
        found.append(runs.values(stored, "probe", "", **which).assign(quantity=shown))
    return named_bands(pd.concat(found))


def named_bands(rows: pd.DataFrame) -> pd.DataFrame:
    """Replace the band of each row by its full name, which includes regime and seen."""
    columns = ["band", "regime", "seen"]
    # Few bands, many rows.
    which = rows.groupby(columns, sort=False, dropna=False).ngroup()
    names = [band_name(*own) for own in rows[columns].drop_duplicates().itertuples(index=False, name=None)]
    return rows.assign(band=[names[place] for place in which])


def trajectories(runs: Runs) -> pd.DataFrame:
    """Return every measured concentration of every usable run, with tokens and loss.

    Returns:
        quantity ("H_peak", "H_S task"), band, run_id, stage, batch_size, lr, seed, step, tokens, loss (nats), value,
        null, null_high.

    Raises:
        MeasureError: no probe was measured.
    """
    rows = concentration_rows(runs)
    rows = rows[rows["run_id"].isin(usable(runs)["run_id"])]
    if rows.empty:
        raise MeasureError("no probe band was measured; measure some (measure.bands)")
    loss = runs.values("val_loss")[["run_id", "step", "value"]].rename(columns={"value": "loss"})
    table = rows.merge(loss, on=["run_id", "step"]).sort_values(["run_id", "step"], kind="stable")
    columns = ["quantity", "band", *LABEL, "step", "tokens", "loss", "value", "null", "null_high"]
    return table[columns].reset_index(drop=True)


def concentration_changes(
    runs: Runs, pairs: list[tuple[str, str]], quantity: str = "H_peak", step: int | None = None
) -> pd.DataFrame:
    """Return the change of concentration across transitions, mean over the bands that both runs have.

    Runs are paired by batch size and seed; a band counts where both have a value of it.

    Args:
        pairs: stages (before, after).
        quantity: "H_peak" or "H_S task".
        step: compare at this optimiser step (linear between measurements of the trained model); None compares at the
            common loss quantiles of the two stages at that batch size and takes their mean.

    Returns:
        before, after, batch_size, seed, change, reason (where the runs have no losses, or no band, in common, so that
        the change is NaN; else ""). Without a row are runs that do not get to the step, or were first measured after
        it.
    """
    table = trajectories(runs)
    table = table[table["quantity"] == quantity]
    curves = loss_curves(runs, measured=True)
    found = []
    for before, after in pairs:
        both = table[table["stage"].isin([before, after])]
        for size, cell in both.groupby("batch_size", sort=False):
            at, reason = None, ""
            if step is None:
                at, reason = levels_or_reason([curves[r] for r in cell["run_id"].unique()])
            changes = _changes(cell, before, after, step, at)
            for seed, change in (changes if step is None else changes.dropna()).items():
                why = reason or ("" if np.isfinite(change) else f"seed {seed} has no band in common")
                label = {"before": before, "after": after, "batch_size": size, "seed": seed}
                found.append({**label, "change": change, "reason": why and f"B = {size}: {why}"})
    return pd.DataFrame(found, columns=["before", "after", "batch_size", "seed", "change", "reason"])


def _changes(
    cell: pd.DataFrame, before: str, after: str, step: int | None, levels: np.ndarray | None
) -> pd.Series:
    """Return the change of each seed that has a run of both stages."""
    read = {key: _read(own, step, levels) for key, own in cell.groupby(["seed", "band", "stage"], sort=False)}
    wide = pd.Series(read).unstack().reindex(columns=[before, after])  # pyright: ignore[reportArgumentType]
    # A mean over bands of which one is missing would be a mean over other bands.
    change = (wide[after] - wide[before]).groupby(level=0).mean()
    return change[cell.groupby("seed")["stage"].nunique().eq(2)]


def _read(own: pd.DataFrame, step: int | None, levels: np.ndarray | None) -> float:
    value = own["value"].to_numpy(float)
    if levels is None:
        assert step is not None
        steps = own["step"].to_numpy(float)
        trained = steps > 0
        if not trained.any():
            return np.nan
        return float(np.interp(step, steps[trained], value[trained], left=np.nan, right=np.nan))
    tokens, losses = own["tokens"].to_numpy(float), own["loss"].to_numpy(float)
    return float(np.mean(at_losses(tokens, losses, value, levels)))
