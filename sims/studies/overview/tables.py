"""Tables of the report and of its figures."""

from __future__ import annotations

import pandas as pd

from sims.analysis.runs import Runs
from sims.analysis.stages import concentration_summary, link_to_activations, stage_differences
from sims.analysis.summaries import label, summary_means
from sims.pages.number import ABSENT, interval, missing, number, significant
from sims.pages.table import Table
from theory.decision import side


def concentrations(runs: Runs) -> Table:
    """Write start, top and end of concentration by band."""
    table = concentration_summary(runs)
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
    """Write paired differences of successive stages in the highest H_peak and H_S."""
    rows = []
    for quantity in ("H_peak", "H_S task"):
        for r in stage_differences(runs, quantity).to_dict("records"):
            sign = {1: "up", -1: "down", 0: "cannot tell"}[side(r["low"], r["high"])]
            change = interval(r["difference"], r["low"], r["high"])
            rows.append((quantity, f"{r['before']} → {r['after']}", change, str(r["n"]), sign))
    return Table(
        ("quantity", "transition", "change of the top", "seeds", "verdict"), tuple(rows), text=(0, 1, 4)
    )


def divergences(table: pd.DataFrame) -> Table:
    """Write JS divergences between batch sizes at matched loss.

    Args:
        table: of `sims.analysis.matched.batch_divergence`.
    """
    rows = tuple(
        (
            r["stage"],
            f"{r['small']} / {r['large']}",
            number(r["js"], 5),
            f"{number(r['low'], 5)} … {number(r['high'], 5)}",
            number(r["floor"], 5),
            str(r["pairs"]),
        )
        for r in table.to_dict("records")
    )
    return Table(("stage", "batch sizes", "JS (nats)", "over seeds", "floor between seeds", "pairs"), rows)


def summaries(runs: Runs) -> Table:
    """Write the summaries of the final activations at the end, a column each, with their nulls."""
    means = summary_means(runs)
    quantities = list(dict.fromkeys(means["quantity"]))
    rows = tuple(
        (
            str(stage),
            str(size),
            *(_with_null(own[own["quantity"] == quantity]) for quantity in quantities),
        )
        for (stage, size), own in means.groupby(["stage", "batch_size"], sort=False)
    )
    return Table(("stage", "batch size", *(label(quantity) or quantity for quantity in quantities)), rows)


def _with_null(row: pd.DataFrame) -> str:
    if not len(row):
        return ABSENT
    value, null = row["value"].iloc[0], row["null"].iloc[0]
    return significant(value) if missing(null) else f"{significant(value)} ({significant(null)})"


def link_means(runs: Runs) -> pd.DataFrame:
    """Return each measured moment after the start: H_S against the activation spectrum, means over bands.

    Returns:
        run_id, stage, batch_size, seed, step, h_s, top_share, and one column alpha <window> for each fitted window.
    """
    table = link_to_activations(runs)
    table = table[table["step"] > 0]
    alphas = [c for c in table.columns if c.startswith("alpha ") and table[c].notna().any()]
    by = ["run_id", "stage", "batch_size", "seed", "step"]
    return table.groupby(by, sort=False)[["h_s", *alphas, "top_share"]].mean().reset_index()


def causal_effects(runs: Runs) -> pd.DataFrame:
    """Return the effect of editing the key frequency at each run's last measurement, mean over bands.

    Returns:
        quantity, site, stage, run_id, value and null (change of the loss in nats, and that of the control).
    """
    rows = pd.concat([runs.values("causal_drop"), runs.values("causal_keep")])
    cell = ["run_id", "quantity", "site", "band", "regime"]
    last = rows.sort_values("step").groupby(cell, sort=False).last().reset_index()
    return last.groupby(["quantity", "site", "stage", "run_id"])[["value", "null"]].mean().reset_index()
