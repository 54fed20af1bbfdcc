"""Check windows of ranks and fit straight lines to them."""

from __future__ import annotations

import operator

import numpy as np

from spectra.arrays import brief
from spectra.errors import InputError
from spectra.spectrum import Spectrum


def check_window(lo: int, hi: int) -> tuple[int, int]:
    """Check a window of ranks and return it as integers.

    Whole numbers, 1-based, at least three ranks.

    Raises:
        InputError: any other window.
    """
    try:
        first, last = operator.index(lo), operator.index(hi)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"the window is {brief(lo)}–{brief(hi)}; ranks are whole numbers") from None
    if first < 1:
        raise InputError(f"the window starts at rank {first}; ranks are 1-based, so lo must be at least 1")
    if last < first + 2:
        raise InputError(
            f"the window {first}–{last} has fewer than three ranks; a slope with a fit needs three"
        )
    return first, last


def misfit_reason(spectrum: Spectrum, lo: int, hi: int) -> str:
    """Explain why a window cannot be fitted, or return ""."""
    if hi > spectrum.max_rank:
        known = f"{len(spectrum)} values, n = {spectrum.n}, d = {spectrum.d}, centred = {spectrum.centred}"
        return f"the window {lo}–{hi} does not fit in rank {spectrum.max_rank} ({known})"
    zeros = np.flatnonzero(spectrum.values[lo - 1 : hi] == 0.0)
    if zeros.size:
        first = lo + int(zeros[0])
        return f"the energy at rank {first} of the window {lo}–{hi} is zero or below rounding; it has no logarithm"
    return ""


def log_rank_energy(spectrum: Spectrum, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ln j and ln λ_j over a window.

    ln λ = 2 ln σ avoids squares that underflow.
    """
    y = np.log(spectrum.values[lo - 1 : hi])
    return np.log(np.arange(lo, hi + 1)), y if spectrum.kind == "eigenvalue" else 2.0 * y


def fit_line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """Fit a line by weighted least squares.

    Returns slope, R² and the classical standard error of the slope.
    """
    w = weights / weights.sum()
    dx, dy = x - w @ x, y - w @ y
    sxx, syy = float(w @ dx**2), float(w @ dy**2)
    slope = float(w @ (dx * dy)) / sxx
    residual = float(w @ (dy - slope * dx) ** 2)
    # A flat window is a perfect fit of a horizontal line, whose share of explained variance is 0/0.
    r2 = 1.0 if syy == 0.0 else 1.0 - residual / syy
    return slope, r2, float(np.sqrt(residual / sxx / (len(x) - 2)))


def slope_weights(lo: int, hi: int, *, octave: bool = False) -> np.ndarray:
    """Return the linear form that maps log energies to α.

    c with α = c·(ln λ_lo, …, ln λ_hi): least squares, weighted by 1/j where octave.
    """
    ranks = np.arange(lo, hi + 1)
    w = (1.0 / ranks if octave else np.ones(len(ranks))).astype(float)
    w /= w.sum()
    dx = np.log(ranks) - w @ np.log(ranks)
    return -w * dx / float(w @ dx**2)


def theil_sen_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Return the median slope over all pairs of points.

    Median of (y_j − y_i)/(x_j − x_i), i < j.
    """
    i, j = np.triu_indices(len(x), 1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])))
