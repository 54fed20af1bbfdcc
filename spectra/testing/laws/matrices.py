"""Define the laws of the spectrum of a data matrix: invariance, perturbation, random matrices.

They bind covariance spectra (centred, C = (1/(n−1)) Σ(x_i−x̄)(x_i−x̄)ᵀ), second moments (C = xᵀx/n) and singular
values (C = WᵀW, compared as energies σ²). Vectors are compared within tolerance·λ₁: what float64 keeps of a
symmetric eigenproblem is absolute in the largest eigenvalue. Sources: Horn & Johnson, Matrix Analysis, ch. 4
(Weyl, Cauchy, Hoffman–Wielandt); Mirsky 1960; Marchenko & Pastur 1967; Baik, Ben Arous & Péché 2005.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectra.testing import strategies as make
from spectra.testing.kinds import COVARIANCE, SECOND_MOMENT, SINGULAR
from spectra.testing.law import Case, Law, Subject, expect, padded, same

_ALL = (COVARIANCE, SECOND_MOMENT, SINGULAR)
_SAMPLES = (COVARIANCE, SECOND_MOMENT)
# Entries may be this much larger than their differences: float64 then keeps the digits that the tolerance needs.
_DIGITS = 1e6


def second_moment(x: np.ndarray, kind: str) -> np.ndarray:
    """Compute the matrix whose eigenvalues the kind returns.

    (d, d), from the definition, in float64.
    """
    if kind == COVARIANCE:
        centred = x - x.mean(axis=0)
        centred = centred - centred.mean(axis=0)
        return centred.T @ centred / (len(x) - 1)
    return x.T @ x / (len(x) if kind == SECOND_MOMENT else 1)


def _top(*spectra: np.ndarray) -> float:
    return max(float(np.max(np.abs(s), initial=0.0)) for s in spectra)


def _equal(subject: Subject, got: np.ndarray, want: np.ndarray, got_name: str, want_name: str) -> None:
    same(got, want, subject.tolerance * _top(got, want), got_name, want_name)


# --------------------------------------------------------------------------------- form and invariance


def _descending(subject: Subject, x: np.ndarray) -> None:
    values = subject(x)
    expect(len(values) > 0, "f(x) is empty")
    slack = subject.tolerance * _top(values)
    expect(
        bool(values.min() >= -slack),
        f"f(x) has a negative energy {values.min():.6g} (largest {_top(values):.6g})",
    )
    rises = np.flatnonzero(np.diff(values) > slack)
    if len(rises):
        j = int(rises[0])
        expect(
            False,
            f"f(x) rises from {values[j]:.6g} to {values[j + 1]:.6g} at position {j + 1}; largest comes first",
        )


def _scale(subject: Subject, x: np.ndarray, a: float) -> None:
    _equal(subject, subject(a * x), a * a * subject(x), "f(a·x)", "a²·f(x)")


def _spread(x: np.ndarray) -> float:
    return float(np.abs(x - x.mean(axis=0)).max())


def _orthogonal(subject: Subject, x: np.ndarray, q: np.ndarray) -> None:
    # The product x·q is itself rounded in the scale of its largest entry.
    assume(subject.kind.name != COVARIANCE or np.abs(x).max() <= _DIGITS * _spread(x))
    _equal(subject, subject(x @ q), subject(x), "f(x·q)", "f(x)")


def _permutation(subject: Subject, x: np.ndarray, rows: tuple[int, ...], columns: tuple[int, ...]) -> None:
    _equal(subject, subject(x[list(rows)][:, list(columns)]), subject(x), "f(permuted x)", "f(x)")


def _translation(subject: Subject, x: np.ndarray, shift: np.ndarray) -> None:
    _equal(subject, subject(x + shift), subject(x), "f(x + shift)", "f(x)")


def _zero_padding(subject: Subject, x: np.ndarray, zeros: int) -> None:
    wider = np.hstack([x, np.zeros((len(x), zeros))])
    _equal(subject, subject(wider), subject(x), "f(x with zero columns)", "f(x)")


def _trace(subject: Subject, x: np.ndarray) -> None:
    want = float(np.trace(second_moment(x, subject.kind.name)))
    got = float(subject(x).sum())
    same(got, want, subject.tolerance * want, "sum of f(x)", "trace of the matrix by its definition")


def _gram_duality(subject: Subject, x: np.ndarray) -> None:
    if subject.kind.name == COVARIANCE:
        # With rows and columns centred both x and xᵀ are centred data, and share their singular values.
        largest = np.abs(x).max()
        x = x - x.mean(axis=0)
        x = x - x.mean(axis=1, keepdims=True)
        # Of a matrix r + c (a row and a column, added) only rounding errors remain.
        assume(largest <= _DIGITS * np.abs(x).max())
    assume(x.shape[1] >= 2 and np.abs(x).max() > 0 and make.varies(x) and make.varies(x.T))
    n, d = x.shape
    freedom = {COVARIANCE: (n - 1, d - 1), SECOND_MOMENT: (n, d), SINGULAR: (1, 1)}[subject.kind.name]
    _equal(subject, freedom[0] * subject(x), freedom[1] * subject(x.T), "m·f(x)", "m'·f(transposed x)")


def _known_spectrum(subject: Subject, x: np.ndarray, energies: np.ndarray) -> None:
    got = subject(x)
    if subject.kind.name == SINGULAR:
        got = got / len(x)
    _equal(subject, got, energies, "f(x)", "the planted spectrum")


def _kronecker(subject: Subject, a: np.ndarray, b: np.ndarray) -> None:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    product, first, second = subject(np.kron(a, b)), subject(a), subject(b)
    expected = np.sort(np.multiply.outer(first, second).ravel())[::-1]
    # Shares, so that the normalisation (n or n−1) does not enter.
    same(
        np.sort(product)[::-1] / product.sum(),
        expected / expected.sum(),
        subject.tolerance,
        "share of f(a ⊗ b)",
        "share of f(a) ⊗ f(b)",
    )


# -------------------------------------------------------------------------------------- perturbation


def _two_moments(
    subject: Subject, x: np.ndarray, change: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both spectra in equal length, and the eigenvalues of the difference of the two matrices C."""
    before, after = padded(np.sort(subject(x))[::-1], np.sort(subject(x + change))[::-1])
    name = subject.kind.name
    difference = second_moment(x + change, name) - second_moment(x, name)
    return before, after, np.linalg.eigvalsh(difference)


