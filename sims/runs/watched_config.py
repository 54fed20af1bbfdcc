"""Define what is measured of a model that somebody else's loop trains."""

from __future__ import annotations

from dataclasses import dataclass, field

from sims.runs.measure_config import Pooling
from sims.runs.rank_windows import Window, check_windows, fitting_windows
from sims.system.errors import MeasureError
from toymodel.config import OMIT_DEFAULT
from toymodel.limits import check_numbers, plain_numbers


@dataclass(frozen=True)
class WatchedConfig:
    """Set the measurements of a watched model.

    Args:
        layers: names or patterns of the layers; empty for those that are found.
        windows: rank windows (first, last) of the activation exponents; None takes those of 1–10, 10–40 and
            50–min(200, width) that fit.
        pooling: the samples of an activation spectrum: every position, the last one of each sample, or the mean over
            each sample.
        gradient_sequences: samples of the probe, the first ones, for the per-sample gradient spectra; 0 leaves them
            out.
        memory: GB (1e9 bytes) that gradients, or the window of updates, may take in addition to the model.
        at_once: samples of the probe in one pass.
        update_window: successive updates whose spectrum is taken; 0 leaves it out.
        update_windows: several such numbers, all measured; empty takes update_window alone.
        update_stride: training steps of one update; the steps between looks must be a multiple of it.
        tails: with the spectra of weights, also their exponents by rank, by Hill and by FARMS, the spectra of matrices
            with the gains of the norms before them, and of the products W_qᵀW_k and W_oW_v of every attention head.
        geometry: with the spectra of activations, also α-ReQ, RankMe of the singular values and without the first
            directions, and the share of the mean state.

    Raises:
        MeasureError: a value is out of range; the message names it.
    """

    layers: tuple[str, ...] = ()
    windows: tuple[Window, ...] | None = None
    pooling: Pooling = "token"
    gradient_sequences: int = 32
    memory: float = 2.0
    at_once: int = 64
    update_window: int = 10
    update_windows: tuple[int, ...] = field(default=(), metadata=OMIT_DEFAULT)
    update_stride: int = field(default=1, metadata=OMIT_DEFAULT)
    tails: bool = field(default=False, metadata=OMIT_DEFAULT)
    geometry: bool = field(default=False, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        plain_numbers(self, MeasureError)
        check_numbers(self, MeasureError)
        if self.pooling not in ("last", "mean", "token"):
            raise MeasureError(f"pooling is {self.pooling!r}; choose 'token', 'last' or 'mean'")
        if self.at_once < 1:
            raise MeasureError(f"at_once is {self.at_once}; it must be at least 1")
        for name in ("gradient_sequences", "update_window"):
            value = getattr(self, name)
            if value < 0 or value == 1:
                raise MeasureError(f"{name} is {value}; a spectrum needs 2 or more, and 0 leaves it out")
        if short := [w for w in self.update_windows if w < 2]:
            raise MeasureError(f"update_windows has {short[0]}; each must be at least 2")
        if self.update_stride < 1:
            raise MeasureError(f"update_stride is {self.update_stride}; it must be at least 1")
        if not self.memory > 0:
            raise MeasureError(f"memory is {self.memory} GB; it must be positive")
        check_windows(self.windows or ())

    def exponent_windows(self, rank: int) -> tuple[Window, ...]:
        """Return the rank windows of activations of this rank at most."""
        return fitting_windows(rank) if self.windows is None else self.windows
