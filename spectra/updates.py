"""Find the spectral edge of training: singular values of a window of updates.

X is the W×P matrix of the last W flattened updates; its singular values come from the W×W Gram matrix X Xᵀ,
of which each step recomputes one row. The edge is k* = argmax_j σ_j/σ_{j+1} (arXiv 2603.15678, W = 10).

Momentum already gives k* = 1 in every window of noise: an exponential moving average of pure noise is strongly
correlated in time, so compare an observed edge with `edge_null` of the same momentum. Updates of unequal length make an
edge too, whatever their directions: the nulls "norms" and "correlations" carry what the window itself shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from torch import Tensor

from spectra.arrays import brief, choice, flag, real, require_strided, whole
from spectra.covariance import resolved
from spectra.errors import InputError
from spectra.nulls.edge import edge_null, find_edges, largest_k
from spectra.results import Status
from spectra.shown import Shown
from spectra.spectrum import Spectrum
from spectra.update_parts import Update
from spectra.update_windows import CHUNK, WINDOW, SketchedWindow, UpdateWindow
from spectra.window_edges import lag_correlations, unit_rows
from spectra.window_edges import rounding as share_of_rounding
from spectra.window_gram import WindowGram

__all__ = ["CHUNK", "WINDOW", "SketchedWindow", "SpectralEdge", "UpdateWindow", "spectral_edge"]

# The rows of a window: (W, P), or one update after the other.
Updates: TypeAlias = Tensor | np.ndarray | Sequence[Update]

Null = Literal["momentum", "norms", "correlations"]


@dataclass(frozen=True)
class SpectralEdge(Shown):
    """Hold the edge of one window and its comparison with noise.

    Attributes:
        k: k*, the number of directions above the edge, 1..W−1.
        gap: σ_k/σ_{k+1}, inf where the window has rank k.
        spectrum: σ of the window (kind "singular", n = W, d = P, uncentred).
        p_value: share of null windows with the same k* and a gap at least as large: a test of a k* that was fixed
            before the window was seen, and too small where k* is the one found.
        p_any: share of null windows with a gap at least as large, whatever their k*: the test of an edge.
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
    p_any: float
    null_k: int
    null_gap: float
    status: Status = "ok"
    reason: str = ""


