"""Summarise stages: outcomes, Fourier concentration, and its link to activation spectra."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from sims.analysis.cells import CELL, crossing
from sims.analysis.concentration import concentration_rows
from sims.analysis.intervals import seed_intervals
from sims.analysis.ranges import SHARE
from sims.analysis.runs import Runs
from sims.analysis.summaries import range_of
from sims.system.errors import MeasureError


def outcome_table(runs: Runs) -> pd.DataFrame:
    """Return final losses and tokens to the common loss, by stage and batch size.

    Returns:
        stage, batch_size, lr, seeds, diverged, loss / loss_low / loss_high (final validation loss in nats),
        million_tokens (seen), to_common / to_common_low / to_common_high (million tokens to the common loss; NaN where
        a run of the cell passes it before its first evaluation after the start).
    """
    curves = runs.values("val_loss")
    alive = runs.runs[runs.runs["ended"] != "diverged"]
    common = curves[curves["run_id"].isin(alive["run_id"])].groupby("run_id")["value"].min().max()
    per_run = alive.assign(
        to_common=[crossing(curves[curves["run_id"] == r], common) / 1e6 for r in alive["run_id"]],
        million_tokens=alive["tokens"] / 1e6,
    )
    # A mean over the seeds that were slow enough to be seen would be of other runs.
    cells = per_run["to_common"].notna().groupby([per_run[c] for c in (*CELL, "lr")], dropna=False)
    seen = cells.transform("all")
    per_run["to_common"] = per_run["to_common"].where(seen)
    table = None
    for column, name in (
        ("val_loss", "loss"),
        ("to_common", "to_common"),
        ("million_tokens", "million_tokens"),
    ):
        part = seed_intervals(per_run, [*CELL, "lr"], column, range_of(column))
        part = part.rename(columns={"n": "seeds", "mean": name, "low": f"{name}_low", "high": f"{name}_high"})
        part = part.drop(columns=["min", "max"])
        table = part if table is None else table.merge(part.drop(columns="seeds"), on=[*CELL, "lr"])
    assert table is not None
    lost = runs.runs[runs.runs["ended"] == "diverged"].groupby(CELL).size()
    table["diverged"] = [
        int(lost.get((s, b), 0)) for s, b in zip(table["stage"], table["batch_size"], strict=True)
    ]
    table["common_loss"] = common
    return table.drop(columns=["million_tokens_low", "million_tokens_high"])


def concentration_summary(runs: Runs) -> pd.DataFrame:
    """Return start, top and end of H_peak and of the task-band H_S.

    Concentration is a transient of learning, so that both its highest point and its end are given. A maximum
    over measurements is biased upward: its null is the highest null level along the same trajectory.

    Returns:
        quantity, band, stage, batch_size, n, start, top (with top_low, top_high), end, null_high, tokens_at_top.

    Raises:
        MeasureError: no probe was measured.
    """
    probed = concentration_rows(runs)
    if probed.empty:
        raise MeasureError("no probe band was measured; measure some (measure.bands)")
    rows = []
    for keys, run in probed.groupby(["quantity", "band", "run_id"], sort=False):
        run = run.sort_values("step")
        top = run.iloc[int(run["value"].to_numpy().argmax())]
        rows.append(
            {
                "quantity": keys[0],
                "band": keys[1],
                "stage": top["stage"],
                "batch_size": top["batch_size"],
                "start": run["value"].iloc[0],
                "top": top["value"],
                "end": run["value"].iloc[-1],
                "null_high": run["null_high"].max(),
                "tokens_at_top": top["tokens"],
            }
        )
    table = pd.DataFrame(rows)
    by = ["quantity", "band", *CELL]
    means = table.groupby(by, sort=False)[["start", "end", "null_high", "tokens_at_top"]].mean().reset_index()
    tops = seed_intervals(table, by, "top", SHARE).rename(
        columns={"mean": "top", "low": "top_low", "high": "top_high"}
    )
    return tops.drop(columns=["min", "max"]).merge(means, on=by)


def stage_differences(runs: Runs, quantity: str = "H_peak") -> pd.DataFrame:
    """Return differences of the highest concentration between successive stages.

    Runs are paired by seed, batch size and band.

    The mean over bands and batch sizes is taken within each seed first, so that the interval counts seeds, not
    measurements.

    Returns:
        before, after, difference, low, high (95 % over seeds), n (seeds).
    """
    rows = concentration_rows(runs)
    rows = rows[rows["quantity"] == quantity]
    tops = rows.groupby(["stage", "seed", "batch_size", "band"], sort=False)["value"].max()
    by_seed = tops.groupby(["stage", "seed"], sort=False).mean().unstack("stage")
    stages = [s for s in runs.runs["stage"].unique() if s in by_seed]
    found = []
    for before, after in pairwise(stages):
        paired = (by_seed[after] - by_seed[before]).dropna()
        frame = pd.DataFrame({"before": before, "after": after, "value": paired.to_numpy()})
        found.append(seed_intervals(frame, ["before", "after"], within=SHARE.change))
    if not found:
        return pd.DataFrame(columns=["before", "after", "difference", "low", "high", "n"])
    table = pd.concat(found, ignore_index=True).rename(columns={"mean": "difference"})
    return table[["before", "after", "difference", "low", "high", "n"]]


def link_to_activations(runs: Runs, site: str = "final") -> pd.DataFrame:
    """Join H_S (task) and H_peak with α and the head share of the activations.

    Returns:
        run_id, stage, batch_size, seed, step, tokens, band, h_s, h_peak, top_share, and one column alpha <window>
        a fitted window.
    """
    key = ["run_id", "stage", "batch_size", "seed", "step", "tokens"]
    both = concentration_rows(runs)
    h_s, peak = (both[both["quantity"] == name] for name in ("H_S task", "H_peak"))
    table = h_s[[*key, "band", "value"]].rename(columns={"value": "h_s"})
    table = table.merge(peak[[*key, "band", "value"]].rename(columns={"value": "h_peak"}), on=[*key, "band"])
    share = runs.values("top_share", "activation", site)[["run_id", "step", "value"]]
    table = table.merge(share.rename(columns={"value": "top_share"}), on=["run_id", "step"])
    alphas = runs.values("alpha", "activation", site)
    wide = alphas.pivot_table(index=["run_id", "step"], columns="window", values="value")
    wide.columns = [f"alpha {name}" for name in wide.columns]
    return table.merge(wide.reset_index(), on=["run_id", "step"], how="left").replace({None: np.nan})
