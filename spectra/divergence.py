"""Compare two spectra, and estimate how far two samples of one population are apart already."""

from __future__ import annotations

import math

import numpy as np
import scipy

from spectra.arrays import Numbers, require_generator, to_float64, unit_of, whole
from spectra.covariance import covariance_spectrum, precision_of
from spectra.errors import InputError
from spectra.results import Estimate
from spectra.spectrum import Spectrum, SpectrumLike, as_spectrum


def js_divergence(a: SpectrumLike, b: SpectrumLike) -> float:
    """Return the Jensen–Shannon divergence of two spectra.

    In nats, in [0, ln 2], of the trace-normalised energies:

    JS = ½ Σ p ln(p/m) + ½ Σ q ln(q/m) with p = λᵃ/Σλᵃ, q = λᵇ/Σλᵇ rank by rank, m = (p+q)/2. Its square root
    is a metric. (scipy's ``jensenshannon`` returns the root.)

    Args:
        a, b: Spectrum, or (r,) eigenvalues, of the same length. Where both record n it must be equal,
            because the sampling spread of eigenvalues depends on it.

    Raises:
        InputError: an invalid spectrum, different lengths, or different known n.

    Source: Lin, IEEE Trans. Inf. Theory 37 (1991).

    >>> round(js_divergence([1.0, 0.0], [0.5, 0.5]), 4)
    0.2158
    """
    first, second = as_spectrum(a), as_spectrum(b)
    if len(first) != len(second):
        raise InputError(
            f"the spectra have {len(first)} and {len(second)} values; "
            "a divergence rank by rank needs the same number"
        )
    if first.n is not None and second.n is not None and first.n != second.n:
        raise InputError(
            f"the spectra come from n = {first.n} and {second.n} samples; sampling alone makes these differ: "
            "subsample the larger set to equal n"
        )
    p, q = first.shares, second.shares
    total = p + q
    # With t = (p−q)/(p+q), p = m(1+t) and q = m(1−t), each rank contributes ½ m [ln(1−t²) + 2t artanh t]: no
    # cancellation where p ≈ q, which is where floors are measured. Where one is much smaller, 1 − t² would cancel.
    t, up, down = (
        np.divide(x, total, out=np.zeros_like(p), where=total > 0) for x in (p - q, 2.0 * p, 2.0 * q)
    )
    near = np.clip(t, -0.5, 0.5)
    terms = np.where(
        np.abs(t) < 0.5,
        np.log1p(-(near**2)) + 2.0 * near * np.arctanh(near),
        scipy.special.xlogy(up, up) + scipy.special.xlogy(down, down),
    )
    return float(min(max(0.25 * np.sum(total * terms), 0.0), math.log(2.0)))


