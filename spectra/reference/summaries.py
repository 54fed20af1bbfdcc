"""Compute summaries of a spectrum term by term."""

from __future__ import annotations

import math
from collections.abc import Sequence


def entropy_rank(values: Sequence[float]) -> float:
    """Compute exp(−Σ p ln p), p = v/Σv, skipping zeros.

    RankMe of energies or of singular values.
    """
    total = math.fsum(values)
    return math.exp(-math.fsum((v / total) * math.log(v / total) for v in values if v > 0))


def participation_ratio(energies: Sequence[float]) -> float:
    """Compute (Σλ)²/Σλ²."""
    return math.fsum(energies) ** 2 / math.fsum(v * v for v in energies)


def stable_rank(energies: Sequence[float]) -> float:
    """Compute Σλ/max λ."""
    return math.fsum(energies) / max(energies)


def top_share(energies: Sequence[float], k: int) -> float:
    """Compute the share of the k largest energies."""
    return math.fsum(sorted(energies, reverse=True)[:k]) / math.fsum(energies)


def js_divergence(a: Sequence[float], b: Sequence[float]) -> float:
    """Compute ½ KL(p‖m) + ½ KL(q‖m) in nats.

    Both arguments are normalised to sum 1.
    """
    sum_a, sum_b = math.fsum(a), math.fsum(b)
    terms = []
    for u, v in zip(a, b, strict=True):
        p, q = u / sum_a, v / sum_b
        m = (p + q) / 2
        terms += [p * math.log(p / m) / 2 if p > 0 else 0.0, q * math.log(q / m) / 2 if q > 0 else 0.0]
    return math.fsum(terms)
