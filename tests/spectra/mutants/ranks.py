"""Effective ranks."""

import math
from typing import Any

import numpy as np

from spectra.arrays import to_float64
from spectra.spectrum import as_spectrum

from .mutant import Mutant
from .parts import shares_of

KIND = "effective rank"


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-np.sum(p * np.log(p)))


def rankme_in_bits(eigenvalues: Any) -> float:
    """exp of an entropy in bits."""
    return math.exp(_entropy(shares_of(eigenvalues)) / math.log(2))


def participation_with_sample_variance(eigenvalues: Any) -> float:
    """r/(1 + CV²) with the n − 1 variance: trailing zeros change it."""
    values = shares_of(eigenvalues)
    spread = float(np.var(values, ddof=1)) if len(values) > 1 else 0.0
    return len(values) / (1 + spread / float(values.mean()) ** 2)


def rankme_without_smallest(eigenvalues: Any) -> float:
    """Drops the last eigenvalue as if it were always rounding."""
    values = as_spectrum(eigenvalues).values
    kept = values[: max(len(values) - 1, 1)]
    return math.exp(_entropy(kept / kept.sum()))


def unnormalised_rankme(eigenvalues: Any) -> float:
    """Forgets to divide by the trace."""
    values = as_spectrum(eigenvalues).values
    return max(math.exp(min(_entropy(values), 30.0)), 1.0)


def rank_of_first_value(eigenvalues: Any) -> float:
    """Trusts the caller's order: divides by the first value instead of the largest."""
    values = to_float64(eigenvalues, name="eigenvalues", ndim=1)
    as_spectrum(values)
    return float(values.sum() / max(values[0], 1e-3 * values.max()))


def gap_rank(eigenvalues: Any) -> float:
    """Counts values above half of the largest: averaging two values can lower the count."""
    shares = shares_of(eigenvalues)
    return float(np.sum(shares > 0.5 * shares[0]))


def float32_participation(eigenvalues: Any) -> float:
    """Squares the eigenvalues in float32: overflow and underflow for unusual units."""
    values = as_spectrum(eigenvalues).values.astype(np.float32)
    return float(values.sum() ** 2 / np.sum(values**2))


def rank_from_absolute_values(eigenvalues: Any) -> float:
    """Negative eigenvalues are made positive without a word."""
    return math.exp(_entropy(shares_of(np.abs(to_float64(eigenvalues, name="eigenvalues", ndim=1)))))


def rank_of_nothing_is_zero(eigenvalues: Any) -> float:
    """Zeros and no values at all have rank 0."""
    values = to_float64(eigenvalues, name="eigenvalues", ndim=1)
    return math.exp(_entropy(shares_of(values))) if values.any() else 0.0


def rank_normalising_in_place(eigenvalues: Any) -> float:
    """Divides the caller's array by its sum."""
    as_spectrum(eigenvalues)
    values = np.asarray(eigenvalues)
    values /= values.sum()
    return math.exp(_entropy(values))


def rank_skipping_nan(eigenvalues: Any) -> float:
    """NaN and Inf are dropped as missing values."""
    values = np.asarray(eigenvalues, dtype=np.float64)
    return math.exp(_entropy(shares_of(values[np.isfinite(values)])))


_PROBES = np.random.default_rng(0)


def rank_by_random_probes(eigenvalues: Any) -> float:
    """Participation ratio from four random probes of a generator that moves on with every call."""
    p = shares_of(eigenvalues)
    probes = _PROBES.standard_normal((4, len(p)))
    return float(min(max(1 / np.mean((probes * p) ** 2 * len(p)), 1.0), np.count_nonzero(p)))


def ranks_of_squared_energies(eigenvalues: Any) -> tuple[float, ...]:
    """RankMe(energy) squares the eigenvalues, as if they were singular values."""
    spectrum = as_spectrum(eigenvalues)
    p = spectrum.shares
    stable, participation = 1 / p[0], 1 / float(np.sum(p**2))
    singular = np.sqrt(p) / np.sqrt(p).sum()
    return stable, participation, math.exp(_entropy(p**2 / np.sum(p**2))), math.exp(_entropy(singular))


def ranks_of_one(eigenvalues: Any) -> tuple[float, ...]:
    """All four ranks are 1, whatever the spectrum: in order, and below the rank."""
    as_spectrum(eigenvalues)
    return 1.0, 1.0, 1.0, 1.0


def overflowing_participation(eigenvalues: Any) -> float:
    """(Σλ)²/Σλ² without dividing first: NaN at 1e200."""
    values = as_spectrum(eigenvalues).values
    return float(values.sum() ** 2 / (values**2).sum())


MUTANTS = (
    Mutant(rankme_in_bits, KIND, ("bounds", "flat spectrum")),
    Mutant(participation_with_sample_variance, KIND, ("zero padding",)),
    Mutant(rankme_without_smallest, KIND, ("flat spectrum", "zero padding")),
    Mutant(unnormalised_rankme, KIND, ("scale",)),
    Mutant(rank_of_first_value, KIND, ("permutation",)),
    Mutant(gap_rank, KIND, ("Schur concavity",)),
    Mutant(float32_participation, KIND, ("scale",)),
    Mutant(overflowing_participation, KIND, ("extreme scale",)),
    Mutant(rank_from_absolute_values, KIND, ("negative energy",)),
    Mutant(rank_of_nothing_is_zero, KIND, ("all zeros", "empty")),
    Mutant(rank_normalising_in_place, KIND, ("input not mutated", "dtype", "layout")),
    Mutant(rank_skipping_nan, KIND, ("NaN and Inf",)),
    Mutant(rank_by_random_probes, KIND, ("repeatable", "scale")),
    Mutant(ranks_of_squared_energies, "effective ranks", ("order of the ranks",)),
    Mutant(ranks_of_one, "effective ranks", ("flat spectrum",)),
)
