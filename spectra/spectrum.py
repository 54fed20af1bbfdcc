"""Define the spectrum, the value that every estimator takes or returns.

A spectrum is either the eigenvalues λ of a covariance or the singular values σ of a matrix. Every
summary uses *energies* λ (λ = σ² for singular values), so that exponents of activations, gradients
and weights can be compared; an exponent on σ is half the exponent on λ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from spectra.arrays import Numbers, brief, require_squares, to_float64, unit, whole
from spectra.errors import InputError
from spectra.results import Estimate
from spectra.shown import data_frame, sparkline, table_html

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from spectra.plots import Scale, Window

Kind = Literal["eigenvalue", "singular"]

# LAPACK returns eigenvalues of a positive semi-definite matrix as small as -eps·λ_1·size; a value below this share
# of λ_1 is a defect of the estimator that produced it, not rounding.
NEGATIVE_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False, init=False)
class Spectrum:
    """Hold descending eigenvalues or singular values with n, d and centring.

    Args:
        values: (r,) eigenvalues λ or singular values σ, in any order; stored descending and read-only.
            Rounding-level negative eigenvalues (above ``-1e-9·max``) are set to 0.
        kind: ``"eigenvalue"`` or ``"singular"``.
        n: number of samples (rows) that the spectrum was computed from, if known.
        d: ambient dimension (columns), if known.
        centred: whether the mean was removed before the second moment was taken, if known.

    ``np.asarray(spectrum)`` gives the values. Spectra are equal when their values, kind, n, d and centring are.

    Raises:
        InputError: empty, not 1-D, NaN or Inf, negative, all zero, unknown kind, or n or d below 1 or not whole.

    >>> Spectrum([1.0, 4.0, 2.0], n=10, d=3)
    Spectrum(eigenvalue, [4, 2, 1, …] of 3, n=10, d=3, centred=None)
    >>> np.asarray(Spectrum([1.0, 4.0]))
    array([4., 1.])
    """

    values: np.ndarray
    kind: Kind = "eigenvalue"
    n: int | None = None
    d: int | None = None
    centred: bool | None = None

    def __init__(
        self,
        values: Numbers,
        kind: Kind = "eigenvalue",
        n: int | None = None,
        d: int | None = None,
        centred: bool | None = None,
    ) -> None:
        values = to_float64(values, name="spectrum values", ndim=1)
        if kind not in ("eigenvalue", "singular"):
            raise InputError(f"kind is {kind!r}; it must be 'eigenvalue' or 'singular'")
        if centred is not None and not isinstance(centred, bool | np.bool_):
            raise InputError(f"centred is {brief(centred)}; it must be True, False or None")
        n, d = (None if size is None else whole(size, name, least=1) for name, size in (("n", n), ("d", d)))
        if values.size == 0:
            raise InputError("the spectrum is empty; it needs at least one value")
        top = float(np.max(np.abs(values)))
        if top == 0.0:
            raise InputError("the spectrum is all zeros; the matrix it came from has no variation to measure")
        lowest = float(values.min())
        if lowest < 0 and (kind == "singular" or lowest < -NEGATIVE_TOLERANCE * top):
            raise InputError(
                f"the spectrum has a negative value ({lowest:.3g}, largest {top:.3g}); energies are never negative, "
                "so compute the covariance centred and in float64"
            )
        values = np.sort(np.maximum(values, 0.0))[::-1].copy()
        fields = {"values": values, "kind": kind, "n": n, "d": d}
        self.__setstate__({**fields, "centred": None if centred is None else bool(centred)})

    def __setstate__(self, state: dict[str, object]) -> None:
        # Arrays forget in a copy, or on disk, that they are read-only.
        self.__dict__.update(state)
        self.values.setflags(write=False)

    @property
    def energies(self) -> np.ndarray:
        """Return the (r,) energies λ, descending.

        The values themselves, or their squares for singular values.

        Raises:
            InputError: singular values whose squares float64 cannot hold.

        >>> Spectrum([2.0, 1.0], "singular").energies
        array([4., 1.])
        """
        if self.kind == "eigenvalue":
            return self.values
        require_squares(float(self.values[0]), "the largest singular value")
        return self.values**2

    @property
    def singular_values(self) -> np.ndarray:
        """Return the (r,) singular values σ, descending.

        The values themselves, or square roots of the energies.

        >>> Spectrum([4.0, 1.0]).singular_values
        array([2., 1.])
        """
        return self.values if self.kind == "singular" else np.sqrt(self.values)

    @property
    def shares(self) -> np.ndarray:
        """Return the (r,) energies divided by their sum.

        >>> Spectrum([3.0, 1.0]).shares
        array([0.75, 0.25])
        """
        # Dividing by the largest value first keeps squares and sums from over- or underflowing.
        scaled = self.values / self.values[0]
        energies = scaled if self.kind == "eigenvalue" else scaled**2
        return energies / energies.sum()

    @property
    def trace(self) -> float:
        """Return Σλ, in squared units of the data.

        Raises:
            InputError: a sum that float64 cannot hold.

        >>> Spectrum([3.0, 1.0]).trace
        4.0
        """
        energies = self.energies
        # Sums overflow only where the largest value is within their number of the limit.
        size = unit(float(energies[0]))
        total = float((energies / size).sum()) * size
        if total == np.inf:
            raise InputError(
                f"the trace of energies up to {energies[0]:.3g} exceeds float64; divide them first"
            )
        return total

    @property
    def aspect(self) -> float | None:
        """Return n/d, or None where either is unknown.

        >>> Spectrum([3.0, 1.0], n=10, d=2).aspect
        5.0
        """
        return None if self.n is None or self.d is None else self.n / self.d

    @property
    def max_rank(self) -> int:
        """Return the largest rank that n, d and centring allow.

        >>> Spectrum([3.0, 1.0, 0.0], n=2, centred=True).max_rank
        1
        """
        bounds = [len(self.values)]
        if self.d is not None:
            bounds.append(self.d)
        if self.n is not None:
            bounds.append(max(self.n - 1, 1) if self.centred else self.n)
        return min(bounds)

    def __len__(self) -> int:
        return len(self.values)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        null: bool = True,
        window: Window | Sequence[Window] | None = None,
        fit: Estimate | None = None,
        scale: Scale = "energy",
        label: str | None = None,
        color: str | None = None,
    ) -> Axes:
        """Draw the energies by rank on logarithmic axes, with their null and fitted lines.

        Args:
            ax: where to draw; a new figure by default.
            null: whether to draw the middle 95 % of noise (`noise_quantiles`) of the same n, d, centring and total
                energy, in grey; centring that is unknown is none. Where n or d is unknown the legend says so.
            window: ranks (lo, hi), or several, in which `window_exponent` is fitted and drawn.
            fit: an exponent α of the energies in the one window, to show in place of that fit: with an interval, from
                `window_exponent_interval`.
            scale: "energy" draws λ (σ² of singular values), "share" draws λ/Σλ.
            label: name in the legend.
            color: of the line; by default the next colour of the axes.

        Energies of 0 have no place on these axes; the legend counts them.

        Raises:
            InputError: a window of fewer than three ranks, a fit without one window, another scale, or energies that
                float64 cannot hold (draw shares of them).
            ImportError: without matplotlib.

        >>> ax = Spectrum(np.arange(1, 51) ** -1.5, n=100_000, d=50).plot(window=(10, 40))
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['n = 100000, d = 50', '95 % of noise', 'ranks 10–40: α = 1.50']
        """
        from spectra.plots import plot_spectrum

        return plot_spectrum(
            self, ax, null=null, window=window, fit=fit, scale=scale, label=label, color=color
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each rank: rank, energy, singular_value, share.

        Raises:
            InputError: singular values whose squares float64 cannot hold.
            ImportError: without pandas.

        >>> Spectrum([1.0, 3.0]).to_frame()["share"].tolist()
        [0.75, 0.25]
        """
        return data_frame(
            {
                "rank": np.arange(1, len(self) + 1),
                "energy": self.energies,
                "singular_value": self.singular_values,
                "share": self.shares,
            }
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spectrum):
            return NotImplemented
        same = (self.kind, self.n, self.d, self.centred) == (other.kind, other.n, other.d, other.centred)
        return same and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash((self.kind, self.n, self.d, self.centred, len(self), float(self.values[0])))

    def _repr_html_(self) -> str:
        from spectra.summaries import participation_ratio, rankme, stable_rank

        fields = {
            "values": f"{len(self)} {self.kind}s".replace("singulars", "singular values"),
            "n": self.n,
            "d": self.d,
            "centred": self.centred,
            "RankMe": rankme(self),
            "participation ratio": participation_ratio(self),
            "stable rank": stable_rank(self),
        }
        return table_html("Spectrum", fields, sparkline(self.shares))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        head = ", ".join(f"{v:.4g}" for v in self.values[:3])
        return f"Spectrum({self.kind}, [{head}, …] of {len(self)}, n={self.n}, d={self.d}, centred={self.centred})"


SpectrumLike: TypeAlias = Spectrum | Numbers


def as_spectrum(x: SpectrumLike) -> Spectrum:
    """Return a Spectrum; an array is read as eigenvalues.

    >>> as_spectrum([1.0, 3.0]).shares
    array([0.75, 0.25])
    """
    return x if isinstance(x, Spectrum) else Spectrum(to_float64(x, name="spectrum", ndim=1))
