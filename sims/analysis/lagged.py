"""Correlate two series at lags: detrended, with permuted blocks, and in stationary bootstrap resamples."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from spectra.arrays import largest, unit

Detrend = Literal["cubic", "linear", "differences"]
DEGREES = {"cubic": 3, "linear": 1, "differences": 0}
# Pairs that the longest lag must leave.
LEAST_PAIRS = 12
# A residual below this share of its series is rounding.
ROUNDING = 1e-9
# Permutations at once.
CHUNK = 1_000


def common(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return both series from the first to the last snapshot that both have, and how many are missing between."""
    known = np.flatnonzero(np.isfinite(a) & np.isfinite(b))
    if not known.size:
        return a[:0], b[:0], 0
    inner = slice(int(known[0]), int(known[-1]) + 1)
    # Correlations have no scale: division by a power of two is exact, and keeps squares within float64.
    a, b = (own / unit(largest(own[known])) for own in (a, b))
    return a[inner], b[inner], int(known[-1] - known[0] + 1 - known.size)


def _projector(n: int, degree: int) -> np.ndarray:
    """Return an orthonormal basis of polynomials on n points, (n, degree + 1)."""
    basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, n), degree)
    return np.linalg.qr(basis)[0]


def detrended(a: np.ndarray, b: np.ndarray, detrend: Detrend) -> tuple[np.ndarray, np.ndarray, str]:
    """Return what is left of two series without their trends; or the series, and why their trends are not taken out."""
    if len(a) < 2 * (DEGREES[detrend] + 2):
        return a, b, f"{len(a)} snapshots have both series"
    rest = []
    for own in (a, b):
        own = np.diff(own) if detrend == "differences" else own
        basis = _projector(len(own), DEGREES[detrend])
        rest.append(own - basis @ (basis.T @ own))
    for name, left, own in (("first", rest[0], a), ("second", rest[1], b)):
        if np.abs(left).max() <= ROUNDING * np.abs(own).max():
            return a, b, f"the {name} series is constant once its trend ({detrend}) is taken out"
    return rest[0], rest[1], ""


def too_short(n: int, lags: int, detrend: str) -> str:
    """Say that n points are too few for lags up to a number; empty where they are enough."""
    if n - 2 * lags >= LEAST_PAIRS:
        return ""
    return f"{n} points ({detrend}) leave {max(n - 2 * lags, 0)} with all lags up to {lags}; {LEAST_PAIRS} are needed"


def block_length(a: np.ndarray, window: int) -> int:
    """Return max(W, 1/(1−ρ)), rounded up, and not above the length of the series."""
    rho = float((a[1:] * a[:-1]).sum() / (a**2).sum())
    memory = 1 / (1 - rho) if rho < 1 else len(a)
    return int(min(len(a), max(window, math.ceil(memory))))


def correlations(a: np.ndarray, b: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """Return Pearson's r of a_t and b_{t+l}, (series, lags), of series a (series, n); 0 where one is constant."""
    n, found = a.shape[1], np.zeros((len(a), len(lags)))
    for i, lag in enumerate(lags):
        left = a[:, max(0, -lag) : n - max(0, lag)]
        right = b[max(0, lag) : n + min(0, lag)]
        left, right = left - left.mean(axis=1, keepdims=True), right - right.mean()
        length = np.sqrt((left**2).sum(axis=1) * (right**2).sum())
        found[:, i] = np.divide(left @ right, length, out=np.zeros(len(a)), where=length > 0)
    return found


def permuted(
    a: np.ndarray,
    b: np.ndarray,
    lags: np.ndarray,
    block: int,
    degree: int,
    draws: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return the largest |r| over lags of each block permutation, (draws,)."""
    basis = _projector(len(a), degree)
    found = []
    for start in range(0, draws, CHUNK):
        rows = [a[block_order(len(a), block, generator)] for _ in range(min(CHUNK, draws - start))]
        series = np.stack(rows)
        series -= (series @ basis) @ basis.T
        found.append(np.abs(correlations(series, b, lags)).max(axis=1))
    return np.concatenate(found)


def block_order(n: int, block: int, generator: np.random.Generator) -> np.ndarray:
    """Return indices of a circle of n points that is cut into blocks at a random place, the blocks in random order."""
    cuts = np.arange(block, n, block)
    pieces = np.split((np.arange(n) + generator.integers(n)) % n, cuts)
    return np.concatenate([pieces[k] for k in generator.permutation(len(pieces))])


def resampled(
    a: np.ndarray, b: np.ndarray, lags: np.ndarray, block: int, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Return r of stationary bootstrap resamples of (a_t, b_{t+l} for all l), (resamples, lags)."""
    reach = int(np.abs(lags).max())
    inner = np.arange(reach, len(a) - reach)
    n = len(inner)
    places = generator.integers(n, size=(resamples, n))
    fresh = generator.random((resamples, n)) < 1 / block
    for i in range(1, n):
        places[:, i] = np.where(fresh[:, i], places[:, i], (places[:, i - 1] + 1) % n)
    at = inner[places]
    left = a[at] - a[at].mean(axis=1, keepdims=True)
    found = np.zeros((resamples, len(lags)))
    for i, lag in enumerate(lags):
        right = b[at + lag] - b[at + lag].mean(axis=1, keepdims=True)
        length = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
        found[:, i] = np.divide((left * right).sum(axis=1), length, out=np.zeros(resamples), where=length > 0)
    return found
