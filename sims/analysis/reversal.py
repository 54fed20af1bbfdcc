"""Ask whether the gradient of ln stable rank over depth peaks early in training and then reverses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from sims.analysis.depth import SIGNIFICANT, depth_correlation
from sims.analysis.fronts import depth_slopes, over_schedules, require_looks
from sims.analysis.intervals import mean_interval
from sims.analysis.verdicts import Verdict
from theory.decision import side

LEAST_SEEDS = 3
# The gradient must peak before this share of training.
EARLY = 1 / 3


@dataclass(frozen=True)
class Reversal:
    """Hold the gradient over depth at its peak and at the end of training.

    Attributes:
        layers, seeds: how many there are.
        peak: time at which |γ|, mean over seeds, is largest; NaN where not resolved, as all numbers.
        share: of training that it is.
        early, early_low, early_high: γ at the peak with its 95 % interval over seeds, each seed at the peak of the
            others.
        late, late_low, late_high: γ at the end.
        p: of the change from peak to end with depth, layers permuted; 1 where a seed peaks at the end.
        p_min: the smallest p-value that these layers allow.
        status: "ok" or "not resolved".
        reason: why it is not resolved.
    """

    layers: int
    seeds: int
    peak: float = math.nan
    share: float = math.nan
    early: float = math.nan
    early_low: float = math.nan
    early_high: float = math.nan
    late: float = math.nan
    late_low: float = math.nan
    late_high: float = math.nan
    p: float = math.nan
    p_min: float = math.nan
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""

    @property
    def reverses(self) -> bool:
        """Return whether the peak is early, both gradients are of opposite sign, and layers change with depth."""
        if self.status != "ok":
            return False
        signs = side(self.early_low, self.early_high) * side(self.late_low, self.late_high)
        return signs < 0 and self.share < EARLY and self.p < SIGNIFICANT

    @property
    def sentence(self) -> str:
        """Return the result as one sentence."""
        if self.status != "ok":
            return f"Not resolved ({self.reason})."
        return (
            f"γ = {self.early:.2g} [{self.early_low:.2g}, {self.early_high:.2g}] at {self.share:.0%} of training, "
            f"{self.late:.2g} [{self.late_low:.2g}, {self.late_high:.2g}] at its end; change with depth "
            f"p = {self.p:.2g}."
        )

    def row(self) -> dict[str, object]:
        """Return the fields and the sentence as a row of a table."""
        return {**asdict(self), "reverses": self.reverses, "sentence": self.sentence}


def reversal(times: np.ndarray, log_ranks: np.ndarray, *, interior: bool = False) -> Reversal:
    """Compare the gradient over depth at its early peak with that at the end of training.

    The peak of a noisy curve is larger than the curve: each seed is therefore read at the peak of the mean of the other
    seeds. The first look, before training, is no peak. Seeds share what is particular to a layer; whether the change
    from peak to end goes with depth is therefore tested by permuting layers too.

    Args:
        times: (looks,) rising, from the start of training to its end.
        log_ranks: (seeds, looks, layers) ln stable rank.
        interior: leave out the first and the last layer.

    Returns:
        `Reversal`, not resolved with fewer than three seeds or too few layers for the test.

    Raises:
        MeasureError: as of `fronts`.
    """
    t, curves = require_looks(times, log_ranks)
    slopes = depth_slopes(curves, interior=interior)
    seeds, layers = len(curves), curves.shape[-1] - 2 * interior
    if seeds < LEAST_SEEDS:
        reason = f"{seeds} seeds; an interval needs {LEAST_SEEDS}"
        return Reversal(layers, seeds, status="not resolved", reason=reason)
    total = slopes.sum(axis=0)
    peaks = 1 + np.abs(total - slopes)[:, 1:].argmax(axis=1)
    each = np.arange(seeds)
    at_end = bool((peaks == len(t) - 1).any())
    test = depth_correlation(curves[:, -1] - (0 if at_end else curves[each, peaks]), interior=interior)
    if test.status != "ok":
        return Reversal(layers, seeds, status="not resolved", reason=test.reason)
    peak = float(t[1 + np.abs(total[1:]).argmax()])
    return Reversal(
        *(layers, seeds, peak, (peak - t[0]) / (t[-1] - t[0])),
        *mean_interval(slopes[each, peaks]),
        *mean_interval(slopes[:, -1]),
        *(1.0 if at_end else test.p, test.p_min),
    )


def reversal_verdict(found: Mapping[str, Reversal]) -> Verdict:
    """Say whether the gradient over depth peaks early and reverses.

    Shown if under two schedules of the learning rate (one of them constant: decay alone changes ranks) it peaks in the
    first third of training, its 95 % intervals over seeds at the peak and at the end lie on opposite sides of 0, and
    the change goes with depth (p < 0.05, layers permuted).

    Args:
        found: by schedule, "constant" among them.
    """
    claim = "The gradient over depth peaks early and reverses"
    if "constant" not in found:
        return Verdict(claim, "not resolved", "no run has a constant learning rate")
    usable = {n: r for n, r in found.items() if r.status == "ok" and r.p_min < SIGNIFICANT}
    missing = [
        f"{n}: {r.reason or f'{r.layers} layers cannot have p < {SIGNIFICANT}'}"
        for n, r in found.items()
        if n not in usable
    ]
    told = [f"{n}: {r.sentence.rstrip('.')}" for n, r in usable.items()]
    shown = [n for n, r in usable.items() if r.reverses]
    if "constant" in usable and "constant" not in shown:
        return Verdict(claim, "not shown", "; ".join(told))
    return over_schedules(claim, shown, told, missing)
