"""Claim T1: characters diagonalise every shift of a cyclic band."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import record
from theory.derivations import fourier as derivations
from theory.formulas import fourier
from theory.values import Array, Case, Measurement, Sampling, Tolerance

ROUNDING = Tolerance("float64 rounding of sums of at most 64 unit terms", absolute=1e-12)


def shift_matrix(c: int, d: int) -> Array:
    """Build the (c, c) matrix of the shift S_d.

    (S_d f)[m] = f[(m+d) mod c], by moving rows of the identity.
    """
    return np.roll(np.eye(c), d, axis=1)


def _cut_shift(c: int, d: int) -> Array:
    """A shift that forgets to wrap round: states near the end have no successor."""
    return np.eye(c, k=d % c)


def _split(z: NDArray[np.complex128]) -> Array:
    return np.concatenate([z.real, z.imag])


def _image(case: Case, _: Sampling) -> Measurement:
    chi = np.exp(2j * np.pi * case["r"] * np.arange(case["c"]) / case["c"])
    return Measurement.exact(_split(shift_matrix(case["c"], case["d"]) @ chi))


def _multiple(case: Case, sign: int = 1) -> Array:
    c, r, d = case["c"], case["r"], case["d"]
    return _split(fourier.shift_eigenvalue(c, r, sign * d) * fourier.character(c, r))


def _products(matrix=shift_matrix):
    def measured(case: Case, _: Sampling) -> Measurement:
        c, d, e = case["c"], case["d"], case["r"]
        a, b = matrix(c, d), matrix(c, e)
        return Measurement.exact(np.concatenate([(a @ b).ravel(), (b @ a).ravel(), (a.T @ a).ravel()]))

    return measured


def _reflection(c: int, d: int) -> Array:
    """m → d − m: unitary, but two of them do not commute."""
    return np.eye(c)[:, (d - np.arange(c)) % c]


def _group(case: Case, offset: int = 0) -> Array:
    c, d, e = case["c"], case["d"], case["r"]
    both = shift_matrix(c, (d + e + offset) % c).ravel()
    return np.concatenate([both, both, np.eye(c).ravel()])


_CASES = record(c=st.integers(3, 64), r=st.integers(0, 63), d=st.integers(0, 200))

CHARACTERS = Claim(
    id="T1",
    title="Shifts are diagonal in characters",
    statement="The next-token rule of one band is a shift S_d of Z_c, and every character is its eigenvector: "
    "S_d χ_r = exp(2πi r d/c) χ_r for every d and r.",
    meaning="The rule “go d steps on along the circle” keeps every Fourier mode in its place and only turns "
    "its phase. Each mode can therefore be read, and learned, on its own; this is why activations are "
    "looked at in Fourier modes.",
    latex=r"$S_d\,\chi_r = e^{2\pi i r d/c}\,\chi_r,\qquad \chi_r[m]=e^{2\pi i r m/c}$",
    source="Fourier analysis on a finite cyclic group",
    quantity="real and imaginary parts of S_d χ_r",
    domain=Domain(_CASES, (Assumption("r is a frequency of Z_c", lambda x: x["r"] < x["c"]),)),
    predicted=_multiple,
    measured=_image,
    tolerance=ROUNDING,
    mutants=(
        Mutant("phase of the opposite sign", predicted=lambda x: _multiple(x, -1)),
        Mutant(
            "shift without wrap-around",
            measured=lambda x, _: Measurement.exact(
                _split(_cut_shift(x["c"], x["d"]) @ fourier.character(x["c"], x["r"]))
            ),
        ),
    ),
    derivation=derivations.shift,
    quick=Effort(60),
    full=Effort(300),
)

GROUP = Claim(
    id="T1.group",
    title="Shifts are unitary and commute",
    statement="S_d S_e = S_e S_d = S_{d+e} and S_dᵀ S_d = I: one basis serves every step d.",
    meaning="Shifts by different steps share one set of Fourier modes and keep all lengths. One choice of "
    "modes therefore serves every sequence, whatever its step.",
    latex=r"$S_dS_e=S_eS_d=S_{d+e},\qquad S_d^{T}S_d=I$",
    source="Fourier analysis on a finite cyclic group",
    quantity="entries of S_dS_e, S_eS_d and SᵀS",
    domain=Domain(_CASES, (Assumption("both steps are residues", lambda x: x["r"] < x["c"]),)),
    predicted=_group,
    measured=_products(),
    tolerance=ROUNDING,
    mutants=(
        Mutant("reflections instead of shifts", measured=_products(_reflection)),
        Mutant("shifts without wrap-around", measured=_products(_cut_shift)),
        Mutant("one step too far", predicted=lambda x: _group(x, 1)),
    ),
    quick=Effort(60),
    full=Effort(300),
)

CLAIMS = (CHARACTERS, GROUP)