def _weyl(subject: Subject, x: np.ndarray, change: np.ndarray) -> None:
    before, after, moved = _two_moments(subject, x, change)
    gap, bound = float(np.abs(after - before).max()), float(np.abs(moved).max())
    slack = subject.tolerance * _top(before, after)
    expect(
        gap <= bound + slack,
        f"an eigenvalue moved by {gap:.6g}, the matrix only by {bound:.6g} in spectral norm",
    )


def _mirsky(subject: Subject, x: np.ndarray, change: np.ndarray) -> None:
    before, after, moved = _two_moments(subject, x, change)
    gap, bound = float(np.linalg.norm(after - before)), float(np.linalg.norm(moved))
    slack = subject.tolerance * _top(before, after) * np.sqrt(len(before))
    expect(
        gap <= bound + slack,
        f"the spectrum moved by {gap:.6g}, the matrix only by {bound:.6g} in Frobenius norm",
    )


def _interlacing(subject: Subject, x: np.ndarray, dropped: int) -> None:
    full, part = np.sort(subject(x))[::-1], np.sort(subject(np.delete(x, dropped, axis=1)))[::-1]
    full = padded(full, np.zeros(x.shape[1]))[0]
    part = padded(part, np.zeros(x.shape[1] - 1))[0]
    slack = subject.tolerance * _top(full, part)
    for j in range(x.shape[1] - 1):
        expect(
            full[j + 1] - slack <= part[j] <= full[j] + slack,
            f"without the column eigenvalue {j + 1} is {part[j]:.8g}, outside [{full[j + 1]:.8g}, {full[j]:.8g}]",
        )


