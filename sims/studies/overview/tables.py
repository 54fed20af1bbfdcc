"""Tables as people read them: few digits, intervals in brackets. The page and the terminal show the same ones."""

from __future__ import annotations

import math

import pandas as pd

from sims.analysis.cells import best_rates
from sims.analysis.matched import batch_divergence, matched_spectra
from sims.analysis.runs import Runs
from sims.analysis.stages import concentration_summary, outcome_table, stage_differences
from sims.pages.table import ABSENT, Table, interval, number


def outcomes(runs: Runs) -> Table:
    """Final losses and tokens to the common loss."""
    table = outcome_table(runs)
    common = table["common_loss"].iloc[0]
    columns = (
        "stage",
        "B",
        "lr",
        "seeds",
        "final loss (nats)",
        "M tokens seen",
        f"M tokens to {common:.3f}",
        "diverged",
    )
    rows = tuple(
        (
            r["stage"],
            str(r["batch_size"]),
            ABSENT if math.isnan(r["lr"]) else f"{r['lr']:.3g}",
            str(r["seeds"]),
            interval(r["loss"], r["loss_low"], r["loss_high"]),
            number(r["million_tokens"]),
            interval(r["to_common"], r["to_common_low"], r["to_common_high"]),
            str(r["diverged"]),
        )
        for r in table.to_dict("records")
    )
    return Table(columns, rows)


def concentrations(runs: Runs, quantity: str | None = None) -> Table:
    """Start, top and end of concentration by band, or averaged over bands for one quantity."""
    table = concentration_summary(runs)
    if quantity:
        table = table[table["quantity"] == quantity]
    columns = (
        "quantity",
        "band",
        "stage",
        "B",
        "start",
        "top over training",
        "at M tokens",
        "end",
        "null 97.5 %",
    )
    rows = tuple(
        (
            r["quantity"],
            r["band"],
            r["stage"],
            str(r["batch_size"]),
            number(r["start"]),
            interval(r["top"], r["top_low"], r["top_high"]),
            number(r["tokens_at_top"] / 1e6, 2),
            number(r["end"]),
            number(r["null_high"]),
        )
        for r in table.to_dict("records")
    )
    return Table(columns, rows, text=(0, 1, 2))


def differences(runs: Runs) -> Table:
    """Paired differences of successive stages in the highest H_peak and H_S."""
    rows = []
    for quantity in ("H_peak", "H_S task"):
        for r in stage_differences(runs, quantity).to_dict("records"):
            sign = "up" if r["low"] > 0 else "down" if r["high"] < 0 else "cannot tell"
            change = interval(r["difference"], r["low"], r["high"])
            rows.append((quantity, f"{r['before']} → {r['after']}", change, str(r["n"]), sign))
    return Table(
        ("quantity", "transition", "change of the top", "seeds", "verdict"), tuple(rows), text=(0, 1, 4)
    )


def divergences(runs: Runs) -> Table:
    """JS divergences between batch sizes at matched loss."""
    table = batch_divergence(matched_spectra(best_rates(runs)))
    rows = tuple(
        (
            r["stage"],
            f"{r['small']} / {r['large']}",
            f"{r['js']:.5f}",
            f"{r['low']:.5f} … {r['high']:.5f}",
            number(r["floor"], 5),
            str(r["pairs"]),
        )
        for r in table.to_dict("records")
    )
    return Table(("stage", "batch sizes", "JS (nats)", "over seeds", "floor between seeds", "pairs"), rows)


def timing(runs: Runs) -> pd.Series:
    """Seconds of all runs by part."""
    parts = [c for c in runs.runs.columns if c.startswith("seconds_")]
    return runs.runs[parts].sum().rename(lambda c: c.removeprefix("seconds_"))
