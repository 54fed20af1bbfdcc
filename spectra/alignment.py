"""Compare states of a model with the eigenfunctions of a predictive operator.

A predictive operator compares contexts by their next-token laws p_x: its kernel is ⟨Φ_x, Φ_x'⟩ with Φ_x = √p_x
(Bhattacharyya) or p_x, centred over contexts. Its eigenfunctions are the left singular vectors of the centred Φ (N, V).
Shares are held out: states are fitted to one half of the contexts (those in even places) and scored on the other, so
contexts must come in no particular order. With N/2 contexts and d dimensions a permuted state has a share near −2d/N.
A column counts as constant where rounding in its dtype explains its deviations (`spectra.covariance.rounding_floor`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from spectra.arrays import (
    EPS,
    FOURTH_LIMIT,
    TIED,
    Numbers,
    choice,
    largest,
    machine_epsilon,
    require_squares,
    to_float64,
    unit,
    whole,
)
from spectra.covariance import resolved, rounding_floor, rounding_margin
from spectra.errors import InputError

# Whitened states are shrunk by so much: the fit does not depend on how an invertible map scales their directions.
RIDGE = 1e-6
KERNELS = ("bhattacharyya", "linear")
# Contexts that are fitted, and those that are scored.
_FIT, _SCORE, _ALL = slice(None, None, 2), slice(1, None, 2), slice(None)
# Deviations and their squares, in units of the largest entry, below which ratios of fourth powers leave float64.
_TINY = 2.0**-FOURTH_LIMIT
# Chances that `head_metric` holds at once: 128 MB.
_HELD = 2**24


@dataclass(frozen=True, eq=False)
class EigenfunctionShares:
    """Hold how well states explain each eigenfunction of a kernel.

    Attributes:
        eigenvalues: (r,) μ_i > 0 of the centred kernel over N, descending.
        shares: (r,) held-out R² of the eigenfunctions.
        weights: (r,) μ_i times the variance of eigenfunction i over the scored contexts; the mean of the shares with
            these weights is `explained_share`.

    >>> isinstance(eigenfunction_shares([[0.0], [1.0], [2.0], [3.0]], [[1.0], [2.0], [3.0], [4.0]]).shares, np.ndarray)
    True
    """

    eigenvalues: np.ndarray
    shares: np.ndarray
    weights: np.ndarray


def predictive_embedding(laws: Numbers, kernel: str = "bhattacharyya") -> np.ndarray:
    """Return the embedding Φ (N, V) of contexts behind a predictive kernel: √p or p.

    Args:
        laws: (N, V) next-token laws.
        kernel: "bhattacharyya" (√p) or "linear" (p).

    Raises:
        InputError: no context, negative chances, rows that do not sum to 1, NaN or Inf, another kernel.

    >>> predictive_embedding([[0.25, 0.75], [1.0, 0.0]])[:, 0].tolist()
    [0.5, 1.0]
    """
    choice(kernel, "kernel", KERNELS)
    p = to_float64(laws, name="laws", ndim=2)
    if not p.size:
        raise InputError(f"laws have shape {p.shape}; pass at least one context and one token")
    if p.min() < 0:
        raise InputError(f"laws have a chance of {p.min():.3g}; chances are at least 0")
    sums = p.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > 1e-3)
    if len(wrong):
        raise InputError(f"row {wrong[0]} of laws sums to {sums[wrong[0]]:.6g}; divide each row by its sum")
    return np.sqrt(p) if kernel == "bhattacharyya" else p.copy()


def explained_share(states: Numbers, embedding: Numbers) -> float:
    """Return the share of an embedding's variance that an affine map of states explains, held out.

    1 − Σ‖Φ − affine(h)‖²/Σ‖Φ − mean‖² over the contexts in odd places; the map is fitted to those in even places. It is
    1 where states determine Φ linearly, about 0 or less where they say nothing, and does not change under invertible
    affine maps of the states.

    Args:
        states: (N, d) states h of contexts in no particular order.
        embedding: (N, k) numbers Φ of the same contexts, as of `predictive_embedding`.

    Raises:
        InputError: fewer than four contexts, arrays of different lengths, NaN or Inf, or an embedding that does not
            vary over the scored contexts.

    >>> explained_share([[0.0], [1.0], [2.0], [5.0]], [[1.0], [2.0], [3.0], [6.0]]) > 0.999
    True
    """
    h, phi = _pair(states, embedding)
    left, distance = _residuals(h, phi)
    units = phi.units()
    total = np.square(distance * units).sum()
    if not total > _TINY:
        raise _constant("embedding", phi)
    return float(1 - np.square(left * units).sum() / total)


def held_out_residuals(states: Numbers, embedding: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Return what the affine map of `explained_share` leaves of the scored contexts, and their distance from the mean.

    One fit for many columns: the share of any of them is 1 − Σ residual²/Σ distance².

    Args:
        states: (N, d) states of contexts in no particular order.
        embedding: (N, k) numbers of the same contexts.

    Returns:
        Two arrays (N // 2, k) in the units of the embedding; distances are exactly 0 in a column that does not vary.

    Raises:
        InputError: fewer than four contexts, arrays of different lengths, NaN or Inf, or residuals beyond float64.

    >>> left, distance = held_out_residuals([[0.0], [1.0], [2.0], [5.0]], [[1.0], [2.0], [3.0], [6.0]])
    >>> bool(abs(left).max() < 1e-5), distance.ravel().tolist()
    (True, [-2.0, 2.0])
    """
    h, phi = _pair(states, embedding)
    with np.errstate(over="ignore"):
        left, distance = (part * phi.scale for part in _residuals(h, phi))
    if not (np.isfinite(left).all() and np.isfinite(distance).all()):
        raise InputError(
            f"the largest entry of embedding is {largest(phi.values * phi.scale):.3g} in size, and float64 cannot hold "
            "its residuals; divide the data by it"
        )
    return left, distance


