"""Find phases of a summary over training: where its slope in ln tokens changes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from sims.analysis.cells import CELL, usable
from sims.analysis.runs import Runs
from sims.analysis.segmentation import LEAST_POINTS, Segmentation, segment
from sims.runs.columns import WHICH
from sims.runs.columns import which as which_of
from sims.system.errors import MeasureError

SIGNIFICANT = 0.05
# A seed agrees with a change of the mean if it has a change within a factor √2 of its tokens.
TOLERANCE = math.log(2) / 2


def phases(
    runs: Runs,
    quantity: str = "rankme",
    *,
    object_: str = "activation",
    site: str = "final",
    max_changes: int = 3,
    level: float = SIGNIFICANT,
    **which: str | bool,
) -> pd.DataFrame:
    """Segment a summary against ln tokens in each cell, with a p-value per change of slope.

    The mean over seeds is segmented (see `segmentation` for the test and what it assumes); then each seed
    separately, to see whether it has the same changes. Step 0 is left out: it has no logarithm.

    Args:
        quantity, object_, site: of the stored rows.
        max_changes, level: as in `segment`.
        which: further columns of the rows, such as window="10-40".

    Returns:
        One row a segment: stage, batch_size, seeds, points, segment (from 1), from_tokens, to_tokens, slope (per e-fold
        of tokens), and of the change that begins it (NaN in the first): p, agree (share of seeds with a change within a
        factor √2 of its tokens; NaN with one seed); and of the cell: next_p (of the change that was not accepted),
        correlation (of the residuals), bic_changes, reason (why a cell has no segment; its figures are NaN).

    Raises:
        MeasureError: the summary was not measured, or in no cell often enough.
    """
    rows = runs.values(quantity, object_, site, **which)
    rows = rows[rows["run_id"].isin(usable(runs)["run_id"]) & (rows["step"] > 0)]
    if rows.empty:
        raise MeasureError(
            f"{quantity} of {object_} spectra at {site!r} was not measured after step 0; measure it"
        )
    kinds = rows[list(WHICH)].drop_duplicates().to_dict("records")
    if len(kinds) > 1:
        shown = ", ".join(which_of(kind) for kind in kinds[:4])
        raise MeasureError(
            f"{quantity} has several kinds of rows ({shown}); choose one by its {', '.join(WHICH)}"
        )
    found = []
    for (stage, size), own in rows.groupby(CELL, sort=False):
        wide = own.pivot_table(index="tokens", columns="seed", values="value").sort_index().dropna()
        head = {"stage": stage, "batch_size": size, "seeds": wide.shape[1], "points": len(wide)}
        if len(wide) < LEAST_POINTS:
            reason = f"{len(wide)} measurements after the start; a segmentation needs ≥ {LEAST_POINTS}"
            found.append({**head, "segment": 0, "reason": reason})
            continue
        found += _segments(head, wide, max_changes, level)
    if all(row["reason"] for row in found):
        raise MeasureError(
            f"no cell has ≥ {LEAST_POINTS} measurements of {quantity} after the start; measure more often"
        )
    columns = [
        "stage",
        "batch_size",
        "seeds",
        "points",
        "segment",
        "from_tokens",
        "to_tokens",
        "slope",
        "p",
        "agree",
    ]
    return pd.DataFrame(found, columns=[*columns, "next_p", "correlation", "bic_changes", "reason"])


def _segments(
    head: dict[str, object], wide: pd.DataFrame, max_changes: int, level: float
) -> list[dict[str, object]]:
    x = np.log(wide.index.to_numpy(float))
    values = wide.to_numpy(float)
    curve = segment(x, values.mean(axis=1), max_changes=max_changes, level=level)
    others: list[Segmentation] = []
    if values.shape[1] > 1 and curve.changes:
        others = [segment(x, own, max_changes=max_changes, level=level) for own in values.T]
    edges = [x[0], *curve.changes, x[-1]]
    rows: list[dict[str, object]] = []
    for k, slope in enumerate(curve.slopes):
        begun = {"p": math.nan, "agree": math.nan}
        if k:
            at = curve.changes[k - 1]
            near = [any(abs(c - at) <= TOLERANCE for c in other.changes) for other in others]
            begun = {"p": curve.p[k - 1], "agree": float(np.mean(near)) if near else math.nan}
        rows.append(
            {
                **head,
                "segment": k + 1,
                "from_tokens": math.exp(edges[k]),
                "to_tokens": math.exp(edges[k + 1]),
                "slope": slope,
                **begun,
                "next_p": curve.next_p,
                "correlation": curve.correlation,
                "bic_changes": curve.bic_changes,
                "reason": "",
            }
        )
    return rows
