"""Estimators with one planted defect each, and the laws that must catch it.

Every mutant is correct and validated but for the defect in its docstring, so that a law that fires on it fires
for that reason. `MUTANTS` lists them with their kind and the laws that must fail; the first four are the
defects that the documentation walks through.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spectra.arrays import to_float64
from spectra.errors import InputError
from spectra.spectrum import as_spectrum

# ------------------------------------------------------------------------- correct parts to plant defects in


def _rows(x: Any) -> np.ndarray:
    data = to_float64(x, name="x", ndim=2)
    if data.shape[0] < 2 or data.shape[1] < 1:
        raise InputError(f"x has shape {data.shape}; two rows and a column are needed")
    return data


def _centred(x: Any) -> np.ndarray:
    data = _rows(x)
    centred = data - data.mean(axis=0)
    return centred - centred.mean(axis=0)


def _descending_eigenvalues(matrix: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.eigvalsh(matrix)[::-1], 0.0)


def _shares(eigenvalues: Any) -> np.ndarray:
    return as_spectrum(eigenvalues).shares


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-np.sum(p * np.log(p)))


def _window(eigenvalues: Any, lo: int, hi: int) -> np.ndarray:
    values = as_spectrum(eigenvalues).values
    if not 1 <= lo < hi <= len(values):
        raise InputError(f"the window {lo}..{hi} does not fit in 1..{len(values)}")
    if values[hi - 1] <= 0:
        raise InputError(f"the window {lo}..{hi} contains a zero energy")
    return values


def _slope(ranks: np.ndarray, values: np.ndarray) -> float:
    return float(np.polyfit(np.log(ranks), np.log(values), 1)[0])


def _js(p: np.ndarray, q: np.ndarray) -> float:
    m = (p + q) / 2
    total = 0.0
    for side in (p, q):
        inside = side > 0
        total += 0.5 * float(np.sum(side[inside] * np.log(side[inside] / m[inside])))
    return max(total, 0.0)


def _pair(p: Any, q: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = as_spectrum(p), as_spectrum(q)
    if len(a) != len(b):
        raise InputError(f"lengths {len(a)} and {len(b)} differ")
    return a.values, b.values


def _means(H: Any) -> np.ndarray:
    means = to_float64(H, name="H", ndim=2)
    if means.shape[0] < 3 or means.shape[1] < 1:
        raise InputError(f"H has shape {means.shape}; three states and a column are needed")
    if np.ptp(means, axis=0).max() <= 1e-12 * np.abs(means).max():
        raise InputError("the class means are constant")
    return means


def _bands(H: np.ndarray) -> np.ndarray:
    return np.sum(np.abs(np.fft.fft(H, axis=0) / len(H)) ** 2, axis=1)


# ---------------------------------------------------------------------------------------- the documented four


def rankme_with_epsilon(eigenvalues: Any) -> float:
    """1e-5 is added to every share before the logarithm, as published code does against ln 0."""
    p = _shares(eigenvalues) + 1e-5
    return math.exp(-float(np.sum(p * np.log(p))))


def float32_uncentred_covariance(x: Any) -> np.ndarray:
    """E[xxᵀ] − E[x]E[x]ᵀ in float32: the digits of the variance cancel where the mean is large."""
    data = _rows(x).astype(np.float32)
    mean = data.mean(axis=0)
    matrix = (data.T @ data / len(data) - np.outer(mean, mean)) * (len(data) / (len(data) - 1))
    return np.linalg.eigvalsh(matrix)[::-1]


def clipped_window_exponent(eigenvalues: Any, lo: int, hi: int) -> float:
    """A window that reaches beyond the spectrum is cut at its end and fitted all the same."""
    values = as_spectrum(eigenvalues).values
    lo, hi = max(lo, 1), min(hi, len(values))
    lo = min(lo, hi - 1)
    _window(values, lo, hi)
    return -_slope(np.arange(lo, hi + 1), values[lo - 1 : hi])


def covariance_centring_in_place(x: Any) -> np.ndarray:
    """The mean is subtracted from the caller's own array."""
    data = _rows(x)
    data -= data.mean(axis=0)
    return _descending_eigenvalues(data.T @ data / (len(data) - 1))


