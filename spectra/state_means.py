"""Average hidden states over the samples in each state of a cyclic band."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy

from spectra.arrays import Numbers, require_squares, to_float64, unit_of
from spectra.bands import listed, require_modulus
from spectra.errors import InputError
from spectra.groups import Labels
from spectra.shown import data_frame, table_html

if TYPE_CHECKING:
    import pandas as pd


class ClassMeans(NamedTuple):
    """Hold class means with the numbers that determine their noise.

    Attributes:
        means: (c, d) float64, H[m], the average of h over the samples in state m.
        counts: (c,) int, n_m ≥ 1.
        within_trace: (c,) tr Σ_m, the trace of the unbiased within-state covariance (units of h/unit, squared);
            NaN where n_m = 1.
        unit: a power of two, 1 unless h is so large or small (1e±66) that its squares leave float64.

    >>> ClassMeans(np.zeros((3, 2)), np.full(3, 4), np.full(3, 6.0)).noise
    0.5
    """

    means: np.ndarray
    counts: np.ndarray
    within_trace: np.ndarray
    unit: float = 1.0

    def _repr_html_(self) -> str:
        return table_html("ClassMeans", self._asdict())

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each state: state, count, within_trace (in units of unit²).

        Raises:
            ImportError: without pandas.

        >>> ClassMeans(np.zeros((3, 2)), np.full(3, 4), np.full(3, 6.0)).to_frame()["count"].tolist()
        [4, 4, 4]
        """
        states = np.arange(len(self.counts))
        return data_frame({"state": states, "count": self.counts, "within_trace": self.within_trace})

    @property
    def noise(self) -> float:
        """Return the sampling noise ν added to each energy E_r.

        ν = c⁻² Σ_m tr Σ_m / n_m, in units of E_r, for r ≠ 0.

        Raises:
            InputError: a state with a single sample, whose within-state covariance is unknown, or a unit whose square
                float64 cannot hold.
        """
        require_squares(self.unit, "the unit of the class means")
        return self.scaled_noise * self.unit**2

    @property
    def scaled_noise(self) -> float:
        """Return ν in units of unit².

        Raises:
            InputError: a state with a single sample.
        """
        single = np.flatnonzero(self.counts < 2)
        if single.size:
            raise InputError(
                f"states {listed(single)} were seen once; the noise of a class mean needs at least two "
                "samples a state: probe with more sequences"
            )
        return float(np.sum(self.within_trace / self.counts) / len(self.counts) ** 2)


def class_means(h: Numbers, states: Labels, c: int) -> ClassMeans:
    """Average hidden states over the samples in each state.

    H[m] = (1/n_m) Σ_{i: s_i = m} h_i.

    Args:
        h: (n, d) hidden states, numpy or torch, any float dtype.
        states: (n,) integers in 0..c−1.
        c: modulus, at least 3.

    Returns:
        ClassMeans of float64 means (c, d), counts (c,) and within-state traces (c,).

    Raises:
        InputError: NaN or Inf, shapes that do not match, a state outside 0..c−1, or without samples.

    >>> means = class_means([[1.0], [3.0], [0.0], [2.0], [5.0], [7.0]], [0, 0, 1, 1, 2, 2], c=3)
    >>> means.means.ravel(), means.counts
    (array([2., 1., 6.]), array([2, 2, 2]))
    """
    c = require_modulus(c)
    data = to_float64(h, name="h", ndim=2)
    labels = to_float64(states, name="states", ndim=1)
    if len(labels) != len(data) or data.size == 0:
        raise InputError(
            f"h has shape {data.shape} and states {labels.shape}; they need one state per row, d ≥ 1"
        )
    index = labels.astype(np.int64)
    if np.any(index != labels) or index.min() < 0 or index.max() >= c:
        raise InputError(
            f"states lie in {labels.min():g}..{labels.max():g}; they must be integers in 0..{c - 1} "
            "(subtract the band's offset, and drop samples outside the band)"
        )
    counts = np.bincount(index, minlength=c)
    missing = np.flatnonzero(counts == 0)
    if missing.size:
        raise InputError(
            f"states {listed(missing)} of {c} have no sample, so their class means are unknown; "
            "probe with more sequences"
        )
    # Shifting by the grand mean first keeps the sums small, so that mean ≫ standard deviation costs no
    # digits.
    unit = unit_of(data)
    data = data / unit if unit != 1 else data
    centre = data.mean(axis=0)
    residual = data - centre
    members = scipy.sparse.csr_array(
        (np.ones(len(index)), index, np.arange(len(index) + 1)), shape=(len(index), c)
    )
    offsets = np.asarray(members.T @ residual) / counts[:, None]
    residual -= offsets[index]
    scatter = np.bincount(index, weights=np.einsum("nd,nd->n", residual, residual), minlength=c)
    within = np.where(counts > 1, scatter / np.maximum(counts - 1, 1), np.nan)
    return ClassMeans((offsets + centre) * unit, counts, within, unit)
