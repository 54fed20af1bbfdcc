"""Ask whether a number of each layer has a peak between the ends (an inverted U), and whether it moves with depth.

A quadratic with a maximum between the ends is no evidence: curves that rise and level off have one too. The two-lines
test asks for a rising line before a break and a falling one after it. Choosing the break where it fits best would
reject too often; it is set by the Robin Hood rule, which gives the weaker of the two lines more layers.

Source: Simonsohn, Adv. Methods Pract. Psychol. Sci. 1 (2018), there with splines and many points; here with a cubic (a
quadratic below nine layers), whose residuals give the variance, and room for correlated neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from scipy import stats

from sims.analysis.depth import SIGNIFICANT
from sims.analysis.resampling import LEAST_SEEDS, seed_resamples, spearman_permutation
from sims.analysis.segmentation import residual_correlation
from sims.analysis.verdicts import Verdict
from sims.system.errors import MeasureError
from spectra.arrays import largest, unit

# Layers on each side of the break.
LEAST_SIDE = 3
# From so many layers on, the smooth curve is a cubic.
CUBIC = 9
LEAST_LAYERS = 2 * LEAST_SIDE
# Of the seed bootstraps, those whose peak lies between the ends.
INTERIOR_SHARE = 0.8
LEAST_DEPTHS = 5


@dataclass(frozen=True)
class InvertedU:
    """Hold two lines and the peak of a profile over layers.

    Attributes:
        layers, seeds: how many there are.
        break_at: depth of the break, 0 in the first layer and 1 in the last; NaN where not resolved, as all numbers.
        before, after: slopes of the two lines, per unit of depth.
        p_before, p_after: two-sided p-values of the slopes.
        peak, peak_low, peak_high: depth at which the quadratic is largest, with its 95 % interval over seeds (NaN with
            fewer than three).
        block: the same as a block number, from 0.
        interior: share of seed bootstraps whose peak lies between the ends; NaN with fewer than three seeds.
        status: "ok" or "not resolved".
        reason: why it is not resolved.
    """

    layers: int
    seeds: int
    break_at: float = math.nan
    before: float = math.nan
    after: float = math.nan
    p_before: float = math.nan
    p_after: float = math.nan
    peak: float = math.nan
    peak_low: float = math.nan
    peak_high: float = math.nan
    block: float = math.nan
    interior: float = math.nan
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""

    @property
    def peaked(self) -> bool:
        """Return whether both lines are significant, one up and one down, and the peak lies between the ends."""
        rises = self.before > 0 and self.p_before < SIGNIFICANT
        falls = self.after < 0 and self.p_after < SIGNIFICANT
        return self.status == "ok" and rises and falls and self.interior >= INTERIOR_SHARE

    @property
    def sentence(self) -> str:
        """Return the result as one sentence."""
        if self.status != "ok":
            return f"Not resolved ({self.reason})."
        return (
            f"Slope {self.before:.3g} (p = {self.p_before:.2g}) before depth {self.break_at:.2f} and {self.after:.3g} "
            f"(p = {self.p_after:.2g}) after it; peak at {self.peak:.2f} [{self.peak_low:.2f}, {self.peak_high:.2f}], "
            f"between the ends in {self.interior:.0%} of seed bootstraps."
        )

    def row(self) -> dict[str, object]:
        """Return the fields and the sentence as a row of a table."""
        return {**asdict(self), "peaked": self.peaked, "sentence": self.sentence}


@dataclass(frozen=True)
class PeakShift:
    """Hold how the peak moves with the number of layers.

    Attributes:
        layers: numbers of layers with a peak between the ends, rising.
        peaks: depths of their peaks.
        left_out: numbers of layers without one.
        rho: Spearman's correlation of peak and number of layers; NaN where not resolved, as p and p_min.
        rho_block: that of the peak's block number: a peak at one block for all comes earlier in relative depth too.
        p, p_min: two-sided p-value by permuting the numbers of layers, and the smallest possible one.
        status: "ok" or "not resolved".
        reason: why it is not resolved.
    """

    layers: tuple[int, ...]
    peaks: tuple[float, ...]
    left_out: tuple[int, ...]
    rho: float = math.nan
    rho_block: float = math.nan
    p: float = math.nan
    p_min: float = math.nan
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """Say whether the peak comes earlier in deeper models: ρ < 0 with p < 0.05 over five depths or more."""
        claim = "The peak comes at a smaller relative depth in deeper models"
        if self.status != "ok":
            return Verdict(claim, "not resolved", self.reason)
        told = (
            f"ρ = {self.rho:.2f} over {len(self.layers)} depths, p = {self.p:.2g}; as a block number "
            f"ρ = {self.rho_block:.2f}"
        )
        return Verdict(claim, "shown" if self.rho < 0 and self.p < SIGNIFICANT else "not shown", told)

    def row(self) -> dict[str, object]:
        """Return the fields and the sentence as a row of a table."""
        return {**asdict(self), "sentence": self.verdict.sentence}


def inverted_u(values: np.ndarray, *, interior: bool = False) -> InvertedU:
    """Test whether the mean profile over seeds rises before a break and falls after it, and find its peak.

    Layers are the units: seeds share what is particular to a layer, so that their mean is tested. The variance is that
    around a cubic (below nine layers a quadratic), times (1+ρ)/(1−ρ), ρ the first-order correlation of its residuals in
    [0, 0.6]. Profiles that are flat, or rise and level off, pass in at most 4 % of draws with independent layers, in up
    to 7 % where neighbours correlate with 0.4, in up to 12 % with 0.7 and in up to 18 % with 0.9.

    Args:
        values: (layers,) or (seeds, layers), layers in the order of depth.
        interior: leave out the first and the last layer; depth stays as it was.

    Returns:
        `InvertedU`; not resolved, with its reason, where a value is missing, the profile is flat, or fewer than six
        layers remain.

    Raises:
        MeasureError: a wrong shape, or infinite values.
    """
    table = np.atleast_2d(np.asarray(values, dtype=float))
    if table.ndim != 2 or not table.size or np.isinf(table).any():
        raise MeasureError(
            f"the profile has shape {np.shape(values)}; give (layers,) or (seeds, layers) finite numbers"
        )
    last = table.shape[1] - 1
    x = np.linspace(0, 1, last + 1)
    if interior:
        x, table = x[1:-1], table[:, 1:-1]
    seeds, layers = table.shape
    # Division by a power of two is exact, and keeps squares within float64.
    size = unit(largest(np.nan_to_num(table)))
    table = table / size
    y = table.mean(axis=0)
    reason = ""
    if layers < LEAST_LAYERS:
        reason = f"{layers} layers; two lines need {LEAST_LAYERS}"
    elif np.isnan(table).any():
        reason = f"{int(np.isnan(table).sum())} values are missing"
    elif np.ptp(y) <= 1e-12 * np.abs(y).max():
        reason = "all layers have the same value"
    if reason:
        return InvertedU(layers, seeds, status="not resolved", reason=reason)
    at, slopes, p = _robin_hood(x, y)
    low = high = share = math.nan
    if seeds >= LEAST_SEEDS:
        places, inside = _peaks(x, table[seed_resamples(seeds)].mean(axis=1))
        low, high = (float(q) for q in np.quantile(places, [0.025, 0.975]))
        share = float(inside.mean())
    peak = float(_peaks(x, y[None])[0][0])
    return InvertedU(
        *(layers, seeds, at, float(slopes[0] * size), float(slopes[1] * size), float(p[0]), float(p[1])),
        *(peak, low, high, peak * last, share),
    )


def inverted_u_verdict(whole: InvertedU, interior: InvertedU) -> Verdict:
    """Say whether the profile is an inverted U.

    Shown if, with all layers and without the ends, a rising and a falling line have p < 0.05 and the peak lies between
    the ends in 80 % of seed bootstraps.
    """
    claim = "The profile over depth is an inverted U"
    both = {"all layers": whole, "interior layers": interior}
    told = "; ".join(f"{name}: {one.sentence.rstrip('.')}" for name, one in both.items())
    usable = {name: one for name, one in both.items() if one.status == "ok" and not math.isnan(one.interior)}
    if any(not one.peaked for one in usable.values()):
        return Verdict(claim, "not shown", told)
    if len(usable) == len(both):
        return Verdict(claim, "shown", told)
    missing = [
        f"{name}: {one.reason or f'{one.seeds} seeds; an interval needs {LEAST_SEEDS}'}"
        for name, one in both.items()
        if name not in usable
    ]
    return Verdict(claim, "not resolved", "; ".join(missing))


def peak_shift(found: Mapping[int, InvertedU]) -> PeakShift:
    """Test whether the peak moves with the number of layers, by permuting these numbers.

    Models whose peak does not lie between the ends in 80 % of seed bootstraps are left out.

    Args:
        found: number of layers → its `inverted_u`.

    Returns:
        `PeakShift`; not resolved with fewer than five numbers of layers, or peaks that are all at one depth.
    """
    kept = [n for n in sorted(found) if found[n].status == "ok" and found[n].interior >= INTERIOR_SHARE]
    left_out = tuple(sorted(set(found) - set(kept)))
    peaks = tuple(found[n].peak for n in kept)
    if len(kept) < LEAST_DEPTHS:
        reason = f"depths with a peak between the ends: {len(kept)}; the test needs {LEAST_DEPTHS}"
        return PeakShift(tuple(kept), peaks, left_out, status="not resolved", reason=reason)
    if np.ptp(peaks) == 0:
        reason = "all peaks lie at the same depth"
        return PeakShift(tuple(kept), peaks, left_out, status="not resolved", reason=reason)
    test = spearman_permutation(np.array([peaks]), np.array(kept, dtype=float))
    blocks = np.array([[found[n].block for n in kept]])
    # Constant block numbers have no correlation with anything: 0 says so.
    rho_block = float(np.nan_to_num(spearman_permutation(blocks, np.array(kept, dtype=float)).rho[0]))
    numbers = (float(test.rho[0]), rho_block, float(test.p[0]), float(test.p_min[0]))
    return PeakShift(tuple(kept), peaks, left_out, *numbers)


def _peaks(x: np.ndarray, profiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the quadratics of profiles (n, layers) are largest, and whether that is between the ends."""
    square, slope, _ = np.polyfit(x, profiles.T, 2)
    top = np.divide(-slope, 2 * square, out=np.full_like(slope, -1.0), where=square < 0)
    inside = (top > x[0]) & (top < x[-1])
    ends = np.where(square * (x[0] + x[-1]) + slope > 0, x[-1], x[0])
    return np.where(inside, top, ends), inside


