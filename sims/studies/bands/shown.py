"""The tables of `band_report` in the form in which they are shown."""

from __future__ import annotations

import pandas as pd

from sims.analysis.variance import SOURCES
from sims.pages.number import intervals


def shown_tables(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the tables of `band_report` with intervals in brackets and the main columns only."""
    contrast = ["quantity", "regime", "kind", "stage"]
    position, training, parts = (tables[name] for name in ("position", "training", "components"))
    return {
        "Along the sequence": _contrast(position, contrast, "position"),
        "Over training": _contrast(training, contrast, "fraction"),
        "Parts of the variance": _parts(parts[parts["kind"] == "all"]),
        "Parts of the variance, by kind of band": _parts(parts[parts["kind"] != "all"]),
        **({"Seeds needed": _needed(tables["planning"])} if len(tables["planning"]) else {}),
        "Bands at the end of training": _bands(tables["bands"]),
    }


def _needed(planning: pd.DataFrame) -> pd.DataFrame:
    """Return the seeds that a difference needs, a column a number of bands."""
    needed = planning.assign(
        seeds=[
            f"{'>1000' if pd.isna(a) else a} / {'–' if n == 1 else '>1000' if pd.isna(b) else b}"
            for a, b, n in zip(planning["new_seeds"], planning["new_both"], planning["bands"], strict=True)
        ]
    ).pivot_table(
        index=["quantity", "target", "origin", "size"],
        columns="bands",
        values="seeds",
        aggfunc="first",
        sort=False,
    )
    needed.columns = [f"bands: {n}" for n in needed.columns]
    return needed.reset_index()


def _contrast(table: pd.DataFrame, keys: list[str], axis: str) -> pd.DataFrame:
    made = table[[*keys, "first", "top", f"top_{axis}", "last", f"last_{axis}"]].copy()
    made["last − first"] = intervals(table, "change", "low", "high")
    made["last − top"] = intervals(table, "after_top", "after_low", "after_high")
    return made.assign(**{"loss first − last": table["context_gain"]})


def _parts(parts: pd.DataFrame) -> pd.DataFrame:
    made = parts[["quantity", "target", "kind", "seeds", "bands", "left_out"]].copy()
    made["mean, bands in general"] = intervals(parts, "mean", "low", "high")
    made["mean, these bands"] = intervals(parts, "mean", "low_here", "high_here")
    for source in SOURCES:
        spread = parts[[source, f"{source} low", f"{source} high"]] ** 0.5
        raw = parts[f"{source} raw"]
        text = intervals(spread, source, f"{source} low", f"{source} high")
        made[f"sd {source}"] = [
            f"{t} (raw variance {r:.2g})" if r < 0 else t for t, r in zip(text, raw, strict=True)
        ]
    return made


def _bands(bands: pd.DataFrame) -> pd.DataFrame:
    text = bands.assign(
        cell=[
            f"{h:.2f} / {p:.3f}" if h == h else "–"
            for h, p in zip(bands["h_s"], bands["h_peak"], strict=True)
        ]
    )
    index = ["band", "kind", "known", "h_s_null"]
    wide = text.assign(h_s_null=text["h_s_null"].round(3)).pivot_table(
        index=index, columns="stage", values="cell", aggfunc="first", sort=False
    )
    wide.columns = [f"{stage}: H_S / H_peak" for stage in wide.columns]
    peaks = text.groupby("band")["h_peak_null"].mean()
    return wide.reset_index().assign(h_peak_null=lambda t: t["band"].map(peaks))
