"""Measure how class means on a cyclic band concentrate on few frequencies (H_S, H_peak).

A band of modulus c has states m = 0..c−1 and class means H[m] = E[h | state m], a (c, d) array. Throughout,

    Ĥ_r = (1/c) Σ_m (H[m] − H̄) e^{−2πi r m/c},   E_r = ‖Ĥ_r‖²,   m_r = E_r / Σ_{r≠0} E_r.

E_r = E_{c−r} since H is real, E_0 = 0 since H is centred, and Parseval reads
Σ_r E_r = (1/c) Σ_m ‖H[m] − H̄‖². A set S of frequencies is *closed* when r ∈ S implies c − r ∈ S; negative
frequencies −r are read as c − r.

Source of H_S and H_peak: Liu, Paquette, Sous, "Spectral Lens" (arXiv 2605.05683).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from spectra.arrays import (
    EPS,
    Numbers,
    brief,
    largest,
    machine_epsilon,
    require_squares,
    to_float64,
    unit_of,
    whole,
)
from spectra.bands import closed_frequencies, closed_set, require_modulus
from spectra.covariance import rounding_margin
from spectra.errors import InputError
from spectra.results import Estimate
from spectra.shown import Shown, data_frame
from spectra.state_means import ClassMeans, class_means

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ClassMeans",
    "ComponentFrequencies",
    "band_energies",
    "band_masses",
    "class_means",
    "component_frequencies",
    "dominant_frequency",
    "gini",
    "h_peak",
    "h_s",
    "h_s_debiased",
    "peak_band",
    "top_k_band",
]

# A debiased share is the difference of two numbers of similar size, and is flagged, where noise exceeds this part
# of the measured energy.
NOISE_FLAG = 0.5


@dataclass(frozen=True)
class ComponentFrequencies(Shown):
    """Hold the dominant frequency of each principal component of class means.

    Attributes:
        peak_mass: (k,) largest one-sided mass of the component's scores (at most 1/2 for odd c).
        frequency: (k,) int, the frequency of that mass, in 1..⌊c/2⌋.
        share: (k,) part of the total variance of H that the component explains.

    >>> found = component_frequencies(np.cos(2 * np.pi * 2 * np.arange(7) / 7)[:, None], 1)
    >>> found.frequency, found.share.round(6)
    (array([2]), array([1.]))
    """

    peak_mass: np.ndarray
    frequency: np.ndarray
    share: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each component: component (from 1), frequency, peak_mass, share.

        Raises:
            ImportError: without pandas.

        >>> component_frequencies(np.eye(5), 2).to_frame().shape
        (2, 4)
        """
        return data_frame(
            {
                "component": np.arange(1, len(self.share) + 1),
                "frequency": self.frequency,
                "peak_mass": self.peak_mass,
                "share": self.share,
            }
        )


def band_energies(H: Numbers) -> np.ndarray:
    """Return the energy of class means at each frequency.

    (c,) E_r = ‖Ĥ_r‖² of the centred class means, r = 0..c−1; E_0 = 0 and E_r = E_{c−r} exactly.

    Args:
        H: (c, d) class means, c ≥ 3. Units of the result: those of H squared.

    Raises:
        InputError: NaN or Inf, not 2-D, fewer than 3 states or no columns, or entries beyond 1e±144, whose energies
            float64 cannot hold.

    >>> band_energies(np.cos(2 * np.pi * np.arange(5) / 5)[:, None]).round(6)
    array([0.  , 0.25, 0.  , 0.  , 0.25])
    """
    means = to_float64(H, name="H")
    require_squares(largest(means))
    return _column_energies(_centred(means))


def band_masses(H: Numbers) -> np.ndarray:
    """Return the share of energy at each frequency.

    (c,) m_r = E_r / Σ_{r≠0} E_r, summing to 1, with m_0 = 0.

    Raises:
        InputError: as `band_energies`, and when H has no variation over the states beyond rounding.

    >>> band_masses(np.cos(2 * np.pi * np.arange(5) / 5)[:, None]).round(6)
    array([0. , 0.5, 0. , 0. , 0.5])
    """
    means = to_float64(H, name="H")
    unit = unit_of(means)
    centred = _centred(means / unit)
    scale = largest(centred)
    # Of narrow numbers one unit in the last place; of float64 what the arithmetic before may have added, too.
    rounding = max(16 * EPS, machine_epsilon(H)) * largest(means) / unit
    if scale <= rounding:
        raise InputError(
            f"the class means differ by at most {scale * unit:.3g}, which is rounding; masses of a constant are "
            "undefined: check that the states label the samples"
        )
    # Dividing first keeps the squares from over- or underflowing.
    energies = _column_energies(centred / scale)
    return energies / energies.sum()


