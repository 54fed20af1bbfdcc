"""Give closed forms of gradient flow by modes: masses and H_S over time, losses, exponents."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gamma

from theory.values import Array


def amplitude(target: ArrayLike, rate: ArrayLike, t: float) -> Array:
    """Return the amplitudes a_r(t) of gradient flow from 0.

    (k,) a*_r (1 − e^{−κ_r t}): flow of ½Σκ_r(a*_r − a_r)².

    >>> amplitude([2.0, 4.0], [1.0, 1.0], np.log(2)).round(6)
    array([1., 2.])
    """
    return np.asarray(target, float) * -np.expm1(-np.asarray(rate, float) * t)


def share(mass: ArrayLike, inside: ArrayLike) -> float:
    """Return H_S, the share of mass inside S.

    Σ_S m_r/Σ m_r for masses (k,) and a boolean membership (k,).

    >>> share([3.0, 1.0], [True, False])
    0.75
    """
    m, s = np.asarray(mass, float), np.asarray(inside, bool)
    return float(m[s].sum() / m.sum())


def replicator_rate(mass: ArrayLike, growth: ArrayLike, inside: ArrayLike) -> float:
    """Return dH_S/dt from masses and their growth.

    H_S(1−H_S)·(Ṁ_S/M_S − Ṁ_{S^c}/M_{S^c}), which a side without mass has, too: it is Ṁ_S(1−H_S) − Ṁ_{S^c}·H_S over
    the whole mass.

    >>> replicator_rate([1.0, 1.0], [2.0, 1.0], [True, False])
    0.25
    """
    m, g, s = np.asarray(mass, float), np.asarray(growth, float), np.asarray(inside, bool)
    h = share(m, s)
    return float((g[s].sum() * (1 - h) - g[~s].sum() * h) / m.sum())


def early_share(target: ArrayLike, rate: ArrayLike, inside: ArrayLike) -> float:
    """Return H_S(0⁺) of a flow from 0 without background.

    Σ_S κ²a*²/Σ κ²a*².

    >>> early_share([1.0, 1.0], [3.0, 1.0], [True, False])
    0.9
    """
    return share((np.asarray(target, float) * np.asarray(rate, float)) ** 2, inside)


def late_share(target: ArrayLike, inside: ArrayLike) -> float:
    """Return H_S(∞) of a flow without background.

    Σ_S a*²/Σ a*².

    >>> late_share([1.0, 1.0], [True, False])
    0.5
    """
    return share(np.asarray(target, float) ** 2, inside)


def initial_curvature(target: ArrayLike, rate: ArrayLike, inside: ArrayLike, background: float) -> float:
    """Return the initial curvature of H_S with a background.

    lim (H_S(t) − H_S(0))/t² for m_r = b + a_r², b > 0: (Σ_S κ²a*² − (|S|/k) Σ κ²a*²)/(k b), k modes in total.

    >>> initial_curvature([1.0, 1.0], [3.0, 1.0], [True, False], background=2.0)
    1.0
    """
    push = (np.asarray(target, float) * np.asarray(rate, float)) ** 2
    s = np.asarray(inside, bool)
    return float((push[s].sum() - s.mean() * push.sum()) / (len(push) * background))


def loss(weights: ArrayLike, rates: ArrayLike, times: ArrayLike) -> Array:
    """Return the loss curve L(t) of gradient flow.

    (T,) ½ Σ_j c_j e^{−2λ_j t}.

    >>> loss([2.0], [1.0], [0.0, np.log(2)]).round(6)
    array([1.  , 0.25])
    """
    c, lam, t = (np.asarray(x, float) for x in (weights, rates, times))
    return 0.5 * np.exp(-2 * np.multiply.outer(t, lam)) @ c


def power_law_loss(a: float, b: float, t: float) -> float:
    """Return the loss of power-law spectra at large times.

    (1/2a) Γ((b−1)/a) (2t)^{−(b−1)/a}: L(t) for λ_j = j^{−a}, c_j = j^{−b}, b > 1, 1 ≪ t ≪ d^a.

    Raises:
        ValueError: b ≤ 1 or a ≤ 0, where the sum over modes does not converge or does not decay.

    >>> power_law_loss(1.0, 2.0, 0.5)
    0.5
    """
    if b <= 1 or a <= 0:
        raise ValueError(f"a={a}, b={b}: the loss law needs a > 0 and b > 1")
    s = (b - 1) / a
    return float(gamma(s) / (2 * a) * (2 * t) ** -s)


def normalised_head_rate(a: float, d: int) -> float:
    """Return λ_1 of a power law with trace 1.

    1/Σ_j j^{−a} for λ_j ∝ j^{−a}, j ≤ d. It grows with a.

    >>> normalised_head_rate(0.0, 4)
    0.25
    """
    return float(1 / (np.arange(1, d + 1.0) ** -a).sum())


def exponent(energies: ArrayLike, low: int, high: int) -> float:
    """Return the rank-window exponent of energies.

    α(I) = −(least-squares slope of ln λ_j on ln j) over ranks low..high (1-based, inclusive).

    Raises:
        ValueError: a window with fewer than two ranks or outside the spectrum, or with an energy that is not positive.

    >>> round(exponent(np.arange(1, 51) ** -1.5, 10, 40), 6)
    1.5
    """
    lam = np.asarray(energies, float)
    if not 1 <= low < high <= len(lam):
        raise ValueError(f"window {low}..{high} does not fit {len(lam)} values; give 1 ≤ low < high ≤ length")
    inside = lam[low - 1 : high]
    if not (np.isfinite(inside) & (inside > 0)).all():
        raise ValueError(
            f"window {low}..{high} has an energy that is not positive and finite; end it before these"
        )
    x = np.log(np.arange(low, high + 1))
    x = x - x.mean()
    return float(-(x @ np.log(inside)) / (x @ x))


def exponent_drop(ratio: ArrayLike, low: int) -> float:
    """Return α − α' when energies change by a ratio.

    For λ' = ratio·λ over ranks low, low+1, …: Σ_{i<j}(x_j−x_i)(y_j−y_i)/(n Σ(x−x̄)²), x = ln rank, y = ln ratio.

    Every term is ≥ 0 when the ratio is non-decreasing, which is the whole proof that α' < α.

    >>> round(exponent_drop(np.arange(10, 41) ** 0.5, 10), 6)
    0.5
    """
    y = np.log(np.asarray(ratio, float))
    x = np.log(np.arange(low, low + len(y)))
    dx, dy = np.subtract.outer(x, x), np.subtract.outer(y, y)
    return float(0.5 * (dx * dy).sum() / (len(y) * ((x - x.mean()) ** 2).sum()))


def rms_trace(d: int, mean: ArrayLike) -> float:
    """Return tr Σ = d − ‖h̄‖² of RMS-normalised states.

    Without gain ‖h‖² = d for every h; Σ has divisor n.

    >>> rms_trace(4, [1.0, 0.0, 0.0, 0.0])
    3.0
    """
    return float(d - (np.asarray(mean, float) ** 2).sum())
