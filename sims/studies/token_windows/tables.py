"""Spectra of token windows as tables."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sims.pages.answer import Answer
from sims.pages.plain import show_table
from sims.runs.rank_windows import DEPTH_WINDOWS, HEAD_WINDOW
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


def show_windows(
    spectra: Sequence[tuple[str, WindowSpectrum]], table: pd.DataFrame, answer: Answer | None = None
) -> None:
    """Print one line a spectrum.

    Args:
        spectra: what the tokens are ("text" or "shuffled"), and the spectrum.
        table: the eigenvalues of all.
        answer: gets the tables spectra, exponents and eigenvalues, in place of the terminal.
    """
    fits = [[window_exponent(found.spectrum, *ranks) for ranks in EXPONENTS] for _, found in spectra]
    facts = [
        {"window": found.window, "tokens": name, "n": found.spectrum.n, "d": found.spectrum.d}
        for name, found in spectra
    ]
    if answer is None:
        rows = [
            [
                *(str(fact[name]) for name in ("window", "tokens", "n", "d")),
                f"{found.shares[0]:.4f}",
                *("not fitted" if f.status == "not fitted" else f"{f.value:.3f}" for f in own),
            ]
            for fact, (_, found), own in zip(facts, spectra, fits, strict=True)
        ]
        show_table(COLUMNS, rows, left=2)
        return
    answer["spectra"] = [
        {**fact, "first_share": found.shares[0]} for fact, (_, found) in zip(facts, spectra, strict=True)
    ]
    answer["exponents"] = [
        {"window": fact["window"], "tokens": fact["tokens"], "ranks": ranks}
        | {name: getattr(fit, name) for name in ("value", "low", "high", "status", "reason")}
        for fact, own in zip(facts, fits, strict=True)
        for ranks, fit in zip(EXPONENTS, own, strict=True)
    ]
    answer["eigenvalues"] = table
