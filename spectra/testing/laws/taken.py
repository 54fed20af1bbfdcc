"""Define the laws of functions that take a matrix in place of its spectrum: which matrices are alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from spectra.testing import strategies as make
from spectra.testing.law import Case, Kind, Law, Subject, same


def _agree(subject: Subject, x: np.ndarray, alike: np.ndarray, name: str) -> None:
    got, want = (np.atleast_1d(np.asarray(subject(each), dtype=np.float64)) for each in (alike, x))
    same(got, want, subject.tolerance * max(float(np.abs(want).max()), 1.0), name, "f(the matrix itself)")


def _orthogonal(subject: Subject, q: np.ndarray, **case: Any) -> None:
    (x,) = case.values()
    _agree(subject, x, x @ q, "f(the matrix times q)")


def _left(subject: Subject, q: np.ndarray, **case: Any) -> None:
    (W,) = case.values()
    _agree(subject, W, q @ W, "f(q times the matrix)")


def _order(subject: Subject, seed: int, **case: Any) -> None:
    (x,) = case.values()
    rng = np.random.default_rng(seed)
    moved = x[rng.permutation(x.shape[0])][:, rng.permutation(x.shape[1])]
    _agree(subject, x, moved, "f(rows and columns reordered)")


def _translation(subject: Subject, shift: int, **case: Any) -> None:
    (x,) = case.values()
    _agree(subject, x, x + shift * float(np.abs(x).max()), "f(x + shift)")


def _transpose(subject: Subject, zeros: int, **case: Any) -> None:
    (W,) = case.values()
    W = np.hstack([W, np.zeros((len(W), zeros))])
    _agree(subject, W, W.T.copy(), "f(transposed W)")


def laws_of_matrices(kind: Kind) -> list[Law]:
    """Return the laws that bind functions of a data matrix or a weight matrix."""
    name = kind.arrays[0]
    if name not in ("x", "W"):
        return []

    def law(called: str, statement: str, check: Any, cases: st.SearchStrategy[Case]) -> Law:
        return Law(called, statement, (kind.name,), cases, check)

    def rotated(case: Case, axis: int) -> st.SearchStrategy[Case]:
        return make.orthogonal_matrices(case[name].shape[axis]).map(lambda q: {**case, "q": q})

    def more(**strategies: st.SearchStrategy) -> st.SearchStrategy[Case]:
        extra = st.fixed_dictionaries(strategies)
        return st.tuples(kind.valid, extra).map(lambda pair: {**pair[0], **pair[1]})

    order = more(seed=st.integers(0, 99))
    right = kind.valid.flatmap(lambda case: rotated(case, 1))
    laws = [
        law("orthogonal", "f(x·q) = f(x) for orthogonal q", _orthogonal, right),
        law("rows and columns", "the order of rows and of columns does not matter", _order, order),
    ]
    if name == "x":
        shifted = more(shift=st.sampled_from([1, -1, 10, 100]))
        statement = "f(x + shift) = f(x): one number added to every entry"
        return [*laws, law("translation", statement, _translation, shifted)]
    left = kind.valid.flatmap(lambda case: rotated(case, 0))
    return [
        *laws,
        law("orthogonal, left", "f(q·W) = f(W) for orthogonal q", _left, left),
        law("transpose", "f(Wᵀ) = f(W)", _transpose, more(zeros=st.integers(0, 3))),
    ]
