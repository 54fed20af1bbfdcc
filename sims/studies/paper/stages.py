"""Figures 3, 7 and 18: what each transition is, Muon against Adam at equal loss, and the phases of RankMe."""

from __future__ import annotations

import pandas as pd

from sims.analysis.floor import mean_floor, too_large
from sims.analysis.paired import compare_stages
from sims.analysis.phases import phases
from sims.analysis.taxonomy import Thresholds, taxonomy
from sims.pages.number import counted, interval, missing, number
from sims.pages.outcomes import floor_note
from sims.pages.page import Finding, Section
from sims.pages.table import Table
from sims.studies.paper.figure_data import SUPPORTS, FigureData, checker, with_reasons
from sims.studies.paper.figures.transitions import optimiser_figure, phases_figure, taxonomy_figure
from sims.studies.paper.published import PUBLISHED, arrow
from sims.studies.paper.study import STUDY
from sims.studies.paper.verdicts import CANNOT_TELL, SIGNIFICANT, Ours
from sims.studies.study import OPEN


@STUDY.figure("fig3", "Figure 3: taxonomy of transitions", order=30, rank=14, runs="A")
def fig3(data: FigureData) -> Section:
    """Show a label for each transition with its evidence."""
    limits = Thresholds()
    table = taxonomy(data.a, limits=limits)
    judge = checker("fig3", data)
    checks = tuple(
        judge(
            f"js sign {arrow(r['before'], r['after'])}",
            Ours(
                r["activation"],
                r["activation_low"],
                r["activation_high"],
                r["seeds"],
                note=r["reason"] or "ln(JS/floor)",
            ),
        )
        for r in table.to_dict("records")
        if f"js sign {arrow(r['before'], r['after'])}" in PUBLISHED
    )
    return Section(
        text=f"Thresholds: a gain counts beyond ±{limits.token_gain:g}; a kind of spectrum moved if its JS at equal "
        f"loss exceeds {limits.moved:g} times that between seeds, and leads if it is ahead of the other "
        f"{limits.lead:g}-fold. Throughput is timed on whatever else the machine was doing: on a shared machine its "
        "interval is wide, and seeds that trained side by side share what disturbed them.",
        figure=taxonomy_figure(table, limits),
        caption="Means with 95 % intervals over seeds; grey is what counts as nothing. JS is that of spectra at equal "
        "loss, over the JS between seeds.",
        table=_labels(table),
        tables={"fig3-taxonomy": table},
        checks=checks,
        findings=(_label_finding(table),),
    )


def _labels(table: pd.DataFrame) -> Table:
    probed = table["h_s"].notna().any()
    rows = tuple(
        (
            arrow(r["before"], r["after"]),
            r["outcome"],
            r["mechanism"],
            _shown(r, "token_gain", 2),
            _shown(r, "throughput_gain", 2),
            _shown(r, "activation", 2),
            _shown(r, "gradient", 2),
            *((_shown(r, "h_s"),) if probed else ()),
        )
        for r in table.to_dict("records")
    )
    columns = (
        "transition",
        "outcome",
        "mechanism",
        "token gain",
        "throughput gain",
        "activation: ln JS/floor",
        "gradient: ln JS/floor",
        *(("ΔH_S at equal loss",) if probed else ()),
    )
    return with_reasons(Table(columns, rows, text=(0, 1, 2)), list(table["reason"]))


def _label_finding(table: pd.DataFrame) -> Finding:
    labelled = table[(table["outcome"] != CANNOT_TELL) | (table["mechanism"] != CANNOT_TELL)]
    names = "; ".join(
        f"{arrow(r['before'], r['after'])}: {r['outcome']} / {r['mechanism']}"
        for r in labelled.to_dict("records")
    )
    shown = f" (outcome / mechanism: {names})" if names else ""
    return Finding(
        f"{len(labelled)} of {len(table)} transitions earn at least half of a taxonomy label with "
        f"{int(table['seeds'].min())} seeds{shown}; a label needs its 95 % interval on one side of the stated "
        "threshold.",
        SUPPORTS if len(labelled) == len(table) else OPEN,
    )


