"""Examples for every public function, and its value there by another computation."""

from typing import Any

import numpy as np
import scipy
import torch

RNG = np.random.default_rng(0)
X = RNG.standard_normal((14, 4)) * [3.0, 2.0, 1.0, 0.5] + [1.0, 0.0, -2.0, 0.0]
Y = RNG.standard_normal((14, 4)) * [1.0, 2.0, 1.0, 2.0]
WIDE = np.random.default_rng(2).standard_normal((7, 8))
W = RNG.standard_normal((6, 8))
H = RNG.standard_normal((7, 3)) + np.cos(2 * np.pi * np.arange(7) / 7)[:, None]
STATES = np.repeat(np.arange(3.0), 5)
ROWS = RNG.standard_normal((15, 2)) + STATES[:, None]
VALUES = np.sort(RNG.pareto(1.5, 40) + 1)[::-1].copy()
ENERGIES = np.array([9.0, 5.0, 3.0, 2.0, 1.0, 0.5, 0.25])
GRADIENTS = RNG.standard_normal((6, 12))
CUBE = RNG.standard_normal((5, 3, 4))
INPUTS, OUTPUTS = RNG.standard_normal((5, 2, 3)), RNG.standard_normal((5, 2, 4))
INPUTS_2, OUTPUTS_2 = RNG.standard_normal((5, 2, 3)), RNG.standard_normal((5, 2, 4))
MEAN = torch.nn.Linear(3, 2)


def fresh() -> np.random.Generator:
    return np.random.default_rng(1)


def descending(values: Any) -> np.ndarray:
    return np.sort(np.asarray(values, dtype=float))[::-1]


def covariance(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=0)
    return np.linalg.svd(centred, compute_uv=False) ** 2 / (len(x) - 1)


def slope(values: np.ndarray, lo: int, hi: int, weights: np.ndarray | None = None) -> float:
    ranks = np.arange(lo, hi + 1)
    w = None if weights is None else np.sqrt(weights)
    return -np.polyfit(np.log(ranks), np.log(descending(values)[lo - 1 : hi]), 1, w=w)[0]


def shares(values: np.ndarray) -> np.ndarray:
    top = descending(values) / np.max(values)
    return top / top.sum()


def entropy_rank(values: np.ndarray) -> float:
    return float(np.exp(scipy.special.entr(shares(values)).sum()))


def masses(h: np.ndarray) -> np.ndarray:
    energies = (np.abs(np.fft.fft((h - h.mean(axis=0)) / np.abs(h).max(), axis=0)) ** 2).sum(axis=1)
    energies[0] = 0.0
    return energies / energies.sum()


def energies_of(h: np.ndarray) -> np.ndarray:
    energies = (np.abs(np.fft.fft(h - h.mean(axis=0), axis=0) / len(h)) ** 2).sum(axis=1)
    return np.r_[0.0, energies[1:]]


def kept(h: np.ndarray, inside: bool) -> np.ndarray:
    transform = np.fft.fft(h - h.mean(axis=0), axis=0)
    mask = np.isin(np.arange(len(h)), (1, len(h) - 1)) == inside
    return np.fft.ifft(np.where(mask[:, None], transform, 0), axis=0).real + h.mean(axis=0)


def averages(h: np.ndarray, states: np.ndarray) -> np.ndarray:
    return np.stack([h[states == m].mean(axis=0) for m in range(3)])


def debiased(h: np.ndarray, states: np.ndarray) -> float:
    """H_S of both frequencies of three states is 1, whatever the noise."""
    return 1.0


def squares(*arrays: np.ndarray) -> np.ndarray:
    flat = np.einsum("mto,mti->moi", arrays[1], arrays[0]).reshape(len(arrays[0]), -1)
    return np.linalg.svd(flat, compute_uv=False)


def js(a: np.ndarray, b: np.ndarray) -> float:
    p, q = shares(a), shares(b)
    m = (p + q) / 2
    return float(scipy.special.rel_entr(p, m).sum() + scipy.special.rel_entr(q, m).sum()) / 2


def hill_by_sum(values: np.ndarray) -> float:
    top = descending(values[values > 0])
    k = max(len(top) // 2, 2)
    return 1 + (k - 1) / np.log(top[:k] / top[k]).sum()


def edge(window: np.ndarray) -> tuple[float, float]:
    sigma = np.linalg.svd(window, compute_uv=False)
    ratios = sigma[:-1] / sigma[1:]
    return float(np.argmax(ratios) + 1), float(ratios.max())
