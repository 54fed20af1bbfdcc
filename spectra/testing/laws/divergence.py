"""Define the laws of the Jensen–Shannon divergence of two spectra, in nats.

JS = ½ Σ p ln(p/m) + ½ Σ q ln(q/m), m = (p+q)/2, after p and q are divided by their sums. Sources: Lin 1991
(bounds); Endres & Schindelin 2003 (√JS is a metric).
"""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from spectra.testing import strategies as make
from spectra.testing.kinds import DIVERGENCE, LN2
from spectra.testing.law import Case, Law, Subject, expect, same

# JS is known to about 1e-16, so its square root to 1e-8 near 0.
_ROOT_SLACK = 1e-7


def _range(subject: Subject, p: np.ndarray, q: np.ndarray) -> None:
    value = subject(p, q)
    expect(value >= -subject.tolerance, f"f(p, q) = {value:.10g} is negative")
    expect(value <= LN2 + subject.tolerance, f"f(p, q) = {value:.10g} exceeds ln 2 = {LN2:.10g}")


def _zero(subject: Subject, eigenvalues: np.ndarray) -> None:
    same(
        subject(eigenvalues, eigenvalues), 0.0, subject.tolerance, "f(p, p)", "the distance of p from itself"
    )


def _symmetric(subject: Subject, p: np.ndarray, q: np.ndarray) -> None:
    same(subject(p, q), subject(q, p), subject.tolerance, "f(p, q)", "f(q, p)")


def _scale(subject: Subject, p: np.ndarray, q: np.ndarray, a: float) -> None:
    same(subject(a * p, q), subject(p, q), subject.tolerance, "f(a·p, q)", "f(p, q)")


def _permutation(subject: Subject, p: np.ndarray, q: np.ndarray) -> None:
    same(
        subject(p[::-1].copy(), q[::-1].copy()),
        subject(p, q),
        subject.tolerance,
        "f(reversed p, q)",
        "f(p, q)",
    )


def _zero_padding(subject: Subject, p: np.ndarray, q: np.ndarray, zeros: int) -> None:
    tail = np.zeros(zeros)
    longer = subject(np.concatenate([p, tail]), np.concatenate([q, tail]))
    same(longer, subject(p, q), subject.tolerance, "f(p and q with zeros)", "f(p, q)")


def _triangle(subject: Subject, p: np.ndarray, q: np.ndarray, r: np.ndarray) -> None:
    direct, first, second = (math.sqrt(max(subject(*pair), 0.0)) for pair in ((p, r), (p, q), (q, r)))
    expect(
        direct <= first + second + _ROOT_SLACK,
        f"√f(p, r) = {direct:.10g} exceeds √f(p, q) + √f(q, r) = {first + second:.10g}",
    )


def _nested_flats(subject: Subject, narrow: int, wide: int) -> None:
    p = np.concatenate([np.ones(narrow), np.zeros(wide - narrow)])
    share = narrow / wide
    # p = 1/k on k of w places, q = 1/w on all: with s = k/w, m = (1+s)/(2k) inside and 1/(2w) outside.
    inside = math.log(2 / (1 + share)) + share * math.log(2 * share / (1 + share))
    want = 0.5 * (inside + (1 - share) * LN2)
    same(subject(p, np.ones(wide)), want, subject.tolerance, f"f(flat {narrow}, flat {wide})", "JS in nats")


def _lengths(subject: Subject, p: np.ndarray, q: np.ndarray, extra: int) -> None:
    longer = np.concatenate([q, np.full(extra, q[q > 0].min())])
    subject.must_refuse(p, longer, why=f"p has {len(p)} values and q has {len(longer)}")


@st.composite
def _nested(draw: st.DrawFn) -> Case:
    narrow = draw(st.integers(1, 30))
    return {"narrow": narrow, "wide": narrow + draw(st.integers(0, 40))}


_PAIR = make.spectrum_pairs().map(lambda drawn: dict(zip("pq", drawn, strict=True)))
_TRIPLE = make.spectrum_pairs(3).map(lambda drawn: dict(zip("pqr", drawn, strict=True)))


def _paired(**more: st.SearchStrategy) -> st.SearchStrategy[Case]:
    return st.tuples(_PAIR, st.fixed_dictionaries(more)).map(lambda pair: {**pair[0], **pair[1]})


_ONE = (DIVERGENCE,)
LAWS = (
    Law("range", "0 ≤ f(p, q) ≤ ln 2", _ONE, _PAIR, _range),
    Law(
        "zero at equality", "f(p, p) = 0", _ONE, st.fixed_dictionaries({"eigenvalues": make.spectra()}), _zero
    ),
    Law("symmetry", "f(p, q) = f(q, p)", _ONE, _PAIR, _symmetric),
    Law(
        "scale",
        "f(a·p, q) = f(p, q)",
        _ONE,
        _paired(a=st.sampled_from([2.0, 0.1, 1e6, 1e-6, 1e30, 1e-30])),
        _scale,
    ),
    Law("permutation", "reordering both alike does not matter", _ONE, _PAIR, _permutation),
    Law(
        "zero padding",
        "places that are zero in both do not matter",
        _ONE,
        _paired(zeros=st.integers(1, 8)),
        _zero_padding,
    ),
    Law("triangle", "√f(p, r) ≤ √f(p, q) + √f(q, r)", _ONE, _TRIPLE, _triangle),
    Law(
        "nested flat spectra",
        "flat on k of w places against flat on w: the closed form",
        _ONE,
        _nested(),
        _nested_flats,
    ),
    Law(
        "equal length",
        "spectra of unequal length are refused",
        _ONE,
        _paired(extra=st.integers(1, 8)),
        _lengths,
    ),
)