# ----------------------------------------------------------------------------------------- matrix spectra


def second_moment_for_covariance(x: Any) -> np.ndarray:
    """Σxxᵀ/n: the mean is never subtracted."""
    data = _rows(x)
    return _descending_eigenvalues(data.T @ data / len(data))


def covariance_over_n(x: Any) -> np.ndarray:
    """Divides by n where the kind says n − 1."""
    data = _centred(x)
    return _descending_eigenvalues(data.T @ data / len(data))


def singular_values_for_eigenvalues(x: Any) -> np.ndarray:
    """σ instead of λ."""
    data = _centred(x)
    return np.sqrt(_descending_eigenvalues(data.T @ data / (len(data) - 1)))


def ascending_covariance(x: Any) -> np.ndarray:
    """eigvalsh order, smallest first."""
    data = _centred(x)
    return np.linalg.eigvalsh(data.T @ data / (len(data) - 1))


def float16_covariance(x: Any) -> np.ndarray:
    """The centred data are cast to half precision."""
    data = _centred(x).astype(np.float16).astype(np.float64)
    return _descending_eigenvalues(np.nan_to_num(data).T @ np.nan_to_num(data) / (len(data) - 1))


def nan_to_zero_covariance(x: Any) -> np.ndarray:
    """NaN and Inf become ordinary numbers without a word."""
    return ascending_covariance(np.nan_to_num(np.asarray(x, dtype=np.float64), posinf=0.0, neginf=0.0))[::-1]


def covariance_without_smallest(x: Any) -> np.ndarray:
    """The smallest eigenvalue is dropped as if it were always rounding."""
    values = ascending_covariance(x)[::-1]
    return values[: max(len(values) - 1, 1)]


def covariance_centred_along_rows(x: Any) -> np.ndarray:
    """Subtracts each sample's mean over its coordinates instead of the mean sample."""
    data = _rows(x)
    data = data - data.mean(axis=1, keepdims=True)
    return _descending_eigenvalues(data.T @ data / (len(data) - 1))


def correlation_for_covariance(x: Any) -> np.ndarray:
    """Columns are standardised: eigenvalues of the correlation matrix."""
    data = _centred(x)
    scale = data.std(axis=0, ddof=1)
    data = data / np.where(scale > 0, scale, 1.0)
    return _descending_eigenvalues(data.T @ data / (len(data) - 1))


def one_row_as_zero(x: Any) -> np.ndarray:
    """A single sample gives a spectrum of zeros."""
    data = to_float64(x, name="x", ndim=2)
    if data.size == 0:
        raise InputError("x is empty")
    return np.zeros(data.shape[1]) if len(data) == 1 else ascending_covariance(data)[::-1]


def empty_as_empty(x: Any) -> np.ndarray:
    """No data give an empty spectrum."""
    data = to_float64(x, name="x", ndim=2)
    return np.zeros(0) if data.size == 0 else ascending_covariance(data)[::-1]


def ridge_covariance(x: Any) -> np.ndarray:
    """A ridge of 1e-3 is left on the diagonal."""
    return ascending_covariance(x)[::-1] + 1e-3


def memory_order_covariance(x: Any) -> np.ndarray:
    """Reads the buffer of the array as if it were always stored row by row."""
    raw = np.asarray(x, dtype=np.float64)
    data = np.frombuffer(raw.tobytes(order="A")).reshape(raw.shape)
    return ascending_covariance(data)[::-1]


def consecutive_difference_covariance(x: Any) -> np.ndarray:
    """Variance from differences of neighbouring samples: right on average, but the order of rows matters."""
    steps = np.diff(_rows(x), axis=0)
    return _descending_eigenvalues(steps.T @ steps / (2 * len(steps)))


def column_variances(x: Any) -> np.ndarray:
    """Sorted variances of the columns: right only where the columns are uncorrelated."""
    return np.sort(_centred(x).var(axis=0, ddof=1))[::-1]


