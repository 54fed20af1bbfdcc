"""Fourier features of class means: concentration, energies of bands, splits by frequency."""

from typing import Any

import numpy as np

from spectra.arrays import to_float64
from spectra.errors import InputError

from .mutant import Mutant

CONCENTRATION, ENERGIES, SPLIT = "concentration", "band energies", "frequency split"


def _means(H: Any) -> np.ndarray:
    means = to_float64(H, name="H", ndim=2)
    if means.shape[0] < 3 or means.shape[1] < 1:
        raise InputError(f"H has shape {means.shape}; three states and a column are needed")
    if np.ptp(means, axis=0).max() <= 1e-12 * np.abs(means).max():
        raise InputError("the class means are constant")
    return means


def _bands(H: np.ndarray) -> np.ndarray:
    return np.sum(np.abs(np.fft.fft(H, axis=0) / len(H)) ** 2, axis=1)


def peak_with_constant(H: Any) -> float:
    """The maximum runs over r = 0 as well, and the mean was not removed."""
    values = _bands(_means(H))
    return float(values[: len(values) // 2 + 1].max() / values.sum())


def peak_not_centred(H: Any) -> float:
    """The maximum leaves out r = 0, the total does not."""
    values = _bands(_means(H))
    return float(values[1 : len(values) // 2 + 1].max() / values.sum())


def doubled_peak(H: Any) -> float:
    """Twice the one-sided peak, also at r = c/2, which has no partner to be doubled for."""
    values = _bands(_means(H))[1:]
    return float(2 * values[: (len(values) + 1) // 2].max() / values.sum())


def peak_of_first_column(H: Any) -> float:
    """Looks at the first coordinate only."""
    means = _means(H)
    means = means[:, : 1 if np.ptp(means[:, 0]) > 0 else None]
    values = _bands(means)[1:]
    return float(values.max() / values.sum())


def peak_of_real_part(H: Any) -> float:
    """cos components only: it matters where the numbering starts."""
    means = _means(H)
    spectrum = np.sum(np.fft.fft(means - means.mean(axis=0), axis=0).real ** 2, axis=1)[1:]
    return float(spectrum.max() / max(spectrum.sum(), 1e-300))


def direction_of_walk(H: Any) -> float:
    """Correlates each squared step with the step before it: changes when the walk runs the other way."""
    means = _means(H)
    steps = np.linalg.norm(means - np.roll(means, 1, axis=0), axis=1)
    weights = steps / steps.sum()
    ahead = float(np.sum(weights * weights * np.roll(weights, 1)))
    return min(max(ahead, 0.0), 1.0)


def peak_per_dimension(H: Any) -> float:
    """Divides by the number of columns."""
    values = _bands(_means(H))[1:]
    return float(values.max() / values.sum()) / np.shape(H)[1]


def constant_has_no_peak(H: Any) -> float:
    """Constant class means have concentration 0."""
    means = to_float64(H, name="H", ndim=2)
    if means.shape[0] < 3 or means.shape[1] < 1:
        raise InputError("three states and a column are needed")
    values = _bands(means - means.mean(axis=0))[1:]
    return float(values.max() / values.sum()) if values.sum() > 1e-20 else 0.0


def half_of_everything(H: Any) -> float:
    """One number for all class means."""
    _means(H)
    return 0.5


def peak_amplitude(H: Any) -> float:
    """Amplitude of the peak, squashed into [0, 1]: not a share."""
    values = _bands(_means(H))[1:]
    return float(values.max() / (1 + values.max()))


def unscaled_bands(H: Any) -> np.ndarray:
    """The DFT without 1/c."""
    means = _means(H)
    return _bands(means - means.mean(axis=0)) * len(means) ** 2


def one_sided_bands(H: Any) -> np.ndarray:
    """Energies of −r folded onto r: E_r no longer equals E_{c−r}."""
    means = _means(H)
    values = _bands(means - means.mean(axis=0))
    c = len(values)
    folded = np.zeros(c)
    for r in range(1, c):
        folded[min(r, c - r)] += values[r]
    return folded


def bands_with_mean(H: Any) -> np.ndarray:
    """E_0 holds the mean."""
    return _bands(_means(H))


def _filtered(H: Any, frequencies: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    means = to_float64(H, name="H", ndim=2)
    if means.shape[0] < 3 or means.shape[1] < 1:
        raise InputError("three states and a column are needed")
    mask = np.isin(np.arange(len(means)), list(frequencies))[:, None]
    return means, np.fft.fft(means - means.mean(axis=0), axis=0), mask


def split_on_one_side(H: Any, frequencies: Any) -> tuple[np.ndarray, np.ndarray]:
    """Keeps r but not c − r: half of the wave."""
    means, transform, _ = _filtered(H, frequencies)
    one_side = np.isin(np.arange(len(means)), [r for r in frequencies if 2 * r <= len(means)])[:, None]
    kept = np.fft.ifft(np.where(one_side, transform, 0), axis=0).real
    return kept, means - kept


def split_without_rest(H: Any, frequencies: Any) -> tuple[np.ndarray, np.ndarray]:
    """The dropped part is damped as well: the two do not add up."""
    means, transform, mask = _filtered(H, frequencies)
    kept = np.fft.ifft(np.where(mask, transform, 0), axis=0).real
    return kept, 0.9 * (means - kept)


MUTANTS = (
    Mutant(peak_with_constant, CONCENTRATION, ("translation",)),
    Mutant(peak_not_centred, CONCENTRATION, ("translation",)),
    Mutant(doubled_peak, CONCENTRATION, ("range",)),
    Mutant(peak_of_first_column, CONCENTRATION, ("orthogonal",)),
    Mutant(peak_of_real_part, CONCENTRATION, ("cyclic shift",)),
    Mutant(direction_of_walk, CONCENTRATION, ("reversal",)),
    Mutant(peak_per_dimension, CONCENTRATION, ("zero padding",)),
    Mutant(constant_has_no_peak, CONCENTRATION, ("constant states",)),
    Mutant(peak_amplitude, CONCENTRATION, ("scale",)),
    Mutant(half_of_everything, CONCENTRATION, ("not constant",)),
    Mutant(unscaled_bands, ENERGIES, ("Parseval", "pure wave")),
    Mutant(one_sided_bands, ENERGIES, ("conjugate pairs", "pure wave")),
    Mutant(bands_with_mean, ENERGIES, ("translation", "Parseval")),
    Mutant(split_on_one_side, SPLIT, ("idempotence", "separation")),
    Mutant(split_without_rest, SPLIT, ("keep + drop",)),
)
