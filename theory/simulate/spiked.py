"""Spiked samples: a covariance with one large eigenvalue, gradients with a common mean, and white noise."""

from __future__ import annotations

import numpy as np

from theory.values import Array


def spiked_covariance(
    rng: np.random.Generator, n: int, d: int, ell: float, draws: int
) -> tuple[Array, Array]:
    """(draws,) largest eigenvalue and (draws,) squared overlap with e_1 of the sample covariance XᵀX/n.

    X is (n, d) Gaussian with covariance diag(ℓ, 1, …, 1).
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
    """(draws,) largest squared singular value of G = 1ḡᵀ + unit noise, (M, P), with M‖ḡ‖² = θ."""
    out = np.empty(draws)
    for i in range(draws):
        direction = rng.standard_normal(parameters)
        direction *= np.sqrt(theta / samples) / np.linalg.norm(direction)
        g = rng.standard_normal((samples, parameters)) + direction
        small = g @ g.T if samples <= parameters else g.T @ g
        out[i] = np.linalg.eigvalsh(small)[-1]
    return out


def white_spectra(rng: np.random.Generator, n: int, d: int, draws: int) -> Array:
    """(draws, d) descending eigenvalues of centred sample covariances (divisor n−1) of white Gaussian noise."""
    out = np.empty((draws, d))
    for i in range(draws):
        x = rng.standard_normal((n, d))
        x -= x.mean(0)
        out[i] = np.linalg.eigvalsh(x.T @ x / (n - 1))[::-1]
    return out
