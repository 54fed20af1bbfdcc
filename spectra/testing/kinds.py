"""Define the kinds of estimator: how each is called, what it returns, what it must accept.

| kind | call | result |
|---|---|---|
| covariance spectrum | f(x), x (n, d) | eigenvalues of the centred 1/(n−1) covariance, or a Spectrum |
| second moment spectrum | f(x), x (n, d) | eigenvalues of xᵀx/n, or a Spectrum |
| singular values | f(W), W (m, n) | singular values of W, or a Spectrum |
| streaming moments | f() | accumulator: `update(x)`, `merge(other)`, `spectrum()` |
| effective rank | f(λ), λ (r,) descending | a number |
| effective ranks | f(λ) | (stable rank, participation ratio, RankMe on energies, RankMe on singular values) |
| exponent | f(λ, lo, hi), ranks 1-based and inclusive | a number, or an Estimate |
| tail exponent | f(λ) | α of the density p(λ) ∝ λ^−α of the large values |
| divergence | f(λ, μ), two (r,) descending | a number |
| alignment | f(X, Y), (n, d) and (n, k) of the same samples | a number in [0, 1] |
| concentration | f(H), H (c, d) class means | a number in [0, 1] |
| band energies | f(H) | (c,) energies E_r = ‖Ĥ_r‖², r = 0..c−1, of the centred class means |
| frequency split | f(H, S), S a tuple closed under r → c−r | (kept, dropped), both (c, d) |
| bulk edges | f(γ), γ = d/n, unit variance | (lower, upper) edge of the Marchenko–Pastur law |
| spike position | f(ℓ, γ), ℓ > 1 + √γ a population eigenvalue | where it appears in the sample |

"A number" may be a float, a 0-d array or tensor, or an object with a `.value`. Spectra are compared as energies,
padded with zeros: a function may list its zero eigenvalues or not. A function of λ may take something else in its
place (`spectra.testing.forms`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from spectra.arrays import choice
from spectra.testing import strategies as make
from spectra.testing.converted import (
    energies,
    four_ranks,
    number,
    numbers,
    squared_values,
    two_arrays,
    two_numbers,
)
from spectra.testing.law import Case, Kind

COVARIANCE = "covariance spectrum"
SECOND_MOMENT = "second moment spectrum"
SINGULAR = "singular values"
STREAMING = "streaming moments"
RANK = "effective rank"
RANKS = "effective ranks"
EXPONENT = "exponent"
TAIL = "tail exponent"
DIVERGENCE = "divergence"
ALIGNMENT = "alignment"
CONCENTRATION = "concentration"
BANDS = "band energies"
SPLIT = "frequency split"
EDGES = "bulk edges"
SPIKE = "spike position"


def _accumulate(factory: Any, x: Any) -> Any:
    """Call a streaming estimator as a function of one batch."""
    accumulator = factory()
    accumulator.update(x)
    return accumulator.spectrum()


# ------------------------------------------------------------------------------------ valid arguments


def _has_samples(case: Case) -> bool:
    return make.varies(_host(case["x"]))


def _nonzero(name: str) -> Any:
    return lambda case: bool(_host(case[name]).any())


def _distinct_states(case: Case) -> bool:
    return make.varies(_host(case["H"]))


def _positive(case: Case) -> bool:
    return bool((_host(case["eigenvalues"]) > 0).all())


def _has_tail(case: Case) -> bool:
    """Rounding to whole numbers may leave large values that are all equal."""
    values = np.sort(_host(case["eigenvalues"]))
    return bool(values[0] > 0) and len(np.unique(values[len(values) // 2 :])) >= 5


def _both_vary(case: Case) -> bool:
    return all(make.varies(_host(case[name])) for name in "XY")


def _both_nonzero(case: Case) -> bool:
    return bool(_host(case["p"]).any() and _host(case["q"]).any())


def _host(array: Any) -> np.ndarray:
    """Convert any array to float64 numpy."""
    if isinstance(array, torch.Tensor):
        return array.detach().to("cpu", torch.float64).numpy()
    return np.asarray(array, dtype=np.float64)


def empty_matrix() -> st.SearchStrategy[np.ndarray]:
    """Draw matrices without entries: no rows, or no columns."""
    size = st.integers(0, 150)
    return st.one_of(st.tuples(st.just(0), size), st.tuples(size, st.just(0))).map(np.zeros)


def _matrix(name: str) -> st.SearchStrategy[Case]:
    return st.fixed_dictionaries({name: make.matrices()})


def _empty_matrix(name: str) -> st.SearchStrategy[Case]:
    return st.fixed_dictionaries({name: empty_matrix()})


@st.composite
def windowed_spectra(draw: st.DrawFn) -> Case:
    """Draw positive eigenvalues and a window that fits them.

    The window has at least three ranks.
    """
    values = draw(make.positive_spectra())
    lo = draw(st.integers(1, len(values) - 2))
    return {"eigenvalues": values, "lo": lo, "hi": draw(st.integers(lo + 2, len(values)))}


@st.composite
def _split_cases(draw: st.DrawFn) -> Case:
    H = draw(make.class_means())
    return {"H": H, "frequencies": draw(closed_sets(len(H)))}


@st.composite
def closed_sets(draw: st.DrawFn, c: int) -> tuple[int, ...]:
    """Draw a non-empty set of frequencies closed under r → c−r.

    Sorted, in 1..c−1.
    """
    half = draw(st.sets(st.integers(1, c // 2), min_size=1))
    return tuple(sorted({r for h in half for r in (h, c - h)}))


# X (n, d) of any family and whole numbers Y (n, k) over the same samples.
ALIGNED = (
    st.tuples(make.matrices(), make.whole_matrices(max_cols=3))
    .map(lambda pair: {"X": pair[0], "Y": pair[1][np.arange(len(pair[0])) % len(pair[1])]})
    .filter(_both_vary)
)
_SPECTRUM = st.fixed_dictionaries({"eigenvalues": make.spectra()})
_NO_VALUES = st.fixed_dictionaries({"eigenvalues": st.just(np.zeros(0))})
_MEANS = st.fixed_dictionaries({"H": make.class_means()})
_PAIR = make.spectrum_pairs().map(lambda pair: {"p": pair[0], "q": pair[1]})
_EMPTY_WINDOWED = st.integers(1, 40).flatmap(
    lambda lo: st.fixed_dictionaries(
        {"eigenvalues": st.just(np.zeros(0)), "lo": st.just(lo), "hi": st.integers(lo + 2, lo + 40)}
    )
)


_KINDS = (
    Kind(
        COVARIANCE,
        "f(x: (n, d) array) -> eigenvalues of the centred 1/(n-1) covariance, descending, or a Spectrum",
        _matrix("x"),
        _empty_matrix("x"),
        ("x",),
        energies,
        _has_samples,
    ),
    Kind(
        SECOND_MOMENT,
        "f(x: (n, d) array) -> eigenvalues of x'x/n, descending, or a Spectrum",
        _matrix("x"),
        _empty_matrix("x"),
        ("x",),
        energies,
        _nonzero("x"),
    ),
    Kind(
        SINGULAR,
        "f(W: (m, n) array) -> singular values, descending, or a Spectrum",
        _matrix("W"),
        _empty_matrix("W"),
        ("W",),
        squared_values,
        _nonzero("W"),
    ),
    Kind(
        STREAMING,
        "f() -> accumulator with update(x: (m, d) array), merge(other) and spectrum()",
        _matrix("x"),
        _empty_matrix("x"),
        ("x",),
        energies,
        _has_samples,
        _accumulate,
    ),
    Kind(
        RANK,
        "f(eigenvalues: (r,) array) -> float",
        _SPECTRUM,
        _NO_VALUES,
        ("eigenvalues",),
        number,
        _nonzero("eigenvalues"),
    ),
    Kind(
        RANKS,
        "f(eigenvalues: (r,) array) -> (stable rank, participation ratio, RankMe(energy), RankMe(singular))",
        _SPECTRUM,
        _NO_VALUES,
        ("eigenvalues",),
        four_ranks,
        _nonzero("eigenvalues"),
    ),
    Kind(
        EXPONENT,
        "f(eigenvalues: (r,) array, lo: int, hi: int) -> float or Estimate; ranks 1-based, inclusive",
        windowed_spectra(),
        _EMPTY_WINDOWED,
        ("eigenvalues",),
        number,
        _positive,
    ),
    Kind(
        TAIL,
        "f(eigenvalues: (r,) array) -> float or Estimate, the exponent of the density of the large values",
        st.fixed_dictionaries({"eigenvalues": make.pareto_spectra()}),
        _NO_VALUES,
        ("eigenvalues",),
        number,
        _has_tail,
    ),
    Kind(
        DIVERGENCE,
        "f(p: (r,) array, q: (r,) array) -> float, natural logarithm; p and q need not be normalised",
        _PAIR,
        st.just({"p": np.zeros(0), "q": np.zeros(0)}),
        ("p", "q"),
        number,
        _both_nonzero,
    ),
    Kind(
        ALIGNMENT,
        "f(X: (n, d) array, Y: (n, k) array of the same samples) -> float in [0, 1]",
        ALIGNED,
        empty_matrix().map(lambda x: {"X": x, "Y": x}),
        ("X", "Y"),
        number,
        _both_vary,
    ),
    Kind(
        CONCENTRATION,
        "f(H: (c, d) array of class means, c >= 3) -> float in [0, 1]",
        _MEANS,
        _empty_matrix("H"),
        ("H",),
        number,
        _distinct_states,
    ),
    Kind(
        BANDS,
        "f(H: (c, d) array of class means, c >= 3) -> (c,) energies |DFT(H - mean)/c|^2 summed over columns",
        _MEANS,
        _empty_matrix("H"),
        ("H",),
        lambda result: numbers(result, ndim=1),
        _distinct_states,
    ),
    Kind(
        SPLIT,
        "f(H: (c, d) array, frequencies: closed tuple) -> (kept, dropped), both (c, d)",
        _split_cases(),
        _empty_matrix("H").map(lambda case: {**case, "frequencies": (1,)}),
        ("H",),
        two_arrays,
        _distinct_states,
    ),
    Kind(
        EDGES,
        "f(gamma: float) -> (lower, upper), the Marchenko-Pastur edges at d/n = gamma and unit variance",
        st.nothing(),
        st.nothing(),
        (),
        two_numbers,
    ),
    Kind(
        SPIKE,
        "f(ell: float, gamma: float) -> float, sample position of a population spike ell > 1 + sqrt(gamma)",
        st.nothing(),
        st.nothing(),
        (),
        number,
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _KINDS}


def kind_named(name: str) -> Kind:
    """Return the kind of this name.

    Raises:
        InputError: unknown name; the message lists the known ones.
    """
    return KINDS[choice(name, "kind", tuple(KINDS))]


LN2 = math.log(2.0)
