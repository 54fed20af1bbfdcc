"""Spectra of token windows as tables."""

from __future__ import annotations

import pandas as pd

from sims.runs.measure_config import DEPTH_WINDOWS, HEAD_WINDOW
from sims.studies.token_windows.token_windows import WindowSpectrum
from spectra import window_exponent

# The rank windows of a d12 model's activations.
EXPONENTS = (HEAD_WINDOW, *DEPTH_WINDOWS["d12"])
COLUMNS = (
    *("T", "tokens", "windows", "different tokens", "first share"),
    *(f"α({low}–{high})" for low, high in EXPONENTS),
)


def eigenvalues(name: str, found: WindowSpectrum) -> pd.DataFrame:
    """Return one row per eigenvalue: rank, eigenvalue, share, window, tokens (`name`), n, d."""
    values = found.spectrum.values
    facts = {"window": found.window, "tokens": name, "n": found.spectrum.n, "d": found.spectrum.d}
    columns = {"rank": range(1, len(values) + 1), "eigenvalue": values, "share": found.shares}
    return pd.DataFrame({**columns}).assign(**facts)


def summary(name: str, found: WindowSpectrum) -> list[str]:
    """Return one line of text, in the order of `COLUMNS`."""
    fits = [window_exponent(found.spectrum, low, high) for low, high in EXPONENTS]
    return [
        *(str(found.window), name, str(found.spectrum.n), str(found.spectrum.d), f"{found.shares[0]:.4f}"),
        *("not fitted" if f.status == "not fitted" else f"{f.value:.3f}" for f in fits),
    ]
