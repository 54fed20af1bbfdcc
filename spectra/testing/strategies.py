"""Generate spectra and data matrices for property tests, from hypothesis strategies.

Every strategy builds its arrays from small whole numbers and powers of ten, so that a failing example shrinks
to something like ``[[0, 0], [0, 1]]``; where several families are mixed, the plainest comes first, because
hypothesis shrinks toward the first one. Arrays are float64. Matrices have samples in rows, (n, d), and always
vary: no matrix is constant over its rows. Spectra are 1-D, descending, non-negative, with a positive first value.

>>> from hypothesis import given, settings
>>> @settings(max_examples=5, database=None)
... @given(spectra())
... def test_descending(values):
...     assert values[0] > 0 and (np.diff(values) <= 0).all()
>>> test_descending()
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import SearchStrategy
from numpy.typing import ArrayLike

from spectra.arrays import brief, flag, require_generator, to_float64, to_real, whole
from spectra.errors import InputError
from spectra.testing.composite import strategy
from spectra.testing.spectrum_strategies import (
    flat_spectra,
    ill_scaled_spectra,
    pareto_spectra,
    positive_spectra,
    power_law_spectra,
    rank_deficient_spectra,
    spectra,
    spectrum_pairs,
    spiked_spectra,
    whole_spectra,
)

__all__ = [
    "Planted",
    "class_means",
    "flat_spectra",
    "heavy_tailed_matrices",
    "ill_scaled_matrices",
    "ill_scaled_spectra",
    "large_mean_matrices",
    "matrices",
    "matrices_with_spectrum",
    "matrix_with_spectrum",
    "near_duplicate_rows",
    "orthogonal_matrices",
    "pareto_spectra",
    "positive_spectra",
    "power_law_spectra",
    "rank_deficient_matrices",
    "rank_deficient_spectra",
    "spectra",
    "spectrum_pairs",
    "spiked_matrices",
    "spiked_spectra",
    "varies",
    "wave",
    "whole_matrices",
    "whole_spectra",
]


# Rows and columns; more do not fit into memory.
_MOST = 10**7


class Planted(NamedTuple):
    """Hold a matrix and the spectrum it was built to have.

    Attributes:
        x: (n, d) samples.
        energies: (d,) eigenvalues, descending, of x's covariance (1/(n−1), centred) or second moment (1/n).

    >>> x = matrix_with_spectrum([4.0, 1.0], n=5, rng=np.random.default_rng(0))
    >>> Planted(x, np.array([4.0, 1.0])).x.shape
    (5, 2)
    """

    x: np.ndarray
    energies: np.ndarray


def varies(x: np.ndarray) -> bool:
    """Return whether the rows of x differ by more than rounding.

    Only then does a centred covariance have a spectrum.

    Raises:
        InputError: no array of numbers.

    >>> varies(np.array([[1.0], [2.0]])), varies(np.ones((2, 1)))
    (True, False)
    """
    x = to_real(x, name="x")
    if x.ndim == 0:
        raise InputError("x is a single number; pass samples, (n, d)")
    if x.shape[0] < 2 or x.size == 0:
        return False
    spread = np.abs(x - x.mean(axis=0)).max()
    return bool(spread > 1e-9 * np.abs(x).max())


# ---------------------------------------------------------------------------------------------- matrices


@strategy(max_rows=2, max_cols=1, bound=1)
def whole_matrices(draw: st.DrawFn, max_rows: int = 8, max_cols: int = 6, bound: int = 9) -> np.ndarray:
    """Draw (n, d) whole numbers in −bound..bound.

    2 ≤ n ≤ max_rows, 1 ≤ d ≤ max_cols, rows not all equal.
    """
    shape = draw(st.tuples(st.integers(2, max_rows), st.integers(1, max_cols)))
    entries = arrays(np.int64, shape, elements=st.integers(-bound, bound))
    return draw(entries.map(lambda a: a.astype(np.float64)).filter(varies))


@st.composite
def heavy_tailed_matrices(draw: st.DrawFn) -> np.ndarray:
    """Draw (n, d) entries 0 or ±10^k, k = 0..5.

    A few samples have nearly all of the variance.
    """
    powers = draw(whole_matrices(bound=6))
    return np.sign(powers) * 10.0 ** np.maximum(np.abs(powers) - 1, 0)


@st.composite
def ill_scaled_matrices(draw: st.DrawFn) -> np.ndarray:
    """Draw (n, d) whole numbers with columns in different units.

    Units from 10^−6 to 10^6.
    """
    x = draw(whole_matrices())
    powers = draw(st.lists(st.integers(-6, 6), min_size=x.shape[1], max_size=x.shape[1]))
    return x * 10.0 ** np.array(powers)


@st.composite
def large_mean_matrices(draw: st.DrawFn) -> np.ndarray:
    """Draw (n, d) whole numbers plus a large mean.

    10^1 to 10^6 times larger than their spread.
    """
    x = draw(whole_matrices())
    offset = draw(st.integers(1, 6).map(lambda k: 10.0**k))
    return x + offset


@st.composite
def rank_deficient_matrices(draw: st.DrawFn) -> np.ndarray:
    """Draw (n, d) matrices of rank below min(n, d).

    Products of (n, r) and (r, d) whole matrices: exact zeros in the spectrum.
    """
    n, d = draw(st.integers(2, 10)), draw(st.integers(2, 8))
    r = draw(st.integers(1, min(n, d) - 1))
    small = st.integers(-3, 3)
    left = draw(arrays(np.int64, (n, r), elements=small))
    right = draw(arrays(np.int64, (r, d), elements=small).filter(lambda a: bool(a.any())))
    x = (left @ right).astype(np.float64)
    if not varies(x):
        x[0] += 1.0
    return x


@st.composite
def near_duplicate_rows(draw: st.DrawFn) -> np.ndarray:
    """Draw (n, d) rows of a small set, repeated with tiny changes.

    Each copy is moved by 10^−6 to 10^−2 in one coordinate.
    """
    base = draw(whole_matrices(max_rows=4))
    copies = draw(st.integers(1, 4))
    gap = draw(st.integers(2, 6).map(lambda k: 10.0**-k))
    moved = [base]
    for index in range(copies):
        shifted = base.copy()
        shifted[:, index % base.shape[1]] += gap * (index + 1)
        moved.append(shifted)
    return np.concatenate(moved)


@st.composite
def spiked_matrices(draw: st.DrawFn) -> np.ndarray:
    """Draw (n, d) small whole numbers plus one strong direction.

    10 to 10^4 times the rest.
    """
    x = draw(whole_matrices(max_rows=10, max_cols=8, bound=3))
    strength = draw(st.integers(1, 4).map(lambda k: 10.0**k))
    scores = np.where(np.arange(len(x)) % 2 == 0, 1.0, -1.0)
    direction = np.zeros(x.shape[1])
    direction[draw(st.integers(0, x.shape[1] - 1))] = 1.0
    return x + strength * np.outer(scores, direction)


def matrix_with_spectrum(
    energies: ArrayLike, n: int, rng: np.random.Generator, *, centred: bool = True
) -> np.ndarray:
    """Build samples whose covariance has exactly these eigenvalues.

    (n, d) X = √m · U diag(√λ) Vᵀ.

    U has orthonormal columns (orthogonal to the constant vector when centred) and V is a random rotation;
    m = n−1 for a centred covariance, n for a second moment.

    Args:
        energies: (d,) eigenvalues λ ≥ 0, in the units of X squared.
        n: samples; at least d + 1 when centred, d otherwise.
        rng: generator of U and V.
        centred: plant the spectrum of the centred 1/(n−1) covariance, or of XᵀX/n.

    Raises:
        InputError: not 1-D, NaN or Inf, a negative energy, or too few samples for d directions.

    >>> from spectra import covariance_spectrum
    >>> x = matrix_with_spectrum([4.0, 1.0], n=5, rng=np.random.default_rng(0))
    >>> covariance_spectrum(x).values.round(6)
    array([4., 1.])
    """
    lam = to_float64(energies, name="energies", ndim=1)
    if lam.size == 0 or lam.min() < 0:
        raise InputError(f"the energies are {lam}; pass at least one, none negative")
    require_generator(rng)
    d, needed = lam.size, lam.size + int(flag(centred, "centred"))
    n = whole(n, "n", most=_MOST, least=0)
    if n < needed:
        raise InputError(f"n is {n}; {d} directions need at least {needed} samples")
    frame = rng.standard_normal((n, d))
    if centred:
        frame = np.column_stack([np.ones(n), frame])
    basis, _ = np.linalg.qr(frame)
    rotation, _ = np.linalg.qr(rng.standard_normal((d, d)))
    scale = np.sqrt(n - 1 if centred else n)
    return scale * (basis[:, -d:] * np.sqrt(lam)) @ rotation.T


def matrices_with_spectrum(
    energies: SearchStrategy[np.ndarray] | None = None, *, centred: bool = True
) -> SearchStrategy[Planted]:
    """Draw a `Planted` matrix with a given spectrum.

    The spectrum comes from the given strategy (default `spectra()`); n from d+1 to d+12.

    Raises:
        InputError: energies that are no strategy.
    """
    if energies is not None and not isinstance(energies, SearchStrategy):
        raise InputError(
            f"energies is {brief(energies)}; pass a strategy of spectra, such as hypothesis.strategies.just(spectrum)"
        )
    return _planted(spectra() if energies is None else energies, flag(centred, "centred"))


@st.composite
def _planted(draw: st.DrawFn, energies: SearchStrategy[np.ndarray], centred: bool) -> Planted:
    lam = draw(energies)
    extra = draw(st.integers(1, 12))
    # Hypothesis prefers short examples. A long seed makes this family long, so that a failure that whole numbers also
    # show shrinks to whole numbers and not to one short seed.
    rng = np.random.default_rng(draw(st.lists(st.integers(0, 99), min_size=16, max_size=16)))
    return Planted(matrix_with_spectrum(lam, len(lam) + extra, rng, centred=centred), lam)


def matrices() -> SearchStrategy[np.ndarray]:
    """Draw (n, d) matrices of any family of this module.

    Whole, large mean, ill scaled, rank deficient, heavy tailed, …
    """
    return st.one_of(
        whole_matrices(),
        large_mean_matrices(),
        ill_scaled_matrices(),
        rank_deficient_matrices(),
        near_duplicate_rows(),
        heavy_tailed_matrices(),
        spiked_matrices(),
        matrices_with_spectrum().map(lambda planted: planted.x),
    )


@strategy(d=1)
def orthogonal_matrices(draw: st.DrawFn, d: int) -> np.ndarray:
    """Draw a (d, d) reflection I − 2vvᵀ/vᵀv, v small whole numbers.

    Dense, orthogonal and readable.
    """
    v = draw(arrays(np.int64, d, elements=st.integers(-4, 4)).filter(lambda a: bool(a.any())))
    return np.eye(d) - 2.0 * np.outer(v, v) / float(v @ v)


# ------------------------------------------------------------------------------------- Fourier structure


def wave(c: int, r: int, d: int = 1, column: int = 0) -> np.ndarray:
    """Build class means with one cosine wave.

    (c, d) cos(2πrm/c) in one column and zeros elsewhere; all energy at ±r.

    Raises:
        InputError: not whole numbers, c or d below 1, or a column that is not there.

    >>> from spectra import dominant_frequency
    >>> dominant_frequency(wave(7, 2))
    2
    """
    c, d = whole(c, "c", least=1, most=_MOST), whole(d, "d", least=1, most=_MOST)
    r = whole(r, "r", least=-_MOST, most=_MOST)
    column = whole(column, "column", least=0, most=d - 1)
    H = np.zeros((c, d))
    H[:, column] = np.cos(2.0 * np.pi * r * np.arange(c) / c)
    return H


@st.composite
def _wave_mixtures(draw: st.DrawFn, max_c: int) -> np.ndarray:
    c, d = draw(st.integers(3, max_c)), draw(st.integers(1, 4))
    H = np.zeros((c, d))
    for column in range(d):
        r, amplitude = draw(st.integers(1, c // 2)), draw(st.integers(1, 9))
        H += amplitude * wave(c, r, d, column)
    return H + draw(st.sampled_from([0.0, 1.0, 1000.0]))


def class_means(max_c: int = 13) -> SearchStrategy[np.ndarray]:
    """Draw (c, d) class means, 3 ≤ c ≤ max_c.

    Whole numbers, mixtures of waves on an offset, large means.

    Raises:
        InputError: max_c is no whole number, or below 3.
    """
    max_c = whole(max_c, "max_c", least=3)
    plain = whole_matrices(max_rows=max_c, max_cols=4).filter(lambda H: len(H) >= 3)
    return st.one_of(plain, _wave_mixtures(max_c), plain.map(lambda H: H + 1e4))
