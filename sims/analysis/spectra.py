"""Return spectra of runs as tables for figures, with the share of each rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sims.analysis.runs import Runs
from sims.analysis.summaries import last_rows
from spectra import Spectrum


def with_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column `shares`: the values of each spectrum over their sum (singular values squared first)."""
    shares = [
        Spectrum(np.asarray(values), kind=kind).shares
        for values, kind in zip(table["values"], table["kind"], strict=True)
    ]
    return table.assign(shares=pd.Series(shares, index=table.index, dtype=object))


def last_spectra(runs: Runs, object_: str, site: str) -> pd.DataFrame:
    """Return the spectra of one site at the end of the runs (`last_rows`): run_id, stage, batch_size, …, shares."""
    chosen = runs.spectra[(runs.spectra["object"] == object_) & (runs.spectra["site"] == site)]
    last = last_rows(runs, chosen).groupby("run_id", sort=False).last().reset_index()
    return with_shares(last)


def activation_site(runs: Runs) -> str:
    """Return the site that stands for a model: the final state, or the last site that was measured; "" for none."""
    sites = measured_sites(runs)
    return "final" if "final" in sites or not sites else sites[-1]


def measured_sites(runs: Runs, object_: str = "activation") -> list[str]:
    """Return the sites with stored spectra, in the order in which they were measured."""
    return list(dict.fromkeys(runs.spectra.loc[runs.spectra["object"] == object_, "site"]))


def spread_sites(sites: Sequence[str], most: int = 6) -> list[str]:
    """Return so many of the sites at most, evenly spaced, with the first and the last.

    >>> spread_sites(["embed", "blocks.0", "blocks.1", "final"], most=3)
    ['embed', 'blocks.1', 'final']
    """
    if len(sites) <= most:
        return list(sites)
    return [sites[round(float(i))] for i in np.linspace(0, len(sites) - 1, most)]


def deepest_gradient(runs: Runs, ending: str = "attn.o") -> str:
    """Return the matrix with measured gradients in the last block: one of that name, where there is one."""
    sites = list(runs.spectra.loc[runs.spectra["object"] == "gradient", "site"].unique())
    return max([s for s in sites if s.endswith(ending)] or sites, key=_depth)


def _depth(site: str) -> tuple[int, str]:
    numbers = [int(part) for part in site.split(".") if part.isdigit()]
    return (numbers[0] if numbers else -1), site
