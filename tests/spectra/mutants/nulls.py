"""Edges of the bulk and positions of spikes under the null."""

import math

from .mutant import Mutant


def edges_of_inverse_ratio(gamma: float) -> tuple[float, float]:
    """γ = n/d instead of d/n."""
    root = math.sqrt(1 / gamma)
    return (1 - root) ** 2, (1 + root) ** 2


def edges_rounded_ratio(gamma: float) -> tuple[float, float]:
    """Treats every γ above 1 as 1."""
    root = math.sqrt(min(gamma, 1.0))
    return (1 - root) ** 2, (1 + root) ** 2


def spike_over_ell(ell: float, gamma: float) -> float:
    """ℓ(1 + γ/ℓ): the −1 is missing."""
    return ell + gamma


MUTANTS = (
    Mutant(edges_of_inverse_ratio, "bulk edges", ("Marchenko–Pastur edge",)),
    Mutant(edges_rounded_ratio, "bulk edges", ("Marchenko–Pastur edge", "Gram duality")),
    Mutant(spike_over_ell, "spike position", ("BBP position", "detached")),
)
