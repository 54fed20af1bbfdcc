"""Summarise a spectrum by one number: effective ranks and shares of the energies λ.

For every spectrum 1 ≤ stable rank ≤ participation ratio ≤ RankMe(energy) ≤ RankMe(singular) ≤ rank.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy

from spectra.arrays import choice, real, whole
from spectra.errors import InputError
from spectra.spectrum import Spectrum, SpectrumLike, as_spectrum


def rankme(spectrum: SpectrumLike, on: Literal["energy", "singular"] = "energy") -> float:
    """Return RankMe, the exponential of the spectrum's entropy.

    RankMe = exp(−Σ p_j ln p_j) with 0·ln 0 = 0 and nothing added to p: an additive ε would let the value
    exceed the rank. Between 1 and the rank.

    Args:
        spectrum: Spectrum, or (r,) eigenvalues.
        on: ``"energy"``: p = λ/Σλ (default); ``"singular"``: p = σ/Σσ, the published form.

    Raises:
        InputError: an invalid spectrum, or another ``on``.

    Source: Roy & Vetterli, "The effective rank", EUSIPCO 2007; Garrido et al., RankMe, arXiv 2210.02885.

    >>> round(rankme([1.0, 1.0, 1.0, 0.0]), 6)
    3.0
    """
    spectrum = as_spectrum(spectrum)
    if choice(on, "on", ("energy", "singular")) == "energy":
        p = spectrum.shares
    else:
        sigma = spectrum.singular_values / spectrum.singular_values[0]
        p = sigma / sigma.sum()
    return _bounded(np.exp(scipy.special.entr(p).sum()), spectrum)


def participation_ratio(spectrum: SpectrumLike) -> float:
    """Return the participation ratio (Σλ)²/Σλ².

    The number of equal energies with the same second moment; between 1 and the rank.

    Args:
        spectrum: Spectrum, or (r,) eigenvalues.

    Raises:
        InputError: an invalid spectrum.

    Source: Gao et al., bioRxiv 214262 (2017). See `shrinkage.debiased_participation_ratio` for small n.

    >>> participation_ratio([1.0, 1.0, 0.0])
    2.0
    """
    spectrum = as_spectrum(spectrum)
    return _bounded(1.0 / np.sum(spectrum.shares**2), spectrum)


def stable_rank(spectrum: SpectrumLike) -> float:
    """Return the stable rank Σλ/λ₁, between 1 and the rank.

    For a matrix A it is ‖A‖_F²/‖A‖₂².

    Args:
        spectrum: Spectrum, or (r,) eigenvalues.

    Raises:
        InputError: an invalid spectrum.

    Source: Rudelson & Vershynin, J. ACM 54 (2007).

    >>> stable_rank([2.0, 1.0, 1.0])
    2.0
    """
    spectrum = as_spectrum(spectrum)
    return _bounded(1.0 / spectrum.shares[0], spectrum)


def top_share(spectrum: SpectrumLike, k: int) -> float:
    """Return the share of energy in the k largest values.

    Σ_{j≤k} λ_j / Σλ, in (0, 1].

    Args:
        spectrum: Spectrum, or (r,) eigenvalues.
        k: how many of the largest values, 1 ≤ k ≤ r.

    Raises:
        InputError: an invalid spectrum, or k not an integer in that range.

    >>> top_share([2.0, 1.0, 1.0], k=1)
    0.5
    """
    spectrum, count = as_spectrum(spectrum), whole(k, "k")
    if not 1 <= count <= len(spectrum):
        raise InputError(
            f"k is {count} but the spectrum has {len(spectrum)} values; pass 1 ≤ k ≤ {len(spectrum)}"
        )
    return float(min(spectrum.shares[:count].sum(), 1.0))


def rank(spectrum: SpectrumLike, rtol: float = 0.0) -> int:
    """Count the energies above rtol·λ₁.

    The default counts every non-zero energy: `covariance_spectrum`, `weight_spectrum` and `Moments.spectrum`
    already return exact zeros for what float64 cannot resolve.

    Args:
        spectrum: Spectrum, or (r,) eigenvalues.
        rtol: threshold on energies relative to the largest, 0 ≤ rtol < 1.

    Raises:
        InputError: an invalid spectrum, or rtol outside [0, 1).

    >>> rank([2.0, 1.0, 0.0])
    2
    """
    rtol = real(rtol, "rtol")
    if not 0.0 <= rtol < 1.0:
        raise InputError(f"rtol is {rtol}; it must lie in [0, 1)")
    spectrum = as_spectrum(spectrum)
    threshold = rtol if spectrum.kind == "eigenvalue" else np.sqrt(rtol)
    return int(np.count_nonzero(spectrum.values > threshold * spectrum.values[0]))


def _bounded(value: float, spectrum: Spectrum) -> float:
    """Return an effective rank within 1 and the rank: exact in real arithmetic, which rounding breaks by an ulp."""
    return float(min(max(value, 1.0), rank(spectrum)))