def _robin_hood(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the break, and slopes and two-sided p-values of both lines."""
    n = len(x)
    basis = np.linalg.qr(np.vander(x - x.mean(), 4 if n >= CUBIC else 3))[0]
    parameters = basis.shape[1]
    smooth = basis @ (basis.T @ y)
    rest = y - smooth
    correlation = residual_correlation(rest, parameters)
    variance = float(rest @ rest) / (n - parameters)
    # A curve without residuals is exact, and a slope of rounding is none.
    wide = math.sqrt(max(variance * (1 + correlation) / (1 - correlation), 1e-24 * float(y @ y) / n))
    inner = slice(1, -1)
    top = 1 + int(smooth[inner].argmax())
    error = math.sqrt(variance * float((basis[top] ** 2).sum()))
    flat = x[inner][smooth[inner] >= smooth[top] - error]
    slopes, lengths = _two_lines(x, y, float(np.median(flat)))
    size = np.abs(slopes) * lengths
    at = float(np.quantile(flat, size[1] / max(size.sum(), 1e-300)))
    # A break that leaves too few layers on one side moves to the nearest that does not.
    at = float(np.clip(at, x[LEAST_SIDE - 1], x[n - LEAST_SIDE] - 1e-9))
    slopes, lengths = _two_lines(x, y, at)
    return at, slopes, 2 * stats.t.sf(np.abs(slopes) * lengths / wide, n - parameters)


def _two_lines(x: np.ndarray, y: np.ndarray, at: float) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes of lines up to a break and after it, and the lengths √Σ(x − mean)² behind them."""
    first = int(np.clip((x <= at).sum(), LEAST_SIDE, len(x) - LEAST_SIDE))
    slopes, lengths = [], []
    for part in (slice(0, first), slice(first, None)):
        own = x[part] - x[part].mean()
        lengths.append(math.sqrt(own @ own))
        slopes.append(own @ y[part] / (own @ own))
    return np.array(slopes), np.array(lengths)
