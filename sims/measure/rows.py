"""Rows and spectra as they are stored (see `sims.runs.layout.ROWS` and `SPECTRA`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from spectra import Estimate, Spectrum


@dataclass
class MeasurementRows:
    """Collects what one measurement finds, all at one step.

    Args:
        step, tokens: where the subject stands; tokens are None where nothing says them.
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
        detail: str = "",
        null: float = math.nan,
        null_high: float = math.nan,
    ) -> None:
        """One measured number, with what chance alone would give beside it."""
        estimate = value if isinstance(value, Estimate) else Estimate(float(value))
        self.rows.append(
            {
                "step": self.step,
                "tokens": self.tokens,
                "quantity": quantity,
                "object": object_,
                "site": site,
                "detail": detail,
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "null": null,
                "null_high": null_high,
                "status": estimate.status,
                "reason": estimate.reason,
            }
        )

    def spectrum(self, object_: str, site: str, spectrum: Spectrum) -> None:
        """One spectrum."""
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
