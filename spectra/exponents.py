"""Fit power laws to the decay of energies with rank.

A spectrum with λ_j ∝ j^−α has exponent α on ranks ("rank"), α/2 for its singular values ("rank-singular");
its values have density p(λ) ∝ λ^−(1+1/α) ("density") and p(σ) ∝ σ^−(1+2/α) ("density-singular").
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from spectra.arrays import brief, choice, real, whole
from spectra.errors import InputError
from spectra.finite_sample import reliability
from spectra.results import Estimate
from spectra.spectrum import Spectrum, SpectrumLike, as_spectrum
from spectra.windows import check_window, fit_line, log_rank_energy, misfit_reason, theil_sen_slope

Method = Literal["ols", "theil-sen"]
On = Literal["energy", "singular"]
ExponentKind = Literal["rank", "rank-singular", "density", "density-singular"]


def window_exponent(
    spectrum: SpectrumLike, lo: int, hi: int, method: Method = "ols", on: On = "energy"
) -> Estimate:
    """Fit the decay exponent of a spectrum on a window of ranks.

    α = −(slope of ln λ_j on ln j) over lo ≤ j ≤ hi (1-based, inclusive).

    Args:
        spectrum: Spectrum, or (r,) eigenvalues.
        lo, hi: first and last rank, 1 ≤ lo, hi ≥ lo + 2.
        method: ``"ols"`` least squares (the published choice), or ``"theil-sen"`` the median of the slopes
            of all pairs, which a few outlying values cannot move.
        on: ``"energy"`` λ, or ``"singular"`` σ: the convention of published gradient figures, half the
            exponent.

    Returns:
        Estimate of α (dimensionless). No interval: a spectrum does not determine its sampling spread; see
        `intervals.window_exponent_interval`. Details: ``r2`` of the straight line, ``stderr`` of the slope
        as a line fit (neighbouring ranks are correlated: it is *not* the sampling error), ``n_over_d``
        (NaN if unknown), and for eigenvalues with known n and d ``bias``, the finite-sample bias expected at
        this n, d and α. Singular values describe the matrix itself (a weight, a stack of gradients) and
        estimate no population, so they get no such verdict; `finite_sample.reliability` gives one. Status "not
        fitted" when the window does not fit in the rank that n, d and centring allow, or contains a zero
        energy; "flagged" when finite-sample bias dominates. The window is never clipped.

    Raises:
        InputError: an invalid spectrum, lo or hi not integers with 1 ≤ lo ≤ hi − 2, unknown method or ``on``.

    Source: Liu, Paquette & Sous, arXiv 2605.05683.

    >>> round(window_exponent(np.arange(1, 51) ** -1.5, 10, 40).value, 6)
    1.5
    """
    spectrum = as_spectrum(spectrum)
    lo, hi = check_window(lo, hi)
    choice(method, "method", ("ols", "theil-sen"))
    scale = on_scale(on)
    n_over_d = float("nan") if spectrum.aspect is None else spectrum.aspect
    reason = misfit_reason(spectrum, lo, hi)
    if reason:
        return Estimate.not_fitted(reason, n_over_d=n_over_d)
    x, y = log_rank_energy(spectrum, lo, hi)
    slope, r2, stderr = fit_line(x, y, np.ones_like(x))
    if method == "theil-sen":
        slope = theil_sen_slope(x, y)
    alpha = -slope
    details = {"r2": r2, "stderr": scale * stderr, "n_over_d": n_over_d}
    return _judged(spectrum, alpha, lo, hi, details, scale=scale)


def alpha_req(spectrum: SpectrumLike, lo: int = 1, hi: int | None = None) -> Estimate:
    """Fit the decay exponent with weight 1/j at rank j.

    Every octave of ranks then has the same weight.

    Minimises Σ_j (1/j) (ln λ_j − b + α ln j)² over lo ≤ j ≤ hi.

    Args:
        spectrum: Spectrum, or (r,) eigenvalues.
        lo, hi: first and last rank (1-based, inclusive); hi None means the last non-zero energy, and the
            rank used is reported in details ``hi``.

    Returns:
        Estimate of α with details ``r2`` (weighted), ``stderr`` of the line fit, ``n_over_d``, ``lo``,
        ``hi``. Status as in `window_exponent`.

    Raises:
        InputError: an invalid spectrum, or lo or hi not integers with 1 ≤ lo ≤ hi − 2.

    Source: Agrawal et al., α-ReQ, NeurIPS 2022; weights as in Stringer et al., Nature 571 (2019).

    >>> round(alpha_req(np.arange(1, 51) ** -1.5).value, 6)
    1.5
    """
    spectrum = as_spectrum(spectrum)
    lo = whole(lo, "lo")
    last = int(np.count_nonzero(spectrum.values)) if hi is None else hi
    n_over_d = float("nan") if spectrum.aspect is None else spectrum.aspect
    if hi is None and last < lo + 2:
        reason = f"the spectrum has {last} non-zero energies; a line from rank {lo} needs at least three"
        return Estimate.not_fitted(reason, n_over_d=n_over_d)
    lo, last = check_window(lo, last)
    reason = misfit_reason(spectrum, lo, last)
    if reason:
        return Estimate.not_fitted(reason, n_over_d=n_over_d)
    x, y = log_rank_energy(spectrum, lo, last)
    slope, r2, stderr = fit_line(x, y, 1.0 / np.arange(lo, last + 1))
    details = {"r2": r2, "stderr": stderr, "n_over_d": n_over_d, "lo": lo, "hi": last}
    return _judged(spectrum, -slope, lo, last, details, weighted=True)


def convert_exponent(value: float, source: ExponentKind, target: ExponentKind) -> float:
    """Convert an exponent between ranks, singular values and densities.

    With α the rank exponent of the energies: rank-singular = α/2, density = 1 + 1/α,
    density-singular = 1 + 2/α.

    Args:
        value: exponent of kind ``source``; positive for ranks, above 1 for densities.
        source, target: ``"rank"``, ``"rank-singular"``, ``"density"`` or ``"density-singular"``.

    Raises:
        InputError: an unknown kind, or a value that no decaying power law has.

    >>> convert_exponent(1.0, "rank", "density")
    2.0
    """
    kinds = ("rank", "rank-singular", "density", "density-singular")
    for name in (source, target):
        if not isinstance(name, str) or name not in kinds:
            raise InputError(f"{brief(name)} is no kind of exponent; it must be one of {', '.join(kinds)}")
    least = 0.0 if source.startswith("rank") else 1.0
    value = real(value, "the exponent")
    if not (np.isfinite(value) and value > least):
        raise InputError(
            f"a {source} exponent of {value} is no power law with decay; it must exceed {least:g}"
        )
    alpha = {
        "rank": lambda v: v,
        "rank-singular": lambda v: 2.0 * v,
        "density": lambda v: 1.0 / (v - 1.0),
        "density-singular": lambda v: 2.0 / (v - 1.0),
    }[source](float(value))
    # 1/α of a tiny α, and 1 + 1/α of a huge one, leave what float64 can tell from no power law.
    inverse = math.inf if alpha == 0 else 1.0 / alpha
    converted = {
        "rank": alpha,
        "rank-singular": alpha / 2.0,
        "density": 1.0 + inverse,
        "density-singular": 1.0 + 2.0 * inverse,
    }[target]
    if not (math.isfinite(converted) and converted > (0.0 if target.startswith("rank") else 1.0)):
        raise InputError(f"a {source} exponent of {value:g} has no {target} exponent in float64")
    return converted


def _judged(
    spectrum: Spectrum,
    alpha: float,
    lo: int,
    hi: int,
    details: dict[str, float],
    *,
    scale: float = 1.0,
    weighted: bool = False,
) -> Estimate:
    """Attach the finite-sample verdict, where the spectrum estimates that of a population."""
    if spectrum.kind == "singular" or spectrum.n is None or spectrum.d is None:
        return Estimate(scale * alpha, details=details)
    verdict = reliability(
        spectrum.n, spectrum.d, alpha, lo, hi, centred=bool(spectrum.centred), weighted=weighted
    )
    details = {**details, "bias": scale * verdict.bias}
    status = "ok" if verdict.reliable else "flagged"
    return Estimate(scale * alpha, status=status, reason=verdict.reason, details=details)


def on_scale(on: On) -> float:
    """Return 1 for energies and 1/2 for singular values.


    Raises:
        InputError: another name.
    """
    return 1.0 if choice(on, "on", ("energy", "singular")) == "energy" else 0.5
