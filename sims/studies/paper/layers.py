"""Figures 8 and 10: exponents of every measured layer, and how early each predicts token efficiency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.intervals import seed_intervals
from sims.analysis.layers import depth_differences, early_by_layer, exponents_at_shares, layer_ends
from sims.analysis.ranges import POSITIVE, REAL
from sims.pages.figures.layers import layers_figure
from sims.pages.number import ABSENT, counted, interval, number
from sims.pages.page import Finding, Section
from sims.pages.table import Table
from sims.studies.paper.figure_data import FigureData, steeper_or_flatter, told
from sims.studies.paper.prediction import FRACTION, ranks
from sims.studies.paper.study import STUDY
from sims.studies.paper.verdicts import SIGNIFICANT
from sims.studies.study import OPEN
from sims.system.errors import MeasureError

# One line of the table.
ENDS = ["stage", "site", "first_share", "last_share"]


def measured_sites(data: FigureData) -> list[str]:
    """Return the sites with measured activations."""
    return list(data.b.values("alpha", "activation")["site"].unique())


def several_sites(data: FigureData) -> bool:
    """Return whether layers can be compared; of language models the section says why where they cannot."""
    return data.language is not None or len(measured_sites(data)) > 1


@STUDY.figure("layers", "Figures 8 and 10: layer by layer", order=100, rank=8, applies=several_sites)
def layers(data: FigureData) -> Section:
    """Show exponents by depth over training, and early prediction by layer where there are enough batch sizes."""
    runs, window = data.b, data.window
    sites = measured_sites(data)
    if len(sites) < 2:
        raise MeasureError(
            f"activations were measured at {', '.join(sites) or 'no site'} alone, and layers are compared at two sites "
            "or more; name them when measuring (sites)"
        )
    exponents = exponents_at_shares(runs, window)
    if exponents.empty:
        raise MeasureError(f"no exponent of ranks {ranks(window)} was fitted in every run of a stage")
    early, reason = _early(data)
    tables = {"layers-exponents": exponents}
    if early is not None:
        tables["layers-early-prediction"] = early
    own = None if early is None else early[early["window"] == window]
    drawn = own if own is not None and own["rho"].notna().any() else None
    below = (
        " Below: Spearman correlation, over batch sizes, of token inefficiency with the exponent, by layer and share "
        f"of training; a star where q ≤ {SIGNIFICANT} within a stage and layer."
    )
    return Section(
        text=f"Exponents α({ranks(window)}) of the activations at every measured site, at equal shares of each run’s "
        "own training. Layers of one model are not independent of each other." + reason,
        figure=layers_figure(exponents, window, drawn),
        caption="Above: means over batch sizes and seeds by depth; the later in training, the darker."
        + (below if drawn is not None else ""),
        table=_table(exponents, own),
        tables=tables,
        findings=(*_depth_finding(exponents, window), *_early_finding(early, window)),
    )


def _early(data: FigureData) -> tuple[pd.DataFrame | None, str]:
    try:
        return early_by_layer(data.b), ""
    except MeasureError as error:
        return None, f" Early prediction by layer was not tested: {error}."


def _table(exponents: pd.DataFrame, early: pd.DataFrame | None) -> Table:
    ends = layer_ends(exponents)
    ends = ends.assign(change=ends["last"] - ends["first"])
    ranges = {"first": POSITIVE, "last": POSITIVE, "change": REAL}
    parts = [seed_intervals(ends, ENDS, name, within).to_dict("records") for name, within in ranges.items()]
    known: dict[Any, Mapping[Any, Any]] = {}
    if early is not None:
        at = early[early["fraction"] == FRACTION].dropna(subset=["rho"])
        known = {(r["stage"], r["site"]): r for r in at.to_dict("records")}
    rows = []
    for cell in zip(*parts, strict=True):
        r = cell[0]
        shares = f"{r['first_share']:.0%}–{r['last_share']:.0%}"
        row = (r["stage"], r["site"], shares, *(interval(p["mean"], p["low"], p["high"]) for p in cell))
        rows.append((*row, *_tested(known.get((r["stage"], r["site"])))) if known else row)
    headings = ("stage", "site", "of training", "α at first", "α at last", "change")
    if known:
        headings += (f"ρ at {FRACTION:.0%}", "p", "q")
    return Table(headings, tuple(rows), text=(0, 1))


def _tested(r: Mapping[Any, Any] | None) -> tuple[str, ...]:
    if r is None:
        return (ABSENT,) * 3
    return interval(r["rho"], r["low"], r["high"], 2), number(r["p"]), number(r["q"])


def _depth_finding(exponents: pd.DataFrame, window: str) -> tuple[Finding, ...]:
    """Compare the deepest site with the shallowest at the end of training; needs two seeds."""
    table = seed_intervals(depth_differences(exponents), ["stage", "share"])
    table = table[table["n"] > 1]
    if table.empty:
        return ()
    found = []
    for r in table.to_dict("records"):
        sign = float(np.sign(r["mean"])) if told(r["low"], r["high"]) else 0.0
        at = f", at {r['share']:.0%} of training, the last that both have" if r["share"] < 1 else ""
        found.append((sign, f"{r['stage']} ({interval(r['mean'], r['low'], r['high'])}{at})"))
    text = (
        "At the end of training the spectrum at the deepest measured site is, against that at the shallowest, "
        f"{steeper_or_flatter(found)} (difference of α({ranks(window)}), 95 % over "
        f"{counted(int(table['n'].min()), 'seed')})."
    )
    return (Finding(text, OPEN),)


def _early_finding(early: pd.DataFrame | None, window: str) -> tuple[Finding, ...]:
    if early is None:
        return ()
    tested = early[early["window"] == window].dropna(subset=["rho"])
    if tested.empty:
        return ()
    passed = int((tested["q"] <= SIGNIFICANT).sum())
    beaten = int((tested["rho_size"].abs() >= tested["rho"].abs() - 1e-9).sum())
    text = (
        f"α({ranks(window)}) orders the batch sizes by token efficiency at {passed} of {len(tested)} layers × shares "
        f"of training × stages (q ≤ {SIGNIFICANT}; {int(tested['sizes'].min())} batch sizes, smallest possible p "
        f"{tested['p_min'].min():.2g}); at {beaten} of them the batch size itself does so at least as well."
    )
    return (Finding(text, OPEN),)