# ------------------------------------------------------------------------------------- random matrices

# Eight fluctuation scales: the Tracy–Widom tail beyond is below 1e-6, and the cases are fixed by a seed.
_FLUCTUATIONS = 8.0


def _mp_edge(subject: Subject, n: int, d: int, seed: int) -> None:
    values = subject(np.random.default_rng(seed).standard_normal((n, d)))
    free = n - 1 if subject.kind.name == COVARIANCE else n
    if subject.kind.name == SINGULAR:
        values = values / n
    gamma = d / free
    low, high = (1 - np.sqrt(gamma)) ** 2, (1 + np.sqrt(gamma)) ** 2
    width = (np.sqrt(free) + np.sqrt(d)) * (1 / np.sqrt(free) + 1 / np.sqrt(d)) ** (1 / 3) / free
    nonzero = values[values > 1e-9 * _top(values)]
    slack = _FLUCTUATIONS * width
    expect(
        abs(_top(values) - high) <= slack,
        f"largest eigenvalue {_top(values):.4g}, edge {high:.4g} ± {slack:.2g}",
    )
    expect(
        bool(nonzero.min() >= low - slack),
        f"smallest eigenvalue {nonzero.min():.4g}, edge {low:.4g} − {slack:.2g}",
    )
    want = d / len(nonzero) if len(nonzero) < d else 1.0
    # The mean eigenvalue is a χ²/(n·d): standard deviation √(2/(n·d)); six of them.
    gap = 6 * want * np.sqrt(2 / (free * d)) + 2 / free
    expect(
        abs(nonzero.mean() - want) <= gap, f"mean eigenvalue {nonzero.mean():.4g}, due {want:.4g} ± {gap:.2g}"
    )