def h_s(H: Numbers, frequencies: Iterable[int]) -> float:
    """Return H_S, the share of energy at the frequencies S.

    H_S = Σ_{r∈S} m_r, in [0, 1].

    Args:
        H: (c, d) class means.
        frequencies: the set S, closed under r → c−r and without 0. `closed_set`, `task_band`, `top_k_band`
            and `peak_band` make such sets; the null value of H_S is |S|/(c−1).

    Raises:
        InputError: as `band_masses`, or S empty, out of range, containing 0, or not closed.

    >>> round(h_s(np.cos(2 * np.pi * np.arange(5) / 5)[:, None], [1, 4]), 6)
    1.0
    """
    masses = band_masses(H)
    return float(masses[list(closed_frequencies(frequencies, len(masses)))].sum())


def h_peak(H: Numbers) -> float:
    """Return H_peak, the share of the strongest frequency.

    H_peak = max_{1 ≤ r ≤ ⌊c/2⌋} E_r / Σ_{r≠0} E_r: one side of the largest conjugate pair, at most 1/2 for odd c.

    Raises:
        InputError: as `band_masses`.

    >>> round(h_peak(np.cos(2 * np.pi * np.arange(5) / 5)[:, None]), 6)
    0.5
    """
    masses = band_masses(H)
    return float(masses[1 : len(masses) // 2 + 1].max())


def dominant_frequency(H: Numbers) -> int:
    """Return the frequency of largest energy, in 1..⌊c/2⌋.

    The smallest one where several are equal.

    Raises:
        InputError: as `band_masses`.

    >>> dominant_frequency(np.cos(2 * np.pi * 2 * np.arange(7) / 7)[:, None])
    2
    """
    masses = band_masses(H)
    return 1 + int(np.argmax(masses[1 : len(masses) // 2 + 1]))


def h_s_debiased(means: ClassMeans, frequencies: Iterable[int]) -> Estimate:
    """Estimate H_S without the sampling noise of the class means.

    Σ_{r∈S}(E_r − ν) / Σ_{r≠0}(E_r − ν).

    With independent samples per state E[E_r^est] = E_r + ν for r ≠ 0, ν = c⁻² Σ_m tr Σ_m/n_m, so that the
    plug-in H_S shrinks toward |S|/(c−1). The ratio may leave [0, 1] by chance; it is not clipped, since
    clipping would bring the bias back.

    Args:
        means: the result of `class_means`, with at least two samples a state.
        frequencies: a closed set S, as for `h_s`.

    Returns:
        Estimate; details hold `plug_in`, `noise` (ν; inf or 0 where float64 cannot hold it), `noise_share`
        ((c−1)ν/ΣE_r) and `null`. Flagged when
        the noise share exceeds 1/2, not fitted when no energy is left above the noise.

    Raises:
        InputError: as `h_s`, or a state with a single sample.

    >>> states = np.repeat(np.arange(5), 40)
    >>> noise = np.random.default_rng(0).standard_normal((200, 1))
    >>> means = class_means(np.cos(2 * np.pi * states / 5)[:, None] + noise, states, c=5)
    >>> estimate = h_s_debiased(means, [1, 4])
    >>> estimate.value > estimate.details["plug_in"] > estimate.details["null"]
    True
    """
    if not isinstance(means, ClassMeans):
        raise InputError(f"{brief(means)} has no counts; pass the result of class_means(h, states, c)")
    energies = band_energies(to_float64(means.means, name="the class means") / means.unit)
    chosen = list(closed_frequencies(frequencies, len(energies)))
    others = len(energies) - 1
    noise = means.scaled_noise
    total = float(energies.sum())
    plug_in = h_s(means.means, chosen)
    signal = total - others * noise
    details = {
        "plug_in": plug_in,
        "noise": noise * means.unit * means.unit,
        "noise_share": others * noise / total,
        "null": len(chosen) / others,
    }
    if signal <= 0:
        return Estimate.not_fitted(
            f"sampling noise accounts for {details['noise_share']:.2f} of the between-state energy; "
            "nothing is left to attribute: probe with more sequences",
            **details,
        )
    value = float(energies[chosen].sum() - len(chosen) * noise) / signal
    if details["noise_share"] > NOISE_FLAG:
        reason = (
            f"sampling noise is {details['noise_share']:.2f} of the energy, above {NOISE_FLAG}: "
            "probe with more sequences"
        )
        return Estimate(value, status="flagged", reason=reason, details=details)
    return Estimate(value, details=details)


def gini(energies: ArrayLike) -> float:
    """Return the Gini coefficient of non-negative numbers.

    Σ_i (2i − n − 1) x_(i) / (n Σ x): 0 when all are equal, 1 − 1/n when one holds everything.
    Pass `band_energies(H)[1:]` or one side of it (equal for odd c); a leading E_0 = 0 would raise the value.

    Raises:
        InputError: NaN or Inf, not 1-D, empty, negative, or all zero.

    >>> gini([1.0, 1.0]), gini([0.0, 1.0])
    (0.0, 0.5)
    """
    x = np.sort(to_float64(energies, name="energies", ndim=1))
    if x.size == 0 or x[0] < 0 or x[-1] == 0:
        raise InputError(
            "gini needs at least one positive number and no negative one; pass energies E_r of a band"
        )
    x = x / x[-1]
    ranks = 2 * np.arange(1, x.size + 1) - x.size - 1
    return float(ranks @ x / (x.size * x.sum()))


def component_frequencies(H: Numbers, k: int) -> ComponentFrequencies:
    """Find the dominant frequency of each principal component.

    The components are the first k of the class means.

    With the SVD of the centred class means H − H̄ = U diag(σ) Vᵀ, component j has scores u_j over the
    states; its mass at r is |û_j(r)|²/Σ_{r≠0}|û_j(r)|², taken one-sided as in `h_peak`, and its share is
    σ_j²/Σσ². Where σ_j is equal to a neighbour of another frequency, rounding chooses the two components.

    Raises:
        InputError: as `band_masses`, or k outside 1..rank of the centred class means.

    >>> component_frequencies(np.cos(2 * np.pi * 2 * np.arange(7) / 7)[:, None], 1).frequency
    array([2])
    """
    k, (u, sigma, rank) = whole(k, "k"), _components(H)
    if not 1 <= k <= rank:
        raise InputError(f"k is {k}; the centred class means have {rank} components: ask for 1..{rank}")
    power = np.abs(np.fft.rfft(u[:, :k], axis=0)) ** 2
    c = len(u)
    weight = np.full(len(power), 2.0)
    weight[0] = 0.0
    if c % 2 == 0:
        weight[-1] = 1.0
    one_sided = power[1:] / (weight @ power)
    share = sigma**2 / np.sum(sigma**2)
    return ComponentFrequencies(one_sided.max(axis=0), 1 + one_sided.argmax(axis=0), share[:k])


def component_count(H: Numbers) -> int:
    """Return the rank of the centred class means: how many components `component_frequencies` can be asked for.

    Raises:
        InputError: as `band_masses`.

    >>> component_count(np.cos(2 * np.pi * 2 * np.arange(7) / 7)[:, None])
    1
    """
    return _components(H)[2]


def _components(H: Numbers) -> tuple[np.ndarray, np.ndarray, int]:
    """Return scores (c, r) and singular values (r,) of the centred class means in a unit, and their rank."""
    band_masses(H)
    means, epsilon = to_float64(H, name="H"), machine_epsilon(H)
    means = means / unit_of(means)
    centred = _centred(means)
    scale = largest(centred)
    u, sigma, _ = np.linalg.svd(centred / scale, full_matrices=False)
    # Entries are stored off by half a unit in the last place, however little of them varies.
    stored = rounding_margin(epsilon) * float(np.linalg.norm(means, axis=0).max()) / scale
    return u, sigma, int(np.sum(sigma > max(sigma[0] * max(centred.shape) * epsilon, stored)))


def top_k_band(H: Numbers, k: int) -> tuple[int, ...]:
    """Return the k conjugate pairs of largest energy.

    As a closed set; for even c, c/2 counts as a pair.

    Pairs are ranked by what they add to H_S. A set chosen from the data it is measured on is biased upward:
    compare with `h_peak_null`, or choose it on one half of the samples and measure on the other.

    Raises:
        InputError: as `band_masses`, or k outside 1..⌊c/2⌋.

    >>> top_k_band(np.cos(2 * np.pi * 2 * np.arange(7) / 7)[:, None], k=1)
    (2, 5)
    """
    masses = band_masses(H)
    c, k = len(masses), whole(k, "k")
    if not 1 <= k <= c // 2:
        raise InputError(f"k is {k}; modulus {c} has {c // 2} conjugate pairs: ask for 1..{c // 2}")
    folded = 2.0 * masses[1 : c // 2 + 1]
    if c % 2 == 0:
        folded[-1] /= 2
    return closed_set(1 + np.argsort(-folded, kind="stable")[:k], c)


def peak_band(H: Numbers) -> tuple[int, ...]:
    """Return the conjugate pair {r, c−r} of the dominant frequency.

    Raises:
        InputError: as `band_masses`.

    >>> peak_band(np.cos(2 * np.pi * 2 * np.arange(7) / 7)[:, None])
    (2, 5)
    """
    return closed_set([dominant_frequency(H)], len(to_float64(H, name="H")))


def _centred(H: Numbers) -> np.ndarray:
    """Return H − H̄ in float64, after the checks common to all functions of class means."""
    means = to_float64(H, name="H", ndim=2)
    require_modulus(len(means))
    if means.shape[1] == 0:
        raise InputError("H has no columns; pass class means of shape (c, d) with d ≥ 1")
    centred = means - means.mean(axis=0)
    # The rounding of a large mean survives one subtraction; a second one removes it.
    return centred - centred.mean(axis=0)


def _column_energies(centred: np.ndarray) -> np.ndarray:
    """(c,) Σ over columns of |DFT/c|², mirrored so that conjugate energies are equal to the last bit."""
    c = len(centred)
    half = np.fft.rfft(centred, axis=0) / c
    one_sided = np.sum(half.real**2 + half.imag**2, axis=1)
    one_sided[0] = 0.0
    energies = np.empty(c)
    energies[: len(one_sided)] = one_sided
    energies[len(one_sided) :] = one_sided[1 : c - len(one_sided) + 1][::-1]
    return energies
