"""Define what a function of a spectrum may take in its place: singular values, data, weights.

| takes | the function is called with |
|---|---|
| spectrum | eigenvalues λ, (r,) |
| singular | singular values √λ, (r,) |
| matrix | data x (n, d), samples in rows, whose covariance and second moment have eigenvalues proportional to λ |
| weights | a weight matrix W (m, n) with singular values √λ |

Data have columns of mean zero, so that functions that centre and functions that do not see the same spectrum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from spectra.arrays import choice, to_float64
from spectra.errors import InputError
from spectra.testing.kinds import (
    COVARIANCE,
    EXPONENT,
    RANK,
    RANKS,
    SECOND_MOMENT,
    SINGULAR,
    TAIL,
    empty_matrix,
)
from spectra.testing.law import Case, Kind

# What the functions of a kind may take; the first is what they take unless told otherwise.
TAKES = {
    COVARIANCE: ("matrix",),
    SECOND_MOMENT: ("matrix",),
    SINGULAR: ("weights",),
    RANK: ("spectrum", "singular", "matrix", "weights"),
    RANKS: ("spectrum", "singular", "matrix", "weights"),
    TAIL: ("spectrum", "singular", "matrix", "weights"),
    # Over a window of many ranks the smallest eigenvalues of a matrix are below the rounding of the largest.
    EXPONENT: ("spectrum", "singular"),
}


@dataclass(frozen=True)
class Form:
    """Describe one form of input.

    Attributes:
        name: what ``takes`` calls it.
        argument: name of the array in a report.
        words: the form in a sentence, plural.
        make: the array that has given eigenvalues (r,).
        back: the eigenvalues, up to a factor and their order, of an array that `make` made.
        empty: strategy of arrays without entries.
    """

    name: str
    argument: str
    words: str
    make: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]
    empty: st.SearchStrategy[np.ndarray]


def _data(eigenvalues: np.ndarray) -> np.ndarray:
    """Return (2k, r) rows ±√λ_j e_j of the k positive values: zeros add columns and no rows."""
    ranks = np.flatnonzero(eigenvalues)
    x = np.zeros((2 * len(ranks), len(eigenvalues)))
    x[0::2] = np.diag(np.sqrt(eigenvalues))[ranks]
    x[1::2] = -x[0::2]
    return x + 0.0


def _weights(eigenvalues: np.ndarray) -> np.ndarray:
    """Return (r, r) diag(√λ), at least (2, 2): a matrix of one row or column is a vector."""
    size = max(len(eigenvalues), 2)
    return np.diag(np.pad(np.sqrt(eigenvalues), (0, size - len(eigenvalues))))


def _columns(x: np.ndarray) -> np.ndarray:
    return np.square(np.asarray(x, dtype=np.float64)).sum(axis=0)


FORMS = {
    form.name: form
    for form in (
        Form("singular", "singular_values", "singular values", np.sqrt, np.square, st.just(np.zeros(0))),
        Form("matrix", "x", "data matrices", _data, _columns, empty_matrix()),
        Form("weights", "W", "weight matrices", _weights, _columns, empty_matrix()),
    )
}


def form_of(kind: Kind, takes: str | None) -> Form | None:
    """Return the form that a function of this kind takes; None for what the kind itself describes.

    Raises:
        InputError: a form that this kind has not.
    """
    if takes is None:
        return None
    if kind.name not in TAKES:
        raise InputError(
            f"takes is {takes!r}; a function of kind {kind.name!r} is called as {kind.signature}"
        )
    return None if choice(takes, "takes", TAKES[kind.name]) == TAKES[kind.name][0] else FORMS[takes]


def formed(kind: Kind, form: Form | None) -> Kind:
    """Return a kind of functions of spectra as that of functions of another form; the kind itself for None."""
    if form is None:
        return kind

    def case(of_spectrum: Case) -> Case:
        eigenvalues, *rest = of_spectrum.items()
        return {form.argument: form.make(eigenvalues[1]), **dict(rest)}

    def usable(case: Case) -> bool:
        x, *rest = case.items()
        return kind.usable({"eigenvalues": form.back(x[1]), **dict(rest)})

    empty = st.tuples(kind.empty, form.empty).map(lambda both: {**case(both[0]), form.argument: both[1]})
    signature = kind.signature.replace("eigenvalues: (r,) array", f"{form.argument}: {form.words}")
    return replace(
        kind,
        signature=signature,
        valid=kind.valid.map(case),
        empty=empty,
        arrays=(form.argument,),
        usable=usable,
    )


def as_taken(eigenvalues: ArrayLike, takes: str) -> np.ndarray:
    """Return what the laws of spectra hand to a function that takes something else.

    Args:
        eigenvalues: (r,) λ ≥ 0, as a report lists them.
        takes: ``"spectrum"``, ``"singular"``, ``"matrix"`` or ``"weights"``.

    Raises:
        InputError: no spectrum, or an unknown form.

    >>> as_taken([4, 1], "matrix")
    array([[ 2.,  0.],
           [-2.,  0.],
           [ 0.,  1.],
           [ 0., -1.]])
    """
    values = to_float64(eigenvalues, name="eigenvalues", ndim=1)
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError("eigenvalues must be finite and not negative")
    name = choice(takes, "takes", ("spectrum", *FORMS))
    return values if name == "spectrum" else FORMS[name].make(values)