def _bbp(subject: Subject, n: int, d: int, ell: float, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((n, d))
    x[:, 0] *= np.sqrt(ell)
    values = subject(x)
    if subject.kind.name == SINGULAR:
        values = values / n
    gamma = d / n
    due = ell * (1 + gamma / (ell - 1))
    # Above the transition the outlier is asymptotically normal, sd ℓ√(2/n)·√(1 − γ/(ℓ−1)²); six of them, and
    # O(ℓ/n) for the finite size.
    slack = 6 * ell * np.sqrt(2 / n) + 4 * ell / n
    expect(
        abs(_top(values) - due) <= slack,
        f"largest eigenvalue {_top(values):.4g}, BBP position {due:.4g} ± {slack:.2g}",
    )


# ---------------------------------------------------------------------------------------------- cases

_MATRIX = st.fixed_dictionaries({"x": make.matrices()})
# A translated, rotated or perturbed ill-scaled matrix is compared in the scale of its largest entry.
_FACTORS = st.sampled_from([2.0, -1.0, 3.0, 0.1, 1e3, 1e-3, 1e6, 1e-6])


@st.composite
def _rotated(draw: st.DrawFn) -> Case:
    x = draw(make.matrices())
    return {"x": x, "q": draw(make.orthogonal_matrices(x.shape[1]))}


@st.composite
def _permuted(draw: st.DrawFn) -> Case:
    x = draw(make.matrices())
    rows, columns = (tuple(draw(st.permutations(range(size)))) for size in x.shape)
    return {"x": x, "rows": rows, "columns": columns}


@st.composite
def _shifted(draw: st.DrawFn) -> Case:
    x = draw(make.matrices())
    # Up to 10⁵ times the largest entry would leave fewer digits than the tolerance asks; 10³ does not.
    unit = 10.0 ** np.floor(np.log10(np.abs(x).max())) * draw(st.sampled_from([1.0, 10.0, 100.0, 1000.0]))
    assume(unit <= _DIGITS * _spread(x))
    return {"x": x, "shift": unit * draw(arrays(np.int64, x.shape[1], elements=st.integers(-9, 9)))}


@st.composite
def _changed(draw: st.DrawFn) -> Case:
    x = draw(make.matrices())
    unit = 10.0 ** draw(st.integers(-3, 2)) * max(1.0, float(np.abs(x - x.mean(axis=0)).max()) / 10)
    change = unit * draw(arrays(np.int64, x.shape, elements=st.integers(-3, 3)))
    assume(make.varies(x + change))
    return {"x": x, "change": change}


@st.composite
def _column_dropped(draw: st.DrawFn) -> Case:
    x = draw(make.matrices().filter(lambda a: a.shape[1] >= 2))
    dropped = draw(st.integers(0, x.shape[1] - 1))
    assume(make.varies(np.delete(x, dropped, axis=1)))
    return {"x": x, "dropped": dropped}


_PADDED = st.fixed_dictionaries({"x": make.matrices(), "zeros": st.integers(1, 6)})
_PAIR = st.fixed_dictionaries({"a": make.whole_matrices(4, 3), "b": make.whole_matrices(4, 3)})
_SEED = st.integers(0, 9999)
_WHITE = st.fixed_dictionaries({"n": st.integers(40, 160), "d": st.integers(20, 120), "seed": _SEED})
_SPIKED = st.fixed_dictionaries(
    {
        "n": st.integers(100, 200),
        "d": st.integers(25, 100),
        "ell": st.sampled_from([5.0, 10.0, 30.0]),
        "seed": _SEED,
    }
)


def _planted(centred: bool) -> Any:
    return make.matrices_with_spectrum(centred=centred).map(lambda planted: planted._asdict())


LAWS = (
    Law("descending", "f(x) lists non-negative energies, largest first", _ALL, _MATRIX, _descending),
    Law(
        "scale",
        "f(a·x) = a²·f(x)",
        _ALL,
        st.fixed_dictionaries({"x": make.matrices(), "a": _FACTORS}),
        _scale,
    ),
    Law("orthogonal", "f(x·q) = f(x) for orthogonal q", _ALL, _rotated(), _orthogonal),
    Law("permutation", "the order of rows and of columns does not matter", _ALL, _permuted(), _permutation),
    Law(
        "translation",
        "f(x + shift) = f(x): one vector added to every row",
        (COVARIANCE,),
        _shifted(),
        _translation,
    ),
    Law("zero padding", "columns of zeros add zero eigenvalues only", _ALL, _PADDED, _zero_padding),
    Law(
        "normalisation",
        "Σ f(x) = total variance: 1/(n−1) if centred, Σx²/n if not, Σx² for singular values",
        _ALL,
        _MATRIX,
        _trace,
    ),
    Law(
        "Gram duality",
        "x and its transpose share their non-zero energies (rows and columns centred first where f centres); "
        "m and m' are the degrees of freedom",
        _ALL,
        _MATRIX,
        _gram_duality,
    ),
    Law("known spectrum", "a matrix built to have λ gives λ", (COVARIANCE,), _planted(True), _known_spectrum),
    Law(
        "known spectrum",
        "a matrix built to have λ gives λ",
        (SECOND_MOMENT, SINGULAR),
        _planted(False),
        _known_spectrum,
    ),
    Law("Kronecker", "the energies of a ⊗ b are the products of those of a and b", _ALL, _PAIR, _kronecker),
    Law("Weyl", "no eigenvalue moves further than ‖C(x + change) − C(x)‖₂", _ALL, _changed(), _weyl),
    Law("Mirsky", "√Σ(λ_j − λ_j')² ≤ ‖C(x + change) − C(x)‖_F", _ALL, _changed(), _mirsky),
    Law(
        "Cauchy interlacing",
        "λ_{j+1}(x) ≤ λ_j(x without one column) ≤ λ_j(x)",
        _ALL,
        _column_dropped(),
        _interlacing,
    ),
    Law(
        "Marchenko–Pastur edge",
        "white noise fills [(1−√γ)², (1+√γ)²], γ = d/n, up to Tracy–Widom fluctuations",
        _ALL,
        _WHITE,
        _mp_edge,
    ),
    Law(
        "BBP position",
        "a population eigenvalue ℓ > 1 + √γ appears at ℓ(1 + γ/(ℓ−1))",
        _SAMPLES,
        _SPIKED,
        _bbp,
    ),
)
