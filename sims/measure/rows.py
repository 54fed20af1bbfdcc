"""Collect rows and spectra in the form in which they are stored (`sims.runs.layout.ROWS` and `SPECTRA`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sims.runs.columns import WHICH
from spectra import Estimate, Spectrum


@dataclass
class MeasurementRows:
    """Collect the results of one measurement, all at one step.

    Args:
        step, tokens: of the model that is measured; tokens are None where they are not known.
    """

    step: int
    tokens: int | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    spectra: list[dict[str, Any]] = field(default_factory=list)

    def row(
        self,
        quantity: str,
        object_: str,
        site: str,
        value: float | Estimate,
        *,
        null: float = math.nan,
        null_high: float = math.nan,
        **which: Any,
    ) -> None:
        """Add one measured number, with what chance alone would give; "not fitted" where it is NaN or infinite.

        Args:
            quantity, object_, site, value, null, null_high: columns of `sims.runs.layout.ROWS`.
            which: further columns, of `sims.runs.columns.WHICH`: band, regime, seen, set, window, detail.

        Raises:
            TypeError: a column that is not one of `WHICH`.
        """
        if unknown := which.keys() - WHICH.keys():
            raise TypeError(f"rows have no column {', '.join(sorted(unknown))}; choose of {', '.join(WHICH)}")
        estimate = value if isinstance(value, Estimate) else _estimate(float(value))
        if math.isinf(estimate.value):
            estimate = Estimate.not_fitted("the value is infinite")
        self.rows.append(
            {
                "step": self.step,
                "tokens": self.tokens,
                "quantity": quantity,
                "object": object_,
                "site": site,
                **WHICH,
                **which,
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "null": null,
                "null_high": null_high,
                "status": estimate.status,
                "reason": estimate.reason,
            }
        )

    def diverged(self, reason: str) -> None:
        """Add the row of a model that computes no numbers: a validation loss without a value."""
        self.row("val_loss", "loss", "validation", math.nan)
        self.rows[-1] |= {"status": "diverged", "reason": reason}

    def spectrum(self, object_: str, site: str, spectrum: Spectrum) -> None:
        """Add one spectrum."""
        self.spectra.append(
            {
                "step": self.step,
                "tokens": self.tokens,
                "object": object_,
                "site": site,
                "kind": spectrum.kind,
                "n": spectrum.n,
                "d": spectrum.d,
                "centred": spectrum.centred,
                "values": spectrum.values.tolist(),
            }
        )


def _estimate(value: float) -> Estimate:
    """Return a plain number as an estimate; one that is none (a run has diverged) is not "ok"."""
    return Estimate.not_fitted("the value is not a number") if math.isnan(value) else Estimate(value)


class RecordingObserver:
    """Hold the rows that an observer between steps finds until they are flushed; it has no state to be stored.

    A subclass adds `name`, `due` and `look`, and is then a `StepObserver` (`sims.measure.measurement`). One that keeps
    something from one look to the next adds it to `state_dict`.
    """

    def __init__(self) -> None:
        self.found: list[MeasurementRows] = []

    def flush(self) -> list[MeasurementRows]:
        """Return the rows since the last call."""
        found, self.found = self.found, []
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue without state."""
