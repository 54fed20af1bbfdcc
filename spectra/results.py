"""Define the result of an estimator: a value, an interval and a status."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import DTypeLike

from spectra.errors import InputError
from spectra.shown import data_frame, table_html

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from spectra.plots import Null

Status = Literal["ok", "flagged", "not fitted"]


@dataclass(frozen=True, eq=False)
class Estimate:
    """Hold a value with its interval, status and reason.

    Attributes:
        value: the estimate, NaN when not fitted.
        low, high: interval bounds, NaN where there is no interval.
        status: ``"ok"``, ``"flagged"`` (computed, but dominated by bias or misfit; see reason) or ``"not fitted"``.
        reason: why the status is not ``"ok"``; empty otherwise.
        details: further numbers of the fit (standard error, KS distance, R², n/d, …), by name.

    ``float(estimate)`` and ``np.asarray(estimate)`` are its value. Estimates are equal when all of this is equal,
    NaN in the same places included. A format applies to each number, and what is not "ok" says so:

    >>> f"{Estimate(1.2, 1.0, 1.4):.2f}", f"{Estimate.not_fitted('too few values'):.2f}"
    ('1.20 [1.00, 1.40]', 'not fitted')

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
            # Scalars of numpy and tensors become plain numbers.
            object.__setattr__(self, name, float(number))
        if math.isnan(self.value) and self.status != "not fitted":
            raise InputError(
                f"an estimate of NaN is not {self.status!r}; say why with Estimate.not_fitted(reason)"
            )
        if math.isnan(self.low) != math.isnan(self.high):
            raise InputError(f"the interval is {self.low:g} to {self.high:g}; give both ends, or neither")
        if self.low > self.high:
            raise InputError(f"the interval is {self.low:g} to {self.high:g}; give the lower end first")

    @property
    def ok(self) -> bool:
        """Return whether the status is ``"ok"``.

        >>> Estimate(1.2, status="flagged", reason="few samples").ok
        False
        """
        return self.status == "ok"

    @property
    def has_interval(self) -> bool:
        """Return whether there is an interval.

        >>> Estimate(1.2).has_interval
        False
        """
        return not math.isnan(self.low)

    @classmethod
    def not_fitted(cls, reason: str, **details: float) -> Estimate:
        """Return an estimate without a value, with the reason.

        >>> Estimate.not_fitted("too few values").reason
        'too few values'
        """
        return cls(math.nan, status="not fitted", reason=reason, details=details)

    def plot(self, ax: Axes | None = None, *, label: str = "estimate", null: Null | None = None) -> Axes:
        """Draw the value and its interval as one row.

        A further call with the same axes adds a row below. Open points are flagged; what is not fitted has no point.

        Args:
            ax: where to draw; a new figure by default.
            label: name of the row, with its unit.
            null: the same number for noise: a value, an interval (low, high), an Estimate (its interval), or a law with
                `quantile`; drawn in grey behind the row.

        Raises:
            InputError: a null that is none of these.
            ImportError: without matplotlib.

        >>> ax = Estimate(1.2, 1.0, 1.4).plot(label="α", null=0.2)
        >>> ax = Estimate(1.5).plot(ax, label="α, other run")
        >>> [text.get_text().splitlines() for text in ax.get_yticklabels()]
        [['α', '1.2 [1, 1.4]'], ['α, other run', '1.5']]
        """
        from spectra.plots import plot_estimates

        return plot_estimates({label: self}, ax, null=null)

    def to_frame(self) -> pd.DataFrame:
        """Return one row: value, low, high, status, reason, and the details.

        Raises:
            ImportError: without pandas.

        >>> list(Estimate(1.2, details={"r2": 0.9}).to_frame())
        ['value', 'low', 'high', 'status', 'reason', 'r2']
        """
        fields = self._fields()
        return data_frame({name: [value] for name, value in {**fields, **self.details, **fields}.items()})

    def __float__(self) -> float:
        return self.value

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.value, dtype=dtype, copy=copy)

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        value = format(self.value, spec)
        if self.status == "not fitted" and math.isnan(self.value):
            return self.status
        interval = f" [{self.low:{spec}}, {self.high:{spec}}]" if self.has_interval else ""
        return f"{value}{interval}" + ("" if self.ok else f" ({self.status})")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Estimate):
            return NotImplemented
        own, others = self._fields(), other._fields()
        return (
            all(_same(own[name], others[name]) for name in own)
            and self.details.keys() == other.details.keys()
            and all(_same(value, other.details[name]) for name, value in self.details.items())
        )

    def __hash__(self) -> int:
        return hash(tuple(None if value != value else value for value in self._fields().values()))

    def _fields(self) -> dict[str, float | str]:
        return {name: getattr(self, name) for name in ("value", "low", "high", "status", "reason")}

    def _repr_html_(self) -> str:
        shown: dict[str, object] = {"value": f"{self:.4g}", "status": self.status}
        if self.reason:
            shown["reason"] = self.reason
        return table_html("Estimate", {**shown, **self.details, **shown})


def _same(a: object, b: object) -> bool:
    """Return whether two fields are equal, or both NaN."""
    return bool(a == b) or bool(a != a and b != b)
