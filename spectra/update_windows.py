"""Keep the last W parameter updates and their inner products: all coordinates, or a sketch of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectra.arrays import (
    brief,
    to_float64,
    whole,
)
from spectra.errors import InputError
from spectra.shown import Shown
from spectra.update_parts import Update, parts_of
from spectra.window_gram import WindowGram

WINDOW = 10
# Coordinates per partial dot product: the float64 copies of a window's chunk stay in cache. The signs of a sketch are
# drawn chunk by chunk, so that saved sketches belong to this number.
CHUNK = 2**14


class UpdateWindow(Shown):
    """Keep the last W updates and their exact Gram matrix.

    Args:
        window: W, at least 2.

    Memory is W·P numbers in a dtype that holds every update so far exactly (of bfloat16 and float32 parts: float32).
    Dot products are taken and accumulated in float64, chunk by chunk; in float32 they would lose a tenth of the value
    at P = 1e8.

    >>> window = UpdateWindow(3)
    >>> for update in ([3.0, 0.0], [0.0, 4.0], [0.0, 1.0]):
    ...     window.push(update)
    >>> window.gram.diagonal()
    array([ 9., 16.,  1.])
    """

    def __init__(self, window: int = WINDOW) -> None:
        if whole(window, "window") < 2:
            raise InputError(f"window is {window}; an edge needs at least two updates")
        self.window = whole(window, "window")
        self.count = 0
        self._rows: Tensor | None = None
        self._gram = np.zeros((window, window))
        self._rounding = np.zeros(window)

    def _shown(self) -> Mapping[str, object]:
        return {
            "window": self.window,
            "updates": min(self.count, self.window),
            "coordinates": self.size,
        }

    def push(self, update: Update) -> None:
        """Add one update; the oldest is dropped when full.

        Args:
            update: (P,) array or tensor of any shape, or a sequence of them (one per parameter), copied in
                order. Parts may differ in dtype.

        Raises:
            InputError: NaN or Inf, no coordinates, a different P, or entries beyond 1e±144, whose squares float64
                cannot hold; the window is then unchanged.
        """
        parts, precisions = parts_of(update)
        size = sum(part.numel() for part in parts)
        if self._rows is not None and self._rows.shape[1] != size:
            raise InputError(
                f"the update has {size} coordinates and the window {self._rows.shape[1]}; P is fixed"
            )
        # One narrow part must not round the others, nor an early update the later ones.
        held = [] if self._rows is None else [self._rows.dtype]
        dtype = functools.reduce(torch.promote_types, [*held, *(part.dtype for part in parts)])
        if self._rows is None:
            self._rows = torch.zeros(self.window, size, dtype=dtype, device=parts[0].device)
        rows = self._rows = self._rows.to(dtype)
        slot = self.count % self.window
        rows[slot] = torch.cat([part.flatten().to(rows) for part in parts])
        row = _inner_products(rows, rows[slot])
        self._gram[slot] = row
        self._gram[:, slot] = row
        squares = [float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2 for part in parts]
        self._rounding[slot] = sum(e**2 * s for e, s in zip(precisions, squares, strict=True))
        self.count += 1

    @property
    def full(self) -> bool:
        """Return whether W updates have been seen."""
        return self.count >= self.window

    @property
    def size(self) -> int | None:
        """Return P, or None before the first update."""
        return None if self._rows is None else self._rows.shape[1]

    @property
    def gram(self) -> np.ndarray:
        """Return the Gram matrix of the updates held, oldest first.

        (w, w) float64, w = min(count, W).
        """
        return _oldest_first(self._gram, self.count, self.window)

    @property
    def gram_error(self) -> float:
        """Return 0: the Gram matrix is exact.

        For a sketch it is the standard error in Frobenius norm.
        """
        return 0.0

    @property
    def rounding(self) -> np.ndarray:
        """Return what rounding of the entries, as they were handed in, can add to each update held, oldest first.

        (w,) √Σ (ε‖part‖)² over its parts, ε the machine epsilon of each: about three times what one rounding adds.
        """
        return np.sqrt(self._rounding[_order(self.count, self.window)])

    def last(self, count: int) -> WindowGram:
        """Return the inner products of the last `count` updates held: those of a shorter window.

        Raises:
            InputError: more than are held, or fewer than one.
        """
        size = _require_held(self, count)
        return WindowGram(self.gram[-count:, -count:], size, 0.0, self.rounding[-count:])

    def products(self, vector: Update) -> np.ndarray:
        """Return the (w,) float64 inner products of the updates held, oldest first, with another vector.

        Args:
            vector: in the parts and sizes of an update.

        Raises:
            InputError: an empty window, or a vector of another size.
        """
        parts, _ = parts_of(vector)
        flat = torch.cat([part.flatten() for part in parts])
        if self._rows is None or self._rows.shape[1] != len(flat):
            raise InputError(
                f"the vector has {len(flat)} coordinates and the window {self.size or 'no updates'}"
            )
        return _inner_products(self._rows, flat.to(self._rows.device))[_order(self.count, self.window)]

    def state_dict(self) -> dict[str, Any]:
        """Return the state needed to resume after a restart.

        Tensors and integers, safe to save with weights_only.
        """
        rows = None if self._rows is None else self._rows.clone()
        return {
            "window": self.window,
            "count": self.count,
            "rows": rows,
            "gram": torch.from_numpy(self._gram.copy()),
            "rounding": torch.from_numpy(self._rounding.copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; the next push continues as if there had been no interruption.

        A state without ``rounding`` (of an earlier version) is read as one of exact updates.

        Raises:
            InputError: not a state of such a window, or of another window length.
        """
        _require_window(state, self.window, ("count", "rows", "gram"))
        self.count = int(state["count"])
        self._rows = None if state["rows"] is None else state["rows"].clone()
        self._gram = state["gram"].numpy().astype(np.float64, copy=True)
        rounding = state.get("rounding")
        self._rounding = np.zeros(self.window) if rounding is None else rounding.numpy().copy()


