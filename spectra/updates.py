"""Find the spectral edge of training: singular values of a window of updates.

X is the W×P matrix of the last W flattened updates; its singular values come from the W×W Gram matrix X Xᵀ,
of which each step recomputes one row. The edge is k* = argmax_j σ_j/σ_{j+1} (arXiv 2603.15678, W = 10).

Momentum already gives k* = 1 in every window of noise: an exponential moving average of pure noise is strongly
correlated in time, so compare an observed edge with `edge_null` of the same momentum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from spectra.arrays import EPS, brief, real, require_strided, whole
from spectra.covariance import resolved
from spectra.errors import InputError
from spectra.nulls.edge import edge_null, window_edge
from spectra.results import Status
from spectra.spectrum import Spectrum
from spectra.update_windows import CHUNK, WINDOW, SketchedWindow, UpdateWindow

__all__ = ["CHUNK", "WINDOW", "SketchedWindow", "SpectralEdge", "UpdateWindow", "spectral_edge"]


@dataclass(frozen=True)
class SpectralEdge:
    """Hold the edge of one window and its comparison with noise.

    Attributes:
        k: k*, the number of directions above the edge, 1..W−1.
        gap: σ_k/σ_{k+1}, inf where the window has rank k.
        spectrum: σ of the window (kind "singular", n = W, d = P, uncentred).
        p_value: share of null windows with the same k* and a gap at least as large.
        null_k: the most frequent k* of the null.
        null_gap: median gap of the null at its own edge.
        status: "ok", or "flagged" when a sketch does not resolve all values, or the window has a lower rank than noise
            of its shape (a zero update, a repeated one).
        reason: why it is flagged.

    >>> edge = spectral_edge([[9.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, 1.0]], draws=50)
    >>> edge.k, round(edge.gap, 6)
    (2, 8.0)
    """

    k: int
    gap: float
    spectrum: Spectrum
    p_value: float
    null_k: int
    null_gap: float
    status: Status = "ok"
    reason: str = ""


def spectral_edge(
    window: UpdateWindow | SketchedWindow | Any,
    *,
    momentum: float = 0.0,
    stride: int | None = None,
    effective_dimension: float | None = None,
    draws: int = 1000,
) -> SpectralEdge:
    """Find the edge of a window of updates and its significance.

    k* = argmax_j σ_j/σ_{j+1}.

    The null is W consecutive values of an exponential moving average, with the given momentum, of white noise
    (`edge_null`). The p-value is the share of null windows with the same k* and a gap at least as large:
    p = (1 + #{null windows with k* = k and gap ≥ observed}) / (1 + draws).

    Args:
        window: `UpdateWindow` or `SketchedWindow` with at least two updates, or a (W, P) array or tensor, or a
            sequence of updates as `UpdateWindow.push` takes them.
        momentum: of the optimiser, in [0, 1); 0 asks only whether the updates are more than independent
            noise.
        stride: training steps from one snapshot of the weights to the next, needed with momentum. The null is that of
            successive steps, 1; further apart the updates of an average forget each other, other windows of noise are
            usual, and the stride is refused.
        effective_dimension: number of independent directions of the null's noise, P when None. Gradient
            noise is far from isotropic; pass (tr Σ)²/tr Σ² of it where known, since a larger dimension
            makes the null narrower.
        draws: number of null windows; the smallest p-value is 1/(draws + 1).

    Raises:
        InputError: fewer than two updates, all zero, NaN or Inf, momentum outside [0, 1), or momentum with a stride
            that is not given or not 1.

    >>> spectral_edge([[9.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, 1.0]], draws=50).k
    2
    """
    momentum = real(momentum, "momentum")
    _require_stride(stride, momentum)
    gram, size, error, rounding = _gram_of(window)
    held = len(gram)
    if held < 2:
        raise InputError(f"the window holds {held} updates; an edge needs at least two")
    energies = np.linalg.eigvalsh(gram)[::-1]
    energies = np.where(energies > held * EPS * max(energies[0], 0.0), energies, 0.0)
    spectrum = Spectrum(np.sqrt(energies), kind="singular", n=held, d=size, centred=False)
    # A sketch cannot distinguish values below its error from 0: the edge is not sought among them.
    above = held if error == 0 else max(2, int(np.sum(energies > error)))
    k, gap = window_edge(spectrum.values[:above])
    null = edge_null(held, size if effective_dimension is None else effective_dimension, momentum, draws)
    reasons = _degenerate(gram, energies, size)
    known = resolved(spectrum.values, np.sort(rounding)[::-1])
    if known <= k < held and spectrum.values[k] > 0:
        reasons.append(
            f"what follows the edge is rounding of the updates as they were handed in, above which {known} values lie: "
            "the gap is a lower bound"
        )
    if error > 0 and (above < held or energies[1] <= error):
        reasons.append(
            f"only energies above the sketch's error {error:.3g} are resolved "
            f"({int(np.sum(energies > error))} of "
            f"{held}), and the edge is sought among these; use a larger sketch"
        )
    status: Status = "flagged" if reasons else "ok"
    return SpectralEdge(k, gap, spectrum, null.p_value(k, gap), null.k, null.gap, status, "; ".join(reasons))


def _require_stride(stride: int | None, momentum: float) -> None:
    if stride is None and momentum > 0:
        raise InputError(
            "the steps between the snapshots are not given, and the null of momentum depends on them: pass stride=1 "
            "for the updates of successive steps"
        )
    if stride is not None and whole(stride, "stride", least=1) > 1:
        raise InputError(
            f"stride is {stride}; the null knows the updates of successive steps only: take snapshots at every step of "
            "the window (stride=1)"
        )


def _degenerate(gram: np.ndarray, energies: np.ndarray, size: int) -> list[str]:
    """Return why a window has a lower rank than noise of its shape, where it has."""
    held, rank = len(gram), int(np.count_nonzero(energies))
    if rank >= min(held, size):
        return []
    squares = np.diag(gram)
    zero = [str(i + 1) for i in np.flatnonzero(squares == 0)]
    if zero:
        which = (
            f"update {zero[0]} of {held} is" if len(zero) == 1 else f"updates {', '.join(zero)} of {held} are"
        )
        return [f"{which} zero (skipped steps?): the window has rank {rank}, and no value follows the edge"]
    return [
        f"the window has rank {rank} of {min(held, size)}: some of its updates repeat or combine others up to "
        "rounding, and no value follows the edge"
    ]


def _gram_of(window: UpdateWindow | SketchedWindow | Any) -> tuple[np.ndarray, int, float, np.ndarray]:
    """Return the Gram matrix, P, its standard error and what rounding can add to each update."""
    if isinstance(window, UpdateWindow | SketchedWindow):
        if window.size is None:
            raise InputError("the window is empty; push at least two updates")
        rounding = window.rounding if isinstance(window, UpdateWindow) else np.zeros(len(window.gram))
        return window.gram, window.size, window.gram_error, rounding
    if not isinstance(window, Tensor | np.ndarray | list | tuple):
        raise InputError(f"the window is {brief(window)}; pass (W, P) updates, or an UpdateWindow")
    if isinstance(window, Tensor):
        require_strided(window, "the window")
    if (isinstance(window, Tensor | np.ndarray) and window.ndim != 2) or len(window) < 1:
        shape = (len(window),) if isinstance(window, list | tuple) else tuple(window.shape)
        raise InputError(f"the window has shape {shape}; pass (W, P) updates, or an UpdateWindow")
    exact = UpdateWindow(max(len(window), 2))
    for row in window:
        exact.push(row)
    return _gram_of(exact)
