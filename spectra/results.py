"""Define the result of an estimator: a value, an interval and a status."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from spectra.errors import InputError

Status = Literal["ok", "flagged", "not fitted"]


@dataclass(frozen=True)
class Estimate:
    """Hold a value with its interval, status and reason.

    Attributes:
        value: the estimate, NaN when not fitted.
        low, high: interval bounds, NaN where there is no interval.
        status: ``"ok"``, ``"flagged"`` (computed, but dominated by bias or misfit; see reason) or ``"not fitted"``.
        reason: why the status is not ``"ok"``; empty otherwise.
        details: further numbers of the fit (standard error, KS distance, R², n/d, …), by name.

    ``float(estimate)`` is its value.

    Raises:
        InputError: not a number, a NaN that says it is fitted, an interval of which one end is NaN or whose low end
            lies above the high one, or an unknown status.

    >>> Estimate(1.2, 1.0, 1.4).ok, Estimate.not_fitted("too few values").ok
    (True, False)
    >>> float(Estimate(1.2))
    1.2
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    status: Status = "ok"
    reason: str = ""
    details: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in ("ok", "flagged", "not fitted"):
            raise InputError(f"the status is {self.status!r}; it must be 'ok', 'flagged' or 'not fitted'")
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            try:
                math.isnan(number)
            except TypeError:
                raise InputError(f"{name} is {reprlib.repr(number)}; pass one real number") from None
        if math.isnan(self.value) and self.status != "not fitted":
            raise InputError(
                f"an estimate of NaN is not {self.status!r}; say why with Estimate.not_fitted(reason)"
            )
        if math.isnan(self.low) != math.isnan(self.high):
            raise InputError(f"the interval is {self.low:g} to {self.high:g}; give both ends, or neither")
        if self.low > self.high:
            raise InputError(f"the interval is {self.low:g} to {self.high:g}; give the lower end first")

    def __float__(self) -> float:
        return float(self.value)

    @property
    def ok(self) -> bool:
        """Return whether the status is ``"ok"``."""
        return self.status == "ok"

    @classmethod
    def not_fitted(cls, reason: str, **details: float) -> Estimate:
        """Return an estimate without a value, with the reason."""
        return cls(math.nan, status="not fitted", reason=reason, details=details)