def numpy_only_covariance(x: Any) -> np.ndarray:
    """Assumes numpy methods that tensors do not have."""
    return ascending_covariance(x.astype(np.float64))[::-1]


def uncentred_singular_values_squared(w: Any) -> np.ndarray:
    """Energies λ = σ² where singular values are due."""
    data = to_float64(w, name="W", ndim=2)
    if data.size == 0:
        raise InputError("W is empty")
    return np.linalg.svd(data, compute_uv=False) ** 2


def centred_second_moment(x: Any) -> np.ndarray:
    """Subtracts the mean where an uncentred second moment is due."""
    data = _centred(x)
    return _descending_eigenvalues(data.T @ data / len(data))


# ---------------------------------------------------------------------------------------------- streaming


class Streaming:
    """Correct accumulator: count, mean and centred scatter, merged by the pairwise formula."""

    def __init__(self) -> None:
        self.n, self.mean, self.scatter = 0, np.zeros(0), np.zeros((0, 0))

    def update(self, x: Any) -> None:
        data = to_float64(x, name="x", ndim=2)
        if data.size == 0:
            raise InputError("x is empty")
        part = type(self)()
        part.n, part.mean = len(data), data.mean(axis=0)
        part.scatter = (data - part.mean).T @ (data - part.mean)
        self.merge(part)

    def merge(self, other: Streaming) -> None:
        if self.n == 0:
            self.n, self.mean, self.scatter = other.n, other.mean.copy(), other.scatter.copy()
            return
        n, step = self.n + other.n, other.mean - self.mean
        self.scatter = self.scatter + other.scatter + self.between(other, step, n)
        self.mean, self.n = self.mean + step * other.n / n, n

    def between(self, other: Streaming, step: np.ndarray, n: int) -> np.ndarray:
        return np.outer(step, step) * (self.n * other.n / n)

    def spectrum(self) -> np.ndarray:
        if self.n < 2:
            raise InputError(f"{self.n} rows; two are needed")
        return _descending_eigenvalues(self.scatter / (self.n - 1))


class ForgetsTheMeans(Streaming):
    """Scatter is added without the term between the two means."""

    def between(self, other: Streaming, step: np.ndarray, n: int) -> np.ndarray:
        return np.zeros_like(self.scatter)


class UnweightedMeans(Streaming):
    """The merged mean is the plain average of the two, whatever their counts: wrong from the third chunk on."""

    def merge(self, other: Streaming) -> None:
        first, middle = self.n == 0, (self.mean + other.mean) / 2 if self.n else other.mean
        super().merge(other)
        if not first:
            self.mean = middle


class RawSums(Streaming):
    """Keeps Σx and Σxxᵀ in float32 and subtracts at the end."""

    def update(self, x: Any) -> None:
        data = to_float64(x, name="x", ndim=2)
        if data.size == 0:
            raise InputError("x is empty")
        data = data.astype(np.float32)
        part = type(self)()
        part.n, part.mean, part.scatter = len(data), data.sum(axis=0), data.T @ data
        self.merge(part)

    def merge(self, other: Streaming) -> None:
        if self.n:
            self.n, self.mean, self.scatter = (
                self.n + other.n,
                self.mean + other.mean,
                self.scatter + other.scatter,
            )
        else:
            self.n, self.mean, self.scatter = other.n, other.mean, other.scatter

    def spectrum(self) -> np.ndarray:
        if self.n < 2:
            raise InputError(f"{self.n} rows; two are needed")
        return _descending_eigenvalues(
            (self.scatter - np.outer(self.mean, self.mean) / self.n) / (self.n - 1)
        )


class EmptiesOther(Streaming):
    """merge takes over the other accumulator's buffers and then writes into them."""

    def merge(self, other: Streaming) -> None:
        if self.n == 0:
            super().merge(other)
            return
        merged = copy.deepcopy(self)
        Streaming.merge(merged, other)
        self.n, self.mean, self.scatter = merged.n, merged.mean, merged.scatter
        other.scatter *= 0.0


