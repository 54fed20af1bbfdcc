"""What noise gives: summaries and tail exponents of Gaussian matrices, computed once for each shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from spectra import Estimate, Spectrum, hill, product_spectrum
from spectra.nulls import noise_energies

# Of 20 Gaussian matrices each is as likely as any other to give the lowest value: one more lies below 19 draws with
# probability 1/20, and outside their range with 1/10.
DRAWS = 19


@dataclass(frozen=True)
class Level:
    """The level of noise.

    Attributes:
        mean: over the draws.
        low, high: smallest and largest of them.
    """

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Level:
        """Return the level of the values of all draws; none where a value is missing."""
        drawn = np.asarray(values, float)
        return cls() if np.isnan(drawn).any() else cls(drawn.mean(), drawn.min(), drawn.max())


NONE = Level()


def summary_level(of: Callable[..., float | Estimate], arguments: tuple[Any, ...], n: int, d: int) -> Level:
    """Return the level of a summary of the spectrum of a matrix (n, d), which is that of (d, n)."""
    return _summary_level(of, arguments, max(n, d), min(n, d))


def hill_level(n: int, d: int) -> Level:
    """Return the level of the Hill exponent of a matrix (n, d)."""
    return _hill_level(max(n, d), min(n, d))


@lru_cache(maxsize=64)
def farms_level(size: int, tiles: int) -> Level:
    """Return the level of the pooled Hill exponent of independent square tiles.

    Args:
        size: of a tile.
        tiles: number of tiles; where those of a matrix overlap they are not independent, which its range leaves out.
    """
    generator = np.random.default_rng([size, tiles])
    drawn = noise_energies(size, size, generator, DRAWS * tiles).reshape(DRAWS, -1)
    return Level.of([hill(energies, tests=False).value for energies in drawn])


@lru_cache(maxsize=256)
def product_level(
    of: Callable[..., float | Estimate], arguments: tuple[Any, ...], n: int, inner: int, d: int
) -> Level:
    """Return the level of a summary of the product of two Gaussian matrices (n, inner) and (inner, d)."""
    return Level.of([float(of(spectrum, *arguments)) for spectrum in _noise_products(n, inner, d)])


@lru_cache(maxsize=64)
def _noise_products(n: int, inner: int, d: int) -> tuple[Spectrum, ...]:
    generator = np.random.default_rng([n, inner, d])
    return tuple(
        product_spectrum(generator.standard_normal((n, inner)), generator.standard_normal((inner, d)))
        for _ in range(DRAWS)
    )


@lru_cache(maxsize=4096)
def _summary_level(
    of: Callable[..., float | Estimate], arguments: tuple[Any, ...], tall: int, short: int
) -> Level:
    return Level.of([float(of(spectrum, *arguments)) for spectrum in _noise(tall, short)])


@lru_cache(maxsize=256)
def _hill_level(tall: int, short: int) -> Level:
    return NONE if short < 3 else Level.of([hill(s, tests=False).value for s in _noise(tall, short)])


@lru_cache(maxsize=64)
def _noise(tall: int, short: int) -> tuple[Spectrum, ...]:
    drawn = noise_energies(tall, short, np.random.default_rng([tall, short]), DRAWS)
    return tuple(Spectrum(row**0.5, "singular", n=tall, d=short, centred=False) for row in drawn)