def js_floor(
    x: Numbers,
    rng: np.random.Generator,
    *,
    splits: int = 20,
    center: bool = True,
    precision: float | None = None,
) -> Estimate:
    """Estimate the divergence that sampling alone produces.

    It is the mean divergence between two disjoint random halves of one sample.

    Args:
        x: (n, d) samples, n ≥ 4; with odd n each split leaves out one random row.
        rng: generator of the splits.
        splits: how many random splits to average.
        center, precision: as in `covariance_spectrum`.

    Returns:
        Estimate in nats: the mean over splits, with the 2.5 % and 97.5 % quantiles *of the splits* as low and
        high (the range of a single comparison of two samples of one population) and details ``n`` = ⌊n/2⌋, the
        number of samples for which this is the floor. Above n ≈ d the floor falls roughly as 1/n.

    Raises:
        InputError: fewer than four rows, splits below 1, or what `covariance_spectrum` rejects.

    >>> x = np.random.default_rng(0).standard_normal((40, 3))
    >>> floor = js_floor(x, np.random.default_rng(1))
    >>> 0 < floor.low < floor.value < floor.high, floor.details["n"]
    (True, 20)
    """
    require_generator(rng)
    splits, data = whole(splits, "splits", least=1), _rows(x, "x")
    # A divergence has no scale: exact division keeps the energies within float64.
    data, own = data / unit_of(data), precision_of(x, precision)
    values = [_js_of_rows(*_halves(data, rng), center, own) for _ in range(splits)]
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(
        float(np.mean(values)), float(low), float(high), details={"n": len(data) // 2, "splits": splits}
    )


def js_excess(
    x: Numbers,
    y: Numbers,
    rng: np.random.Generator,
    *,
    splits: int = 20,
    center: bool = True,
    precision: float | None = None,
) -> Estimate:
    """Estimate the divergence of two samples above their sampling floor.

    The excess is JS(x, y) minus the floor of one population, both at the same number of samples.

    Each split cuts x and y into halves; the divergence is averaged over the four pairs (x half, y half), the
    floor over (x₁, x₂) and (y₁, y₂). All six comparisons have ⌊n/2⌋ samples on each side, so when both come from
    one population the difference has mean exactly zero: it may be negative, and is not clipped.

    Args:
        x, y: (n, d) samples with the same n ≥ 4 and the same d.
        rng: generator of the splits.
        splits: how many random splits to average.
        center, precision: as in `covariance_spectrum`.

    Returns:
        Estimate in nats with details ``js`` and ``floor`` (both at ``n`` = ⌊n/2⌋ samples) and ``p_value``:
        the share of random relabellings of the pooled rows whose divergence reaches the observed one, (1 +
        #)/(1 + splits). Flagged when that exceeds 0.05: sampling alone explains the divergence. low and high are
        the 2.5 % and 97.5 % quantiles over splits: split noise of one pair of samples, not an interval over new
        samples.

    Raises:
        InputError: unequal shapes, fewer than four rows, or what `covariance_spectrum` rejects.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((2, 40, 3))
    >>> js_excess(x, y, rng).status, js_excess(x, y * [1, 1, 9], rng).status
    ('flagged', 'ok')
    """
    require_generator(rng)
    splits, first, second = whole(splits, "splits", least=1), _rows(x, "x"), _rows(y, "y")
    if first.shape != second.shape:
        raise InputError(
            f"x has shape {first.shape} and y {second.shape}; "
            "equal n and d are required: subsample the larger set"
        )
    size, own = unit_of(first, second), max(precision_of(each, precision) for each in (x, y))
    first, second = first / size, second / size

    def spectrum(rows: np.ndarray) -> Spectrum:
        return covariance_spectrum(rows, center, precision=own)

    if center:
        # Relabelled rows must not carry a difference of means that the spectra themselves never see.
        first, second = first - first.mean(0), second - second.mean(0)
    observed = _js_of_rows(first, second, center, own)
    pooled, n = np.concatenate([first, second]), len(first)
    crosses, floors, reached = [], [], 1
    for _ in range(splits):
        xs = [spectrum(half) for half in _halves(first, rng)]
        ys = [spectrum(half) for half in _halves(second, rng)]
        crosses.append(np.mean([js_divergence(a, b) for a in xs for b in ys]))
        floors.append((js_divergence(*xs) + js_divergence(*ys)) / 2)
        order = rng.permutation(2 * n)
        reached += _js_of_rows(pooled[order[:n]], pooled[order[n:]], center, own) >= observed
    js, floor, p_value = float(np.mean(crosses)), float(np.mean(floors)), reached / (splits + 1)
    low, high = np.quantile(np.subtract(crosses, floors), [0.025, 0.975])
    details = {"js": js, "floor": floor, "n": n // 2, "splits": splits, "p_value": p_value}
    reason = ""
    if p_value > 0.05:
        reason = f"sampling alone explains it: {p_value:.0%} of relabelled samples diverge as much (n = {n})"
    return Estimate(js - floor, float(low), float(high), "flagged" if reason else "ok", reason, details)


def _js_of_rows(x: np.ndarray, y: np.ndarray, center: bool, precision: float) -> float:
    return js_divergence(*(covariance_spectrum(rows, center, precision=precision) for rows in (x, y)))


def _rows(x: Numbers, name: str) -> np.ndarray:
    data = to_float64(x, name=name, ndim=2)
    if len(data) < 4:
        raise InputError(f"{name} has {len(data)} rows; two halves with a covariance each need at least four")
    return data


def _halves(data: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    order, half = rng.permutation(len(data)), len(data) // 2
    return data[order[:half]], data[order[half : 2 * half]]
