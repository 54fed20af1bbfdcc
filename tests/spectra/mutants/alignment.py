"""Alignments of two arrays over the same samples."""

from typing import Any

import numpy as np

from spectra.alignment import linear_cka
from spectra.errors import InputError

from .mutant import Mutant
from .parts import centred_rows, checked_rows

KIND = "alignment"


def _hsic(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.square(x.T @ y).sum())


def _cka(x: np.ndarray, y: np.ndarray) -> float:
    return _hsic(x, y) / np.sqrt(_hsic(x, x) * _hsic(y, y))


def cka_uncentred(X: Any, Y: Any) -> float:
    """Second moments instead of covariances."""
    linear_cka(X, Y)
    return _cka(*(checked_rows(a) / np.abs(checked_rows(a)).max() for a in (X, Y)))


def cka_with_epsilon(X: Any, Y: Any) -> float:
    """1e-3 in the denominator, against 0/0."""
    linear_cka(X, Y)
    x, y = (centred_rows(a) for a in (X, Y))
    return _hsic(x, y) / (np.sqrt(_hsic(x, x) * _hsic(y, y)) + 1e-3)


def hsic_of_normed_rows(X: Any, Y: Any) -> float:
    """The norms of both arrays are those of one: without a bound."""
    return linear_cka(X, Y) * 2


def one_sided_norm(X: Any, Y: Any) -> float:
    """A factor of the first array only."""
    right, x = linear_cka(X, Y), centred_rows(X)
    return right * np.square(x).sum(axis=0).max() / np.square(x).sum()


def cka_of_standard_scores(X: Any, Y: Any) -> float:
    """Columns in units of their own deviation: what a rotation does to the axes matters."""
    linear_cka(X, Y)
    x, y = (centred_rows(a) for a in (X, Y))
    x, y = (a[:, a.std(axis=0) > 1e-9 * np.abs(a).max()] for a in (x, y))
    return _cka(*(a / a.std(axis=0) for a in (x, y)))


def cka_of_differences(X: Any, Y: Any) -> float:
    """From one sample to the next: their order matters."""
    right = linear_cka(X, Y)
    x, y = (np.diff(centred_rows(a), axis=0) for a in (X, Y))
    return _cka(x, y) if x.any() and y.any() else right


def cka_of_common_length(X: Any, Y: Any) -> float:
    """The longer array is cut."""
    size = min(len(X), len(Y))
    return linear_cka(X[:size], Y[:size])


def cka_of_anything(X: Any, Y: Any) -> float:
    """What rounding leaves of a constant is compared."""
    x, y = centred_rows(X), centred_rows(Y)
    if len(x) != len(y) or not x.any() or not y.any():
        raise InputError("arrays of unequal length, or one that does not vary")
    x, y = (a / np.abs(a).max() for a in (x, y))
    return _cka(x, y)


def cka_adjusted_for_columns(X: Any, Y: Any) -> float:
    """Adjusted as an R² is, by the number of columns instead of their rank."""
    return 1 - (1 - linear_cka(X, Y)) * (1 + 0.01 * np.shape(X)[1])


def half_more(X: Any, Y: Any) -> float:
    """(1 + CKA)/2, as for a correlation from −1 to 1."""
    return (1 + linear_cka(X, Y)) / 2


def signed_alignment(X: Any, Y: Any) -> float:
    """The sum of XᵀY instead of its square: changes sign with X."""
    right = linear_cka(X, Y)
    x, y = (centred_rows(a) for a in (X, Y))
    return right if (x.T @ y).sum() >= 0 else -right


MUTANTS = (
    Mutant(cka_uncentred, KIND, ("translation", "unrelated")),
    Mutant(cka_with_epsilon, KIND, ("scale",)),
    Mutant(hsic_of_normed_rows, KIND, ("itself", "bounds")),
    Mutant(signed_alignment, KIND, ("bounds", "scale")),
    Mutant(one_sided_norm, KIND, ("symmetry", "itself")),
    Mutant(cka_of_standard_scores, KIND, ("orthogonal",)),
    Mutant(cka_of_differences, KIND, ("permutation",)),
    Mutant(cka_of_common_length, KIND, ("equal length",)),
    Mutant(cka_of_anything, KIND, ("constant array",)),
    Mutant(cka_adjusted_for_columns, KIND, ("constant column", "bounds")),
    Mutant(half_more, KIND, ("unrelated",)),
)
