"""Compare the windows of updates of Muon with those of AdamW."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pandas as pd

from sims.analysis.intervals import seed_intervals, t_test
from sims.analysis.ranges import REAL, SHARE
from sims.analysis.resampling import holm
from sims.studies.edge.measured import EdgeData
from toymodel.stages import stage

# Of unit updates at the main W, compared between optimisers.
COMPARED = {
    "relative": "gap over that of momentum noise",
    "pc1": "share of the first direction",
    "k95": "directions with 95 %",
    "direction_change": "turn of the first direction an update",
}
# Those between 0 and 1.
SHARES = ("pc1", "direction_change")


def compared_optimisers(data: EdgeData, gaps: pd.DataFrame) -> pd.DataFrame:
    """Compare Muon with AdamW at equal size, seed by seed, in means over the steps that both have.

    Args:
        data: what was measured.
        gaps: see `EdgeAnswers.gaps`.

    Returns:
        One row a quantity: size, adamw, muon (cells), quantity, n, adamw_mean, muon_mean, difference, low, high, p,
        p_holm.
    """
    rows = []
    for first, second in combinations(data.cells, 2):
        pair = sorted((first, second), key=lambda cell: _uses_muon(data, cell))
        if _uses_muon(data, first) == _uses_muon(data, second):
            continue
        if data.cell(first)["size"] == data.cell(second)["size"]:
            rows += _compared(data, gaps, *pair)
    table = pd.DataFrame(rows)
    return table if table.empty else table.assign(p_holm=holm(table["p"].to_numpy(float)))


def _uses_muon(data: EdgeData, cell: str) -> bool:
    return bool(stage(data.cell(cell)["stage"]).routing.muon)


def _compared(data: EdgeData, gaps: pd.DataFrame, adamw: str, muon: str) -> Iterator[dict[str, Any]]:
    means = data.until_both(gaps, (adamw, muon)).groupby(["cell", "seed"])[list(COMPARED)].mean()
    one, two = means.loc[adamw], means.loc[muon]
    for name, title in COMPARED.items():
        both = (two[name] - one[name]).dropna()
        if len(both) < 2:
            continue
        within = SHARE.change if name in SHARES else REAL
        interval = seed_intervals(both.rename("value").reset_index().assign(of=name), ["of"], within=within)
        bounds = interval.iloc[0][["mean", "low", "high"]].tolist()
        yield {
            "size": data.cell(muon)["size"],
            "adamw": adamw,
            "muon": muon,
            "quantity": title,
            "n": len(both),
            "adamw_mean": one[name].mean(),
            "muon_mean": two[name].mean(),
            **dict(zip(("difference", "low", "high"), bounds, strict=True)),
            "p": t_test(both),
        }
