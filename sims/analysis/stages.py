"""Summarise stages: outcomes, Fourier concentration, and its link to activation spectra."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pandas as pd

from sims.analysis.cells import CELL, crossing
from sims.analysis.concentration import QUANTITIES, concentration_rows
from sims.analysis.floor import floors
from sims.analysis.intervals import seed_intervals
from sims.analysis.runs import Runs
from sims.analysis.summaries import last_rows, range_in, range_of
from sims.system.errors import MeasureError


def outcome_table(runs: Runs) -> pd.DataFrame:
    """Return final losses and tokens to the common loss, by stage and batch size.

    Returns:
        stage, batch_size, lr, seeds (that did not diverge), diverged (those that did; a cell of nothing else has NaN
        for the numbers that follow), loss / loss_low / loss_high (final validation loss in nats),
        above_floor / above_floor_low / above_floor_high (that loss minus the exact floor of the run's task; NaN where
        none is known), million_tokens (seen), to_common / to_common_low / to_common_high (million tokens to the common
        loss; NaN where a run of the cell passes it before its first evaluation after the start).
    """
    curves = runs.values("val_loss")
    alive = runs.runs[runs.runs["ended"] != "diverged"]
    common = curves[curves["run_id"].isin(alive["run_id"])].groupby("run_id")["value"].min().max()
    reached = {run: crossing(curve, common) / 1e6 for run, curve in curves.groupby("run_id", sort=False)}
    per_run = alive.assign(
        to_common=[reached.get(run, math.nan) for run in alive["run_id"]],
        million_tokens=alive["tokens"] / 1e6,
        above_floor=alive["val_loss"] - alive["run_id"].map(runs.once(floors)).astype(float),
    )
    # A mean over the seeds that were slow enough to be seen would be of other runs.
    cells = per_run["to_common"].notna().groupby([per_run[c] for c in (*CELL, "lr")], dropna=False)
    seen = cells.transform("all")
    per_run["to_common"] = per_run["to_common"].where(seen)
    table = None
    for column, name in (
        ("val_loss", "loss"),
        ("above_floor", "above_floor"),
        ("to_common", "to_common"),
        ("million_tokens", "million_tokens"),
    ):
        part = seed_intervals(per_run, [*CELL, "lr"], column, range_of(column))
        part = part.rename(columns={"n": "seeds", "mean": name, "low": f"{name}_low", "high": f"{name}_high"})
        part = part.drop(columns=["min", "max"])
        table = part if table is None else table.merge(part.drop(columns="seeds"), on=[*CELL, "lr"])
    assert table is not None
    cells = runs.runs.groupby([*CELL, "lr"], sort=False, dropna=False)["ended"]
    lost = cells.agg(lambda ended: int((ended == "diverged").sum())).rename("diverged").reset_index()
    table = lost.merge(table, on=[*CELL, "lr"], how="left")
    table["seeds"] = table["seeds"].fillna(0).astype(int)
    table["common_loss"] = common
    return table.drop(columns=["million_tokens_low", "million_tokens_high"])


def concentration_summary(runs: Runs) -> pd.DataFrame:
    """Return start, top and end of H_peak and of the task-band H_S.

    Concentration is a transient of learning, so that both its highest point and its end are given. A maximum
    over measurements is biased upward: its null is the highest null level along the same trajectory. Runs that diverged
    are left out.

    Returns:
        quantity, band, stage, batch_size, n, start, top (with top_low, top_high), end, null_high, tokens_at_top.

    Raises:
        MeasureError: no probe was measured, or only in runs that diverged.
    """
    probed = concentration_rows(runs)
    probed = probed[probed["run_id"].isin(runs.runs.loc[runs.runs["ended"] != "diverged", "run_id"])]
    if probed.empty:
        raise MeasureError("no probe band was measured; measure some (measure.bands)")
    one = probed.groupby(["quantity", "band", "run_id"], sort=False).ngroup()
    rows = probed.assign(one=one).sort_values(["one", "step"])
    first = np.flatnonzero(~rows["one"].duplicated())
    bounds = np.append(first, len(rows))
    value = rows["value"].to_numpy(float)
    top = [start + value[start:end].argmax() for start, end in pairwise(bounds)]
    names = {"value": "top", "tokens": "tokens_at_top"}
    table = rows[["quantity", "band", *CELL, *names]].iloc[top].rename(columns=names).reset_index(drop=True)
    ends = last_rows(runs, rows).set_index("one")["value"]
    table["start"], table["end"] = value[first], ends.reindex(range(len(first))).to_numpy()
    table["null_high"] = rows.groupby("one")["null_high"].max()
    by = ["quantity", "band", *CELL]
    means = table.groupby(by, sort=False)[["start", "end", "null_high", "tokens_at_top"]].mean().reset_index()
    tops = seed_intervals(table, by, "top", lambda name: range_in(runs, name))
    tops = tops.rename(columns={"mean": "top", "low": "top_low", "high": "top_high"})
    return tops.drop(columns=["min", "max"]).merge(means, on=by)


def stage_differences(runs: Runs, quantity: str = "H_peak") -> pd.DataFrame:
    """Return differences of the highest concentration between successive stages.

    Runs are paired by seed, batch size and band.

    The mean over bands and batch sizes is taken within each seed first, so that the interval counts seeds, not
    measurements.

    Returns:
        before, after, difference, low, high (95 % over seeds), n (seeds).
    """
    by_seed = top_changes(runs, quantity)
    if by_seed.empty:
        return pd.DataFrame(columns=["before", "after", "difference", "low", "high", "n"])
    table = seed_intervals(by_seed, ["before", "after"], within=range_in(runs, quantity).change)
    return table.rename(columns={"mean": "difference"})[["before", "after", "difference", "low", "high", "n"]]


def top_changes(runs: Runs, quantity: str = "H_peak") -> pd.DataFrame:
    """Return the change of the highest concentration from each stage to the next, within each seed.

    The highest values are those over the steps that both stages were measured at (of more measurements the highest is
    higher), and means are over the batch sizes and bands that both have. Runs that diverged are left out.

    Returns:
        before, after, seed, value.
    """
    rows = concentration_rows(runs, quantity)
    rows = rows[rows["run_id"].isin(runs.runs.loc[runs.runs["ended"] != "diverged", "run_id"])]
    cells = ["seed", "batch_size", "band"]
    looks = rows.set_index(["stage", *cells, "step"])["value"].unstack("stage")
    found = [
        changes_by_seed(looks[[*pair]].dropna().groupby(cells, sort=False).max().stack(), pair)  # pyright: ignore[reportArgumentType]
        for pair in pairwise(s for s in runs.runs["stage"].unique() if s in looks)
    ]
    return pd.concat(found, ignore_index=True) if found else changes_by_seed(pd.Series(dtype=float), ())


def changes_by_seed(values: pd.Series, stages: Iterable[str]) -> pd.DataFrame:
    """Return the change of a number from each stage to the next, within each seed.

    Within a seed the mean is taken over the batch sizes (and bands) that both stages have: with one of them missing on
    one side, the two means would be of different cells.

    Args:
        values: indexed by stage, seed and whatever else the two stages are paired by.
        stages: in their order.

    Returns:
        before, after, seed, value.
    """
    wide = values.unstack("stage") if len(values) else pd.DataFrame()
    found = []
    for before, after in pairwise(s for s in stages if s in wide):
        means = wide[[before, after]].dropna().groupby("seed").mean()
        change = means[after] - means[before]
        found.append(
            pd.DataFrame({"before": before, "after": after, "seed": change.index, "value": change.to_numpy()})
        )
    columns = ["before", "after", "seed", "value"]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)


def differences(runs: Runs) -> dict[str, pd.DataFrame]:
    """Return `stage_differences` of H_peak and of the task-band H_S."""
    return {quantity: stage_differences(runs, quantity) for quantity in QUANTITIES}


def link_to_activations(runs: Runs) -> pd.DataFrame:
    """Join H_S (task) and H_peak with α and the head share of the final states.

    Returns:
        run_id, stage, batch_size, seed, step, tokens, band, h_s, h_peak, top_share, and one column alpha <window>
        a fitted window.
    """
    key = ["run_id", "stage", "batch_size", "seed", "step", "tokens"]
    h_s, peak = (concentration_rows(runs, name) for name in ("H_S task", "H_peak"))
    table = h_s[[*key, "band", "value"]].rename(columns={"value": "h_s"})
    table = table.merge(peak[[*key, "band", "value"]].rename(columns={"value": "h_peak"}), on=[*key, "band"])
    share = runs.values("top_share", "activation", "final")[["run_id", "step", "value"]]
    table = table.merge(share.rename(columns={"value": "top_share"}), on=["run_id", "step"])
    alphas = runs.values("alpha", "activation", "final")
    wide = alphas.pivot_table(index=["run_id", "step"], columns="window", values="value")
    wide.columns = [f"alpha {name}" for name in wide.columns]
    return table.merge(wide.reset_index(), on=["run_id", "step"], how="left").replace({None: np.nan})