# ------------------------------------------------------------------------------------------ effective ranks


def rankme_in_bits(eigenvalues: Any) -> float:
    """exp of an entropy in bits."""
    return math.exp(_entropy(_shares(eigenvalues)) / math.log(2))


def participation_with_sample_variance(eigenvalues: Any) -> float:
    """r/(1 + CV²) with the n − 1 variance: trailing zeros change it."""
    values = _shares(eigenvalues)
    spread = float(np.var(values, ddof=1)) if len(values) > 1 else 0.0
    return len(values) / (1 + spread / float(values.mean()) ** 2)


def rankme_without_smallest(eigenvalues: Any) -> float:
    """Drops the last eigenvalue as if it were always rounding."""
    values = as_spectrum(eigenvalues).values
    kept = values[: max(len(values) - 1, 1)]
    return math.exp(_entropy(kept / kept.sum()))


def unnormalised_rankme(eigenvalues: Any) -> float:
    """Forgets to divide by the trace."""
    values = as_spectrum(eigenvalues).values
    return max(math.exp(min(_entropy(values), 30.0)), 1.0)


def rank_of_first_value(eigenvalues: Any) -> float:
    """Trusts the caller's order: divides by the first value instead of the largest."""
    values = to_float64(eigenvalues, name="eigenvalues", ndim=1)
    as_spectrum(values)
    return float(values.sum() / max(values[0], 1e-3 * values.max()))


def gap_rank(eigenvalues: Any) -> float:
    """Counts values above half of the largest: averaging two values can lower the count."""
    shares = _shares(eigenvalues)
    return float(np.sum(shares > 0.5 * shares[0]))


def float32_participation(eigenvalues: Any) -> float:
    """Squares the eigenvalues in float32: overflow and underflow for unusual units."""
    values = as_spectrum(eigenvalues).values.astype(np.float32)
    return float(values.sum() ** 2 / np.sum(values**2))


def rank_from_absolute_values(eigenvalues: Any) -> float:
    """Negative eigenvalues are made positive without a word."""
    return math.exp(_entropy(_shares(np.abs(to_float64(eigenvalues, name="eigenvalues", ndim=1)))))


def rank_of_nothing_is_zero(eigenvalues: Any) -> float:
    """Zeros and no values at all have rank 0."""
    values = to_float64(eigenvalues, name="eigenvalues", ndim=1)
    return math.exp(_entropy(_shares(values))) if values.any() else 0.0


def rank_normalising_in_place(eigenvalues: Any) -> float:
    """Divides the caller's array by its sum."""
    as_spectrum(eigenvalues)
    values = np.asarray(eigenvalues)
    values /= values.sum()
    return math.exp(_entropy(values))


def rank_skipping_nan(eigenvalues: Any) -> float:
    """NaN and Inf are dropped as missing values."""
    values = np.asarray(eigenvalues, dtype=np.float64)
    return math.exp(_entropy(_shares(values[np.isfinite(values)])))


_PROBES = np.random.default_rng(0)


def rank_by_random_probes(eigenvalues: Any) -> float:
    """Participation ratio from four random probes of a generator that moves on with every call."""
    p = _shares(eigenvalues)
    probes = _PROBES.standard_normal((4, len(p)))
    return float(min(max(1 / np.mean((probes * p) ** 2 * len(p)), 1.0), np.count_nonzero(p)))


def ranks_of_squared_energies(eigenvalues: Any) -> tuple[float, ...]:
    """RankMe(energy) squares the eigenvalues, as if they were singular values."""
    spectrum = as_spectrum(eigenvalues)
    p = spectrum.shares
    stable, participation = 1 / p[0], 1 / float(np.sum(p**2))
    singular = np.sqrt(p) / np.sqrt(p).sum()
    return stable, participation, math.exp(_entropy(p**2 / np.sum(p**2))), math.exp(_entropy(singular))


# ----------------------------------------------------------------------------------------------- exponents


