"""Ask whether a number varies more over layers in some types of matrices than in others (such as q, k against v, o)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import permutations
from typing import Literal

import numpy as np

from sims.analysis.resampling import DRAWS, TIE, seed_bootstrap
from sims.analysis.verdicts import Verdict
from sims.system.errors import MeasureError
from spectra.arrays import largest, unit
from theory.decision import side

# All exchanges are counted up to so many layers.
EXACT_LAYERS = 13
LEAST_LAYERS = 4
SIGNIFICANT = 0.05
# A spread below this share of the values is one of rounding.
ROUNDING = 1e-12
# Squares of numbers further apart do not fit beside each other.
UNLIKE = 1e100


@dataclass(frozen=True)
class Asymmetry:
    """Hold the ratio of two mean spreads over layers.

    Attributes:
        layers, seeds: how many there are.
        ratio: A = mean sd over layers of the first types / that of the second; NaN where not resolved, as all numbers.
        low, high: its 95 % interval over seeds; NaN with fewer than three.
        p: two-sided p-value of ln A by exchanging the types within layers.
        p_min: the smallest p-value that these layers allow.
        exact: whether every exchange was counted.
        status: "ok" or "not resolved".
        reason: why it is not resolved.
    """

    layers: int
    seeds: int
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_min: float = math.nan
    exact: bool = False
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""

    @property
    def sentence(self) -> str:
        """Return the result as one sentence."""
        if self.status != "ok":
            return f"Not resolved ({self.reason})."
        return (
            f"A = {self.ratio:.3g} [{self.low:.3g}, {self.high:.3g}] over {self.layers} layers, {self.seeds} seeds; "
            f"exchanged types p = {self.p:.3g}."
        )

    def row(self) -> dict[str, object]:
        """Return the fields and the sentence as a row of a table."""
        return {**asdict(self), "sentence": self.sentence}


def asymmetry(first: np.ndarray, second: np.ndarray, *, interior: bool = False) -> Asymmetry:
    """Compare the spread over layers of two groups of types of matrices.

    A = mean over types and seeds of the standard deviation over layers (of ln stable rank, or of an exponent) in the
    first group, divided by that of the second. The test exchanges the two groups within layers, in all seeds together,
    after the mean over layers of each type is taken out: 2^L exchanges, all counted up to 13 layers and 9,999 drawn
    above. Each type of one group is exchanged with one of the other; of all such pairings the largest p counts. It
    takes layers for independent: where neighbours correlate with 0.9, equal groups have p ≤ 0.05 in 17 to 26 %.

    Args:
        first, second: (types, L) or (seeds, types, L), layers in the order of depth; as many types in both.
        interior: leave out the first and the last layer.

    Returns:
        `Asymmetry`; not resolved, with its reason, where a value is missing, a group does not vary over layers, or
        fewer than four layers remain.

    Raises:
        MeasureError: shapes that do not fit, or infinite values.
    """
    a, b = (np.asarray(v, dtype=float) for v in (first, second))
    a, b = (v[None] if v.ndim == 2 else v for v in (a, b))
    if a.ndim != 3 or a.shape != b.shape or not a.size:
        raise MeasureError(
            f"the groups have shapes {np.shape(first)} and {np.shape(second)}; give (types, layers) or "
            "(seeds, types, layers) of as many types each"
        )
    if np.isinf(a).any() or np.isinf(b).any():
        raise MeasureError("a group holds an infinite number; give NaN where a layer has none")
    if interior:
        a, b = a[..., 1:-1], b[..., 1:-1]
    seeds, types, layers = a.shape
    reason = _unusable(a, b)
    if reason:
        return Asymmetry(layers, seeds, status="not resolved", reason=reason)
    # Division by a power of two is exact, and keeps squares within float64.
    sizes = [unit(largest(v)) for v in (a, b)]
    unlike = sizes[0] / sizes[1]
    if not 1 / UNLIKE < unlike < UNLIKE:
        reason = (
            f"the first types are {unlike:.0e} times as large as the second, beyond what numbers can compare"
        )
        return Asymmetry(layers, seeds, status="not resolved", reason=reason)
    a, b = a / max(sizes), b / max(sizes)
    spread = np.stack([v.std(axis=-1, ddof=1).mean(axis=1) for v in (a, b)])

    def log_ratio(chosen: np.ndarray) -> np.ndarray:
        return np.log(spread[0][chosen].mean(axis=-1) / spread[1][chosen].mean(axis=-1))

    low, high = np.exp(seed_bootstrap(log_ratio, seeds))
    a, b = (v - v.mean(axis=-1, keepdims=True) for v in (a, b))
    exchanges, exact = _exchanges(layers)
    tests = [_p_value(a, b[:, order], exchanges, exact) for order in map(list, permutations(range(types)))]
    value = math.exp(float(log_ratio(np.arange(seeds))))
    return Asymmetry(
        *(layers, seeds, value, float(low), float(high), max(p for p, _ in tests), max(m for _, m in tests)),
        exact,
    )


def asymmetry_verdict(whole: Asymmetry, interior: Asymmetry, names: str = "q and k") -> Verdict:
    """Say whether the first types carry the dependence on depth.

    Shown if, with all layers and without the ends, the interval of A over seeds lies above 1, and the test of exchanged
    types has p < 0.05. (Any arrangement of few layers gives A > 1 in half of the models, alike in all seeds: the
    interval over seeds does not see that chance.)

    Args:
        whole, interior: at the end of training, of all layers and of interior ones.
        names: of the first types.
    """
    claim = f"The spread over depth is larger in {names} than in the others"
    told, missing, failed = [], [], []
    for name, one in (("all layers", whole), ("interior layers", interior)):
        if one.status != "ok":
            missing.append(f"{name}: {one.reason}")
            continue
        told.append(f"{name}: A = {one.ratio:.2f} [{one.low:.2f}, {one.high:.2f}], p = {one.p:.2g}")
        if math.isnan(one.low):
            missing.append(f"{name}: {one.seeds} seeds; an interval needs three")
        elif one.p_min >= SIGNIFICANT:
            missing.append(f"{name}: {one.layers} layers cannot have p < {SIGNIFICANT}")
        elif side(one.low, one.high, 1.0) <= 0 or one.p >= SIGNIFICANT:
            failed.append(name)
    if failed:
        return Verdict(claim, "not shown", "; ".join(told))
    return (
        Verdict(claim, "not resolved", "; ".join(missing))
        if missing
        else Verdict(claim, "shown", "; ".join(told))
    )


def _unusable(a: np.ndarray, b: np.ndarray) -> str:
    if a.shape[-1] < LEAST_LAYERS:
        return f"{a.shape[-1]} layers; the test needs {LEAST_LAYERS}"
    for name, own in (("first", a), ("second", b)):
        missing = int(np.isnan(own).sum())
        if missing:
            return f"{missing} values of the {name} types are missing"
        if (np.ptp(own / 2, axis=-1) <= ROUNDING * np.abs(own).max(axis=-1)).all(axis=1).any():
            return f"the {name} types of a seed have the same values in all layers"
    return ""


@lru_cache(maxsize=8)
def _exchanges(layers: int) -> tuple[np.ndarray, bool]:
    """Return which layers are exchanged, (exchanges, layers) of 0 and 1, and whether these are all."""
    if layers <= EXACT_LAYERS:
        return (np.arange(2**layers)[:, None] >> np.arange(layers) & 1).astype(float), True
    return np.random.default_rng(layers).integers(2, size=(DRAWS, layers)).astype(float), False


def _p_value(a: np.ndarray, b: np.ndarray, exchanges: np.ndarray, exact: bool) -> tuple[float, float]:
    """Return p of |ln A| and its smallest possible value, where type i of a is exchanged with type i of b."""
    size = np.abs(_log_ratios(a, b, exchanges))
    observed = abs(float(_log_ratios(a, b, np.zeros((1, a.shape[-1])))[0]))
    extra = 0 if exact else 1
    total = len(size) + extra
    most = int((size >= size.max() - TIE).sum()) if exact else 1
    return (int((size >= observed - TIE).sum()) + extra) / total, most / total


def _log_ratios(a: np.ndarray, b: np.ndarray, exchanges: np.ndarray) -> np.ndarray:
    """Return ln A of each exchange."""
    layers = a.shape[-1]
    means = []
    for kept, other in ((a, b), (b, a)):
        rows, moves = kept.reshape(-1, layers), (other - kept).reshape(-1, layers)
        squares = (other**2 - kept**2).reshape(-1, layers)
        total = rows.sum(axis=1) + exchanges @ moves.T
        power = (rows**2).sum(axis=1) + exchanges @ squares.T
        means.append(np.sqrt(np.maximum(power - total**2 / layers, 0.0)).mean(axis=1))
    tiny = 1e-12 * (means[0] + means[1]).max()
    return np.log(np.maximum(means[0], tiny)) - np.log(np.maximum(means[1], tiny))
