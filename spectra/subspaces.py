"""Keep or drop frequencies, in class means and in the hidden space (for causal tests).

`keep_frequencies` and `drop_frequencies` filter along the states m; `frequency_subspace` turns a set of
frequencies into directions of the hidden space, which a caller can project out of a model's activations.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from spectra.arrays import EPS, Numbers, machine_epsilon, require_generator, to_float64, unit_of
from spectra.bands import closed_frequencies
from spectra.covariance import rounding_margin
from spectra.errors import InputError
from spectra.fourier import band_masses


def keep_frequencies(H: Numbers, frequencies: Iterable[int]) -> np.ndarray:
    """Keep only the frequencies S of class means.

    (c, d) H̄ + Σ_{r∈S} Ĥ_r e^{2πi r m/c}.

    The mean over states is kept here and in `drop_frequencies`, so keep + drop − H̄ = H (for centred H,
    keep + drop = H).

    Raises:
        InputError: NaN or Inf, not a (c, d) array with c ≥ 3, or S not a closed set without 0.

    >>> H = np.arange(15.0).reshape(5, 3)
    >>> kept, dropped = keep_frequencies(H, [1, 4]), drop_frequencies(H, [1, 4])
    >>> np.allclose(kept + dropped - H.mean(axis=0), H)
    True
    """
    return _filter(H, frequencies, inside=True)


def drop_frequencies(H: Numbers, frequencies: Iterable[int]) -> np.ndarray:
    """Remove the frequencies S from class means.

    (c, d) H − Σ_{r∈S} Ĥ_r e^{2πi r m/c}; the mean over states stays.

    Raises:
        InputError: as `keep_frequencies`.

    >>> H = np.cos(2 * np.pi * np.arange(5) / 5)[:, None] + 3.0
    >>> drop_frequencies(H, [1, 4]).round(6).ravel()
    array([3., 3., 3., 3., 3.])
    """
    return _filter(H, frequencies, inside=False)


def frequency_subspace(H: Numbers, frequencies: Iterable[int]) -> np.ndarray:
    """Return a basis of the hidden directions that carry S.

    (d, k) orthonormal, strongest first; k ≤ min(|S|, d).

    The span of {Re Ĥ_r, Im Ĥ_r : r ∈ S}: the right singular vectors of the class means filtered to S, up to
    the numerical rank in the dtype of H. Removing h → h − Q Qᵀ(h − h̄) removes every trace of S from the class
    means; other frequencies lose what they have in these directions, which is why a control is needed
    (`control_subspace`).

    Raises:
        InputError: as `keep_frequencies`, or H has no energy at S.

    >>> H = np.cos(2 * np.pi * np.arange(5) / 5)[:, None] * [0.0, 1.0]
    >>> abs(frequency_subspace(H, [1, 4])).round(6)
    array([[0.],
           [1.]])
    """
    means = _scaled(H)
    return _row_space(_carried(means, frequencies), _rounding(H, means), name="frequencies S").T


def control_subspace(H: Numbers, frequencies: Iterable[int], generator: np.random.Generator) -> np.ndarray:
    """Draw a random subspace orthogonal to that of S.

    (d, k) orthonormal basis of directions of H orthogonal to `frequency_subspace(H, S)`, same k.

    Uniform (Haar) over k-dimensional subspaces of the row space of (H − H̄)(I − QQᵀ): the class
    means vary along these directions, so the control asks whether S matters more than other directions. It has the
    same dimension, not the same energy.

    Args:
        H: (c, d) class means.
        frequencies: the closed set S under test.
        generator: numpy generator that draws the control; draw several and compare with their spread.

    Raises:
        InputError: as `frequency_subspace`, or fewer than k directions are left.

    >>> H = np.random.default_rng(0).standard_normal((7, 6))
    >>> basis, control = frequency_subspace(H, [1, 6]), control_subspace(H, [1, 6], np.random.default_rng(1))
    >>> control.shape == basis.shape, np.allclose(basis.T @ control, 0)
    (True, True)
    """
    return control_subspaces(H, frequencies, generator, 1)[0]


def control_subspaces(
    H: Numbers, frequencies: Iterable[int], generator: np.random.Generator, count: int
) -> list[np.ndarray]:
    """Draw several independent controls of `control_subspace`, from one decomposition of the class means.

    Arguments and errors as there.

    >>> H = np.random.default_rng(0).standard_normal((7, 6))
    >>> first, _ = control_subspaces(H, [1, 6], np.random.default_rng(1), 2)
    >>> np.array_equal(first, control_subspace(H, [1, 6], np.random.default_rng(1)))
    True
    """
    require_generator(generator)
    means, frequencies = _scaled(H), tuple(frequencies)
    noise = _rounding(H, means)
    basis = _row_space(_carried(means, frequencies), noise, name="frequencies S").T
    centred = means - means.mean(axis=0)
    rest = centred - (centred @ basis) @ basis.T
    k = basis.shape[1]
    directions = _row_space(rest, noise, name="remaining directions", need=k)
    controls = []
    for _ in range(count):
        # A Gaussian matrix has a rotation-invariant column span, also after a projection, so that its QR factor spans a
        # uniform subspace. The projection does not depend on the basis that the decomposition happens to return, whose
        # signs and rotations differ between processors.
        drawn = generator.standard_normal((means.shape[1], k))
        control, _ = np.linalg.qr(directions.T @ (directions @ drawn))
        controls.append(control - basis @ (basis.T @ control))
    return controls


def _filter(H: Numbers, frequencies: Iterable[int], *, inside: bool) -> np.ndarray:
    means = _scaled(H)
    carried = _carried(means, frequencies)
    filtered = means.mean(axis=0) + carried if inside else means - carried
    return filtered * unit_of(to_float64(H, name="H"))


def _scaled(H: Numbers) -> np.ndarray:
    """(c, d) class means in a unit (a power of two, mostly 1) that keeps their sums within float64."""
    means = to_float64(H, name="H", ndim=2)
    if means.shape[1] == 0:
        raise InputError("H has no columns; pass class means of shape (c, d) with d ≥ 1")
    return means / unit_of(means)


def _carried(H: Numbers, frequencies: Iterable[int]) -> np.ndarray:
    """(c, d) Σ_{r∈S} Ĥ_r e^{2πi r m/c}."""
    means = to_float64(H, name="H", ndim=2)
    c = len(means)
    chosen = closed_frequencies(frequencies, c)
    mask = np.zeros(c // 2 + 1, dtype=bool)
    mask[[r for r in chosen if r <= c // 2]] = True
    transform = np.fft.rfft(means - means.mean(axis=0), axis=0)
    return np.fft.irfft(np.where(mask[:, None], transform, 0.0), n=c, axis=0)


def _rounding(H: Numbers, means: np.ndarray) -> float:
    """What rounding of class means, as they were handed in, and of arithmetic can put into a singular value."""
    band_masses(H)
    centred = float(np.linalg.norm(means - means.mean(axis=0), ord=2))
    stored = rounding_margin(machine_epsilon(H)) * float(np.linalg.norm(means, axis=0).max())
    return max(10 * max(means.shape) * EPS * centred, stored)


def _row_space(x: np.ndarray, noise: float, *, name: str, need: int = 1) -> np.ndarray:
    """(k, d) right singular vectors of x whose singular value is above rounding."""
    _, sigma, rows = np.linalg.svd(x, full_matrices=False)
    rank = int(np.sum(sigma > noise))
    if rank < need:
        raise InputError(
            f"the {name} span {rank} dimensions of the class means and {need} are needed; "
            "choose a smaller set of frequencies, or one that the class means carry"
        )
    return rows[:rank]
