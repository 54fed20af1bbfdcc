"""Predict what a Johnson–Lindenstrauss sketch of the updates does to the spectral edge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spectra.arrays import whole
from spectra.errors import InputError
from spectra.nulls.edge import edge_ratios, find_edges, largest_k, noise_factors
from spectra.shown import Shown
from spectra.spectrum import SpectrumLike, as_spectrum


@dataclass(frozen=True)
class SketchError(Shown):
    """Hold the error of one ratio r = σ_j/σ_{j+1} of a window whose updates are sketched.

    Attributes:
        j: the ratio's index.
        ratio: r without a sketch.
        mean: mean of |r̃/r − 1|.
        bias: mean of r̃/r − 1.
        low: 2.5 % quantile of r̃/r − 1.
        high: 97.5 % quantile of r̃/r − 1.
        quantile_95: 95 % quantile of |r̃/r − 1|.
        kept: share of sketches with the same k*.

    >>> sketch_error([4.0, 3.0, 1.0], size=300, draws=200).kept
    1.0
    """

    j: int
    ratio: float
    mean: float
    bias: float
    low: float
    high: float
    quantile_95: float
    kept: float


def sketch_error(
    spectrum: SpectrumLike,
    size: int,
    *,
    j: int | None = None,
    most: int | None = None,
    draws: int = 4000,
    seed: int = 0,
) -> SketchError:
    """Simulate the error of σ_j/σ_{j+1} when updates are projected to d random directions.

    With Φ of independent N(0, 1/d) entries, the Gram matrix of the sketched window is G^{1/2} A G^{1/2}, A a Wishart
    matrix of d degrees of freedom divided by d: the error depends on the spectrum of the window alone, not on P. A
    sketch is as it should be if its error lies between ``low`` and ``high``. The count sketch of `SketchedWindow` has
    the same first two moments.

    Args:
        spectrum: of kind "singular", or eigenvalues of the Gram matrix as `Spectrum` takes them. Zeros are left out.
        size: d, at least the number of values that are not 0.
        j: which ratio, k* of the spectrum when None.
        most: J, the largest k* sought, that of all values when None.
        draws: number of simulated sketches.
        seed: of the simulation.

    Raises:
        InputError: fewer than two values that are not 0, or an argument outside its range.

    >>> error = sketch_error([3.05, 3.05, *[1.0] * 8], size=100, j=2)
    >>> round(error.ratio, 3), error.bias < -0.15
    (1.746, True)
    """
    values = as_spectrum(spectrum).singular_values
    values = values[values > 0] / values[0]
    held = len(values)
    if held < 2:
        raise InputError("the spectrum has one value that is not 0; a ratio needs two")
    size, draws, seed = whole(size, "size"), whole(draws, "draws", least=1), whole(seed, "seed", least=0)
    if size < held:
        raise InputError(
            f"size is {size}; a sketch needs at least one direction for each of the {held} values"
        )
    most = largest_k(most, held)
    k = int(find_edges(values[None], most)[0][0])
    index = k if j is None else whole(j, "j", least=1, most=held - 1)
    ratio = float(edge_ratios(values)[index - 1])
    # 1/√d is common to all values.
    noise = noise_factors(held, size, draws, np.random.default_rng(seed))
    sketched = np.linalg.svd(values[:, None] * noise, compute_uv=False)
    errors = edge_ratios(sketched)[:, index - 1] / ratio - 1.0
    low, high = np.quantile(errors, [0.025, 0.975])
    return SketchError(
        index,
        ratio,
        float(np.abs(errors).mean()),
        float(errors.mean()),
        float(low),
        float(high),
        float(np.quantile(np.abs(errors), 0.95)),
        float(np.mean(find_edges(sketched, most)[0] == k)),
    )
