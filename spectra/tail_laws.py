"""Fit the laws that compete with a pure power law above a threshold: log-normal, and with an exponential cut-off.

Everything is in y = ln(x/x_min) ≥ 0, where a power law is an exponential law.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy

# Nodes of the quadrature of a cut-off's normaliser, and the drop of the logarithm of its integrand at the end.
NODES = 200
# a/√b of a log-normal that no sample tells from a power law: their likelihoods differ by 1e-10 a value.
STEEPEST = 300.0
DROP = 45.0


def lognormal_log_likelihoods(logs: np.ndarray) -> np.ndarray:
    """Fit a log-normal tail and return its log densities.

    Log densities of y = ln(x/x_min) ≥ 0 under the best truncated normal.

    f(y) = exp(−a y − b y²/2)/Z(a, b), b ≥ 0: natural parameters make the likelihood concave and hold the
    power law (b = 0) as their limit, where the (μ, σ) form diverges.
    """
    scale = float(logs.mean())
    y = logs / scale
    t = _slope_for(float((y**2).mean()))
    if t is None:
        return -y - math.log(scale)
    root = _mean(t)
    a, b = t * root, root**2
    return -a * y - b * y**2 / 2 - _log_normaliser(a, b) - math.log(scale)


def _slope_for(second: float) -> float | None:
    """Return t = a/√b of the likeliest truncated normal of mean 1 and second moment `second`; None for the power law.

    z = y√b has the density exp(−t z − z²/2)/Z and E z² = 1 − t·E z, so that E y²/(E y)² rises with t alone: from 1 for
    a normal far from its truncation to 2 for the exponential law of y, the power law of x.
    """

    def excess(t: float) -> float:
        mean = _mean(t)
        return (1 - t * mean) / mean**2 - second

    # Values that are all equal have no law of finite density; they are given a spread of rounding.
    low = -2 / math.sqrt(max(second - 1, 1e-14)) - 10
    if excess(STEEPEST) <= 0:
        return None
    if excess(low) >= 0:
        # Equal but for rounding, which decides the sign here.
        return low
    return float(scipy.optimize.brentq(excess, low, STEEPEST, xtol=1e-12, rtol=1e-12))


def _mean(t: float) -> float:
    """Return E z of the density exp(−t z − z²/2)/Z on z ≥ 0."""
    return math.sqrt(2 / math.pi) / float(scipy.special.erfcx(t / math.sqrt(2))) - t


def _log_normaliser(a: float, b: float) -> float:
    """ln ∫_0^∞ exp(−a y − b y²/2) dy, by whichever of two equal forms does not overflow."""
    if a >= 0:
        return 0.5 * math.log(math.pi / (2 * b)) + math.log(float(scipy.special.erfcx(a / math.sqrt(2 * b))))
    return (
        0.5 * math.log(2 * math.pi / b) + a * a / (2 * b) + float(scipy.special.log_ndtr(-a / math.sqrt(b)))
    )


class Cutoff(NamedTuple):
    """Hold a power law with exponential cut-off, p(x) ∝ x^−(1+a) e^(−rate·x/x_max), x ≥ x_min.

    Attributes:
        a, rate: the fitted parameters; rate 0 is the pure power law.
        a_error: standard error of a, from the Fisher information.
        densities: (m,) log densities of y.
        cdf: (m,) its distribution function at y.
    """

    a: float
    rate: float
    a_error: float
    densities: np.ndarray
    cdf: np.ndarray


def fit_cutoff(logs: np.ndarray) -> Cutoff:
    """Fit a power law with exponential cut-off to y = ln(x/x_min), ascending, by maximum likelihood.

    In y the law is exp(−a y − ρ e^(y − Y))/Z(a, ρ) with Y the largest y: an exponential family, whose likelihood is
    concave. The normaliser is a quadrature, since Γ(−a, ·) is in no library for every a.
    """
    top = float(logs[-1])
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    first, second = float(logs.mean()), float(np.exp(logs - top).mean())

    def grid(a: float, rho: float) -> tuple[np.ndarray, np.ndarray]:
        """Nodes and log weights·density over the part of [0, ∞) that holds the integral."""
        end = _end(a, rho, top)
        y = end * (nodes + 1) / 2
        return y, np.log(end * weights / 2) - a * y - rho * np.exp(y - top)

    def cost(theta: np.ndarray) -> float:
        a, rho = float(theta[0]) / first, math.exp(min(float(theta[1]), 700.0))
        return float(scipy.special.logsumexp(grid(a, rho)[1])) + a * first + rho * second

    options = {"xatol": 1e-8, "fatol": 1e-13, "maxiter": 2000}
    starts = [np.array([1.0, -3.0]), np.array([0.3, 1.0])]
    best = min(
        (scipy.optimize.minimize(cost, start, method="Nelder-Mead", options=options) for start in starts),
        key=lambda fit: fit.fun,
    )
    pure = 1.0 + math.log(first)
    if best.fun >= pure - 1e-12:
        a = 1.0 / first
        return Cutoff(a, 0.0, a / math.sqrt(len(logs)), math.log(a) - a * logs, -np.expm1(-a * logs))
    a, rho = float(best.x[0]) / first, math.exp(float(best.x[1]))
    y, mass = grid(a, rho)
    normaliser = float(scipy.special.logsumexp(mass))
    share = np.exp(mass - normaliser)
    # The covariance of (y, e^(y − Y)) is the Fisher information of (a, ρ).
    features = np.stack([y, np.exp(y - top)])
    centred = features - (features @ share)[:, None]
    information = (centred * share) @ centred.T
    determinant = float(np.linalg.det(information))
    error = math.sqrt(information[1, 1] / determinant / len(logs)) if determinant > 0 else math.inf
    densities = -a * logs - rho * np.exp(logs - top) - normaliser
    return Cutoff(a, rho, error, densities, _cdf(logs, a, rho, top, normaliser))


def _cdf(logs: np.ndarray, a: float, rho: float, top: float, normaliser: float) -> np.ndarray:
    """Distribution function at ascending y, from one short quadrature between neighbours."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    starts, ends = np.concatenate([[0.0], logs[:-1]]), logs
    half = (ends - starts)[:, None] / 2
    y = starts[:, None] + half * (nodes + 1)
    pieces = (half * weights * np.exp(-a * y - rho * np.exp(y - top) - normaliser)).sum(axis=1)
    return np.minimum(np.cumsum(pieces), 1.0)


def _end(a: float, rho: float, top: float) -> float:
    """Where a·y + ρ e^(y − Y) exceeds its minimum over y ≥ 0 by DROP."""
    lowest = max(top + math.log(-a / rho), 0.0) if a < 0 and rho > 0 else 0.0

    def fallen(y: float) -> float:
        rise = math.exp(min(y - top, 700.0)) - math.exp(min(lowest - top, 700.0))
        return a * (y - lowest) + rho * rise - DROP

    end = lowest + 1.0
    while fallen(end) < 0 and end < 1e9:
        end = lowest + 2 * (end - lowest)
    return float(scipy.optimize.brentq(fallen, lowest, end, xtol=1e-6)) if fallen(end) > 0 else end
