"""Define the laws of tail exponents: α of a density p(λ) ∝ λ^−α above a threshold that the function chooses.

They bind fits by maximum likelihood and by regression alike. If λ has a tail of exponent α, λ^s has one of exponent
1 + (α − 1)/s. Values are Pareto samples, in which no two thresholds are equally good: among ties rounding would choose.
Source: Clauset, Shalizi & Newman, SIAM Review 51 (2009).
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from spectra.testing import strategies as make
from spectra.testing.kinds import TAIL
from spectra.testing.law import Law, Subject, expect, same

# Agreement with the exponent of exact quantiles, relative to α − 1. Estimators that use half of the values, that
# correct for their number or that choose another threshold differ by less.
CLOSE = 0.25
_QUANTILES = 200


def _equal(subject: Subject, got: float, want: float, got_name: str, want_name: str) -> None:
    same(got, want, subject.tolerance * max(abs(want), 1.0), got_name, want_name)


def _scale(subject: Subject, eigenvalues: np.ndarray, a: float) -> None:
    _equal(subject, subject(a * eigenvalues), subject(eigenvalues), "f(a·λ)", "f(λ)")


def _permutation(subject: Subject, eigenvalues: np.ndarray) -> None:
    _equal(subject, subject(eigenvalues[::-1].copy()), subject(eigenvalues), "f(ascending λ)", "f(λ)")


def _zeros(subject: Subject, eigenvalues: np.ndarray, zeros: int) -> None:
    longer = np.concatenate([eigenvalues, np.zeros(zeros)])
    _equal(subject, subject(longer), subject(eigenvalues), "f(λ with zeros)", "f(λ)")


def _powers(subject: Subject, eigenvalues: np.ndarray, s: float) -> None:
    want = 1 + (subject(eigenvalues) - 1) / s
    _equal(subject, subject(eigenvalues**s), want, f"f(λ^{s:g})", "1 + (f(λ) − 1)/s")


def _above_one(subject: Subject, eigenvalues: np.ndarray) -> None:
    value = subject(eigenvalues)
    expect(value > 1, f"f(λ) = {value:.10g}; a density has a tail of exponent above 1")


def _quantiles(subject: Subject, alpha: float, prefactor: float) -> None:
    shares = (np.arange(1, _QUANTILES + 1) - 0.5) / _QUANTILES
    values = prefactor * shares ** (-1.0 / (alpha - 1.0))
    same(subject(values), alpha, CLOSE * (alpha - 1), f"f({_QUANTILES} quantiles)", "α")


_SPECTRUM = st.fixed_dictionaries({"eigenvalues": make.pareto_spectra()})


def _with(**more: st.SearchStrategy) -> st.SearchStrategy:
    return st.tuples(_SPECTRUM, st.fixed_dictionaries(more)).map(lambda pair: {**pair[0], **pair[1]})


LAWS = (
    Law(
        "scale", "f(a·λ) = f(λ)", (TAIL,), _with(a=st.sampled_from([2.0, 0.1, 1e3, 1e-3, 1e8, 1e-8])), _scale
    ),
    Law("permutation", "ascending input gives the same", (TAIL,), _SPECTRUM, _permutation),
    Law("zero padding", "f(λ, 0, …, 0) = f(λ)", (TAIL,), _with(zeros=st.integers(1, 8)), _zeros),
    Law(
        "powers",
        "f(λ^s) = 1 + (f(λ) − 1)/s",
        (TAIL,),
        _with(s=st.sampled_from([2.0, 0.5, 3.0])),
        _powers,
    ),
    Law("above one", "f(λ) > 1", (TAIL,), _SPECTRUM, _above_one),
    Law(
        "Pareto quantiles",
        f"f of {_QUANTILES} quantiles of the Pareto law of exponent α is α, within {CLOSE:.0%} of α − 1",
        (TAIL,),
        st.fixed_dictionaries(
            {
                "alpha": st.integers(6, 24).map(lambda quarters: quarters / 4),
                "prefactor": st.integers(-30, 30).map(lambda power: 2.0**power),
            }
        ),
        _quantiles,
    ),
)
