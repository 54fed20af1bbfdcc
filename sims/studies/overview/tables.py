"""Tables of the report and of its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sims.analysis.comparisons import (
    AT_TOP,
    FALL,
    LEAST_SEEDS,
    LOSS,
    RANKME,
    RISE,
    TOP,
    comparisons,
    with_pilots,
)
from sims.analysis.intervals import seed_intervals
from sims.analysis.runs import Runs
from sims.analysis.spectra import activation_site
from sims.analysis.stages import concentration_summary, link_to_activations
from sims.analysis.summaries import label, last_rows, last_summaries, range_of
from sims.analysis.variance import LARGEST
from sims.pages.number import ABSENT, interval, missing, number, significant
from sims.pages.table import Table

# How the questions, quantities and verdicts of `comparisons` are written.
ASKED = {
    LOSS: "final loss, nats",
    RISE: "{name} top − null",
    FALL: "{name} top − end",
    TOP: "highest {name}",
    RANKME: "final RankMe",
}
SHOWN = {"H_S task": "H_S"}
CALLED = {RISE: ("open", "above", "below"), FALL: ("open", "falls", "rises")}
CHANGED = ("open", "up", "down")
# Behind a summary: its fit is flagged.
FLAGGED = "!"
FLAG_NOTE = (
    f"{FLAGGED} marks a fit that is flagged in some run, such as an exponent in a window of ranks that the number of "
    "samples makes wrong; the rows of the runs have the reason."
)
# A difference that needs more is hardly worth them.
MANY_SEEDS = 100


def concentrations(runs: Runs) -> Table:
    """Write start, top and end of concentration by band."""
    table = runs.once(concentration_summary)
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


def verdicts(runs: Runs) -> Table:
    """Write every comparison of the head of the report: value, interval, seeds, verdict, and what it needs."""
    rows = []
    for r in runs.once(comparisons).to_dict("records"):
        question = _asked(r["question"], r["quantity"])
        rows.append(
            (
                question,
                r["subject"],
                interval(r["value"], r["low"], r["high"]),
                str(r["n"]),
                number(r["p_holm"]),
                _called(r),
                "" if r["verdict"] else needed(r),
            )
        )
    columns = ("asked", "of", "value", "seeds", "p (Holm)", "verdict", "would decide it")
    return Table(columns, tuple(rows), text=(0, 1, 5, 6))


def verdict_grids(runs: Runs) -> list[Table]:
    """Write value, interval and verdict of all comparisons as two grids: by step from stage to stage, and by stage."""
    table = runs.once(comparisons)
    grids = []
    for heading, questions in (("change at", (LOSS, RANKME, TOP)), ("within", (RISE, FALL))):
        own = table[table["question"].isin(questions)]
        if own.empty:
            continue
        subjects = list(dict.fromkeys(own["subject"]))
        cells = {(r["question"], r["quantity"], r["subject"]): r for r in own.to_dict("records")}
        rows = tuple(
            (_asked(question, quantity), *(_verdict(cells.get((question, quantity, s))) for s in subjects))
            for question, quantity in dict.fromkeys((q, k) for q, k, _ in cells)
        )
        grids.append(Table((heading, *subjects), rows))
    return grids


def _asked(question: str, quantity: str) -> str:
    return ASKED[question].format(name=SHOWN.get(quantity, quantity))


def _called(comparison: Mapping[Any, Any]) -> str:
    """Return the verdict in one word, by its question; 0, +1 and −1 are the places of the words."""
    return CALLED.get(comparison["question"], CHANGED)[int(comparison["verdict"])]


def _verdict(comparison: Mapping[Any, Any] | None) -> str:
    if comparison is None:
        return ABSENT
    value = interval(comparison["value"], comparison["low"], comparison["high"])
    return f"{value}\n{_called(comparison)}"


def short_verdicts(runs: Runs) -> Table:
    """Write `verdicts` for a terminal: in the place of an open verdict stands what would decide it."""
    rows = verdicts(runs).rows
    return Table(
        ("of", "at", "value", "verdict"), tuple((*r[:3], r[6] or r[5]) for r in rows), text=(0, 1, 3)
    )


def needed(comparison: Mapping[Any, Any]) -> str:
    """Return what would decide an open row of `comparisons`: "about 9 seeds in all"."""
    if comparison["n"] < LEAST_SEEDS:
        if comparison["question"] in AT_TOP:
            return f"at least {with_pilots(LEAST_SEEDS):.0f} seeds"
        return f"at least {LEAST_SEEDS} seeds that both stages have"
    if math.isnan(comparison["seeds"]):
        at_end = comparison["question"] == FALL and comparison["value"] == 0
        return "longer training, since the top is at the end" if at_end else "seeds that differ"
    if math.isinf(comparison["seeds"]):
        return f"more than {LARGEST:,} seeds"
    small = ", since the difference is small" if comparison["seeds"] > MANY_SEEDS else ""
    return f"about {comparison['seeds']:.0f} seeds in all{small}"


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
    """Write the summaries of the activations at the end, a column each, with their intervals over seeds and nulls."""
    alive = runs.runs.loc[runs.runs["ended"] != "diverged", ["run_id", "stage", "batch_size"]]
    table = last_summaries(runs, activation_site(runs)).merge(alive, on="run_id")
    return _summary_table(table, {"stage": "stage", "batch_size": "batch size"})


def layers(table: pd.DataFrame) -> Table:
    """Write summaries by site, a column each, with their intervals over seeds and nulls.

    Args:
        table: of `sims.analysis.layers.summaries_by_site`.
    """
    return _summary_table(table, {"stage": "stage", "batch_size": "batch size", "site": "site"})


def _summary_table(table: pd.DataFrame, keys: Mapping[str, str]) -> Table:
    """Write one row a cell, with a column for each quantity.

    Args:
        table: one row a run and quantity, with value, null and status.
        keys: column that makes a cell → its heading.
    """
    by = [*keys, "quantity"]
    means = seed_intervals(table, by, within=range_of)
    cells = table.assign(flagged=table["status"] == "flagged").groupby(by, sort=False, dropna=False)
    means["null"], means["flagged"] = cells["null"].mean().to_numpy(), cells["flagged"].any().to_numpy()
    quantities = list(dict.fromkeys(means["quantity"]))
    rows = []
    for cell, own in means.groupby(list(keys), sort=False):
        there = {row["quantity"]: _with_null(row) for row in own.to_dict("records")}
        written = (there.get(quantity, ABSENT) for quantity in quantities)
        rows.append((*map(str, cell), str(own["n"].max()), *written))
    headings = (label(quantity) or quantity for quantity in quantities)
    text = tuple(place for place, key in enumerate(keys) if key != "batch_size")
    return Table((*keys.values(), "seeds", *headings), tuple(rows), text=text)


def _with_null(row: Mapping[Any, Any]) -> str:
    value = interval(row["mean"], row["low"], row["high"], write=significant)
    null = "" if missing(row["null"]) else f" ({significant(row['null'])})"
    return f"{value}{null}{FLAGGED if row['flagged'] else ''}"


def flag_note(table: Table) -> str:
    """Return a sentence about the flagged fits of a table of summaries; "" without any."""
    flagged = any(cell.endswith(FLAGGED) for row in table.rows for cell in row)
    return f" {FLAG_NOTE}" if flagged else ""


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
    """Return the effect of editing the key frequency at the end of the runs, mean over bands.

    Returns:
        quantity, site, stage, run_id, value and null (change of the loss in nats, and that of the control); runs that
        diverged are left out.
    """
    last = pd.concat([last_rows(runs, runs.values(name)) for name in ("causal_drop", "causal_keep")])
    last = last[last["run_id"].isin(runs.runs.loc[runs.runs["ended"] != "diverged", "run_id"])]
    return last.groupby(["quantity", "site", "stage", "run_id"])[["value", "null"]].mean().reset_index()


def positions(runs: Runs) -> pd.DataFrame:
    """Return the loss above its floor at the first four positions, the eighth and the last one.

    Returns:
        Rows of `excess_by_position` after step 0, with the column position (1 where one token was read).
    """
    rows = runs.values("excess_by_position", "loss")
    rows = rows[rows["step"] > 0]
    rows = rows.assign(position=rows["detail"].str.removeprefix("position ").astype(int))
    return rows[rows["position"].isin([1, 2, 3, 4, 8, rows["position"].max()])]


def alignments(runs: Runs) -> pd.DataFrame:
    """Return how much of the best predictor the states hold, at every position where it was measured.

    Returns:
        Rows of `alignment_bc`, with its null by permuted contexts and the columns position (tokens read) and last_token
        (the share of the last token alone).
    """
    rows, alone = (runs.values(name, "predictive") for name in ("alignment_bc", "alignment_bc_last_token"))
    cell = ["run_id", "step", "detail"]
    rows = rows.merge(alone[[*cell, "value"]].rename(columns={"value": "last_token"}), on=cell, how="left")
    return rows.assign(position=rows["detail"].str.removeprefix("position ").astype(int))