@STUDY.figure(
    "fig7", "Figure 7: Muon against AdamW at equal loss", order=60, rank=12, runs="A", stages=("rope", "muon")
)
def fig7(data: FigureData) -> Section:
    """Compare RoPE with AdamW and Muon at equal loss."""
    table = compare_stages(data.a, "rope", "muon")
    left_out = table["left_out"].iloc[0]
    lost = f" Left out: {left_out}." if left_out else ""
    scale = table["before"].abs()
    relative = table.assign(**{c: table[c] / scale for c in ("difference", "low", "high")})
    rows = data.a.values("rankme", "activation", "final")
    rows = rows[rows["stage"].isin(["rope", "muon"])]
    loss = data.a.values("val_loss")[["run_id", "step", "value"]].rename(columns={"value": "loss"})
    shown = tuple(
        (
            r["object"],
            r["site"],
            " ".join(t for t in (r["quantity"], r["window"], r["detail"]) if t),
            number(r["before"]),
            number(r["after"]),
            interval(r["difference"], r["low"], r["high"]),
            number(r["q"]),
            r["verdict"],
        )
        for r in table[_final(table)].to_dict("records")
    )
    floor = mean_floor(data.a)
    columns = ("object", "site", "summary", "rope (AdamW)", "muon", "difference", "q", "verdict")
    return Section(
        text="Summaries where runs first reach common losses, paired by batch size and seed; q is controlled over all "
        f"{len(table)} summaries of activations, weights and gradients (all are in the CSV)." + lost,
        figure=optimiser_figure(
            rows.merge(loss, on=["run_id", "step"]),
            relative[(relative["object"] != "activation") | _final(relative)],
            floor,
        ),
        caption="Left: RankMe against loss, a line a seed; grey: Gaussian noise of the same shape. Right: change from "
        "AdamW to Muon as a share of AdamW’s value, 95 % Student-t over seeds; 0 is the null; arrows go on beyond the "
        "panel. Gradients and weights are those of the last block." + floor_note(floor, too_large(data.a)),
        table=Table(columns, shown, text=(0, 1, 2, 7)),
        tables={"fig7-muon-against-adamw": table},
        findings=_optimiser_finding(table),
    )


@STUDY.figure("fig18", "Figure 18: phases of RankMe", order=110, rank=15, runs="A")
def fig18(data: FigureData) -> Section:
    """Show where the slope of RankMe changes, and which changes are significant."""
    table = phases(data.a)
    rows = data.a.values("rankme", "activation", "final")
    fitted = table[table["reason"] == ""]
    cells = fitted.groupby(["stage", "batch_size"], sort=False)["segment"].max()
    changes = fitted[fitted["segment"] > 1]
    shared = changes[changes["agree"] > 0.5]
    listed = tuple(
        (
            r["stage"],
            str(r["batch_size"]),
            str(int(r["segment"])),
            f"{r['from_tokens'] / 1e6:.3f}–{r['to_tokens'] / 1e6:.3f}",
            number(r["slope"], 2),
            number(r["p"]),
            "–" if pd.isna(r["agree"]) else f"{r['agree']:.0%}",
            f"{r['points']}",
        )
        for r in fitted.to_dict("records")
    )
    columns = (
        "stage",
        "B",
        "segment",
        "M tokens",
        "slope per e-fold",
        "p of its beginning",
        "seeds that agree",
        "points",
    )
    several = int((cells > 1).sum())
    finding = Finding(
        f"RankMe over training has a significant change of slope (p ≤ {SIGNIFICANT}) in {several} of {len(cells)} "
        f"cells of stage and batch size; {len(shared)} of {len(changes)} changes recur in more than half of the seeds "
        f"({int(fitted['points'].min())} measurements a run"
        + (", few for a segmentation)." if fitted["points"].min() < 20 else ")."),
        SUPPORTS if len(changes) and len(shared) == len(changes) else OPEN,
    )
    return Section(
        text="A continuous piecewise-linear curve in ln tokens is fitted to the mean over seeds; each change of slope "
        "has a bootstrap p-value, and stands only if it is significant.",
        figure=phases_figure(rows, fitted),
        caption="Thin lines are seeds, thick lines their mean. Vertical lines: significant changes of slope, in the "
        "line style of their batch size. Grey: Gaussian noise of the same shape.",
        table=Table(columns, listed),
        tables={"fig18-phases": table},
        findings=(finding,),
    )


def _shown(r: dict, name: str, digits: int = 3) -> str:
    return interval(r[name], r[f"{name}_low"], r[f"{name}_high"], digits)


def _final(table: pd.DataFrame) -> pd.Series:
    """Return which rows are of what the head reads; the blocks are drawn in the figure."""
    return (table["object"] == "activation") & (table["site"] == "final")


def _optimiser_finding(table: pd.DataFrame) -> tuple[Finding, ...]:
    own = table[_final(table) & (table["quantity"] == "rankme")]
    if own.empty:
        return ()
    r = own.iloc[0]
    said = {
        "up": "spread over more directions",
        "down": "spread over fewer directions",
    }.get(r["verdict"], "not demonstrably spread differently")
    moved = int((table["verdict"] != CANNOT_TELL).sum())
    q = ", not tested" if missing(r["q"]) else f", q = {r['q']:.3f}"
    text = (
        f"At equal loss Muon’s activations are {said} than AdamW’s: RankMe {r['before']:.2f} → {r['after']:.2f} "
        f"(difference {interval(r['difference'], r['low'], r['high'], 2)} over {counted(int(r['n']), 'seed')}{q}); "
        f"{moved} of {len(table)} summaries of activations, weights and gradients move at q ≤ {SIGNIFICANT}."
    )
    return (Finding(text, SUPPORTS if r["verdict"] == "up" else OPEN),)