def eigenfunction_shares(states: Numbers, embedding: Numbers) -> EigenfunctionShares:
    """Return how well states explain each eigenfunction of the kernel of an embedding, held out.

    Arguments and errors as of `explained_share`, and energies outside float64; eigenfunctions that are constant over
    the scored contexts are left out.

    >>> found = eigenfunction_shares([[0.0], [1.0], [2.0], [5.0]], [[1.0], [2.0], [3.0], [6.0]])
    >>> len(found.shares), bool(found.shares[0] > 0.999)
    (1, True)
    """
    h, phi = _pair(states, embedding)
    if not phi.deviations(_SCORE).any():
        raise _constant("embedding", phi)
    u, s, size = _directions(phi, "embedding")
    require_squares(size, "the largest deviation of embedding")
    u, values = u * math.sqrt(len(u)), (s * size) ** 2 / len(u)
    functions = _rows(u, EPS)
    left, distance = _residuals(h, functions)
    left, spread = (np.square(part * functions.scale).sum(axis=0) for part in (left, distance))
    varies = spread > EPS * len(u)
    if not varies.any():
        raise _constant("embedding", phi)
    left, spread, values = left[varies], spread[varies], values[varies]
    return EigenfunctionShares(values, 1 - left / spread, values * spread / (len(u) // 2))


def subspace_overlap(states: Numbers, embedding: Numbers, k: int) -> float:
    """Return the overlap of the k leading directions over contexts of states and of an embedding, 0 to 1.

    ‖U_kᵀV_k‖²_F/k, U_k and V_k the k leading left singular vectors of the centred arrays. Directions that have nothing
    to do with each other have k/(N − 1) on average. Where the k-th and the next singular value are equal, the k leading
    directions are not defined: up to 1e-6 of the first one apart, rounding would choose among them.

    Args:
        states: (N, d).
        embedding: (N, m).
        k: number of directions, at most the rank of each centred array.

    Raises:
        InputError: arrays of different lengths, NaN or Inf, one that does not vary, k outside 1 to the smaller rank, or
            a k that divides equal singular values.

    >>> round(subspace_overlap([[0.0], [1.0], [5.0]], [[1.0], [3.0], [11.0]], k=1), 12)
    1.0
    """
    k = whole(k, "k", least=1)
    h, phi = _pair(states, embedding, least=2)
    u, v = (_leading(x, k, name) for x, name in ((h, "states"), (phi, "embedding")))
    return float(min(np.square(u.T @ v).sum() / k, 1.0))


def linear_cka(states: Numbers, embedding: Numbers) -> float:
    """Return the linear centred kernel alignment of two arrays over the same contexts, 0 to 1.

    ‖XᵀY‖²_F/(‖XᵀX‖_F ‖YᵀY‖_F) of the centred arrays; invariant under rotations and scaling of each, not under other
    linear maps. Arrays that have nothing to do with each other are not at 0: noise of N contexts in d and k dimensions
    is at about √(dk/((N + d)(N + k))), .5 for N = d = k. Compare with one array in another order of its rows.
    Source: Kornblith et al. (2019).

    Raises:
        InputError: arrays of different lengths, NaN or Inf, or one that does not vary.

    >>> linear_cka([[0.0], [1.0], [5.0]], [[1.0, 0.0], [3.0, 0.0], [11.0, 0.0]])
    1.0
    """
    h, phi = _pair(states, embedding, least=2)
    x, y = (_centred(rows, name)[0] for rows, name in ((h, "states"), (phi, "embedding")))
    cross = np.square(x.T @ y).sum()
    # A vocabulary may have more columns than there are contexts.
    norms = (np.linalg.norm(a.T @ a if a.shape[1] <= len(a) else a @ a.T) for a in (x, y))
    return float(min(cross / math.prod(norms), 1.0))


def head_metric(head: Numbers, states: Numbers) -> np.ndarray:
    """Return the mean Fisher metric (d, d) of the next token over states: E Gᵀ(diag q − qqᵀ)G, q = softmax(G h).

    A step v of every state changes the next-token laws by ½vᵀ(metric)v in mean KL divergence, to second order; its
    null space is what the head does not read. Small chances keep their digits: a confident head has a metric too.

    Args:
        head: (V, d) rows G.
        states: (n, d) states that the head reads.

    Raises:
        InputError: different widths, no state, NaN or Inf, or a head with entries beyond 1e±144, whose squares float64
            cannot hold.

    >>> head_metric([[1.0], [0.0]], [[0.0]])
    array([[0.25]])
    """
    g, h = to_float64(head, name="head", ndim=2), to_float64(states, name="states", ndim=2)
    if g.shape[1] != h.shape[1] or not len(h) or not g.size:
        raise InputError(
            f"head has shape {g.shape} and states {h.shape}; pass (V, d) and (n, d) of one width, n ≥ 1"
        )
    require_squares(largest(g), "the largest entry of head")
    # In units of powers of two no logit overflows.
    scale, size = unit(largest(g)), unit(largest(h))
    g, h = g / scale, h / size
    # What is common to all rows of the head changes no law, and costs digits.
    g -= g.mean(axis=0)
    metric = np.zeros((g.shape[1], g.shape[1]))
    count = max(1, _HELD // len(g))
    for begin in range(0, len(h), count):
        logits = h[begin : begin + count] @ g.T
        top = logits.argmax(axis=1)
        with np.errstate(over="ignore"):
            odds = np.exp((logits - logits.max(axis=1, keepdims=True)) * scale * size)
        odds[np.arange(len(odds)), top] = 0.0
        metric += _summed_metric(g, g[top], odds)
    return metric / len(h) * scale**2


def _summed_metric(g: np.ndarray, likeliest: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """Return the sum of Fisher metrics (d, d) of n laws, by the law of total covariance.

    A law is its likeliest token and the rest. The covariance of the rows g is that of the rest, and that of the two
    means: all terms have the size of the chance of the rest, so that none of its digits are lost.

    Args:
        g: (V, d) rows of the head.
        likeliest: (n, d) row of the likeliest token of each law.
        odds: (n, V) chances of tokens divided by that of the likeliest, whose own entry is 0.
    """
    total = odds.sum(axis=1)
    rest = total / (1 + total)
    law = odds / (1 + total)[:, None]
    weights = law.sum(axis=0)
    if not weights.any():
        return np.zeros((g.shape[1], g.shape[1]))
    # Centred at the mean of all: differences of large equal parts would lose digits.
    centre = weights @ g / weights.sum()
    rows = g - centre
    means = np.divide(law @ rows, rest[:, None], out=np.zeros_like(likeliest), where=rest[:, None] > 0)
    within, between = np.sqrt(weights)[:, None] * rows, np.sqrt(rest)[:, None] * means
    apart = np.sqrt(rest / (1 + total))[:, None] * (means - (likeliest - centre))
    return within.T @ within - between.T @ between + apart.T @ apart


@dataclass(frozen=True, eq=False)
class _Rows:
    """Hold numbers (N, k) of contexts.

    Attributes:
        values: (N, k) in units of `scale`.
        scale: (k,) a power of two near the largest entry of each column.
        precision: machine epsilon of the dtype that they were handed in.
    """

    values: np.ndarray
    scale: np.ndarray
    precision: float

    def deviations(self, part: slice = _ALL) -> np.ndarray:
        """Return a part of the contexts less their mean; exactly 0 in columns that vary by no more than rounding."""
        x = self.values[part]
        change = x - x.mean(axis=0)
        # The computed mean is off by rounding; a second pass removes what it left.
        change -= change.mean(axis=0)
        noise = rounding_margin(self.precision) * _lengths(x)
        change[:, _lengths(change) <= noise + _TINY] = 0.0
        return change

    def units(self) -> np.ndarray:
        """Return `scale` divided by that of the largest column that varies, (k,); 0 for columns that do not."""
        scale = np.where(self.deviations().any(axis=0), self.scale, 0.0)
        return scale / (scale.max() or 1.0)


def _pair(states: Numbers, embedding: Numbers, least: int = 4) -> tuple[_Rows, _Rows]:
    """Return two arrays of the same contexts."""
    h = to_float64(states, name="states", ndim=2)
    phi = to_float64(embedding, name="embedding", ndim=2)
    if len(h) != len(phi) or len(h) < least or not h.size or not phi.size:
        raise InputError(
            f"states have shape {h.shape} and embedding {phi.shape}; pass the same contexts in both, at least {least}"
        )
    return _rows(h, machine_epsilon(states)), _rows(phi, machine_epsilon(embedding))


def _rows(x: np.ndarray, precision: float) -> _Rows:
    scale = np.array([unit(size) for size in np.maximum(x.max(axis=0), -x.min(axis=0)).tolist()])
    return _Rows(x / scale, scale, precision)


def _lengths(x: np.ndarray) -> np.ndarray:
    """Return the norms of the columns, without a copy of x."""
    return np.sqrt(np.einsum("ij,ij->j", x, x))


def _residuals(h: _Rows, y: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return what the fit leaves of the scored contexts, and their distance from their mean, (N // 2, k) in units."""
    mean, middle = h.values[_FIT].mean(axis=0), y.values[_FIT].mean(axis=0)
    # Columns as they were given: where the fit is not unique, the smallest map is taken.
    units = h.units()
    u, s, vt = np.linalg.svd(h.deviations(_FIT) * units, full_matrices=False)
    r = int((s > s[0] * max(h.values.shape) * EPS).sum())
    # Whitened states of the scored contexts are (h − mean) V/s; those of the fitted ones are u.
    slope = u[:, :r].T @ y.deviations(_FIT) / (1 + RIDGE)
    fitted = middle + ((h.values[_SCORE] - mean) * units @ vt[:r].T / s[:r]) @ slope
    # Of a column that does not vary nothing is left.
    varies = y.deviations().any(axis=0)
    return np.where(varies, y.values[_SCORE] - fitted, 0.0), np.where(varies, y.deviations(_SCORE), 0.0)


def _constant(name: str, rows: _Rows) -> InputError:
    where = "scored contexts" if rows.deviations().any() else "contexts"
    return InputError(
        f"{name} of shape {rows.values.shape} does not vary over the {where} (beyond rounding), so that nothing can be "
        "explained; drop it, or pass contexts that differ"
    )


def _centred(rows: _Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the deviations in one unit for all columns, and that of `values` in it, (k,)."""
    units = rows.units()
    if not units.any():
        raise _constant(name, rows)
    centred = rows.deviations() * units
    size = unit(largest(centred))
    return centred / size, units / size


def _directions(rows: _Rows, name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the left singular vectors and values of the deviations that are more than rounding, and their unit."""
    centred, units = _centred(rows, name)
    # The triangular factor of a wide array has the same left vectors, at a third of the cost.
    square = np.asarray(np.linalg.qr(centred.T, mode="r")).T if centred.shape[1] > len(centred) else centred
    u, s, _ = np.linalg.svd(square, full_matrices=False)
    floor = rounding_floor(torch.from_numpy(rows.values * units), rows.precision)
    r = min(int((s > s[0] * max(centred.shape) * EPS).sum()), resolved(s, floor))
    if not r:
        raise _constant(name, rows)
    return u[:, :r], s[:r], float(rows.scale[units.argmax()] / units.max())


def _leading(rows: _Rows, k: int, name: str) -> np.ndarray:
    u, s, _ = _directions(rows, name)
    if k > u.shape[1]:
        raise InputError(
            f"k is {k} and the centred {name} have rank {u.shape[1]}; pass a k of at most {u.shape[1]}"
        )
    if k < len(s) and s[k - 1] - s[k] <= TIED * s[0]:
        raise InputError(
            f"k is {k}, and singular values {k} and {k + 1} of the centred {name} are equal ({s[k - 1] / s[0]:.6g} "
            f"of the first): {k} leading directions are not defined; pass another k"
        )
    return u[:, :k]
