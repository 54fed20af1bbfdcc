"""State means of a cyclic band: with planted modes, as pure noise, and as noisy estimates from samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.values import Array


def planted_states(
    rng: np.random.Generator, c: int, d: int, energies: Array, noise: float = 0.0, mean: float = 1.0
) -> Array:
    """(c, d) states Σ_r √(E_r)(…) whose Gram matrix HHᵀ is circulant when ``noise`` is 0.

    Args:
        rng: draws the random orthonormal directions, the noise and the common mean.
        c, d: modulus and dimension, d ≥ c − 1.
        energies: (⌊c/2⌋,) energy E_r = E_{c−r} of each folded frequency r = 1..⌊c/2⌋.
        noise: standard deviation of an iid addition to every row; it breaks circulance.
        mean: size of the common offset, which centring must remove.

    Raises:
        ValueError: d < c − 1, where the modes cannot be orthogonal.
    """
    if d < c - 1:
        raise ValueError(f"d={d} is below c−1={c - 1}; the planted modes need orthogonal directions")
    basis = np.linalg.qr(rng.standard_normal((d, c - 1)))[0].T
    m, columns, used = np.arange(c), np.zeros((c, d)), 0
    for r, energy in enumerate(energies, start=1):
        phase = 2 * np.pi * r * m / c
        if 2 * r == c:
            # The Nyquist mode is its own partner: one direction, amplitude √E.
            columns += np.sqrt(energy) * np.outer(np.cos(phase), basis[used])
            used += 1
        else:
            pair = np.outer(np.cos(phase), basis[used]) + np.outer(np.sin(phase), basis[used + 1])
            columns += np.sqrt(2 * energy) * pair
            used += 2
    return columns + noise * rng.standard_normal((c, d)) + mean * rng.standard_normal(d)


def null_masses(rng: np.random.Generator, c: int, scales: Array, draws: int, chunk: int = 2_000_000) -> Array:
    """(draws, K) folded masses m_r + m_{c−r}, r = 1..K = (c−1)/2, of iid rows N(0, diag scales²), c odd.

    Every draw is a full (c, d) matrix, centred and Fourier-transformed; nothing is taken from the Beta law.
    ``chunk`` bounds the number of normals held at once.
    """
    d, k = len(scales), (c - 1) // 2
    size = max(1, chunk // (c * d))
    out = np.empty((draws, k))
    for start in range(0, draws, size):
        n = min(size, draws - start)
        rows = rng.standard_normal((n, c, d)) * scales
        rows -= rows.mean(1, keepdims=True)
        energy = (np.abs(np.fft.rfft(rows, axis=1)[:, 1 : k + 1]) ** 2).sum(2)
        out[start : start + n] = energy / energy.sum(1, keepdims=True)
    return out


@dataclass(frozen=True, eq=False)
class NoisyMeans:
    """One draw of estimated state means with what an experimenter would know about them.

    Attributes:
        means: (c, d) sample means.
        noise: ν̂ = c^{−2} Σ_m tr Σ̂_m/n_m from the unbiased within-state variances.
    """

    means: Array
    noise: float


def noisy_means(
    rng: np.random.Generator, states: Array, spread: Array, counts: NDArray[np.int64], draws: int
) -> Iterator[NoisyMeans]:
    """``draws`` estimates of ``states`` (c, d) from n_m samples N(H[m], spread_m² I), every sample really drawn.

    Args:
        rng: generator.
        states: (c, d) true means.
        spread: (c,) standard deviation of state m.
        counts: (c,) integer sample sizes, each at least 2 (a variance must be estimable).
        draws: number of repetitions.
    """
    c, d = states.shape
    owner = np.repeat(np.arange(c), counts)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    for _ in range(draws):
        x = states[owner] + spread[owner, None] * rng.standard_normal((len(owner), d))
        means = np.add.reduceat(x, starts) / counts[:, None]
        within = np.add.reduceat((x - means[owner]) ** 2, starts).sum(1) / (counts - 1)
        yield NoisyMeans(means, float((within / counts).sum() / c**2))


def labelled_activations(rng: np.random.Generator, states: Array, repeats: int, scales: Array) -> Array:
    """(c·repeats, d) activations H[m] + N(0, diag scales²), m = 0..c−1 equally often, state by state."""
    c, d = states.shape
    return np.repeat(states, repeats, axis=0) + rng.standard_normal((c * repeats, d)) * scales
