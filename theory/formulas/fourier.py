"""Give closed forms on a cyclic band: shifts, H_S, covariance heads, null laws, the task's kernel."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.formulas.entropy import effective_rank
from theory.values import Array


def character(c: int, r: int) -> NDArray[np.complex128]:
    """Return the character χ_r[m] = e^{2πi r m/c}, (c,).

    >>> character(4, 2).real
    array([ 1., -1.,  1., -1.])
    """
    return np.exp(2j * np.pi * r * np.arange(c) / c)


def shift_eigenvalue(c: int, r: int, d: int) -> complex:
    """Return the eigenvalue of the shift S_d on χ_r.

    e^{2πi r d/c}, with (S_d f)[m] = f[(m+d) mod c].

    >>> round(shift_eigenvalue(4, 1, 2).real, 6)
    -1.0
    """
    return complex(np.exp(2j * np.pi * r * d / c))


def paired(c: int, folded: Iterable[int]) -> tuple[int, ...]:
    """Close folded frequencies under r → c−r, sorted.

    ``folded`` ⊂ 1..⌊c/2⌋.

    Raises:
        ValueError: a folded frequency outside 1..⌊c/2⌋.

    >>> paired(7, [1, 3])
    (1, 3, 4, 6)
    """
    low = set(folded)
    if any(not 1 <= r <= c // 2 for r in low):
        raise ValueError(f"folded frequencies {sorted(low)} must lie in 1..{c // 2} for modulus {c}")
    return tuple(sorted(low | {c - r for r in low}))


def mode_energies(states: ArrayLike) -> Array:
    """Return the energy of state means at each frequency.

    (c,) E_r = ‖(1/c) Σ_m H[m] e^{−2πi r m/c}‖² of H (c, d), centred over m first, so that E_0 = 0.

    Σ_r E_r = tr Σ_B with Σ_B = HᵀH/c.

    >>> mode_energies(np.cos(2 * np.pi * np.arange(5) / 5)[:, None]).round(6)
    array([0.  , 0.25, 0.  , 0.  , 0.25])
    """
    h = np.asarray(states, dtype=np.float64)
    h = h - h.mean(0)
    return (np.abs(np.fft.fft(h, axis=0) / len(h)) ** 2).sum(1)


def h_s(energies: ArrayLike, frequencies: Iterable[int]) -> float:
    """Return H_S, the share of energy at S.

    Σ_{r∈S} E_r / Σ_{r≠0} E_r for energies (c,) and S a set of non-zero frequencies.

    >>> h_s([0.0, 3.0, 1.0, 1.0, 3.0], [1, 4])
    0.75
    """
    e = np.asarray(energies, dtype=np.float64)
    return float(e[list(frequencies)].sum() / e[1:].sum())


def head_share(eigenvalues: ArrayLike, k: int) -> float:
    """Return the share of the k largest eigenvalues.

    In any order: Σ_{i≤k} λ_i / Σ λ_i.

    >>> head_share([1.0, 3.0], 1)
    0.75
    """
    lam = np.sort(np.asarray(eigenvalues, dtype=np.float64))[::-1]
    return float(lam[:k].sum() / lam.sum())


def exp_entropy(weights: ArrayLike) -> float:
    """Return exp(−Σ p ln p) with p = w/Σw.

    0·ln 0 = 0, and weights below 0, which are rounding, count as 0. It is RankMe of a spectrum, or the entropy rank of
    mode masses.

    Raises:
        ValueError: a weight that is not finite, or none above 0.

    >>> round(exp_entropy([1.0, 1.0, 0.0]), 6)
    2.0
    """
    return float(effective_rank(np.maximum(np.asarray(weights, dtype=np.float64), 0)))


def total_head_bound(h: float, trace_between: float, trace_total: float) -> float:
    """Return the lower bound of the head of the total covariance.

    (tr Σ_B / tr Σ)·H_S, for the share of the first |S| eigenvalues of Σ = Σ_B + Σ_W.

    >>> total_head_bound(0.5, 2.0, 4.0)
    0.25
    """
    return trace_between / trace_total * h


def null_beta(c: int, d: float, s: int) -> tuple[float, float]:
    """Return (a, b) of the Beta law of H_S under noise.

    a = d·s, b = d·(K−s), K = (c−1)/2, |S| = 2s, for isotropic Gaussian rows.

    ``d`` may be the effective dimension of `effective_dimension` (then the law is approximate).

    >>> null_beta(31, 6, 4)
    (24, 66.0)
    """
    return d * s, d * ((c - 1) / 2 - s)


def effective_dimension(eigenvalues: ArrayLike) -> float:
    """Return (tr Σ)²/tr Σ² of eigenvalues.

    The number of equal eigenvalues with the same first two moments.

    Raises:
        ValueError: an eigenvalue that is not finite, or zeros only.

    >>> effective_dimension([1.0, 1.0, 0.0])
    2.0
    """
    lam = np.asarray(eigenvalues, dtype=np.float64)
    if not (np.isfinite(lam).all() and lam.any()):
        raise ValueError("eigenvalues are not finite or all zero; pass finite ones, one of them not zero")
    # In units of the largest, no square leaves float64.
    lam = lam / np.abs(lam).max()
    return float(lam.sum() ** 2 / (lam**2).sum())


def probe_noise(traces: ArrayLike, counts: ArrayLike) -> float:
    """Return what estimating the state means adds to E_r.

    ν = c^{−2} Σ_m tr Σ_m / n_m, for every r ≠ 0.

    >>> probe_noise([4.0, 4.0], [2, 2])
    1.0
    """
    t, n = np.asarray(traces, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    return float((t / n).sum() / len(t) ** 2)


def plug_in_h_s(energies: ArrayLike, frequencies: Iterable[int], noise: float) -> float:
    """Return the limit of H_S with estimated state means.

    Ratio of expectations (Σ_S E_r + |S|ν)/(Σ E_r + (c−1)ν).

    >>> round(plug_in_h_s([0.0, 3.0, 1.0, 1.0, 3.0], [1, 4], noise=1.0), 6)
    0.666667
    """
    e, s = np.asarray(energies, dtype=np.float64), list(frequencies)
    return float((e[s].sum() + len(s) * noise) / (e[1:].sum() + (len(e) - 1) * noise))


def debiased_h_s(estimated: ArrayLike, frequencies: Iterable[int], noise: float) -> float:
    """Return H_S after subtracting the noise of the means.

    (Σ_S Ê_r − |S|ν̂)/(Σ Ê_r − (c−1)ν̂); NaN when the noise is as large as the signal.

    >>> debiased_h_s([0.0, 4.0, 2.0, 2.0, 4.0], [1, 4], noise=1.0)
    0.75
    """
    e, s = np.asarray(estimated, dtype=np.float64), list(frequencies)
    signal = e[1:].sum() - (len(e) - 1) * noise
    return float((e[s].sum() - len(s) * noise) / signal) if signal > 0 else float("nan")


def smallest_step(c: int) -> int:
    """Return q = max(1, ⌊c/8⌋), the smallest step of a walk.

    >>> smallest_step(97)
    12
    """
    return max(1, c // 8)


def bigram_modulus(c: int, q: int) -> Array:
    """Return |k_r|, (c,), of the bigram matrix of a walk whose step d ~ U{q..c−1} is unknown.

    |k_r| = |sin(πrq/c)/sin(πr/c)|/(c−q) for r ≠ 0 and k_0 = 1.

    Raises:
        ValueError: q outside 1..c−1, where no step is left.

    >>> bigram_modulus(5, 1).round(6)
    array([1.  , 0.25, 0.25, 0.25, 0.25])
    """
    if not 1 <= q < c:
        raise ValueError(f"the smallest step is {q} and the modulus {c}; pass 1 ≤ q ≤ c−1")
    r = np.arange(1, c)
    k = np.abs(np.sin(np.pi * r * q / c) / np.sin(np.pi * r / c)) / (c - q)
    return np.concatenate([[1.0], k])


def power_within(moduli: ArrayLike, r_max: int) -> float:
    """Return the share of Σ_{r≠0}|k_r|² at folded frequencies ≤ r_max; both members of a pair count.

    >>> round(power_within(bigram_modulus(97, 12), 7), 2)
    0.89
    """
    power = np.asarray(moduli, dtype=np.float64) ** 2
    c = len(power)
    inside = [r for r in range(1, c) if min(r, c - r) <= r_max]
    return float(power[inside].sum() / power[1:].sum())
