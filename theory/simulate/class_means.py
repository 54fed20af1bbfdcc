"""Simulate state means of a cyclic band: planted modes, pure noise, and noisy estimates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.values import Array


def planted_states(
    rng: np.random.Generator, c: int, d: int, energies: Array, noise: float = 0.0, mean: float = 1.0
) -> Array:
    """Build state means with given mode energies.

    (c, d) states Σ_r √(E_r)(…) whose Gram matrix HHᵀ is circulant when ``noise`` is 0.

    Args:
        rng: generator of the orthonormal directions, the noise and the common mean.
        c, d: modulus and dimension, d ≥ c − 1.
        energies: (⌊c/2⌋,) energy E_r = E_{c−r} of each folded frequency r = 1..⌊c/2⌋.
        noise: standard deviation of an iid addition to every row; it breaks circulance.
        mean: size of the common offset, which centring must remove.

    Raises:
        ValueError: d < c − 1, where the modes cannot be orthogonal.

    >>> from theory.formulas.fourier import mode_energies
    >>> states = planted_states(np.random.default_rng(0), c=5, d=6, energies=[2.0, 1.0])
    >>> mode_energies(states).round(6)
    array([0., 2., 1., 1., 2.])
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
    """Draw the folded masses of noise.

    (draws, K) m_r + m_{c−r}, r = 1..K = (c−1)/2, of iid rows N(0, diag scales²), c odd.

    Every draw is a full (c, d) matrix, centred and Fourier-transformed; nothing is taken from the Beta law.
    ``chunk`` bounds the number of normals held at once.

    >>> masses = null_masses(np.random.default_rng(0), c=7, scales=np.ones(4), draws=10)
    >>> masses.shape, np.allclose(masses.sum(axis=1), 1)
    ((10, 3), True)
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
    """Hold one draw of estimated state means and their noise.

    The noise is what an experimenter can estimate.

    Attributes:
        means: (c, d) sample means.
        noise: ν̂ = c^{−2} Σ_m tr Σ̂_m/n_m from the unbiased within-state variances.

    >>> (draw,) = noisy_means(np.random.default_rng(0), np.zeros((3, 2)), np.zeros(3), np.full(3, 2), draws=1)
    >>> draw.means.shape, draw.noise
    ((3, 2), 0.0)
    """

    means: Array
    noise: float


def noisy_means(
    rng: np.random.Generator, states: Array, spread: Array, counts: NDArray[np.int64], draws: int
) -> Iterator[NoisyMeans]:
    """Draw estimates of state means from finite samples.

    n_m samples N(H[m], spread_m² I) of each of the (c, d) states; every sample is really drawn.

    Args:
        rng: generator.
        states: (c, d) true means.
        spread: (c,) standard deviation of state m.
        counts: (c,) integer sample sizes, each at least 2 (a variance must be estimable).
        draws: number of repetitions.

    >>> draws = noisy_means(np.random.default_rng(0), np.zeros((3, 2)), np.ones(3), np.full(3, 50), draws=4)
    >>> len([draw.noise for draw in draws])
    4
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
    """Draw activations with equally frequent states.

    (c·repeats, d) H[m] + N(0, diag scales²), state by state.

    >>> labelled_activations(np.random.default_rng(0), np.eye(3), 2, np.zeros(3)).shape
    (6, 3)
    """
    c, d = states.shape
    return np.repeat(states, repeats, axis=0) + rng.standard_normal((c * repeats, d)) * scales
