"""Follow activation exponents by layer, and how early each predicts token efficiency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.cells import usable
from sims.analysis.intervals import complete_seeds
from sims.analysis.prediction import FRACTIONS, early_exponents, early_prediction
from sims.analysis.runs import Runs
from sims.analysis.spectra import measured_sites
from sims.analysis.summaries import last_summaries
from sims.runs.rank_windows import PUBLISHED_RANKS
from sims.system.errors import MeasureError


def early_by_layer(runs: Runs) -> pd.DataFrame:
    """Apply `early_prediction` at every site whose activations were measured.

    Returns:
        The columns of `early_prediction`, and depth: 0 at the embedding, 1 at the final state.

    Raises:
        MeasureError: no exponent was fitted, or as of `early_exponents` and `early_prediction`.
    """
    sites = list(dict.fromkeys(runs.values("alpha", "activation")["site"]))
    if not sites:
        raise MeasureError("no exponent of activation spectra was fitted; measure some (measure.windows)")
    exponents = pd.concat([early_exponents(runs, site=site) for site in sites])
    return early_prediction(exponents).merge(depths(sites), on="site")


def summaries_by_site(runs: Runs) -> pd.DataFrame:
    """Return the compared summaries of the activations at every site at the end of the runs.

    Returns:
        run_id, stage, batch_size, seed, site, quantity (with its window), value, null, status ("ok" or "flagged");
        sites in the order of the model. Runs that diverged are left out.
    """
    alive = runs.runs[runs.runs["ended"] != "diverged"][["run_id", "stage", "batch_size", "seed"]]
    found = [last_summaries(runs, site).assign(site=site) for site in measured_sites(runs)]
    columns = [*alive.columns, "site", "quantity", "value", "null", "status"]
    if not found:
        return pd.DataFrame(columns=columns)
    return pd.concat(found, ignore_index=True).merge(alive, on="run_id")[columns]


def exponents_by_layer(runs: Runs, window: str = PUBLISHED_RANKS) -> pd.DataFrame:
    """Return the activation exponents of every run at every site over training.

    Returns:
        run_id, stage, batch_size, seed, step, tokens, site, depth, value.
    """
    rows = runs.values("alpha", "activation", window=window)
    columns = ["run_id", "stage", "batch_size", "seed", "step", "tokens", "site", "value"]
    return rows[columns].merge(depths(list(dict.fromkeys(rows["site"]))), on="site", how="left")


def exponents_at_shares(
    runs: Runs, window: str = PUBLISHED_RANKS, shares: Sequence[float] = FRACTIONS
) -> pd.DataFrame:
    """Return `exponents_by_layer` at the same shares of every usable run's training.

    A share is one of the tokens at which the run ended; values are linear in tokens between measurements of the trained
    model. A share is left out of a stage and site where some run of it has no value there.

    Returns:
        run_id, stage, batch_size, seed, site, depth, share, value.
    """
    ends = usable(runs).set_index("run_id")["tokens"]
    table = exponents_by_layer(runs, window)
    table = table[(table["step"] > 0) & table["run_id"].isin(ends.index)]
    label = ["run_id", "stage", "batch_size", "seed", "site", "depth"]
    rows: list[dict[str, Any]] = []
    for _, own in table.groupby(["run_id", "site"], sort=False):
        own = own.sort_values("tokens")
        known = {name: own[name].iloc[0] for name in label}
        at = np.asarray(shares) * float(ends[known["run_id"]])
        values = np.interp(at, own["tokens"], own["value"], left=np.nan, right=np.nan)
        rows += [{**known, "share": s, "value": v} for s, v in zip(shares, values, strict=True)]
    found = pd.DataFrame(rows, columns=[*label, "share", "value"])
    complete = found.groupby(["stage", "site", "share"])["value"].transform(lambda v: v.notna().all())
    return found[complete.astype(bool)].reset_index(drop=True)


def layer_ends(exponents: pd.DataFrame) -> pd.DataFrame:
    """Return the first and the last exponent of each layer, mean over batch sizes.

    Seeds count that have every batch size of the stage there: the mean of another one would be over other sizes.

    Args:
        exponents: the result of `exponents_at_shares`.

    Returns:
        One row for each stage, site and seed: stage, site, depth, seed, first and last (exponents at the first and the
        last share that the stage and site have), first_share, last_share.
    """
    by = ["stage", "site", "depth", "seed"]
    own = complete_seeds(exponents, by[:-1], ["batch_size"])
    means = own.groupby([*by, "share"], sort=False)["value"].mean().reset_index()
    return (
        means.groupby(by, sort=False)
        .agg(
            first=("value", "first"),
            last=("value", "last"),
            first_share=("share", "first"),
            last_share=("share", "last"),
        )
        .reset_index()
    )


def depth_differences(exponents: pd.DataFrame) -> pd.DataFrame:
    """Return the exponent at the deepest site minus that at the shallowest, at the last moment at which both have one.

    Args:
        exponents: the result of `exponents_at_shares`.

    Returns:
        One row for each stage and seed that has every batch size of the stage there: stage, seed, share (of training,
        one a stage), value (mean over batch sizes). Stages without two such sites have none.
    """
    found = []
    for stage, own in exponents.groupby("stage", sort=False):
        sites = own.sort_values("depth", kind="stable")["site"]
        first, last = sites.iloc[0], sites.iloc[-1]
        key = ["share", "seed", "batch_size"]
        both = own[own["site"].isin([first, last])].pivot(index=key, columns="site", values="value").dropna()
        if first == last or both.empty:
            continue
        change = (both[last] - both[first]).rename("value").reset_index()
        change = complete_seeds(change[change["share"] == change["share"].max()], ["share"], ["batch_size"])
        means = change.groupby(["share", "seed"], sort=False)["value"].mean().reset_index()
        found.append(means.assign(stage=stage))
    columns = ["stage", "seed", "share", "value"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def depths(sites: list[str]) -> pd.DataFrame:
    """Return the depth of each site: 0 at the embedding, 1 at the final state.

    Blocks lie between them, by their number relative to the last block that was measured.
    """
    blocks = {s: int(s.split(".")[1]) for s in sites if s.startswith("blocks.")}
    last = max(blocks.values(), default=0)

    def depth(site: str) -> float:
        return (blocks[site] + 1) / (last + 2) if site in blocks else float(site != "embed")

    # Typed, so that a table without rows can be merged too.
    return pd.DataFrame({"site": pd.Series(sites, dtype="str"), "depth": [depth(s) for s in sites]})
