"""What an estimator returns when a bare number would hide whether it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "flagged", "not fitted"]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval and a verdict on itself.

    Attributes:
        value: the estimate, NaN when not fitted.
        low, high: interval bounds, NaN when no interval was asked for.
        status: ``"ok"``, ``"flagged"`` (computed, but bias or misfit rules; see reason) or ``"not fitted"``.
        reason: why the status is not ``"ok"``; empty otherwise.
        details: further figures of the fit (standard error, KS distance, R², n/d, …), by name.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    status: Status = "ok"
    reason: str = ""
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the status is ``"ok"``."""
        return self.status == "ok"

    @classmethod
    def not_fitted(cls, reason: str, **details: float) -> Estimate:
        """An estimate that could not be made, with the reason and whatever is known."""
        return cls(math.nan, status="not fitted", reason=reason, details=details)
