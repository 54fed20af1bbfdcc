"""The tables of `robustness_report` in the form in which they are shown."""

from __future__ import annotations

import pandas as pd

from sims.pages.number import cell, intervals


def shown_tables(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the tables of `robustness_report` with intervals in brackets and the main columns only."""
    judged = tables["verdicts"]
    first = judged.drop_duplicates("conclusion")
    reference = pd.DataFrame(
        {
            "conclusion": first["conclusion"],
            "reference": _effect(first, "reference", "reference_"),
            "decided": ["yes" if s else "no" for s in first["reference_sign"]],
        }
    )
    every = judged[["conclusion", "group", "variation", "n"]].assign(
        effect=_effect(judged, "effect", ""),
        reference=_effect(judged, "reference", "reference_"),
        verdict=judged["verdict"],
        shift=intervals(judged, "shift", "shift_low", "shift_high"),
    )
    return {"The conclusions": reference, "Counts": tables["tally"], "Every verdict": every}


def _effect(table: pd.DataFrame, value: str, prefix: str) -> list[str]:
    """The effect with its interval, or with the p-value of its test."""
    text = intervals(table, value, f"{prefix}low", f"{prefix}high")
    return [t if p != p else f"{t} (p = {cell(p)})" for t, p in zip(text, table[f"{prefix}p"], strict=True)]
