"""Hold the inner products of a window of updates, and how exactly they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spectra.arrays import require_inner_products, to_float64
from spectra.errors import InputError
from spectra.shown import Shown
from spectra.spectrum import NEGATIVE_TOLERANCE


@dataclass(frozen=True, eq=False)
class WindowGram(Shown):
    """Hold the inner products of the last w updates of a window (`UpdateWindow.last`, `SketchedWindow.last`).

    Those of two disjoint groups of parameters add up to those of both together (`joined`), so that each parameter is
    held once however many groups it belongs to.

    Attributes:
        gram: (w, w) float64, oldest first.
        size: P, number of coordinates.
        error: standard error of the matrix in Frobenius norm; 0 where it is exact.
        rounding: (w,) what rounding of the entries can add to each update; 0 for a sketch.

    Raises:
        InputError: no square matrix of inner products, or a rounding of another length.

    >>> gram = WindowGram(np.diag([4.0, 1.0]), size=3, error=0.0, rounding=np.zeros(2))
    >>> both = WindowGram.joined([gram, gram])
    >>> both.gram.diagonal().tolist(), both.size
    ([8.0, 2.0], 6)
    """

    gram: np.ndarray
    size: int
    error: float
    rounding: np.ndarray

    def __post_init__(self) -> None:
        gram = to_float64(self.gram, name="the Gram matrix of a window", ndim=2)
        rounding = to_float64(self.rounding, name="the rounding of a window", ndim=1)
        if gram.shape != (len(rounding), len(rounding)) or not len(rounding):
            raise InputError(
                f"the Gram matrix of a window has shape {gram.shape} and its rounding {rounding.shape}; pass (w, w) "
                "and (w,), w ≥ 1"
            )
        require_inner_products(gram, NEGATIVE_TOLERANCE, "the Gram matrix of a window")
        for name, value in (("gram", gram), ("rounding", rounding)):
            object.__setattr__(self, name, value)

    def _shown(self) -> Mapping[str, object]:
        return {"updates": len(self.gram), "coordinates": self.size, "error": self.error}

    @classmethod
    def joined(cls, parts: Sequence[WindowGram]) -> WindowGram:
        """Return the inner products of updates that consist of the given parts.

        Errors of sketches add as those of independent ones: draw their signs from different seeds.

        Raises:
            InputError: no part, or parts of different numbers of updates.
        """
        if not parts or len({len(part.gram) for part in parts}) > 1:
            counts = ", ".join(str(len(part.gram)) for part in parts) or "no"
            raise InputError(f"the parts hold {counts} updates; pass parts of the same updates")
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.sum([part.gram for part in parts], axis=0),
            sum(part.size for part in parts),
            float(np.sqrt(sum(part.error**2 for part in parts))),
            np.sqrt(np.sum([part.rounding**2 for part in parts], axis=0)),
        )
