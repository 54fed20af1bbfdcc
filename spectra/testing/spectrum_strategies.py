"""Generate spectra for property tests: 1-D, descending, non-negative, with a positive first value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import SearchStrategy

from spectra.arrays import whole
from spectra.testing.composite import strategy


def _descending(values: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.sort(np.asarray(values, dtype=np.float64))[::-1].copy()


@strategy(max_size=1)
def whole_spectra(draw: st.DrawFn, max_size: int = 12) -> np.ndarray:
    """Draw (r,) descending whole numbers 0..9, the first positive."""
    rest = draw(st.lists(st.integers(0, 9), max_size=max_size - 1))
    first = draw(st.integers(1, 9))
    return _descending([first, *rest])


@strategy(max_size=1)
def flat_spectra(draw: st.DrawFn, max_size: int = 16) -> np.ndarray:
    """Draw (r,) ones, whose effective rank is r by every definition."""
    return np.ones(draw(st.integers(1, max_size)))


@strategy(max_size=1, max_quarter=0)
def power_law_spectra(draw: st.DrawFn, max_size: int = 24, max_quarter: int = 16) -> np.ndarray:
    """Draw (r,) λ_j = j^−α.

    α is a multiple of 1/4 from 0 to max_quarter/4.
    """
    size = draw(st.integers(1, max_size))
    return np.arange(1, size + 1) ** (-draw(st.integers(0, max_quarter)) / 4)


@strategy(max_size=3)
def spiked_spectra(draw: st.DrawFn, max_size: int = 16) -> np.ndarray:
    """Draw (r,) strong values above a flat bulk of ones.

    One to three values, 10 to 10^8.
    """
    spikes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=3))
    bulk = draw(st.integers(0, max_size - 3))
    return _descending([10.0**k for k in spikes] + [1.0] * bulk)


@strategy(max_zeros=1)
def rank_deficient_spectra(draw: st.DrawFn, max_zeros: int = 6) -> np.ndarray:
    """Draw (r,) whole spectra followed by exact zeros."""
    values = draw(whole_spectra(max_size=6))
    return np.concatenate([values, np.zeros(draw(st.integers(1, max_zeros)))])


@strategy(max_size=1)
def ill_scaled_spectra(draw: st.DrawFn, max_size: int = 10) -> np.ndarray:
    """Draw (r,) powers of ten from 10^−12 to 1.

    The first is 1: most values are far below the largest.
    """
    powers = draw(st.lists(st.integers(-12, 0), max_size=max_size - 1))
    return _descending([1.0, *(10.0**k for k in powers)])


def spectra() -> SearchStrategy[np.ndarray]:
    """Draw (r,) spectra of any family of this module, r ≤ 24."""
    return st.one_of(
        whole_spectra(),
        flat_spectra(),
        rank_deficient_spectra(),
        power_law_spectra(),
        spiked_spectra(),
        ill_scaled_spectra(),
    )


def positive_spectra(min_size: int = 3, max_size: int = 30) -> SearchStrategy[np.ndarray]:
    """Draw (r,) strictly positive values, from 10^−6 to 10^6.

    Not a pure power law; for windows and exponents.

    Raises:
        InputError: sizes that are no whole numbers, below 1, or the least above the most.
    """
    least = whole(min_size, "min_size", least=1)
    return _positive(least, whole(max_size, "max_size", least=least))


@st.composite
def _positive(draw: st.DrawFn, min_size: int, max_size: int) -> np.ndarray:
    size = draw(st.integers(min_size, max_size))
    quarters = draw(arrays(np.int64, size, elements=st.integers(-24, 24)))
    return _descending(10.0 ** (quarters / 4))


@strategy(min_size=8, max_size=8)
def pareto_spectra(draw: st.DrawFn, min_size: int = 30, max_size: int = 80) -> np.ndarray:
    """Draw (r,) values with density λ^−α above 1, four significant digits, α 2, 3 or 4; for tail exponents."""
    size = draw(st.integers(min_size, max_size))
    alpha = draw(st.sampled_from([3, 2, 4]))
    # Without order, so that a threshold chosen among the values is not a tie that rounding decides.
    uniform = np.random.default_rng(draw(st.integers(0, 999))).uniform(size=size)
    values = (1.0 - uniform) ** (-1.0 / (alpha - 1))
    return _descending([float(f"{v:.4g}") for v in values])


@strategy(count=1)
def spectrum_pairs(draw: st.DrawFn, count: int = 2) -> tuple[np.ndarray, ...]:
    """Draw several spectra of one length, for divergences.

    Shorter ones are padded with zeros.
    """
    drawn = [draw(spectra()) for _ in range(count)]
    size = max(len(values) for values in drawn)
    return tuple(np.concatenate([values, np.zeros(size - len(values))]) for values in drawn)
