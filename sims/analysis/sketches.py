"""Tabulate what a Johnson–Lindenstrauss sketch of updates does to the ratio at the edge of a window.

Source of the claim (errors of at most 5.7 % at d = 10 W): arXiv 2603.15678. The error depends on the spectrum of the
window and on d alone, so that no projection has to be made (`spectra.sketch_error`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from sims.analysis.verdicts import require_columns
from spectra import Spectrum, sketch_error

TIMES = (5, 10, 20, 50, 100)


def sketch_table(
    windows: Mapping[str, Sequence[float] | np.ndarray],
    times: Sequence[int] = TIMES,
    *,
    j: int | None = None,
    most: int | None = None,
    draws: int = 4_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the error of σ_j/σ_{j+1} and how often k* is kept, for each window and size of the sketch.

    Args:
        windows: singular values of each window, by its name; W is their number.
        times: sizes d, in windows W.
        j, most, draws, seed: as in `spectra.sketch_error`.

    Returns:
        One row for each: window, d, and the fields of `spectra.SketchError`: j, ratio, mean (of the absolute relative
        error), bias, low, high (its 95 % band), quantile_95, kept.

    Raises:
        InputError: as `spectra.sketch_error`.
    """
    rows = []
    for name, values in windows.items():
        spectrum = Spectrum(np.asarray(values, float), kind="singular")
        for factor in times:
            d = factor * len(values)
            error = sketch_error(spectrum, d, j=j, most=most, draws=draws, seed=seed)
            rows.append({"window": name, "d": d, **asdict(error)})
    return pd.DataFrame(rows)


def sketches_as_predicted(measured: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Say of measured sketches whether their errors lie inside the band of their window and size.

    Args:
        measured: one row a sketch: window, d, error (r̃/r − 1).
        table: the result of `sketch_table`.

    Returns:
        measured, with low, high, inside (NaN and false where the table has no such window and size), sentence.

    Raises:
        MeasureError: a missing column.
    """
    require_columns(measured, ["window", "d", "error"])
    found = measured.merge(table[["window", "d", "low", "high"]], on=["window", "d"], how="left")
    inside = found["error"].between(found["low"], found["high"])
    told = [
        f"Sketch of {r['window']} with d = {r['d']}: error {r['error']:+.1%}, "
        + ("not in the table." if np.isnan(r["low"]) else f"95 % band {r['low']:+.1%} to {r['high']:+.1%}.")
        for r in found.to_dict("records")
    ]
    return found.assign(inside=inside, sentence=told)
