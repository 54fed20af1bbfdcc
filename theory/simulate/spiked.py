"""Simulate spiked samples: covariances, gradients with a common mean, and white noise."""

from __future__ import annotations

import numpy as np

from theory.values import Array


def spiked_covariance(
    rng: np.random.Generator, n: int, d: int, ell: float, draws: int
) -> tuple[Array, Array]:
    """Simulate the top eigenvalue of a spiked covariance.

    (draws,) largest eigenvalue and (draws,) squared overlap with e_1 of the sample covariance XᵀX/n.

    X is (n, d) Gaussian with covariance diag(ℓ, 1, …, 1).

    >>> top, overlap = spiked_covariance(np.random.default_rng(0), n=400, d=4, ell=9.0, draws=3)
    >>> bool((top > 6).all()), bool((overlap > 0.9).all())
    (True, True)
    """
    top, overlap = np.empty(draws), np.empty(draws)
    for i in range(draws):
        x = rng.standard_normal((n, d))
        x[:, 0] *= np.sqrt(ell)
        values, vectors = np.linalg.eigh(x.T @ x / n)
        top[i], overlap[i] = values[-1], vectors[0, -1] ** 2
    return top, overlap


def mean_gradient_energies(
    rng: np.random.Generator, samples: int, parameters: int, theta: float, draws: int
) -> Array:
    """Simulate σ_1² of gradients with a common mean.

    (draws,) largest squared singular value of G = 1ḡᵀ + unit noise, (M, P), with M‖ḡ‖² = θ.

    >>> mean_gradient_energies(np.random.default_rng(0), samples=4, parameters=9, theta=100.0, draws=2).shape
    (2,)
    """
    out = np.empty(draws)
    for i in range(draws):
        direction = rng.standard_normal(parameters)
        direction *= np.sqrt(theta / samples) / np.linalg.norm(direction)
        g = rng.standard_normal((samples, parameters)) + direction
        small = g @ g.T if samples <= parameters else g.T @ g
        out[i] = np.linalg.eigvalsh(small)[-1]
    return out


def white_spectra(rng: np.random.Generator, n: int, d: int, draws: int) -> Array:
    """Simulate spectra of white Gaussian noise.

    (draws, d) descending eigenvalues of centred sample covariances (divisor n−1).

    >>> white_spectra(np.random.default_rng(0), n=10, d=3, draws=2).shape
    (2, 3)
    """
    out = np.empty((draws, d))
    for i in range(draws):
        x = rng.standard_normal((n, d))
        x -= x.mean(0)
        out[i] = np.linalg.eigvalsh(x.T @ x / (n - 1))[::-1]
    return out
