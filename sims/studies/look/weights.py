"""Measure weight matrices one by one: summaries, tail exponents, and the levels of noise."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sims.measure.noise_levels import NONE, Level, farms_level, hill_level, summary_level
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import each_summary, singular_windows
from sims.measure.weight_tails import TILE, WEIGHT, farms_of
from spectra import Estimate, InputError, hill, weight_spectrum
from spectra.arrays import machine_epsilon, stored_precision

# Entries of a matrix in float64 at a time (32 MB).
BLOCK = 2**22


class LookRows(MeasurementRows):
    """Rows with both ends of the range of noise: column "null_low" beside "null_high"."""

    def add(self, quantity: str, site: str, value: float | Estimate, level: Level, **which: Any) -> None:
        """Add a number of a weight matrix beside the level of noise."""
        self.row(quantity, WEIGHT, site, value, null=level.mean, null_high=level.high, **which)
        self.rows[-1]["null_low"] = level.low


def measure_matrix(sheet: LookRows, name: str, matrix: Tensor) -> None:
    """Add the spectrum of a weight matrix, its summaries and its tail exponents, each with its level of noise.

    A matrix that has no spectrum (all zeros, NaN, a single row) gets one row, "not fitted", with the reason.

    Args:
        sheet: where rows are added.
        name: of the matrix.
        matrix: (rows, columns), in any real dtype.
    """
    matrix = matrix.detach()
    try:
        own = _precision(matrix)
        spectrum = weight_spectrum(matrix, precision=own, block=BLOCK)
        # All rows or none: FARMS may refuse what the spectrum allowed.
        tail = farms_of(matrix, TILE, own)
    except InputError as error:
        sheet.add("rankme", name, Estimate.not_fitted(str(error)), NONE)
        return
    sheet.spectrum(WEIGHT, name, spectrum)
    n, d = matrix.shape
    for summary, arguments, which in each_summary(singular_windows(spectrum)):
        level = summary_level(summary.of, arguments, n, d) if summary.null else NONE
        sheet.add(summary.name, name, summary.of(spectrum, *arguments), level, **which)
    sheet.add("hill", name, hill(spectrum, precision=own), hill_level(n, d))
    if "tiles" in tail.details:
        size, count = int(tail.details["tile_short"]), int(tail.details["tiles"])
        sheet.add("farms", name, tail, farms_level(size, count), detail=f"{count} tiles of {size}")
    else:
        sheet.add("farms", name, tail, NONE)


def _precision(matrix: Tensor) -> float:
    """Return the machine epsilon of the entries: bfloat16 weights that lie in float32 keep that of bfloat16."""
    if matrix.dtype not in (torch.float32, torch.float64) or not matrix.numel():
        return machine_epsilon(matrix)
    # What the first row does not hold, the matrix does not hold; most end here.
    narrow = stored_precision(matrix[0])
    own = torch.finfo(matrix.dtype).eps
    return narrow if math.isclose(narrow, own) else stored_precision(matrix)
