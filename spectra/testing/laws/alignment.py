"""Define the laws of the alignment of two arrays over the same samples, such as linear CKA.

Source: Kornblith et al. 2019 (which invariances a similarity of representations should have).
"""

from __future__ import annotations

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectra.arrays import EPS
from spectra.testing import strategies as make
from spectra.testing.kinds import ALIGNED, ALIGNMENT
from spectra.testing.law import Case, Law, Subject, expect, same

# A rotation or a shift is rounded in the scale of the largest entry: deviations keep the digits that are compared.
_DIGITS = 1e4


def _alike(subject: Subject, got: float, want: float, got_name: str, want_name: str = "f(X, Y)") -> None:
    same(got, want, subject.tolerance * max(1.0, abs(want)), got_name, want_name)


def _bounds(subject: Subject, X: np.ndarray, Y: np.ndarray) -> None:
    value = subject(X, Y)
    expect(value >= -subject.tolerance, f"f(X, Y) = {value:.10g} is negative")
    expect(value <= 1 + subject.tolerance, f"f(X, Y) = {value:.10g} exceeds 1")


def _itself(subject: Subject, X: np.ndarray) -> None:
    _alike(subject, subject(X, X), 1.0, "f(X, X)", "the alignment of X with itself")


def _unrelated(subject: Subject, n: int, r: int, s: int, offset: float) -> None:
    X, Y = (make.wave(n, k) + offset for k in (r, s))
    _alike(subject, subject(X, Y), 0.0, f"f(wave {r}, wave {s})", "what unrelated samples have")


def _symmetric(subject: Subject, X: np.ndarray, Y: np.ndarray) -> None:
    _alike(subject, subject(Y, X), subject(X, Y), "f(Y, X)")


def _scale(subject: Subject, X: np.ndarray, Y: np.ndarray, a: float) -> None:
    _alike(subject, subject(a * X, Y), subject(X, Y), "f(a·X, Y)")


def _orthogonal(subject: Subject, X: np.ndarray, Y: np.ndarray, q: np.ndarray) -> None:
    assume(np.abs(X).max() <= _DIGITS * _spread(X))
    _alike(subject, subject(X @ q, Y), subject(X, Y), "f(X·q, Y)")


def _translation(subject: Subject, X: np.ndarray, Y: np.ndarray, shift: np.ndarray) -> None:
    _alike(subject, subject(X + shift, Y), subject(X, Y), "f(X + shift, Y)")


def _permutation(subject: Subject, X: np.ndarray, Y: np.ndarray, rows: tuple[int, ...]) -> None:
    _alike(subject, subject(X[list(rows)], Y[list(rows)]), subject(X, Y), "f(permuted X, permuted Y)")


def _constant_column(subject: Subject, X: np.ndarray, Y: np.ndarray, value: float, steps: list[int]) -> None:
    wider = np.column_stack([X, _nearly(value, (len(X), 1), steps)])
    _alike(subject, subject(wider, Y), subject(X, Y), "f(X with a constant column, Y)")


def _constant(subject: Subject, X: np.ndarray, Y: np.ndarray, value: float, steps: list[int]) -> None:
    constant = _nearly(value, X.shape, steps)
    subject.must_refuse(constant, Y, why="the rows of X are equal up to the last digit")
    subject.must_refuse(Y, constant, why="the rows of Y are equal up to the last digit")


def _lengths(subject: Subject, X: np.ndarray, Y: np.ndarray, extra: int) -> None:
    longer = np.concatenate([Y, np.repeat(Y[:1], extra, axis=0)])
    subject.must_refuse(X, longer, why=f"X has {len(X)} samples and Y has {len(longer)}")


def _nearly(value: float, shape: tuple[int, ...], steps: list[int]) -> np.ndarray:
    """Return an array of one value, whose entries are off by some units in the last place."""
    return value * (1.0 + EPS * np.resize(steps, shape))


def _spread(x: np.ndarray) -> float:
    return float(np.abs(x - x.mean(axis=0)).max())


@st.composite
def _rotated(draw: st.DrawFn) -> Case:
    case = draw(ALIGNED)
    return {**case, "q": draw(make.orthogonal_matrices(case["X"].shape[1]))}


@st.composite
def _shifted(draw: st.DrawFn) -> Case:
    case = draw(ALIGNED)
    x = case["X"]
    unit = 10.0 ** np.floor(np.log10(np.abs(x).max())) * draw(st.sampled_from([1.0, 10.0, 100.0]))
    assume(unit <= _DIGITS * _spread(x))
    return {**case, "shift": unit * draw(arrays(np.int64, x.shape[1], elements=st.integers(-9, 9)))}


@st.composite
def _permuted(draw: st.DrawFn) -> Case:
    case = draw(ALIGNED)
    return {**case, "rows": tuple(draw(st.permutations(range(len(case["X"])))))}


@st.composite
def _waves(draw: st.DrawFn) -> Case:
    n = draw(st.integers(5, 20))
    r, s = draw(st.lists(st.integers(1, n // 2), min_size=2, max_size=2, unique=True))
    return {"n": n, "r": r, "s": s, "offset": draw(st.sampled_from([0.0, 1.0, 100.0]))}


def _with(**more: st.SearchStrategy) -> st.SearchStrategy[Case]:
    return st.tuples(ALIGNED, st.fixed_dictionaries(more)).map(lambda pair: {**pair[0], **pair[1]})


_VALUE = st.sampled_from([1.0, 0.1, -3.3, 1e6, 1e-6])
_STEPS = st.lists(st.integers(-1, 1), min_size=1, max_size=5)
_ONE = (ALIGNMENT,)
LAWS = (
    Law("bounds", "0 ≤ f(X, Y) ≤ 1", _ONE, ALIGNED, _bounds),
    Law("itself", "f(X, X) = 1", _ONE, st.fixed_dictionaries({"X": make.matrices()}), _itself),
    Law(
        "unrelated", "f of two cosines of other frequencies over the samples is 0", _ONE, _waves(), _unrelated
    ),
    Law("symmetry", "f(X, Y) = f(Y, X)", _ONE, ALIGNED, _symmetric),
    Law(
        "scale",
        "f(a·X, Y) = f(X, Y)",
        _ONE,
        _with(a=st.sampled_from([2.0, 0.1, -1.0, 1e6, 1e-6, 1e30, 1e-30])),
        _scale,
    ),
    Law("orthogonal", "f(X·q, Y) = f(X, Y) for orthogonal q", _ONE, _rotated(), _orthogonal),
    Law(
        "translation",
        "f(X + shift, Y) = f(X, Y): one vector added to every row",
        _ONE,
        _shifted(),
        _translation,
    ),
    Law(
        "permutation", "reordering the samples of both alike does not matter", _ONE, _permuted(), _permutation
    ),
    Law(
        "constant column",
        "a column that is constant up to the last digit does not matter",
        _ONE,
        _with(value=_VALUE, steps=_STEPS),
        _constant_column,
    ),
    Law(
        "constant array",
        "an array whose rows are equal up to the last digit is refused",
        _ONE,
        _with(value=_VALUE, steps=_STEPS),
        _constant,
    ),
    Law(
        "equal length",
        "arrays of unequal numbers of samples are refused",
        _ONE,
        _with(extra=st.integers(1, 8)),
        _lengths,
    ),
)
