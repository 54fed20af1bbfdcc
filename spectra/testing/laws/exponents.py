"""Define the laws of rank-window exponents.

α = −(slope of ln λ_j on ln j) over the ranks lo ≤ j ≤ hi.


They bind any linear fit in log–log coordinates (least squares, weighted, Theil–Sen) on a window of ranks that
are counted from 1 with both ends included. A fit that is built to ignore single values (Theil–Sen) does not
claim "both ends count": skip it there.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from spectra.testing import strategies as make
from spectra.testing.kinds import EXPONENT, windowed_spectra
from spectra.testing.law import Case, Law, Subject, expect, same


def _slack(subject: Subject, value: float, lo: int, hi: int, values: np.ndarray) -> float:
    """Return the rounding of the logarithms, ε·|ln λ|, divided by the width of the window in ln j."""
    logs = 1.0 + float(np.abs(np.log(values[lo - 1 : hi])).max())
    return subject.tolerance * (1.0 + abs(value)) + 1e-13 * logs / np.log(hi / lo)


def _recovery(subject: Subject, alpha: float, prefactor: float, lo: int, hi: int, length: int) -> None:
    values = prefactor * np.arange(1, length + 1) ** (-alpha)
    got = subject(values, lo, hi)
    same(got, alpha, _slack(subject, alpha, lo, hi, values), "f(C·j^−α, lo, hi)", "α")


def _scale(subject: Subject, eigenvalues: np.ndarray, lo: int, hi: int, a: float) -> None:
    want = subject(eigenvalues, lo, hi)
    slack = _slack(subject, want, lo, hi, eigenvalues) + _slack(subject, want, lo, hi, a * eigenvalues)
    same(subject(a * eigenvalues, lo, hi), want, slack, "f(a·λ)", "f(λ)")


def _power(subject: Subject, eigenvalues: np.ndarray, lo: int, hi: int, s: float) -> None:
    want = s * subject(eigenvalues, lo, hi)
    slack = 2 * _slack(subject, want, lo, hi, eigenvalues**s)
    same(subject(eigenvalues**s, lo, hi), want, slack, "f(λ^s)", "s·f(λ)")


def _permutation(subject: Subject, eigenvalues: np.ndarray, lo: int, hi: int) -> None:
    want = subject(eigenvalues, lo, hi)
    slack = _slack(subject, want, lo, hi, eigenvalues)
    same(subject(eigenvalues[::-1].copy(), lo, hi), want, slack, "f(ascending λ)", "f(λ)")


def _locality(subject: Subject, eigenvalues: np.ndarray, lo: int, hi: int, factor: float) -> None:
    changed = eigenvalues.copy()
    changed[: lo - 1] *= factor
    changed[hi:] /= factor
    want = subject(eigenvalues, lo, hi)
    slack = _slack(subject, want, lo, hi, eigenvalues)
    same(subject(changed, lo, hi), want, slack, "f(λ changed outside lo..hi)", "f(λ)")


def _ends(subject: Subject, alpha: float, lo: int, hi: int, end: str) -> None:
    values = np.arange(1, hi + 1) ** (-alpha)
    moved = values.copy()
    # Scaling everything beyond the end together keeps the order; only the end itself lies in the window.
    if end == "lo":
        moved[:lo] *= 2.0
    else:
        moved[hi - 1 :] /= 2.0
    before, after = subject(values, lo, hi), subject(moved, lo, hi)
    expect(
        after > before + subject.tolerance,
        f"f = {before:.10g} before and {after:.10g} after the value at rank {end} is moved away by a factor 2",
    )


def _misfit(subject: Subject, eigenvalues: np.ndarray, lo: int, hi: int) -> None:
    why = f"the window {lo}..{hi} does not fit in 1..{len(eigenvalues)}"
    subject.must_refuse(eigenvalues, lo, hi, why=why)


def _zero_inside(subject: Subject, eigenvalues: np.ndarray, lo: int, hi: int) -> None:
    rank = int(np.count_nonzero(eigenvalues))
    subject.must_refuse(eigenvalues, lo, hi, why=f"the window {lo}..{hi} reaches beyond the rank {rank}")


@st.composite
def _power_laws(draw: st.DrawFn) -> Case:
    alpha = draw(st.integers(0, 20)) / 4
    prefactor = draw(st.sampled_from([1.0, 7.0, 1e-6, 1e6]))
    lo = draw(st.integers(1, 60))
    hi = lo + draw(st.integers(2, 140))
    return {
        "alpha": alpha,
        "prefactor": prefactor,
        "lo": lo,
        "hi": hi,
        "length": hi + draw(st.integers(0, 20)),
    }


def _windowed(**more: st.SearchStrategy) -> st.SearchStrategy[Case]:
    return st.tuples(windowed_spectra(), st.fixed_dictionaries(more)).map(lambda pair: {**pair[0], **pair[1]})


@st.composite
def _with_ends(draw: st.DrawFn) -> Case:
    lo = draw(st.integers(1, 20))
    alpha, width = draw(st.integers(1, 16)) / 4, draw(st.integers(2, 20))
    return {"alpha": alpha, "lo": lo, "hi": lo + width, "end": draw(st.sampled_from(["lo", "hi"]))}


@st.composite
def _outside(draw: st.DrawFn) -> Case:
    values = draw(make.positive_spectra())
    size = len(values)
    lo, hi = draw(
        st.one_of(
            st.tuples(st.integers(1, size), st.integers(size + 1, 2 * size)),
            st.tuples(st.integers(-3, 0), st.integers(3, size)),
            st.tuples(st.integers(2, size), st.integers(1, size)).filter(lambda w: w[0] > w[1]),
            st.tuples(st.integers(size + 1, 2 * size), st.integers(2 * size + 2, 3 * size + 2)),
        )
    )
    return {"eigenvalues": values, "lo": lo, "hi": hi}


@st.composite
def _rank_short(draw: st.DrawFn) -> Case:
    values = draw(make.positive_spectra(max_size=12))
    zeros = draw(st.integers(1, 8))
    hi = len(values) + draw(st.integers(1, zeros))
    lo = draw(st.integers(1, len(values)).filter(lambda start: start <= hi - 2))
    return {"eigenvalues": np.concatenate([values, np.zeros(zeros)]), "lo": lo, "hi": hi}


LAWS = (
    Law("power law recovery", "f(C·j^−α, lo, hi) = α on every window", (EXPONENT,), _power_laws(), _recovery),
    Law(
        "scale",
        "f(a·λ) = f(λ)",
        (EXPONENT,),
        _windowed(a=st.sampled_from([2.0, 0.1, 1e6, 1e-6, 1e30, 1e-30])),
        _scale,
    ),
    Law("powers", "f(λ^s) = s·f(λ)", (EXPONENT,), _windowed(s=st.sampled_from([2.0, 0.5, 3.0])), _power),
    Law(
        "permutation",
        "ranks go by size: ascending input gives the same",
        (EXPONENT,),
        windowed_spectra(),
        _permutation,
    ),
    Law(
        "window only",
        "values outside lo..hi do not matter",
        (EXPONENT,),
        _windowed(factor=st.sampled_from([2.0, 10.0, 1000.0])),
        _locality,
    ),
    Law("both ends count", "the values at ranks lo and hi enter the fit", (EXPONENT,), _with_ends(), _ends),
    Law(
        "window must fit",
        "a window outside 1..r, or reversed, is refused, not clipped",
        (EXPONENT,),
        _outside(),
        _misfit,
    ),
    Law(
        "zero in window",
        "a window that contains a zero energy is refused",
        (EXPONENT,),
        _rank_short(),
        _zero_inside,
    ),
)