def zero_based_exponent(eigenvalues: Any, lo: int, hi: int) -> float:
    """Ranks counted from 0 in the fit, from 1 in the window."""
    values = _window(eigenvalues, lo, hi)
    return -_slope(np.maximum(np.arange(lo - 1, hi), 0.5), values[lo - 1 : hi])


def exponent_without_minus(eigenvalues: Any, lo: int, hi: int) -> float:
    """The slope itself."""
    return _slope(np.arange(lo, hi + 1), _window(eigenvalues, lo, hi)[lo - 1 : hi])


def exponent_of_singular_values(eigenvalues: Any, lo: int, hi: int) -> float:
    """Half of the exponent: fits σ."""
    return -0.5 * _slope(np.arange(lo, hi + 1), _window(eigenvalues, lo, hi)[lo - 1 : hi])


def exponent_with_open_end(eigenvalues: Any, lo: int, hi: int) -> float:
    """Python's half-open range: rank hi is left out."""
    return -_slope(np.arange(lo, hi), _window(eigenvalues, lo, hi)[lo - 1 : hi - 1])


def exponent_of_everything(eigenvalues: Any, lo: int, hi: int) -> float:
    """Checks the window and then fits every rank."""
    values = _window(eigenvalues, lo, hi)
    values = values[values > 0]
    return -_slope(np.arange(1, len(values) + 1), values)


def exponent_with_floor(eigenvalues: Any, lo: int, hi: int) -> float:
    """ln(λ + 1e-6), so that zeros can be fitted."""
    values = as_spectrum(eigenvalues).values
    if not 1 <= lo < hi <= len(values):
        raise InputError(f"the window {lo}..{hi} does not fit in 1..{len(values)}")
    return -_slope(np.arange(lo, hi + 1), values[lo - 1 : hi] + 1e-6)


def exponent_in_given_order(eigenvalues: Any, lo: int, hi: int) -> float:
    """Trusts the caller's order."""
    values = to_float64(eigenvalues, name="eigenvalues", ndim=1)
    _window(values, lo, hi)
    return -_slope(np.arange(lo, hi + 1), values[lo - 1 : hi])


# ---------------------------------------------------------------------------------------------- divergence


def js_in_bits(p: Any, q: Any) -> float:
    """log₂ instead of ln."""
    a, b = _pair(p, q)
    return _js(a / a.sum(), b / b.sum()) / math.log(2)


def kullback_leibler(p: Any, q: Any) -> float:
    """KL(p‖m), one half of JS, which is not symmetric."""
    a, b = _pair(p, q)
    a, b = a / a.sum(), b / b.sum()
    inside = a > 0
    return float(np.sum(a[inside] * np.log(2 * a[inside] / (a + b)[inside])))


def js_without_normalising(p: Any, q: Any) -> float:
    """The spectra enter as they are."""
    return _js(*_pair(p, q))


def js_root(p: Any, q: Any) -> float:
    """The square root, which scipy's function of that name returns."""
    a, b = _pair(p, q)
    return math.sqrt(_js(a / a.sum(), b / b.sum()))


def js_of_common_length(p: Any, q: Any) -> float:
    """The longer spectrum is cut."""
    a, b = as_spectrum(p).values, as_spectrum(q).values
    size = min(len(a), len(b))
    a, b = a[:size], b[:size]
    return _js(a / a.sum(), b / b.sum())


def fourth_power_distance(p: Any, q: Any) -> float:
    """‖p − q‖₁⁴/24: symmetric and bounded, but its root grows as a square and breaks the triangle."""
    a, b = _pair(p, q)
    return float(np.abs(a / a.sum() - b / b.sum()).sum()) ** 4 / 24


def js_with_floor(p: Any, q: Any) -> float:
    """1e-3 is added to every share against ln 0."""
    a, b = _pair(p, q)
    a, b = a / a.sum() + 1e-3, b / b.sum() + 1e-3
    return _js(a / a.sum(), b / b.sum())


