"""Return spectra of runs as tables for figures, with the share of each rank."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sims.analysis.runs import Runs
from spectra import Spectrum


def with_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column `shares`: the values of each spectrum over their sum (singular values squared first)."""
    shares = [
        Spectrum(np.asarray(values), kind=kind).shares
        for values, kind in zip(table["values"], table["kind"], strict=True)
    ]
    return table.assign(shares=pd.Series(shares, index=table.index, dtype=object))


def last_spectra(runs: Runs, object_: str, site: str) -> pd.DataFrame:
    """Return the spectra of one site at each run's last measurement: run_id, stage, batch_size, …, shares."""
    chosen = runs.spectra[(runs.spectra["object"] == object_) & (runs.spectra["site"] == site)]
    last = chosen.sort_values("step").groupby("run_id", sort=False).last().reset_index()
    return with_shares(last)


def deepest_gradient(runs: Runs, ending: str = "attn.o") -> str:
    """Return the matrix with measured gradients in the last block: one of that name, where there is one."""
    sites = list(runs.spectra.loc[runs.spectra["object"] == "gradient", "site"].unique())
    return max([s for s in sites if s.endswith(ending)] or sites, key=_depth)


def _depth(site: str) -> tuple[int, str]:
    numbers = [int(part) for part in site.split(".") if part.isdigit()]
    return (numbers[0] if numbers else -1), site
