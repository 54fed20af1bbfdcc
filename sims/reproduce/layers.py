"""Figures 8 and 10: exponents of every measured layer, and how early each predicts token efficiency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sims import figures
from sims.analysis import seed_intervals
from sims.analysis.layers import early_by_layer, exponents_at_shares
from sims.errors import MeasureError
from sims.report.tables import ABSENT, Table, interval, number
from sims.reproduce.material import OPEN, Finding, Material, Section, told
from sims.reproduce.prediction import FRACTION, ranks
from sims.reproduce.verdicts import SIGNIFICANT

CELL = ["stage", "site"]


def layers(material: Material) -> Section:
    """Exponents by depth over training, and early prediction by layer where there are enough batch sizes."""
    runs, window = material.b, material.window
    sites = measured_sites(material)
    if len(sites) < 2:
        raise MeasureError(
            f"activations were measured at {', '.join(sites) or 'no site'} alone, and layers are compared at two sites "
            "or more; name them when measuring (sites)"
        )
    exponents = exponents_at_shares(runs, window)
    if exponents.empty:
        raise MeasureError(f"no exponent of ranks {ranks(window)} was fitted in every run of a stage")
    early, reason = _early(material)
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
        "layers",
        "Figures 8 and 10: layer by layer",
        f"Exponents α({ranks(window)}) of the activations at every measured site, at equal shares of each run’s own "
        "training. Layers of one model are not independent of each other." + reason,
        figures.layers_figure(exponents, window, drawn),
        "Above: means over batch sizes and seeds by depth; the later in training, the darker."
        + (below if drawn is not None else ""),
        table=_table(exponents, own),
        tables=tables,
        findings=(_depth_finding(exponents, window), *_early_finding(early, window)),
    )


def measured_sites(material: Material) -> list[str]:
    """Where activations were measured."""
    return list(material.b.values("alpha", "activation")["site"].unique())


def _early(material: Material) -> tuple[pd.DataFrame | None, str]:
    try:
        return early_by_layer(material.b), ""
    except MeasureError as error:
        return None, f" Early prediction by layer was not tested: {error}."


def _ends(exponents: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """At the first and the last share that each site has: means over batch sizes, one row a stage, site and seed."""
    by = [*CELL, "depth", "seed"]
    share = exponents.groupby(CELL, sort=False)["share"]
    first, last = (exponents[exponents["share"] == share.transform(end)] for end in ("min", "max"))
    return tuple(own.groupby(by, sort=False)["value"].mean().reset_index() for own in (first, last))  # pyright: ignore[reportReturnType]


def _table(exponents: pd.DataFrame, early: pd.DataFrame | None) -> Table:
    first, last = _ends(exponents)
    change = last.assign(change=last["value"] - first["value"])
    columns = {"first": (first, "value"), "last": (last, "value"), "change": (change, "change")}
    parts = {
        name: seed_intervals(table, CELL, value).set_index(CELL) for name, (table, value) in columns.items()
    }
    shares = exponents.groupby(CELL, sort=False)["share"].agg(["min", "max"])
    known: dict[Any, Mapping[Any, Any]] = {}
    if early is not None:
        at = early[early["fraction"] == FRACTION].dropna(subset=["rho"])
        known = {(r["stage"], r["site"]): r for r in at.to_dict("records")}
    rows = []
    for cell in parts["last"].index:
        first_share, last_share = shares.loc[cell]
        shown = [interval(*(part.loc[cell, c] for c in ("mean", "low", "high"))) for part in parts.values()]
        r = known.get(cell)
        tested = (
            (interval(r["rho"], r["low"], r["high"], 2), number(r["p"]), number(r["q"]))
            if r
            else (ABSENT,) * 3
        )
        rows.append((*cell, f"{first_share:.0%}–{last_share:.0%}", *shown, *tested))
    headings = (
        "stage",
        "site",
        "of training",
        "α at first",
        "α at last",
        "change",
        f"ρ at {FRACTION:.0%}",
        "p",
        "q",
    )
    if not known:
        return Table(headings[:6], tuple(r[:6] for r in rows), text=(0, 1))
    return Table(headings, tuple(rows), text=(0, 1))


def _depth_finding(exponents: pd.DataFrame, window: str) -> Finding:
    """What the head reads against the shallowest layer, at the end of training."""
    _, last = _ends(exponents)
    said: dict[str, list[str]] = {"steeper": [], "flatter": [], "not demonstrably different": []}
    shallow = last.loc[last["depth"].idxmin(), "site"]
    deep = last.loc[last["depth"].idxmax(), "site"]
    for stage, own in last.groupby("stage", sort=False):
        wide = own.pivot(index="seed", columns="site", values="value")
        difference = pd.DataFrame({"all": 0, "value": wide[deep] - wide[shallow]})
        r = seed_intervals(difference, ["all"]).iloc[0]
        kind = (
            ("steeper" if r["mean"] > 0 else "flatter")
            if told(r["low"], r["high"])
            else "not demonstrably different"
        )
        said[kind].append(f"{stage} ({interval(r['mean'], r['low'], r['high'])})")
    parts = "; ".join(f"{kind} in {', '.join(stages)}" for kind, stages in said.items() if stages)
    text = (
        f"At the end of training the spectrum at {deep} is, against that at {shallow}, {parts} (difference of "
        f"α({ranks(window)}), 95 % over {last['seed'].nunique()} seeds)."
    )
    return Finding(text, OPEN, "layers")


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
    return (Finding(text, OPEN, "layers"),)