def js_with_offset(p: Any, q: Any) -> float:
    """Two equal spectra are not at distance 0."""
    return js_in_bits(p, q) * math.log(2) * 0.9 + 1e-3


def js_of_cumulative_shares(p: Any, q: Any) -> float:
    """Compares running sums in the order given: places are no longer interchangeable."""
    _pair(p, q)
    a, b = (np.cumsum(to_float64(v, name="spectrum", ndim=1)) for v in (p, q))
    return _js(a / a.sum(), b / b.sum())


# ------------------------------------------------------------------------------------------ Fourier features


def peak_with_constant(H: Any) -> float:
    """The maximum runs over r = 0 as well, and the mean was not removed."""
    values = _bands(_means(H))
    return float(values[: len(values) // 2 + 1].max() / values.sum())


def peak_not_centred(H: Any) -> float:
    """The maximum leaves out r = 0, the total does not."""
    values = _bands(_means(H))
    return float(values[1 : len(values) // 2 + 1].max() / values.sum())


def doubled_peak(H: Any) -> float:
    """Twice the one-sided peak, also at r = c/2, which has no partner to be doubled for."""
    values = _bands(_means(H))[1:]
    return float(2 * values[: (len(values) + 1) // 2].max() / values.sum())


def peak_of_first_column(H: Any) -> float:
    """Looks at the first coordinate only."""
    means = _means(H)
    means = means[:, : 1 if np.ptp(means[:, 0]) > 0 else None]
    values = _bands(means)[1:]
    return float(values.max() / values.sum())


def peak_of_real_part(H: Any) -> float:
    """cos components only: it matters where the numbering starts."""
    means = _means(H)
    spectrum = np.sum(np.fft.fft(means - means.mean(axis=0), axis=0).real ** 2, axis=1)[1:]
    return float(spectrum.max() / max(spectrum.sum(), 1e-300))


def direction_of_walk(H: Any) -> float:
    """Correlates each squared step with the step before it: changes when the walk runs the other way."""
    means = _means(H)
    steps = np.linalg.norm(means - np.roll(means, 1, axis=0), axis=1)
    weights = steps / steps.sum()
    ahead = float(np.sum(weights * weights * np.roll(weights, 1)))
    return min(max(ahead, 0.0), 1.0)


def peak_per_dimension(H: Any) -> float:
    """Divides by the number of columns."""
    values = _bands(_means(H))[1:]
    return float(values.max() / values.sum()) / np.shape(H)[1]


def constant_has_no_peak(H: Any) -> float:
    """Constant class means have concentration 0."""
    means = to_float64(H, name="H", ndim=2)
    if means.shape[0] < 3 or means.shape[1] < 1:
        raise InputError("three states and a column are needed")
    values = _bands(means - means.mean(axis=0))[1:]
    return float(values.max() / values.sum()) if values.sum() > 1e-20 else 0.0


def peak_amplitude(H: Any) -> float:
    """Amplitude of the peak, squashed into [0, 1]: not a share."""
    values = _bands(_means(H))[1:]
    return float(values.max() / (1 + values.max()))


def unscaled_bands(H: Any) -> np.ndarray:
    """The DFT without 1/c."""
    means = _means(H)
    return _bands(means - means.mean(axis=0)) * len(means) ** 2


def one_sided_bands(H: Any) -> np.ndarray:
    """Energies of −r folded onto r: E_r no longer equals E_{c−r}."""
    means = _means(H)
    values = _bands(means - means.mean(axis=0))
    c = len(values)
    folded = np.zeros(c)
    for r in range(1, c):
        folded[min(r, c - r)] += values[r]
    return folded


def bands_with_mean(H: Any) -> np.ndarray:
    """E_0 holds the mean."""
    return _bands(_means(H))


def _filtered(H: Any, frequencies: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    means = to_float64(H, name="H", ndim=2)
    if means.shape[0] < 3 or means.shape[1] < 1:
        raise InputError("three states and a column are needed")
    mask = np.isin(np.arange(len(means)), list(frequencies))[:, None]
    return means, np.fft.fft(means - means.mean(axis=0), axis=0), mask


def split_on_one_side(H: Any, frequencies: Any) -> tuple[np.ndarray, np.ndarray]:
    """Keeps r but not c − r: half of the wave."""
    means, transform, _ = _filtered(H, frequencies)
    one_side = np.isin(np.arange(len(means)), [r for r in frequencies if 2 * r <= len(means)])[:, None]
    kept = np.fft.ifft(np.where(one_side, transform, 0), axis=0).real
    return kept, means - kept


def split_without_rest(H: Any, frequencies: Any) -> tuple[np.ndarray, np.ndarray]:
    """The dropped part is damped as well: the two do not add up."""
    means, transform, mask = _filtered(H, frequencies)
    kept = np.fft.ifft(np.where(mask, transform, 0), axis=0).real
    return kept, 0.9 * (means - kept)


# ---------------------------------------------------------------------------------------------------- nulls


def edges_of_inverse_ratio(gamma: float) -> tuple[float, float]:
    """γ = n/d instead of d/n."""
    root = math.sqrt(1 / gamma)
    return (1 - root) ** 2, (1 + root) ** 2


def edges_rounded_ratio(gamma: float) -> tuple[float, float]:
    """Treats every γ above 1 as 1."""
    root = math.sqrt(min(gamma, 1.0))
    return (1 - root) ** 2, (1 + root) ** 2


def spike_over_ell(ell: float, gamma: float) -> float:
    """ℓ(1 + γ/ℓ): the −1 is missing."""
    return ell + gamma


@dataclass(frozen=True)
class Mutant:
    """A defective function, the kind it claims to be, and laws that must each fail on it."""

    function: Callable[..., Any]
    kind: str
    caught_by: tuple[str, ...]
    torch: bool = False


_COV, _RANK, _EXP, _JS, _H = (
    "covariance spectrum",
    "effective rank",
    "exponent",
    "divergence",
    "concentration",
)
_STREAM, _E, _SPLIT = "streaming moments", "band energies", "frequency split"

DOCUMENTED = (
    Mutant(rankme_with_epsilon, _RANK, ("zero padding", "bounds", "flat spectrum", "Kronecker")),
    Mutant(float32_uncentred_covariance, _COV, ("translation", "known spectrum", "descending")),
    Mutant(clipped_window_exponent, _EXP, ("window must fit",)),
    Mutant(covariance_centring_in_place, _COV, ("input not mutated",)),
)

MUTANTS = (
    *DOCUMENTED,
    Mutant(second_moment_for_covariance, _COV, ("translation", "normalisation", "Weyl", "Mirsky")),
    Mutant(covariance_over_n, _COV, ("normalisation", "known spectrum")),
    Mutant(singular_values_for_eigenvalues, _COV, ("scale", "BBP position")),
    Mutant(ascending_covariance, _COV, ("descending",)),
    Mutant(float16_covariance, _COV, ("known spectrum", "Cauchy interlacing")),
    Mutant(nan_to_zero_covariance, _COV, ("NaN and Inf",)),
    Mutant(covariance_without_smallest, _COV, ("normalisation", "zero padding")),
    Mutant(covariance_centred_along_rows, _COV, ("translation", "orthogonal")),
    Mutant(correlation_for_covariance, _COV, ("scale", "orthogonal")),
    Mutant(one_row_as_zero, _COV, ("one row",)),
    Mutant(empty_as_empty, _COV, ("empty",)),
    Mutant(ridge_covariance, _COV, ("zero padding", "scale", "Gram duality", "Kronecker")),
    Mutant(memory_order_covariance, _COV, ("layout",)),
    Mutant(consecutive_difference_covariance, _COV, ("permutation",)),
    Mutant(column_variances, _COV, ("orthogonal", "Marchenko–Pastur edge")),
    Mutant(numpy_only_covariance, _COV, ("device",), torch=True),
    Mutant(uncentred_singular_values_squared, "singular values", ("scale", "Weyl")),
    Mutant(centred_second_moment, "second moment spectrum", ("normalisation", "known spectrum")),
    Mutant(ForgetsTheMeans, _STREAM, ("streaming = batch", "merge order")),
    Mutant(UnweightedMeans, _STREAM, ("streaming = batch", "merge order")),
    Mutant(RawSums, _STREAM, ("streaming = batch",)),
    Mutant(EmptiesOther, _STREAM, ("merge leaves other",)),
    Mutant(rankme_in_bits, _RANK, ("bounds", "flat spectrum")),
    Mutant(participation_with_sample_variance, _RANK, ("zero padding",)),
    Mutant(rankme_without_smallest, _RANK, ("flat spectrum", "zero padding")),
    Mutant(unnormalised_rankme, _RANK, ("scale",)),
    Mutant(rank_of_first_value, _RANK, ("permutation",)),
    Mutant(gap_rank, _RANK, ("Schur concavity",)),
    Mutant(float32_participation, _RANK, ("scale",)),
    Mutant(rank_from_absolute_values, _RANK, ("negative energy",)),
    Mutant(rank_of_nothing_is_zero, _RANK, ("all zeros", "empty")),
    Mutant(rank_normalising_in_place, _RANK, ("input not mutated", "dtype", "layout")),
    Mutant(rank_skipping_nan, _RANK, ("NaN and Inf",)),
    Mutant(rank_by_random_probes, _RANK, ("repeatable", "scale")),
    Mutant(ranks_of_squared_energies, "effective ranks", ("order of the ranks",)),
    Mutant(zero_based_exponent, _EXP, ("power law recovery",)),
    Mutant(exponent_without_minus, _EXP, ("power law recovery", "both ends count")),
    Mutant(exponent_of_singular_values, _EXP, ("power law recovery",)),
    Mutant(exponent_with_open_end, _EXP, ("both ends count",)),
    Mutant(exponent_of_everything, _EXP, ("window only",)),
    Mutant(exponent_with_floor, _EXP, ("zero in window", "scale", "powers")),
    Mutant(exponent_in_given_order, _EXP, ("permutation",)),
    Mutant(js_in_bits, _JS, ("range", "nested flat spectra")),
    Mutant(kullback_leibler, _JS, ("symmetry",)),
    Mutant(js_without_normalising, _JS, ("scale", "range")),
    Mutant(js_root, _JS, ("range", "nested flat spectra")),
    Mutant(js_of_common_length, _JS, ("equal length",)),
    Mutant(fourth_power_distance, _JS, ("triangle",)),
    Mutant(js_with_floor, _JS, ("zero padding",)),
    Mutant(js_of_cumulative_shares, _JS, ("permutation",)),
    Mutant(js_with_offset, _JS, ("zero at equality",)),
    Mutant(peak_with_constant, _H, ("translation",)),
    Mutant(peak_not_centred, _H, ("translation",)),
    Mutant(doubled_peak, _H, ("range",)),
    Mutant(peak_of_first_column, _H, ("orthogonal",)),
    Mutant(peak_of_real_part, _H, ("cyclic shift",)),
    Mutant(direction_of_walk, _H, ("reversal",)),
    Mutant(peak_per_dimension, _H, ("zero padding",)),
    Mutant(constant_has_no_peak, _H, ("constant states",)),
    Mutant(peak_amplitude, _H, ("scale",)),
    Mutant(unscaled_bands, _E, ("Parseval", "pure wave")),
    Mutant(one_sided_bands, _E, ("conjugate pairs", "pure wave")),
    Mutant(bands_with_mean, _E, ("translation", "Parseval")),
    Mutant(split_on_one_side, _SPLIT, ("idempotence", "separation")),
    Mutant(split_without_rest, _SPLIT, ("keep + drop",)),
    Mutant(edges_of_inverse_ratio, "bulk edges", ("Marchenko–Pastur edge",)),
    Mutant(edges_rounded_ratio, "bulk edges", ("Marchenko–Pastur edge", "Gram duality")),
    Mutant(spike_over_ell, "spike position", ("BBP position", "detached")),
)
