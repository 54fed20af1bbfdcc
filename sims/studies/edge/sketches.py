"""Say what a sketch of the updates would do to σ₂/σ₃ and k* of measured windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.sketches import TIMES, sketch_table
from sims.analysis.verdicts import apart
from sims.studies.edge.measured import EdgeData
from sims.system.errors import MeasureError

# The published ratio is σ₂/σ₃.
RATIO, COLUMN = 2, "r23"
# The published size of a sketch, in windows.
SKETCH, DRAWS = 10, 400
# A window that was published (step 2,000), and two that were not measured.
PUBLISHED_WINDOW = (198.58, 169.08, 122.47, 110.73, 106.22, 92.66, 78.30, 61.27, 44.58, 22.79)
FLAT, TWO_MODES = (1.0,) * 10, (1.747, 1.747, *(1.0,) * 8)


def sketched_windows(data: EdgeData) -> pd.DataFrame:
    """Return the error of σ₂/σ₃ in a sketch of d = 10 W, and how often k* ≤ ⌊W/2⌋ is kept, of every disjoint window.

    Returns:
        The columns of `sims.analysis.sketches.sketch_table`, cell, run, seed and step.

    Raises:
        MeasureError: no window has three singular values that are not 0.
    """
    rows = []
    for run, own in _disjoint(data).groupby("run", sort=False):
        named = {str(step): values for step, values in zip(own["step"], own["values"], strict=True)}
        found = sketch_table(named, (SKETCH,), j=RATIO, most=max(1, data.main // 2), draws=DRAWS)
        rows.append(found.assign(run=str(run), step=own["step"].to_numpy()))
    return pd.concat(rows, ignore_index=True).merge(data.runs[["run", "cell", "seed"]], on="run")


def sketch_sizes(data: EdgeData) -> pd.DataFrame:
    """Return error and kept k* by size, of three windows that were not measured and of the middle one of each cell.

    Returns:
        The columns of `sims.analysis.sketches.sketch_table`, and times (d/W); window names the cell.

    Raises:
        MeasureError: as `sketched_windows`.
    """
    windows: dict[str, Any] = {"published": PUBLISHED_WINDOW, "flat": FLAT, "two modes": TWO_MODES}
    for cell, own in _disjoint(data).groupby("cell", sort=False):
        ratios = np.array([v[RATIO - 1] / v[RATIO] for v in own["values"]])
        windows[str(cell)] = own["values"].to_numpy()[int(ratios.argsort()[len(ratios) // 2])]
    found = [
        sketch_table({name: values}, TIMES, j=RATIO, most=max(1, len(values) // 2))
        for name, values in windows.items()
    ]
    table = pd.concat(found, ignore_index=True)
    return table.assign(times=table["d"] / [len(windows[name]) for name in table["window"]])


def _disjoint(data: EdgeData) -> pd.DataFrame:
    """Return the spectra of disjoint raw windows of the main W, those with three values that are not 0."""
    own = data.spectra[data.spectra["window"] == data.main]
    own = own[[np.count_nonzero(values) > RATIO for values in own["values"]]]
    parts = []
    for _, run in own.sort_values("step").groupby("run", sort=False):
        span = float(data.main * data.cell(run["cell"].to_numpy()[0])["stride"])
        parts.append(run.iloc[apart(run["step"].to_numpy(float), span)])
    if not parts:
        raise MeasureError("no window has three singular values that are not 0")
    return pd.concat(parts, ignore_index=True)
