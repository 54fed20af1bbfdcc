"""Tables of Fourier concentration on many bands (`sims.studies.bands.measured.measure_bands` measures them).

The quantities are `H_S` (task band, debiased, as (H_S − null)/(1 − null), so that bands of different moduli share one
scale: 0 for noise, 1 for all energy in the task band) and `H_peak` (debiased, above the mean of its null). Within each
seed samples and bands are pooled first, weighted by the energy left above sampling noise, so that a band whose class
means are nearly all noise cannot carry the mean. Intervals are 95 % Student-t over seeds unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.cells import in_chain_order
from sims.analysis.intervals import seed_intervals
from sims.analysis.ranges import EXCESS, ONE_SIDE, Range
from sims.analysis.variance import (
    SOURCES,
    component_intervals,
    components,
    mean_interval,
    seeds_needed,
)
from sims.system.errors import MeasureError

QUANTITIES = {"H_S": "h_s_excess", "H_peak": "h_peak_excess"}
GROUP = ["quantity", "regime", "kind", "stage", "fraction", "position"]
# Above this part of noise in the energy neither a pooled mean nor a single band is given.
MOST_NOISE = 0.8
KINDS = ("inside", "outside")
# Differences that the planning table asks about, in units of the quantity, besides the observed one.
STATED = {"H_S": 0.1, "H_peak": 0.02}
BAND_COUNTS = (1, 2, 5, 10, 20, 50)
MOST_BANDS = 100


def by_band(measured: pd.DataFrame) -> pd.DataFrame:
    """Summarise each band at the last measured step and position, clean data, by stage.

    Returns:
        band, c, known, kind, stage, seeds, h_s, h_peak (debiased, means over seeds and samples), h_s_low, h_s_high,
        h_peak_low, h_peak_high (lowest and highest seed), h_s_null, h_peak_null, h_peak_null_high (97.5 %),
        h_peak_plain (as published, not debiased), noise_share, loss. NaN where noise is above `MOST_NOISE`.
    """
    by = ["band", "c", "known", "kind", "stage"]
    last = _final(measured)
    values = ["h_s_debiased", "h_peak_debiased"]
    last = last.assign(**{v: last[v].where(last["noise_share"] <= MOST_NOISE) for v in values})
    nulls = ["h_s_null", "h_peak_null", "h_peak_high", "h_peak", "noise_share", "loss"]
    seeds = last.groupby([*by, "seed"], sort=False)[[*values, *nulls]].mean().reset_index()
    return (
        seeds.groupby(by, sort=False)
        .agg(
            seeds=("seed", "nunique"),
            h_s=("h_s_debiased", "mean"),
            h_s_low=("h_s_debiased", "min"),
            h_s_high=("h_s_debiased", "max"),
            h_s_null=("h_s_null", "mean"),
            h_peak=("h_peak_debiased", "mean"),
            h_peak_low=("h_peak_debiased", "min"),
            h_peak_high=("h_peak_debiased", "max"),
            h_peak_null=("h_peak_null", "mean"),
            h_peak_null_high=("h_peak_high", "mean"),
            h_peak_plain=("h_peak", "mean"),
            noise_share=("noise_share", "mean"),
            loss=("loss", "mean"),
        )
        .reset_index()
    )


def summary(measured: pd.DataFrame) -> pd.DataFrame:
    """Average over bands by stage, step, position, regime and kind of band.

    Returns:
        quantity, regime, kind, stage, fraction, position, n (seeds), mean, low, high, min, max, null_high (97.5 %
        level of noise on one band, above the null's mean; NaN for H_S), noise_share (mean part of noise in the
        energy), loss (nats at that position). A mean whose noise_share is above `MOST_NOISE` is missing.
    """
    found = []
    for quantity, column in QUANTITIES.items():
        seeds = _seed_means(measured, column).assign(quantity=quantity)
        found.append(seed_intervals(seeds, GROUP, column, _range(measured, column)))
    table = pd.concat(found, ignore_index=True)
    extra = measured.assign(null_high=measured["h_peak_high"] - measured["h_peak_null"])
    cells = extra.groupby(GROUP[1:], sort=False)[["noise_share", "null_high", "loss"]].mean().reset_index()
    table = table.merge(cells, on=GROUP[1:], how="left")
    table.loc[table["quantity"] == "H_S", "null_high"] = np.nan
    return table


def along_sequence(measured: pd.DataFrame) -> pd.DataFrame:
    """Compare the last position with the first and with the highest, at the last step: does concentration dissolve?

    Returns:
        quantity, regime, kind, stage, first, top, top_position (of the mean curve), last, last_position (an earlier one
        than the sequence's where noise hides the last: see `MOST_NOISE`), change (last − first) with
        low, high, after_top (last − value at top_position) with after_low, after_high, context_gain (nats by which
        the last position's loss lies below the first's), n.
    """
    return _contrasts(at_end(measured), "position", ["regime", "kind", "stage"])


def over_training(measured: pd.DataFrame) -> pd.DataFrame:
    """Compare the last checkpoint with the first and with the highest, clean data at the last position.

    Returns:
        As `along_sequence`, with top_fraction and last_fraction (parts of training) in place of positions.
    """
    clean = measured[(measured["regime"] == "clean") & (measured["position"] == measured["position"].max())]
    return _contrasts(clean, "fraction", ["regime", "kind", "stage"])


def decomposition(measured: pd.DataFrame) -> pd.DataFrame:
    """Estimate variance components over seed, band and probe sample at the last step and position, clean data.

    Levels are decomposed stage by stage; differences between neighbouring stages are taken band by band, seed by seed
    and sample by sample first. Bands with a missing value anywhere are left out of that table and counted; seeds whose
    run of a stage is missing are left out of what is about that stage.

    Returns:
        One row a quantity, target (a stage, or "before → after") and kind ("all", "inside", "outside"): mean, low,
        high (new seeds and new bands), low_here, high_here (new seeds, these bands), seeds, bands, left_out, samples,
        and for each source its variance `<source>`, `<source> low`, `<source> high`, `<source> raw` (as the equations
        give it, possibly negative) and `<source> share`.

    Raises:
        MeasureError: fewer than two seeds.
    """
    last = _final(measured)
    if last["seed"].nunique() < 2:
        raise MeasureError(
            f"the runs have {last['seed'].nunique()} seed; a spread over seeds needs at least 2: train more"
        )
    rows = []
    for quantity, column in QUANTITIES.items():
        highest = _range(last, column).high
        for target, differenced, own in _targets(last, column):
            for kind in ("all", *KINDS):
                part = own if kind == "all" else own[own["kind"] == kind]
                row = _decomposed(part, math.inf if differenced else highest)
                if row is not None:
                    rows.append(
                        {
                            "quantity": quantity,
                            "target": target,
                            "difference": differenced,
                            "kind": kind,
                            **row,
                        }
                    )
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["quantity", "target", "difference", "kind"])


def planning(decomposed: pd.DataFrame) -> pd.DataFrame:
    """Return the seeds that a stage difference needs for power 0.8 at the 5 % level, by number of bands (of any kind).

    Args:
        decomposed: the result of `decomposition`.

    Returns:
        quantity, target, size (of the difference: a stated one and the observed one), origin ("stated" or
        "observed"), bands, new_seeds (for a claim about these very bands), new_both (for one about bands of this kind
        in general); missing where 1,000 seeds do not suffice.
    """
    rows = []
    for row in stage_differences(decomposed).to_dict("records"):
        variances = np.array([row[s] for s in SOURCES])
        sizes = (("stated", STATED[row["quantity"]]), ("observed", abs(row["mean"])))
        for origin, size in sizes:
            for bands in BAND_COUNTS:
                few = seeds_needed(size, variances, bands, row["samples"], new_bands=False)
                many = seeds_needed(size, variances, bands, row["samples"]) if bands > 1 else None
                rows.append(
                    {
                        "quantity": row["quantity"],
                        "target": row["target"],
                        "origin": origin,
                        "size": size,
                        "bands": bands,
                        "new_seeds": few,
                        "new_both": many,
                    }
                )
    columns = ["quantity", "target", "origin", "size", "bands", "new_seeds", "new_both"]
    return pd.DataFrame(rows, columns=columns).astype({"new_seeds": "Int64", "new_both": "Int64"})


def seed_curves(decomposed: pd.DataFrame) -> pd.DataFrame:
    """Return the seeds that each observed stage difference needs (power 0.8, 5 % level) against the number of bands.

    Args:
        decomposed: the result of `decomposition`.

    Returns:
        quantity, target, new_bands (whether the claim is about bands in general), bands, seeds (NaN where 1,000 do
        not suffice).
    """
    rows = []
    counts = np.unique(np.geomspace(2, MOST_BANDS, 14).round().astype(int))
    for row in stage_differences(decomposed).to_dict("records"):
        variances = np.array([row[s] for s in SOURCES])
        label = {"quantity": row["quantity"], "target": row["target"]}
        for new_bands in (True, False):
            for count in counts:
                needed = seeds_needed(
                    abs(row["mean"]), variances, int(count), row["samples"], new_bands=new_bands
                )
                seeds = np.nan if needed is None else float(needed)
                rows.append({**label, "new_bands": new_bands, "bands": count, "seeds": seeds})
    return pd.DataFrame(rows, columns=["quantity", "target", "new_bands", "bands", "seeds"])


def stage_differences(decomposed: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of differences of stages over all bands; none where the runs have one stage."""
    return decomposed[decomposed["difference"].astype(bool) & (decomposed["kind"] == "all")]


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows at each stage's last measured step."""
    return table[table["fraction"] == table.groupby("stage")["fraction"].transform("max")]


def _final(measured: pd.DataFrame) -> pd.DataFrame:
    """Return clean data at each run's last measured step and the last position."""
    clean = measured[(measured["regime"] == "clean") & (measured["position"] == measured["position"].max())]
    return at_end(clean)


def _range(measured: pd.DataFrame, column: str) -> Range:
    """Return the values of a mean excess; that of H_peak is at most 1/2 where all moduli are odd."""
    one_sided = column == QUANTITIES["H_peak"] and bool((measured["c"] % 2).all())
    return replace(EXCESS, high=ONE_SIDE.high) if one_sided else EXCESS


def _seed_means(measured: pd.DataFrame, column: str) -> pd.DataFrame:
    """Pool bands and samples by signal (H_S: outside the null's share): one value a group and seed."""
    keys = [*GROUP[1:], "seed"]
    weight = measured["signal"] * ((1 - measured["h_s_null"]) if column == "h_s_excess" else 1)
    parts = measured[[*keys, "noise_share"]].assign(weight=weight, weighted=weight * measured[column])
    sums = parts.groupby(keys, sort=False).agg(
        weight=("weight", "sum"), weighted=("weighted", "sum"), noise=("noise_share", "mean")
    )
    # All seeds or none: a mean over the seeds that happen to show a signal would be a choice by outcome.
    noise = sums.groupby(level=GROUP[1:])["noise"].transform("mean")
    pooled = (sums["weighted"] / sums["weight"]).where(noise <= MOST_NOISE)
    return pooled.rename(column).reset_index()


def _contrasts(table: pd.DataFrame, axis: str, by: list[str]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for quantity, column in QUANTITIES.items():
        seeds = _seed_means(table, column)
        for keys, own in seeds.groupby(by, sort=False):
            wide = own.pivot_table(index="seed", columns=axis, values=column).sort_index(axis=1).dropna()
            if wide.empty:
                continue
            top = wide.mean().idxmax()
            first, last = wide.iloc[:, 0], wide.iloc[:, -1]
            change, after = _interval(last - first), _interval(last - wide[top])
            loss = table[(table[by] == list(keys)).all(axis=1)].groupby(axis)["loss"].mean()
            rows.append(
                {
                    "quantity": quantity,
                    **dict(zip(by, keys, strict=True)),
                    "n": len(wide),
                    "first": first.mean(),
                    "top": wide[top].mean(),
                    f"top_{axis}": top,
                    "last": last.mean(),
                    f"last_{axis}": wide.columns[-1],
                    "change": change["mean"],
                    "low": change["low"],
                    "high": change["high"],
                    "after_top": after["mean"],
                    "after_low": after["low"],
                    "after_high": after["high"],
                    "context_gain": loss.iloc[0] - loss.iloc[-1],
                }
            )
    return pd.DataFrame(rows)


def _interval(values: pd.Series) -> pd.Series:
    return seed_intervals(pd.DataFrame({"all": 0, "value": values.to_numpy()}), ["all"]).iloc[0]


def _targets(last: pd.DataFrame, column: str) -> Iterator[tuple[str, bool, pd.DataFrame]]:
    """Yield (name, whether a difference, table of kind, band, seed, sample, value) of stages and neighbouring pairs."""
    keys = ["kind", "band", "seed", "sample"]
    last = last.assign(**{column: last[column].where(last["noise_share"] <= MOST_NOISE)})
    wide = last.pivot_table(index=keys, columns="stage", values=column, dropna=False, sort=False)
    # A pivot without dropna invents the combinations that were never measured.
    wide = wide.loc[pd.MultiIndex.from_frame(last[keys].drop_duplicates())]
    stages = in_chain_order(wide.columns)
    # Seeds of all runs that exist, also where noise hides their values: to drop those would be a choice by outcome.
    seeds = {stage: set(own) for stage, own in last.groupby("stage")["seed"]}
    for stage in stages:
        own = wide[stage].rename("value").reset_index()
        yield stage, False, own[own["seed"].isin(seeds[stage])]
    for before, after in pairwise(stages):
        own = (wide[after] - wide[before]).rename("value").reset_index()
        yield f"{before} → {after}", True, own[own["seed"].isin(seeds[before] & seeds[after])]


def _decomposed(table: pd.DataFrame, highest: float) -> dict[str, Any] | None:
    """Return the row of one table, or None where fewer than two seeds are there or two bands complete."""
    wide = table.pivot_table(
        index="band", columns=["seed", "sample"], values="value", dropna=False, sort=False
    )
    complete = wide.sort_index(axis=1).dropna()
    if len(complete) < 2:
        return None
    seeds, samples = (table[name].nunique() for name in ("seed", "sample"))
    if seeds < 2:
        return None
    values = complete.to_numpy().reshape(len(complete), seeds, samples).transpose(1, 0, 2)
    found = components(values)
    bounds = component_intervals(found)
    low, high = mean_interval(found)
    low_here, high_here = mean_interval(found, new_bands=False)
    high, high_here = (max(found.mean, min(bound, highest)) for bound in (high, high_here))
    row = {
        "mean": found.mean,
        "low": low,
        "high": high,
        "low_here": low_here,
        "high_here": high_here,
        "seeds": seeds,
        "bands": len(complete),
        "left_out": table["band"].nunique() - len(complete),
        "samples": samples,
    }
    for i, source in enumerate(SOURCES):
        row |= {
            source: found.values[i],
            f"{source} low": bounds[i, 0],
            f"{source} high": bounds[i, 1],
            f"{source} raw": found.raw[i],
            f"{source} share": found.shares[i],
        }
    return row
