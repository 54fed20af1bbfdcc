"""Define the laws of effective ranks, which grow as a spectrum flattens.

The argument is any non-negative vector that the function normalises itself, eigenvalues as a rule. A RankMe of
singular values obeys every law as a function of σ; as a function of λ = σ² it is not Schur concave (the escort
weights √λ break it from about nine values on), so skip "Schur concavity" there. Sources: Roy & Vetterli 2007
(effective rank); Marshall, Olkin & Arnold, Inequalities (majorisation); the order among the four is that of
the Rényi entropies of order ∞, 2, 1 and of order 1 after a square root, which flattens.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from spectra.testing import strategies as make
from spectra.testing.kinds import RANK, RANKS
from spectra.testing.law import Case, Law, Subject, expect, same

_NAMES = ("stable rank", "participation ratio", "RankMe(energy)", "RankMe(singular)")


def _equal(subject: Subject, got: Any, want: Any, got_name: str, want_name: str) -> None:
    """Compare one rank, or four in their order."""
    same(got, want, subject.tolerance * max(float(np.max(np.abs(want))), 1.0), got_name, want_name)


def _scale(subject: Subject, eigenvalues: np.ndarray, a: float) -> None:
    _equal(subject, subject(a * eigenvalues), subject(eigenvalues), "f(a·λ)", "f(λ)")


def _permutation(subject: Subject, eigenvalues: np.ndarray, order: tuple[int, ...]) -> None:
    _equal(subject, subject(eigenvalues[list(order)]), subject(eigenvalues), "f(permuted λ)", "f(λ)")


def _zero_padding(subject: Subject, eigenvalues: np.ndarray, zeros: int) -> None:
    longer = np.concatenate([eigenvalues, np.zeros(zeros)])
    _equal(subject, subject(longer), subject(eigenvalues), "f(λ with zeros)", "f(λ)")


def _bounds(subject: Subject, eigenvalues: np.ndarray) -> None:
    value, rank = subject(eigenvalues), int(np.count_nonzero(eigenvalues))
    slack = subject.tolerance * rank
    expect(value >= 1 - slack, f"f(λ) = {value:.10g} is below 1")
    expect(value <= rank + slack, f"f(λ) = {value:.10g} exceeds the rank {rank}")


def _flat(subject: Subject, size: int, zeros: int) -> None:
    values = np.concatenate([np.ones(size), np.zeros(zeros)])
    want = np.full(4, float(size)) if subject.kind.name == RANKS else float(size)
    _equal(subject, subject(values), want, f"f({size} equal values, {zeros} zeros)", "the rank")


def _schur(subject: Subject, eigenvalues: np.ndarray, i: int, j: int, share: float) -> None:
    mixed = eigenvalues.copy()
    mixed[i] = (1 - share) * eigenvalues[i] + share * eigenvalues[j]
    mixed[j] = share * eigenvalues[i] + (1 - share) * eigenvalues[j]
    before, after = subject(eigenvalues), subject(mixed)
    expect(
        after >= before - subject.tolerance * max(before, 1.0),
        f"moving values {i + 1} and {j + 1} toward each other lowers f from {before:.10g} to {after:.10g}",
    )


def _kronecker(subject: Subject, a: np.ndarray, b: np.ndarray) -> None:
    product = np.sort(np.multiply.outer(a, b).ravel())[::-1].copy()
    _equal(subject, subject(product), subject(a) * subject(b), "f(a ⊗ b)", "f(a)·f(b)")


def _chain(subject: Subject, eigenvalues: np.ndarray) -> None:
    rank = int(np.count_nonzero(eigenvalues))
    ladder = [("1", 1.0), *zip(_NAMES, subject(eigenvalues), strict=True), ("rank", float(rank))]
    for (low_name, low), (high_name, high) in itertools.pairwise(ladder):
        expect(
            low <= high + subject.tolerance * rank,
            f"{low_name} = {low:.10g} exceeds {high_name} = {high:.10g}",
        )


@st.composite
def _permuted(draw: st.DrawFn) -> Case:
    values = draw(make.spectra())
    return {"eigenvalues": values, "order": tuple(draw(st.permutations(range(len(values)))))}


@st.composite
def _averaged(draw: st.DrawFn) -> Case:
    values = draw(st.one_of(make.whole_spectra(), make.spectra()).filter(lambda v: v[-1] < v[0]))
    # Only two values that differ can be moved toward each other.
    j = draw(st.integers(int(np.argmax(values < values[0])), len(values) - 1))
    above = int(np.argmax(values == values[j]))
    i = above - draw(st.integers(1, above))
    return {
        "eigenvalues": values,
        "i": i,
        "j": j,
        "share": draw(st.sampled_from([0.5, 0.4, 0.25, 0.1, 0.01])),
    }


_FACTORS = st.sampled_from([2.0, 0.1, 1e3, 1e-3, 1e8, 1e-8, 1e30, 1e-30, 1e100, 1e-100])
_SPECTRUM = st.fixed_dictionaries({"eigenvalues": make.spectra()})
_BOTH = (RANK, RANKS)
_SMALL = st.one_of(make.whole_spectra(6), make.power_law_spectra(8))

LAWS = (
    Law(
        "scale",
        "f(a·λ) = f(λ)",
        _BOTH,
        st.fixed_dictionaries({"eigenvalues": make.spectra(), "a": _FACTORS}),
        _scale,
    ),
    Law("permutation", "the order of the values does not matter", _BOTH, _permuted(), _permutation),
    Law(
        "zero padding",
        "f(λ, 0, …, 0) = f(λ)",
        _BOTH,
        st.fixed_dictionaries({"eigenvalues": make.spectra(), "zeros": st.integers(1, 8)}),
        _zero_padding,
    ),
    Law("bounds", "1 ≤ f(λ) ≤ rank", (RANK,), _SPECTRUM, _bounds),
    Law(
        "flat spectrum",
        "k equal values have effective rank k",
        _BOTH,
        st.fixed_dictionaries({"size": st.integers(1, 40), "zeros": st.integers(0, 10)}),
        _flat,
    ),
    Law(
        "Schur concavity", "moving two values toward each other never lowers f", (RANK,), _averaged(), _schur
    ),
    Law(
        "Kronecker",
        "f(a ⊗ b) = f(a)·f(b)",
        (RANK,),
        st.fixed_dictionaries({"a": _SMALL, "b": _SMALL}),
        _kronecker,
    ),
    Law(
        "order of the ranks",
        "1 ≤ stable rank ≤ participation ratio ≤ RankMe(energy) ≤ RankMe(singular) ≤ rank",
        (RANKS,),
        _SPECTRUM,
        _chain,
    ),
)
