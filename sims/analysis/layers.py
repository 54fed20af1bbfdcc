"""Activations layer by layer: their exponents over training, and how early each of them predicts token efficiency."""

from __future__ import annotations

import pandas as pd

from sims.analysis.prediction import early_exponents, early_prediction
from sims.analysis.runs import Runs


def early_by_layer(runs: Runs) -> pd.DataFrame:
    """`early_prediction` at every site whose activations were measured, with its depth.

    Returns:
        The columns of `early_prediction`, and depth: 0 at the embedding, 1 at the final state.

    Raises:
        MeasureError: as of `early_prediction`.
    """
    sites = list(dict.fromkeys(runs.values("alpha", "activation")["site"]))
    exponents = pd.concat([early_exponents(runs, site=site) for site in sites])
    return early_prediction(exponents).merge(depths(sites), on="site")


def exponents_by_layer(runs: Runs, window: str = "10-40") -> pd.DataFrame:
    """Exponents of the activations of every run at every site over training.

    Returns:
        run_id, stage, batch_size, seed, step, tokens, site, depth, value.
    """
    rows = runs.values("alpha", "activation", detail=window)
    columns = ["run_id", "stage", "batch_size", "seed", "step", "tokens", "site", "value"]
    return rows[columns].merge(depths(list(dict.fromkeys(rows["site"]))), on="site")


def depths(sites: list[str]) -> pd.DataFrame:
    """site, depth: 0 at the embedding, 1 at the final state, blocks by their number among those that are measured."""
    blocks = {s: int(s.split(".")[1]) for s in sites if s.startswith("blocks.")}
    last = max(blocks.values(), default=0)

    def depth(site: str) -> float:
        return (blocks[site] + 1) / (last + 2) if site in blocks else float(site != "embed")

    return pd.DataFrame({"site": sites, "depth": [depth(s) for s in sites]}, columns=["site", "depth"])
