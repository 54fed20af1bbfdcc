"""The values that a quantity can take, and intervals that stay within them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Hold the values that a quantity can take.

    Args:
        low, high: bounds; infinite where there is none.
        cut: intervals are those of the plain values, cut at the bounds. By default they are made on a scale without
            bounds: ln of the distance from a single bound, the logit between two.
    """

    low: float = -math.inf
    high: float = math.inf
    cut: bool = False

    @property
    def change(self) -> Range:
        """Return the values of a difference of two such quantities; its intervals agree with a t-test of 0."""
        return Range(self.low - self.high, self.high - self.low, cut=True)

    def interval(self, value: float, half: float) -> tuple[float, float]:
        """Return an interval within the range.

        Args:
            value: an estimate.
            half: half the width of its interval on the plain scale, t times a standard error.

        Returns:
            value ± half without bounds. Else the same on the scale g, g⁻¹(g(value) ± g′(value)·half), which is equal to
            first order and holds the value; a value on a bound has its plain interval, cut there.
        """
        if self._plain(value) or not half > 0:
            return self._cut(value, value - half, value + half)
        slope = 1 / (value - self.low) + 1 / (self.high - value)
        place, reach = self._scale(value), slope * half
        # Rounding of a scale there and back, and its clipping, must not shut the value out.
        return min(value, self._inverse(place - reach)), max(value, self._inverse(place + reach))

    def reach(self, value: float, level: float) -> float:
        """Return half the width of the narrowest interval around a value that holds a level.

        As of `interval`, on the plain scale; infinite for a level that no interval holds.

        >>> round(SHARE.reach(0.5, 0.25), 6), REAL.reach(0.5, 0.25), SHARE.reach(0.5, 1.0)
        (0.274653, 0.25, inf)
        """
        if self._plain(value):
            return abs(level - value)
        if not self.low < level < self.high:
            return math.inf
        slope = 1 / (value - self.low) + 1 / (self.high - value)
        return abs(self._scale(level) - self._scale(value)) / slope

    def widened(self, value: float, low: float, high: float, factor: float) -> tuple[float, float]:
        """Return an interval of `interval` so many times as wide, on the same scale."""
        if self._plain(value) or not self.low < low <= value <= high < self.high:
            return self._cut(value, value - factor * (value - low), value + factor * (high - value))
        at, below, above = (self._scale(x) for x in (value, low, high))
        return self._inverse(at - factor * (at - below)), self._inverse(at + factor * (above - at))

    def _plain(self, value: float) -> bool:
        """Return whether intervals around a value are made on the plain scale."""
        unbounded = math.isinf(self.low) and math.isinf(self.high)
        return self.cut or unbounded or not self.low < value < self.high

    def _cut(self, value: float, low: float, high: float) -> tuple[float, float]:
        return max(low, min(self.low, value)), min(high, max(self.high, value))

    def _scale(self, value: float) -> float:
        below = 0.0 if math.isinf(self.low) else math.log(value - self.low)
        return below - (0.0 if math.isinf(self.high) else math.log(self.high - value))

    def _inverse(self, place: float) -> float:
        place = min(max(place, -_MOST), _MOST)
        if math.isinf(self.high):
            return self.low + math.exp(place)
        if math.isinf(self.low):
            return self.high - math.exp(-place)
        return self.low + (self.high - self.low) / (1 + math.exp(-place))


# exp of more overflows; a bound of this size says nothing.
_MOST = 700.0

REAL, POSITIVE, SHARE = Range(), Range(0.0), Range(0.0, 1.0)
CORRELATION = Range(-1.0, 1.0)
