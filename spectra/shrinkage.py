"""Remove sampling noise from eigenvalues and participation ratios."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from spectra.arrays import Numbers, brief, choice, to_float64, unit, unit_of
from spectra.covariance import covariance_spectrum, precision_of
from spectra.errors import InputError
from spectra.results import Estimate
from spectra.spectrum import Spectrum

# Beyond this many bandwidths from a value the kernel's Hilbert transform is taken from its series; s² < 1/500 there, so
# that the last term is below 1e-17.
FAR = 50.0
FAR_TERMS = 7


def nonlinear_shrinkage(spectrum: Spectrum) -> Spectrum:
    """Replace sample eigenvalues by optimally shrunk ones.

    Each becomes the expected variance of the population along that sample eigenvector.

    With c = d/n, f̃ and H̃ the Epanechnikov kernel estimates (bandwidth n^−1/3·λ_j) of the limiting sample
    density and of its Hilbert transform, and d ≤ n: λ_i → λ_i / [(π c λ_i f̃(λ_i))² + (1 − c − π c λ_i
    H̃(λ_i))²]. For d > n the d − n null directions share one value and the others are λ_i / [π² λ_i² (f̃² +
    H̃²)]. These are the eigenvalues of the Frobenius-optimal rotation-equivariant estimate of the
    covariance; they are *not* the population's eigenvalues, which are more spread out.

    Args:
        spectrum: eigenvalues of a sample covariance with n and d known, n ≥ 12, and no zeros except those
            that n, d and centring impose.

    Returns:
        Spectrum of d values with the same n, d and centring.

    Raises:
        InputError: singular values, n or d unknown, too few samples, or rank-deficient data.

    Source: Ledoit & Wolf, "Analytical nonlinear shrinkage of large-dimensional covariance matrices", Ann.
    Stat. 48 (2020).

    >>> spectrum = covariance_spectrum(np.random.default_rng(0).standard_normal((60, 20)))
    >>> shrunk = nonlinear_shrinkage(spectrum)
    >>> bool(shrunk.values[0] < spectrum.values[0]), bool(shrunk.values[-1] > spectrum.values[-1])
    (True, True)
    """
    if not isinstance(spectrum, Spectrum):
        raise InputError(
            f"{brief(spectrum)} cannot be shrunk; pass a Spectrum of eigenvalues with n and d known"
        )
    if spectrum.kind != "eigenvalue" or spectrum.n is None or spectrum.d is None:
        raise InputError(
            f"{spectrum!r} cannot be shrunk; pass eigenvalues of a covariance with n and d known"
        )
    n, d = (spectrum.n - 1 if spectrum.centred else spectrum.n), spectrum.d
    if n < 11:
        raise InputError(f"n is {spectrum.n}; the kernel estimate needs at least 12 samples")
    kept = min(n, d)
    # The formulas have no scale: exact division keeps squares within float64.
    size = unit(float(spectrum.values[0]))
    values = spectrum.values[:kept][::-1] / size
    if len(values) < kept or values[0] <= 0:
        raise InputError(
            f"the spectrum has {np.count_nonzero(spectrum.values)} non-zero values where n and d allow {kept}; "
            "drop the dimensions without variation first"
        )
    bandwidth = n ** (-1.0 / 3.0)
    density, hilbert = _kernel_estimates(values, bandwidth)
    ratio = d / n
    if d <= n:
        inner = math.pi * ratio * values
        shrunk = values / ((inner * density) ** 2 + (1 - ratio - inner * hilbert) ** 2)
    else:
        root = math.sqrt(5.0)
        edge = math.log((1 + root * bandwidth) / abs(1 - root * bandwidth))
        weight = 3 / (10 * bandwidth**2) + 3 / (4 * root * bandwidth) * (1 - 1 / (5 * bandwidth**2)) * edge
        at_zero = weight / math.pi * float(np.mean(1 / values))
        null = 1 / (math.pi * (d - n) / n * at_zero)
        shrunk = values / (math.pi**2 * ((values * density) ** 2 + (values * hilbert) ** 2))
        shrunk = np.concatenate([np.full(d - n, null), shrunk])
    with np.errstate(over="ignore"):
        shrunk = shrunk * size
    if not np.all(np.isfinite(shrunk) & (shrunk > 0)):
        raise InputError(
            f"energies from {spectrum.values[kept - 1]:.3g} to {spectrum.values[0]:.3g} leave float64 when they are "
            "shrunk; divide the data first, or drop the smallest"
        )
    return Spectrum(shrunk, "eigenvalue", n=spectrum.n, d=d, centred=spectrum.centred)


def debiased_participation_ratio(
    x: Numbers, assume: Literal["nothing", "gaussian"] = "nothing", *, precision: float | None = None
) -> Estimate:
    """Estimate the participation ratio without its small-sample bias.

    (tr Σ)²/tr Σ² with numerator and denominator each estimated without bias.

    Sample eigenvalues spread, so the plain ratio is too low, at most about n however large the truth. With S
    the covariance, q = Σ‖x_i − x̄‖⁴/(n−1) and k = (n−1)/(n(n−2)(n−3)), free of any distribution:

        tr Σ² ← k[(n−1)(n−2) tr S² + (tr S)² − n q],   (tr Σ)² ← k[2 tr S² + (n²−3n+1)(tr S)² − n q].

    For Gaussian rows, with ν = n − 1: tr Σ² ← ν²/((ν−1)(ν+2)) [tr S² − (tr S)²/ν] and (tr Σ)² ← (tr S)² −
    (2/ν) tr Σ², which vary less but err for heavy tails.

    Args:
        x: (n, d) independent samples, n ≥ 4.
        assume: ``"nothing"`` or ``"gaussian"``.
        precision: as in `covariance_spectrum`.

    Returns:
        Estimate of the ratio (a ratio of unbiased estimates, itself biased at second order only), with
        details ``raw`` (the plain ratio), ``trace_squared``, ``square_trace``. Flagged when it falls outside
        [1, d]; "not fitted" when the denominator is not positive. Never clipped. No interval: see
        `uncertainty.jackknife`.

    Raises:
        InputError: fewer than four rows, another ``assume``, or what `covariance_spectrum` rejects.

    Source: Himeno & Yamada, J. Multivariate Anal. 130 (2014); Srivastava, J. Japan Stat. Soc. 35 (2005).

    >>> found = debiased_participation_ratio(np.random.default_rng(0).standard_normal((30, 40)))
    >>> found.details["raw"] < 20 < found.value
    True
    """
    data = to_float64(x, name="x", ndim=2)
    n, d = data.shape
    if n < 4:
        raise InputError(f"x has {n} rows; an unbiased tr Σ² needs at least four")
    choice(assume, "assume", ("nothing", "gaussian"))
    # The ratio has no scale: exact division keeps the energies within float64.
    data = data / unit_of(data)
    energies = covariance_spectrum(data, precision=precision_of(x, precision)).values
    # Dividing by λ₁ keeps fourth powers in range and does not change the ratio.
    rows = (data - data.mean(0)) / math.sqrt(energies[0])
    energies = energies / energies[0]
    trace_squared, square_trace = float(energies.sum()) ** 2, float((energies**2).sum())
    raw = trace_squared / square_trace
    if assume == "gaussian":
        v = n - 1
        bottom = v**2 / ((v - 1) * (v + 2)) * (square_trace - trace_squared / v)
        top = trace_squared - 2 / v * bottom
    else:
        fourth = float((np.einsum("ij,ij->i", rows, rows) ** 2).sum()) / (n - 1)
        k = (n - 1) / (n * (n - 2) * (n - 3))
        bottom = k * ((n - 1) * (n - 2) * square_trace + trace_squared - n * fourth)
        top = k * (2 * square_trace + (n * n - 3 * n + 1) * trace_squared - n * fourth)
    if bottom <= 0:
        return Estimate.not_fitted(
            f"the unbiased tr Σ² is not positive at n = {n}: take more samples", raw=raw
        )
    value = top / bottom
    details = {"raw": raw, "trace_squared": top, "square_trace": bottom}
    # Rank one is 1 but for rounding.
    if not 1 - 1e-9 <= value <= d * (1 + 1e-9):
        reason = f"the debiased ratio {value:.4g} lies outside [1, {d}]: n = {n} samples are too few"
        return Estimate(value, status="flagged", reason=reason, details=details)
    return Estimate(min(max(value, 1.0), float(d)), details=details)


def _kernel_estimates(values: np.ndarray, bandwidth: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the Epanechnikov density at the values, with locally scaled bandwidth, and its Hilbert transform."""
    scale = bandwidth * values
    u = (values[:, None] - values[None, :]) / scale[None, :]
    root = math.sqrt(5.0)
    near = np.where(np.abs(u) > FAR, 0.0, u)
    density = np.mean(
        np.where(near == u, 3 / (4 * root) * np.maximum(1 - near**2 / 5, 0), 0.0) / scale, axis=1
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = 3 / (4 * root * math.pi) * (1 - near**2 / 5) * np.log(np.abs((root - near) / (root + near)))
    # At the kernel's edge the factor in front vanishes faster than the logarithm diverges.
    logs = np.where(np.abs(near) == root, 0.0, logs)
    transform = np.where(near == u, -3 / (10 * math.pi) * near + logs, _far_transform(u))
    return density, np.mean(transform / scale, axis=1)


def _far_transform(u: np.ndarray) -> np.ndarray:
    """Hilbert transform of the kernel far from it, −1/(πu) − …: (−3/(√5π)) Σ_k s^{2k+1}/((2k+1)(2k+3)) with s = √5/u.

    The closed form is a difference of two terms of size u, whose rounding exceeds the result 1/u by ε·u².
    """
    s = math.sqrt(5.0) / np.where(np.abs(u) > FAR, u, np.inf)
    series = sum(s ** (2 * k) / ((2 * k + 1) * (2 * k + 3)) for k in range(FAR_TERMS))
    return -3 / (math.sqrt(5.0) * math.pi) * s * series
