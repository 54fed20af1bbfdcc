"""Closed forms on a cyclic band: shifts, H_S, covariance heads, null laws, probe noise, the task's kernel."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.values import Array


def character(c: int, r: int) -> NDArray[np.complex128]:
    """(c,) χ_r[m] = e^{2πi r m/c}."""
    return np.exp(2j * np.pi * r * np.arange(c) / c)


def shift_eigenvalue(c: int, r: int, d: int) -> complex:
    """e^{2πi r d/c}, the eigenvalue of the shift S_d (``(S_d f)[m] = f[(m+d) mod c]``) on χ_r."""
    return complex(np.exp(2j * np.pi * r * d / c))


def paired(c: int, folded: Iterable[int]) -> tuple[int, ...]:
    """The frequencies ``folded`` ⊂ 1..⌊c/2⌋ closed under r → c−r, sorted.

    Raises:
        ValueError: a folded frequency outside 1..⌊c/2⌋.
    """
    low = set(folded)
    if any(not 1 <= r <= c // 2 for r in low):
        raise ValueError(f"folded frequencies {sorted(low)} must lie in 1..{c // 2} for modulus {c}")
    return tuple(sorted(low | {c - r for r in low}))


def mode_energies(states: ArrayLike) -> Array:
    """(c,) E_r = ‖(1/c) Σ_m H[m] e^{−2πi r m/c}‖² of state means H (c, d), centred over m first, so E_0 = 0.

    Σ_r E_r = tr Σ_B with Σ_B = HᵀH/c.
    """
    h = np.asarray(states, dtype=np.float64)
    h = h - h.mean(0)
    return (np.abs(np.fft.fft(h, axis=0) / len(h)) ** 2).sum(1)


def h_s(energies: ArrayLike, frequencies: Iterable[int]) -> float:
    """H_S = Σ_{r∈S} E_r / Σ_{r≠0} E_r for energies (c,) and S a set of non-zero frequencies."""
    e = np.asarray(energies, dtype=np.float64)
    return float(e[list(frequencies)].sum() / e[1:].sum())


def head_share(eigenvalues: ArrayLike, k: int) -> float:
    """Σ_{i≤k} λ_i / Σ λ_i of eigenvalues in any order."""
    lam = np.sort(np.asarray(eigenvalues, dtype=np.float64))[::-1]
    return float(lam[:k].sum() / lam.sum())


def exp_entropy(weights: ArrayLike) -> float:
    """exp(−Σ p ln p), p = w/Σw, with 0·ln 0 = 0 (RankMe of a spectrum, or the entropy rank of mode masses)."""
    w = np.asarray(weights, dtype=np.float64)
    p = np.maximum(w, 0) / np.maximum(w, 0).sum()
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def total_head_bound(h: float, trace_between: float, trace_total: float) -> float:
    """Lower bound (tr Σ_B / tr Σ)·H_S on the share of the first |S| eigenvalues of Σ = Σ_B + Σ_W."""
    return trace_between / trace_total * h


def null_beta(c: int, d: float, s: int) -> tuple[float, float]:
    """(a, b) of the Beta law of H_S for isotropic Gaussian rows: a = d·s, b = d·(K−s), K = (c−1)/2, |S| = 2s.

    ``d`` may be the effective dimension of `effective_dimension` (then the law is approximate).
    """
    return d * s, d * ((c - 1) / 2 - s)


def effective_dimension(eigenvalues: ArrayLike) -> float:
    """(tr Σ)²/tr Σ²: the number of equal eigenvalues with the same first two moments."""
    lam = np.asarray(eigenvalues, dtype=np.float64)
    return float(lam.sum() ** 2 / (lam**2).sum())


def probe_noise(traces: ArrayLike, counts: ArrayLike) -> float:
    """ν = c^{−2} Σ_m tr Σ_m / n_m: what estimating the state means from n_m samples adds to every E_r, r ≠ 0."""
    t, n = np.asarray(traces, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    return float((t / n).sum() / len(t) ** 2)


def plug_in_h_s(energies: ArrayLike, frequencies: Iterable[int], noise: float) -> float:
    """Ratio of expectations (Σ_S E_r + |S|ν)/(Σ E_r + (c−1)ν): where the plug-in H_S settles."""
    e, s = np.asarray(energies, dtype=np.float64), list(frequencies)
    return float((e[s].sum() + len(s) * noise) / (e[1:].sum() + (len(e) - 1) * noise))


def debiased_h_s(estimated: ArrayLike, frequencies: Iterable[int], noise: float) -> float:
    """(Σ_S Ê_r − |S|ν̂)/(Σ Ê_r − (c−1)ν̂). NaN when the noise is as large as the signal: H_S is then unknown."""
    e, s = np.asarray(estimated, dtype=np.float64), list(frequencies)
    signal = e[1:].sum() - (len(e) - 1) * noise
    return float((e[s].sum() - len(s) * noise) / signal) if signal > 0 else float("nan")


def smallest_step(c: int) -> int:
    """q = max(1, ⌊c/8⌋), the smallest step of a walk on a band of modulus c."""
    return max(1, c // 8)


def bigram_modulus(c: int, q: int) -> Array:
    """(c,) |k_r| of the bigram matrix of a walk with unknown step d ~ U{q..c−1}.

    |k_r| = |sin(πrq/c)/sin(πr/c)|/(c−q) for r ≠ 0 and k_0 = 1.
    """
    r = np.arange(1, c)
    k = np.abs(np.sin(np.pi * r * q / c) / np.sin(np.pi * r / c)) / (c - q)
    return np.concatenate([[1.0], k])


def power_within(moduli: ArrayLike, r_max: int) -> float:
    """Share of Σ_{r≠0}|k_r|² held by folded frequencies r ≤ r_max, both members of a pair counted."""
    power = np.asarray(moduli, dtype=np.float64) ** 2
    c = len(power)
    inside = [r for r in range(1, c) if min(r, c - r) <= r_max]
    return float(power[inside].sum() / power[1:].sum())