def spectral_edge(
    window: UpdateWindow | SketchedWindow | WindowGram | Updates,
    *,
    momentum: float = 0.0,
    stride: int | None = None,
    effective_dimension: float | None = None,
    draws: int = 1000,
    null: Null = "momentum",
    row_normalised: bool = False,
    most: int | None = None,
) -> SpectralEdge:
    """Find the edge of a window of updates, and how often noise has one like it.

    k* = argmax_{j ≤ J} σ_j/σ_{j+1}.

    The null is W updates of an exponential moving average, with the given momentum, of white noise (`edge_null`).
    ``p_any`` = (1 + #{null windows with gap ≥ observed}) / (1 + draws) tests whether there is an edge. ``p_value``
    counts null windows of the same k* alone. It tests an edge at one k*, fixed beforehand; of the k* that the window
    chose it is small whenever noise seldom chooses it, whatever the gap: of windows of white noise (W = 6, P = 500)
    26 % have a ``p_value`` of at most 0.05, and 5 % such a ``p_any``.

    Args:
        window: `UpdateWindow` or `SketchedWindow` with at least two updates, or what `last` of one returns, or a (W, P)
            array or tensor, or a sequence of updates as `UpdateWindow.push` takes them.
        momentum: of the optimiser, in [0, 1); 0 asks only whether the updates are more than independent
            noise.
        stride: training steps from one snapshot of the weights to the next, needed with momentum: further apart the
            updates of an average forget each other.
        effective_dimension: number of independent directions of the null's noise, P when None. Gradient
            noise is far from isotropic; pass (tr Σ)²/tr Σ² of it where known, since a larger dimension
            makes the null narrower.
        draws: number of null windows; the smallest p-value is 1/(draws + 1).
        null: what the noise shares with the window beside momentum and stride: nothing more; ``"norms"``, the lengths
            of its updates; or ``"correlations"``, their lengths and mean correlations by lag, in place of momentum and
            stride. The last does not see a constant direction, which makes all updates correlated.
        row_normalised: whether updates (and those of the null) are divided by their lengths first; a zero update
            stays zero.
        most: J, the largest k* sought, W−1 when None.

    Raises:
        InputError: fewer than two updates, all zero, NaN or Inf, momentum outside [0, 1), momentum without a stride,
            or J outside 1..W−1.

    >>> spectral_edge([[9.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, 1.0]], draws=50).k
    2
    """
    momentum = real(momentum, "momentum")
    choice(null, "null", ("momentum", "norms", "correlations"))
    stride = _stride(stride, momentum if null != "correlations" else 0.0)
    gram, size, error, rounding = _gram_of(window)
    held = len(gram)
    if held < 2:
        raise InputError(f"the window holds {held} updates; an edge needs at least two")
    most, norms = largest_k(most, held), np.sqrt(np.diag(gram))
    if flag(row_normalised, "row_normalised"):
        gram, error, rounding, norms = _normalised(gram, error, rounding)
    energies = np.linalg.eigvalsh(gram)[::-1]
    least = share_of_rounding(held, row_normalised) * max(energies[0], 0.0)
    energies = np.where(energies > least, energies, 0.0)
    spectrum = Spectrum(np.sqrt(energies), kind="singular", n=held, d=size, centred=False)
    # A sketch cannot distinguish values below its error from 0: the edge is not sought among them.
    above = held if error == 0 else max(2, int(np.sum(energies > error)))
    ks, gaps = find_edges(spectrum.values[None, :above], most)
    k, gap = int(ks[0]), float(gaps[0])
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
    noise = edge_null(
        held,
        size if effective_dimension is None else effective_dimension,
        0.0 if null == "correlations" else momentum,
        draws,
        stride=stride,
        norms=norms if row_normalised or null != "momentum" else None,
        correlations=lag_correlations(gram) if null == "correlations" else None,
        most=most,
    )
    p_value, p_any = noise.p_value(k, gap), noise.p_value(None, gap)
    return SpectralEdge(k, gap, spectrum, p_value, p_any, noise.k, noise.gap, status, "; ".join(reasons))


def _stride(stride: int | None, momentum: float) -> int:
    if stride is None and momentum > 0:
        raise InputError(
            "the steps between the snapshots are not given, and the null of momentum depends on them: pass stride=1 "
            "for the updates of successive steps"
        )
    return 1 if stride is None else whole(stride, "stride", least=1)


def _normalised(
    gram: np.ndarray, error: float, rounding: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Return Gram matrix, its standard error, rounding and norms of the updates divided by their norms."""
    units, norms = unit_rows(gram), np.sqrt(np.diag(gram))
    rounding = np.divide(rounding, norms, out=np.zeros(len(norms)), where=norms > 0)
    if error > 0:
        # The error of a sketch is √(Σ (G_ii G_jj + G_ij²)/s), s the same for both.
        scales = [(np.outer(np.diag(g), np.diag(g)) + g**2).sum() for g in (units, gram)]
        error *= float(np.sqrt(scales[0] / scales[1]))
    return units, error, rounding, np.diag(units)


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


def _gram_of(
    window: UpdateWindow | SketchedWindow | WindowGram | Updates,
) -> tuple[np.ndarray, int, float, np.ndarray]:
    """Return the Gram matrix, P, its standard error and what rounding can add to each update."""
    if isinstance(window, UpdateWindow | SketchedWindow):
        if window.size is None:
            raise InputError("the window is empty; push at least two updates")
        return _gram_of(window.last(min(window.count, window.window)))
    if isinstance(window, WindowGram):
        return window.gram, window.size, window.error, window.rounding
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