class SketchedWindow(Shown):
    """Keep the last W updates, each compressed to s numbers.

    A Johnson–Lindenstrauss sketch: memory W·s instead of W·P.

    Every coordinate is added, with a random sign, to one of s buckets (the same for all updates), so that
    inner products are kept without bias and with variance at most (‖x‖²‖y‖² + ⟨x, y⟩²)/s
    (the count sketch of Charikar, Chen and Farach-Colton, 2002).

    Args:
        size: s; the relative error of an inner product is about √(2/s).
        seed: of the signs and buckets, which are drawn chunk by chunk and never stored.
        window: W, at least 2.

    >>> window = SketchedWindow(size=64, seed=0, window=2)
    >>> window.push(np.ones(1000))
    >>> window.push(np.ones(1000))
    >>> window.gram.shape, window.size
    ((2, 2), 1000)
    """

    def __init__(self, size: int, seed: int, window: int = WINDOW) -> None:
        window, size, seed = whole(window, "window"), whole(size, "sketch size"), whole(seed, "seed", least=0)
        if window < 2 or size < 1:
            raise InputError(f"window is {window} and sketch size {size}; they must be at least 2 and 1")
        self.window, self.sketch_size, self.seed = window, size, seed
        self.count = 0
        self._layout: list[int] = []
        self._sketches = np.zeros((window, size))
        self._squares = np.zeros(window)

    def _shown(self) -> Mapping[str, object]:
        held = min(self.count, self.window)
        return {
            "window": self.window,
            "updates": held,
            "coordinates": self.size,
            "sketch_size": self.sketch_size,
        }

    def push(self, update: Update) -> None:
        """Sketch one update and add it.

        Arguments and errors as `UpdateWindow.push`, with the same parts every time.
        """
        sketch, square, layout = self._sketch(update)
        slot = self.count % self.window
        self._sketches[slot], self._squares[slot], self._layout = sketch, square, layout
        self.count += 1

    def _sketch(self, update: Update) -> tuple[np.ndarray, float, list[int]]:
        """Return the (s,) sketch of an update, its squared norm and the sizes of its parts, after the checks."""
        parts, _ = parts_of(update)
        layout = [part.numel() for part in parts]
        if self._layout not in ([], layout):
            raise InputError(
                f"the update has parts of {layout} coordinates and the window holds {self._layout}; "
                "signs belong to positions, so pass the same parts in the same order"
            )
        sketch, square, start = np.zeros(self.sketch_size), 0.0, 0
        for chunk in (c for part in parts for c in part.flatten().split(CHUNK)):
            # Seeded by position, so that equal shapes get equal signs at every step and after a restart.
            generator = np.random.default_rng((self.seed, start))
            values = to_float64(chunk, name="update")
            signs = 2.0 * generator.integers(0, 2, len(values)) - 1.0
            buckets = generator.integers(0, self.sketch_size, len(values))
            sketch += np.bincount(buckets, weights=signs * values, minlength=self.sketch_size)
            square += float(values @ values)
            start += len(values)
        return sketch, square, layout

    @property
    def full(self) -> bool:
        """Return whether W updates have been seen."""
        return self.count >= self.window

    @property
    def size(self) -> int | None:
        """Return P, or None before the first update."""
        return sum(self._layout) or None

    @property
    def gram(self) -> np.ndarray:
        """Return the Gram matrix of the sketches, oldest first.

        (w, w), an unbiased, positive semi-definite estimate.
        """
        return _oldest_first(self._sketches @ self._sketches.T, self.count, self.window)

    @property
    def gram_error(self) -> float:
        """Return the standard error of the Gram matrix in Frobenius norm.

        √(Σ_ij (G_ii G_jj + G_ij²)/s).

        By Weyl's inequality no eigenvalue σ² is further off than the error in operator norm, which is at
        most this.
        """
        return self._error(self.gram)

    def _error(self, gram: np.ndarray) -> float:
        squares = np.diag(gram)
        variance = np.outer(squares, squares) + gram**2
        return float(np.sqrt(variance.sum() / self.sketch_size))

    def last(self, count: int) -> WindowGram:
        """Return the inner products of the last `count` sketches held, and their error (see `UpdateWindow.last`)."""
        size, gram = _require_held(self, count), self.gram[-count:, -count:]
        return WindowGram(gram, size, self._error(gram), np.zeros(count))

    def products(self, vector: Update) -> np.ndarray:
        """Return unbiased (w,) inner products of the updates held, oldest first, with another vector.

        Arguments and errors as `UpdateWindow.products`.
        """
        if not self._layout:
            raise InputError("the window holds no updates; push some first")
        sketch, _, _ = self._sketch(vector)
        return (self._sketches @ sketch)[_order(self.count, self.window)]

    @property
    def observed_error(self) -> float:
        """Return the relative error of the squared norms held.

        Root mean square of ‖Sx‖²/‖x‖² − 1; the true norms are known.
        """
        held = self._squares[: min(self.count, self.window)]
        if not (held > 0).any():
            raise InputError("the sketch holds no update that differs from zero; push some first")
        sketched = np.sum(self._sketches[: len(held)] ** 2, axis=1)
        return float(np.sqrt(np.mean((sketched[held > 0] / held[held > 0] - 1.0) ** 2)))

    def state_dict(self) -> dict[str, Any]:
        """Return the state needed to resume after a restart.

        Tensors and integers, safe to save with weights_only.
        """
        return {
            "window": self.window, "sketch_size": self.sketch_size, "seed": self.seed, "count": self.count,
            "layout": list(self._layout), "sketches": torch.from_numpy(self._sketches.copy()),
            "squares": torch.from_numpy(self._squares.copy()),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`.

        Raises:
            InputError: not a state of such a window, or of another window length, sketch size or seed.
        """
        _require_window(state, self.window, ("count", "layout", "seed", "sketch_size", "sketches", "squares"))
        if (state["sketch_size"], state["seed"]) != (self.sketch_size, self.seed):
            raise InputError(
                f"the state has sketch size {state['sketch_size']} and seed {state['seed']}, this window "
                f"{self.sketch_size} and {self.seed}; sketches of different signs cannot be compared"
            )
        self.count, self._layout = int(state["count"]), list(state["layout"])
        self._sketches = state["sketches"].numpy().copy()
        self._squares = state["squares"].numpy().copy()


def _inner_products(rows: Tensor, row: Tensor) -> np.ndarray:
    """(W,) float64 inner products of every row with one of them."""
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for start in range(0, rows.shape[1], CHUNK):
        total += rows[:, start : start + CHUNK].double() @ row[start : start + CHUNK].double()
    return total.cpu().numpy()


def _oldest_first(gram: np.ndarray, count: int, window: int) -> np.ndarray:
    order = _order(count, window)
    return gram[np.ix_(order, order)]


def _require_held(window: UpdateWindow | SketchedWindow, count: int) -> int:
    """Return P of a window that holds so many updates."""
    held = min(window.count, window.window)
    if window.size is None or not 1 <= whole(count, "count") <= held:
        raise InputError(
            f"count is {count}, and the window holds {held} updates; ask for 1 to {held} of them"
        )
    return window.size


def _order(count: int, window: int) -> np.ndarray:
    """Slots of the updates held, oldest first."""
    return np.arange(count) if count < window else (count + np.arange(window)) % window


def _require_window(state: Mapping[str, Any], window: int, names: tuple[str, ...]) -> None:
    saved = state.get("window") if isinstance(state, Mapping) else None
    if saved is not None and saved != window:
        raise InputError(f"the state is of a window of {saved} and this one has {window}; make it alike")
    if saved is None or not set(names) <= set(state):
        raise InputError(f"{brief(state)} is no state of such a window; pass what its state_dict() returned")
